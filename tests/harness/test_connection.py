"""The value of AIRFLOW_CONN_…: how it is parsed, how errors read, and that it is never shown."""

from __future__ import annotations

import json
import ssl
from urllib.parse import quote

import psycopg
import pytest
import redis
from psycopg.conninfo import conninfo_to_dict
from tests.databases import Database

from venue_analytics.database.connection import DatabaseAddress, connect
from venue_analytics.database.server_address import BadConnectionError, ServerAddress
from venue_analytics.harness.redis_server import RedisAddress

NAME = "AIRFLOW_CONN_ANALYTICS_DB"
PASSWORD = "p@ss/w:rd?#%'\\"  # noqa: S105 - not a real one


def parse(value: str) -> dict[str, object]:
    return dict(conninfo_to_dict(DatabaseAddress.parse(value, name=NAME).conninfo))


def test_a_uri_is_read_part_by_part() -> None:
    assert parse("postgresql://jobs:secret@db.example:5433/analytics?sslmode=require") == {
        "host": "db.example",
        "port": "5433",
        "user": "jobs",
        "password": "secret",
        "dbname": "analytics",
        "sslmode": "require",
    }


@pytest.mark.parametrize("scheme", ["postgres", "postgresql"])
def test_both_schemes_are_read(scheme: str) -> None:
    assert parse(f"{scheme}://db/analytics") == {"host": "db", "dbname": "analytics"}


def test_the_parts_of_a_uri_are_decoded() -> None:
    user, host = quote("jobs@corp", safe=""), quote("/var/run/postgresql", safe="")
    parts = parse(f"postgresql://{user}:{quote(PASSWORD, safe='')}@{host}/my%20data")
    assert parts == {
        "user": "jobs@corp",
        "password": PASSWORD,
        "host": "/var/run/postgresql",
        "dbname": "my data",
    }


def test_a_socket_directory_may_be_in_the_query() -> None:
    encoded = quote("/tmp/Sockets", safe="")  # noqa: S108 - nothing is there
    assert parse(f"postgresql://jobs@/analytics?host={encoded}")["host"] == "/tmp/Sockets"  # noqa: S108


def test_airflows_own_extras_are_left_out() -> None:
    assert parse("postgresql://db/analytics?__extra__=%7B%7D&cursor=dictcursor") == {
        "host": "db",
        "dbname": "analytics",
    }


def test_an_extra_that_airflow_put_into_a_uri_as_json_is_read() -> None:
    extra = quote(json.dumps({"sslmode": "require", "cursor": "dictcursor"}))
    assert parse(f"postgresql://db/analytics?__extra__={extra}") == {
        "host": "db",
        "dbname": "analytics",
        "sslmode": "require",
    }


@pytest.mark.parametrize("as_text", [True, False], ids=["extra as text", "extra as object"])
def test_airflows_json_is_read(as_text: bool) -> None:
    extra = {"sslmode": "verify-full", "cursor": "dictcursor"}
    fields = {
        "conn_type": "postgres",
        "host": "db.example",
        "port": 5433,
        "login": "jobs",
        "password": PASSWORD,
        "schema": "analytics",
        "extra": json.dumps(extra) if as_text else extra,
    }
    assert parse(json.dumps(fields)) == {
        "host": "db.example",
        "port": "5433",
        "user": "jobs",
        "password": PASSWORD,
        "dbname": "analytics",
        "sslmode": "verify-full",
    }


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("mysql://root:hunter2@db/shop", "its type is mysql"),
        ("db.example/analytics", "its type is missing"),
        ('{"host": "db", "password": "hunter2"', "is not valid JSON"),
        ('{"host": "db", "password": "hunter2", "extra": "{"}', "is not valid JSON"),
    ],
)
def test_the_error_of_a_bad_value_does_not_show_its_password(value: str, words: str) -> None:
    with pytest.raises(BadConnectionError) as raised:
        DatabaseAddress.parse(value, name=NAME)
    assert str(raised.value).startswith(NAME)
    assert words in str(raised.value)
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize(
    "value",
    [
        "postgresql://jobs:hunter2@db:port/analytics",
        "postgresql://jobs:hunter2@db:99999/analytics",
        "postgresql://jobs:hunter2@[db/analytics",
        '{"host": "db", "password": "hunter2", "extra": "[]"}',
        '{"host": "db", "password": "hunter2", "extra": 7}',
    ],
)
def test_the_error_of_a_value_that_cannot_be_parsed_does_not_show_its_password(value: str) -> None:
    with pytest.raises(BadConnectionError) as raised:
        DatabaseAddress.parse(value, name=NAME)
    assert NAME in str(raised.value)
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize("value", ["redis://:hunter2@db:port/0", "mysql://:hunter2@db/0", "{"])
def test_the_error_of_a_bad_value_for_redis_does_not_show_its_password(value: str) -> None:
    with pytest.raises(BadConnectionError, match=r"NAME .* redis://user:password@host") as raised:
        RedisAddress.parse(value, name="NAME")
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize(
    "value",
    [
        "rediss://jobs:hunter2@cache/7?ssl_cert_reqs=none",
        "redis://jobs:hunter2@cache?db=7&ssl=true&ssl_cert_reqs=none",
        (
            '{"host": "cache", "port": "6379", "login": "jobs", "password": "hunter2", "extra": '
            '{"db": 7, "ssl": true, "ssl_cert_reqs": "none"}}'
        ),
    ],
)
def test_redis_is_reached_by_tls_if_the_value_asks_for_it(value: str) -> None:
    with RedisAddress.parse(value, name=NAME).client() as client:
        connection = client.connection_pool.make_connection()
    assert isinstance(connection, redis.SSLConnection)
    assert connection.cert_reqs == ssl.CERT_NONE
    assert (connection.host, connection.port, connection.db) == ("cache", 6379, 7)
    assert (connection.username, connection.password) == ("jobs", "hunter2")


@pytest.mark.parametrize(
    "address",
    [
        DatabaseAddress.parse("postgresql://jobs:hunter2@db/analytics", name=NAME),
        RedisAddress.parse("redis://jobs:hunter2@db/0", name=NAME),
    ],
)
def test_the_password_is_never_shown(address: ServerAddress) -> None:
    assert "hunter2" not in f"{address} {address!r}"


def test_the_first_variable_that_is_set_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OWNERS", "")
    monkeypatch.setenv(NAME, "postgresql://db/analytics")
    assert DatabaseAddress.from_environment("OWNERS", NAME).conninfo == "host=db dbname=analytics"
    monkeypatch.setenv("OWNERS", "postgresql://db/owners")
    assert DatabaseAddress.from_environment("OWNERS", NAME).conninfo == "host=db dbname=owners"


def test_the_error_of_a_missing_variable_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(NAME, raising=False)
    with pytest.raises(BadConnectionError, match=f"no database given: set {NAME}"):
        DatabaseAddress.from_environment(NAME)


def test_a_connection_has_only_the_jobs_rights_even_for_a_superuser(simple: Database) -> None:
    with connect(simple.address("postgres")) as connection:
        assert connection.execute("SELECT current_user").fetchone() == ("analytics_jobs",)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("CREATE TABLE public.anything ()")


def test_the_server_cancels_a_statement_that_exceeds_its_timeout(simple: Database) -> None:
    with (
        connect(simple.address(), statement_timeout_seconds=1) as connection,
        pytest.raises(psycopg.errors.QueryCanceled),
    ):
        connection.execute("SELECT pg_sleep(30)")

"""Queries of a run's history, and faults to put into a database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg
from psycopg import sql
from tests.databases import Database
from tests.harness.simple_venues import FAULT

from venue_analytics.harness import Unit


@dataclass(frozen=True)
class History:
    """Queries of schema `jobs` that bypass row-level security."""

    superuser: psycopg.Connection

    def attempts(self, run_id: str) -> list[tuple[str, str]]:
        """Return the venue and outcome of each attempt of a run, oldest first."""
        return self._all(
            "SELECT v.unit_name, v.outcome FROM jobs.unit_run AS v "
            "JOIN jobs.run AS r ON r.id = v.run WHERE r.run_id = %s ORDER BY v.id",
            run_id,
        )

    def reasons(self, run_id: str) -> dict[str, str]:
        """Return the outcome, and reason or error, of a run's last attempt at each venue."""
        rows = self._all(
            "SELECT v.unit_name, v.outcome, coalesce(v.reason, v.error, '') "
            "FROM jobs.unit_run AS v "
            "JOIN jobs.run AS r ON r.id = v.run WHERE r.run_id = %s ORDER BY v.id",
            run_id,
        )
        return {name: f"{outcome}: {reason}".rstrip(": ") for name, outcome, reason in rows}

    def outcome(self, run_id: str) -> str:
        """Return the outcome of a run."""
        rows = self._all(
            "SELECT outcome FROM jobs.run WHERE run_id = %s ORDER BY id DESC LIMIT 1", run_id
        )
        ((outcome,),) = rows
        return str(outcome)

    def as_of(self, run_id: str) -> datetime:
        """Return the moment that a run is as of."""
        ((moment,),) = self._all("SELECT as_of FROM jobs.run WHERE run_id = %s", run_id)
        assert isinstance(moment, datetime)
        return moment

    def letters(self) -> list[tuple[str, str]]:
        """Return the venue and state of each dead letter."""
        return self._all("SELECT unit_name, state FROM jobs.dead_letter ORDER BY unit_name")

    def scored(self) -> dict[str, int]:
        """Count the customers who have a score, by the name of their venue."""
        rows = self._all(
            "SELECT v.name, count(*) FROM customer_rfm_scores AS s "
            "JOIN venues AS v ON v.id = s.venue_id GROUP BY v.name"
        )
        return dict(rows)

    def waiting_queries(self) -> list[tuple[int, datetime]]:
        """Return the process and start of each query that `held` keeps waiting."""
        return self._all(
            "SELECT pid, query_start FROM pg_stat_activity WHERE datname = current_database() "
            "AND wait_event = 'advisory' AND state = 'active'"
        )

    def _all(self, query: str, *parameters: Any) -> list[Any]:
        return self.superuser.execute(query, parameters).fetchall()  # type: ignore[arg-type]


@contextmanager
def held(database: Database, venue: Unit) -> Iterator[None]:
    """Make every query that scores a venue wait until the block ends."""
    with database.superuser() as holder:
        holder.execute("SELECT pg_advisory_lock(1)")
        holder.execute(
            sql.SQL(
                "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
                "IF new.venue_id = {}::uuid THEN PERFORM pg_advisory_xact_lock_shared(1); END IF; "
                "RETURN new; END $$"
            ).format(sql.Literal(str(venue.id)))
        )
        holder.execute(
            "CREATE TRIGGER wait BEFORE INSERT ON customer_rfm_state "
            "FOR EACH ROW EXECUTE FUNCTION wait()"
        )
        yield


def break_venues(superuser: psycopg.Connection, venue_ids: list[UUID]) -> None:
    """Make PostgreSQL refuse every score of these venues; `mend` removes the fault."""
    superuser.execute(
        sql.SQL(
            "CREATE FUNCTION refuse_score() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            "IF new.venue_id = ANY({}::uuid[]) THEN RAISE EXCEPTION {}; END IF; "
            "RETURN new; END $$"
        ).format(sql.Literal([str(venue_id) for venue_id in venue_ids]), sql.Literal(FAULT))
    )
    superuser.execute(
        "CREATE TRIGGER refuse_score BEFORE INSERT ON customer_rfm_state "
        "FOR EACH ROW EXECUTE FUNCTION refuse_score()"
    )


def break_once(superuser: psycopg.Connection, venue: Unit) -> None:
    """Make PostgreSQL refuse only the first attempt to score a venue.

    The attempt meets the fault twice: in its group, and then alone.
    """
    # a sequence is not rolled back
    superuser.execute("CREATE SEQUENCE refusals; GRANT USAGE ON SEQUENCE refusals TO PUBLIC")
    superuser.execute(
        sql.SQL(
            "CREATE FUNCTION refuse_score() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            "IF new.venue_id = {}::uuid AND nextval('refusals') <= 2 THEN "
            "RAISE EXCEPTION {}; END IF; RETURN new; END $$"
        ).format(sql.Literal(str(venue.id)), sql.Literal(FAULT))
    )
    superuser.execute(
        "CREATE TRIGGER refuse_score BEFORE INSERT ON customer_rfm_state "
        "FOR EACH ROW EXECUTE FUNCTION refuse_score()"
    )

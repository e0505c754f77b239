"""What history says of a run, and the faults that are put into a database."""

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

from venue_analytics.harness import Venue


@dataclass(frozen=True)
class History:
    """Schema `jobs`, past row-level security."""

    superuser: psycopg.Connection

    def attempts(self, run_id: str) -> list[tuple[str, str]]:
        """Each attempt of a run at a venue: name and outcome, oldest first."""
        return self._all(
            "SELECT v.venue_name, v.outcome FROM jobs.venue_run AS v "
            "JOIN jobs.run AS r ON r.id = v.run WHERE r.run_id = %s ORDER BY v.id",
            run_id,
        )

    def reasons(self, run_id: str) -> dict[str, str]:
        """How a run's last attempt at each venue ended: the outcome, and its reason or error."""
        rows = self._all(
            "SELECT v.venue_name, v.outcome, coalesce(v.reason, v.error, '') "
            "FROM jobs.venue_run AS v "
            "JOIN jobs.run AS r ON r.id = v.run WHERE r.run_id = %s ORDER BY v.id",
            run_id,
        )
        return {name: f"{outcome}: {reason}".rstrip(": ") for name, outcome, reason in rows}

    def outcome(self, run_id: str) -> str:
        """How a run stands."""
        rows = self._all(
            "SELECT outcome FROM jobs.run WHERE run_id = %s ORDER BY id DESC LIMIT 1", run_id
        )
        ((outcome,),) = rows
        return str(outcome)

    def as_of(self, run_id: str) -> datetime:
        """What a run is as of."""
        ((moment,),) = self._all("SELECT as_of FROM jobs.run WHERE run_id = %s", run_id)
        assert isinstance(moment, datetime)
        return moment

    def letters(self) -> list[tuple[str, str]]:
        """The dead letters: venue and state."""
        return self._all("SELECT venue_name, state FROM jobs.dead_letter ORDER BY venue_name")

    def scored(self) -> dict[str, int]:
        """How many customers have a score, by the name of their venue."""
        rows = self._all(
            "SELECT v.name, count(*) FROM customer_rfm_scores AS s "
            "JOIN venues AS v ON v.id = s.venue_id GROUP BY v.name"
        )
        return dict(rows)

    def waiting_queries(self) -> list[tuple[int, datetime]]:
        """The queries of jobs that a `Hold` keeps waiting: their process, and since when."""
        return self._all(
            "SELECT pid, query_start FROM pg_stat_activity WHERE datname = current_database() "
            "AND wait_event = 'advisory' AND state = 'active'"
        )

    def _all(self, query: str, *parameters: Any) -> list[Any]:
        return self.superuser.execute(query, parameters).fetchall()  # type: ignore[arg-type]


@contextmanager
def held(database: Database, venue: Venue) -> Iterator[None]:
    """Have every query that scores a venue wait, until the block ends."""
    with database.superuser() as holder:
        holder.execute("SELECT pg_advisory_lock(1)")
        holder.execute(
            sql.SQL(
                "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
                "IF new.venue_id = {}::uuid THEN PERFORM pg_advisory_xact_lock_shared(1); END IF; "
                "RETURN new; END $$"
            ).format(sql.Literal(str(venue.venue_id)))
        )
        holder.execute(
            "CREATE TRIGGER wait BEFORE INSERT ON customer_rfm_state "
            "FOR EACH ROW EXECUTE FUNCTION wait()"
        )
        yield


def break_venues(superuser: psycopg.Connection, venue_ids: list[UUID]) -> None:
    """Have PostgreSQL refuse every score of these venues; `mend` takes it away."""
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


def break_once(superuser: psycopg.Connection, venue: Venue) -> None:
    """Have PostgreSQL refuse the first attempt to score a venue, and no other."""
    # a sequence is not rolled back
    superuser.execute("CREATE SEQUENCE refusals; GRANT USAGE ON SEQUENCE refusals TO PUBLIC")
    superuser.execute(
        sql.SQL(
            "CREATE FUNCTION refuse_score() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            "IF new.venue_id = {}::uuid AND nextval('refusals') = 1 THEN "
            "RAISE EXCEPTION {}; END IF; RETURN new; END $$"
        ).format(sql.Literal(str(venue.venue_id)), sql.Literal(FAULT))
    )
    superuser.execute(
        "CREATE TRIGGER refuse_score BEFORE INSERT ON customer_rfm_state "
        "FOR EACH ROW EXECUTE FUNCTION refuse_score()"
    )

"""A house of venues: fill its source tables, run the job as the CLI does, read the results."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from types import TracebackType
from typing import Any, Self
from uuid import UUID, uuid4, uuid5

import psycopg
import redis
from psycopg import sql
from psycopg.rows import dict_row
from tests.databases import Database
from tests.jobs.rfm_scoring.facts import FACTS
from tests.jobs.rfm_scoring.rfm_oracle import Row, Rules

from venue_analytics.database.connection import connect
from venue_analytics.harness import history
from venue_analytics.harness.attempts import BatchTry
from venue_analytics.harness.failures import UnitFailure
from venue_analytics.harness.finish import finish_run
from venue_analytics.harness.history import Attempt, PlannedRun, RunKey
from venue_analytics.harness.leases import Leases
from venue_analytics.harness.plan import plan_run
from venue_analytics.harness.process import process_batch
from venue_analytics.harness.request import RunRequest
from venue_analytics.harness.tenant import tenant_transaction
from venue_analytics.jobs.rfm_scoring import JOB as RFM_SCORING
from venue_analytics.jobs.rfm_scoring.settings import RfmScoringSettings

AS_OF = datetime(2024, 7, 1, tzinfo=UTC)
VIEWS = {
    "customer_rfm_scores": ("venue_id", "customer_id"),
    "customer_segments": ("venue_id", "segment_name"),
    "customer_venue_value": ("venue_id", "customer_id"),
    "customer_lifetime_value": ("tenant_id", "customer_id"),
}
HISTORY_VIEWS = {
    "customer_segment_history": ("venue_id", "customer_id", "changed_at"),
    "segment_movements": ("venue_id", "moved_at", "previous_segment", "segment"),
}
STATE_TABLES = FACTS.tables
HISTORY_TABLES = (
    "dead_letter_payload",
    "dead_letter",
    "checkpoint",
    "fence",
    "unit_run",
    "batch",
    "run",
)


def uid(name: str) -> UUID:
    """Return the id that stands for a name in these tests."""
    return uuid5(UUID(int=0), name)


TENANT, OTHER_TENANT = uid("tenant"), uid("other tenant")
VENUE, OTHER_VENUE = uid("venue"), uid("other venue")


@dataclass(frozen=True)
class Scoring:
    """The result of a run."""

    run: PlannedRun
    failures: list[UnitFailure]
    unfinished: list[str]
    attempts: dict[UUID, Attempt]


class House:
    """A database with a source and its scores; open it with `with`."""

    source_tables: Sequence[str] = ()

    def __init__(self, database: Database, redis_client: redis.Redis) -> None:
        self.database = database
        self.leases = Leases(redis_client, RFM_SCORING.name)
        self.superuser = database.superuser()
        self.reader = connect(database.address("analytics_reader"), role=None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.superuser.close()
        self.reader.close()

    def clear(self) -> None:
        """Empty the source, the scores and the history."""
        tables = (
            *(("public", name) for name in (*self.source_tables, *STATE_TABLES)),
            *(("jobs", name) for name in HISTORY_TABLES),
        )
        with self.superuser.transaction():
            for schema, name in tables:
                self.superuser.execute(
                    sql.SQL("DELETE FROM {}").format(sql.Identifier(schema, name))
                )

    def insert(self, table: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Copy rows into a source table."""
        rows = list(rows)
        if not rows:
            return
        columns = list(rows[0])
        copy = sql.SQL("COPY public.{} ({}) FROM STDIN").format(
            sql.Identifier(table), sql.SQL(", ").join(map(sql.Identifier, columns))
        )
        with self.superuser.cursor() as cursor, cursor.copy(copy) as writer:
            for row in rows:
                writer.write_row([row[column] for column in columns])

    def run(
        self,
        as_of: datetime = AS_OF,
        *,
        rules: Rules | None = None,
        settings: Mapping[str, Any] | None = None,
        force: bool = False,
        venues: list[UUID] | None = None,
    ) -> Scoring:
        """Score, as `python -m venue_analytics run rfm_scoring` does."""
        chosen = make_settings(rules, settings)
        planned = self.plan(as_of, chosen, force=force, venues=venues)
        return self.work(planned)

    def plan(
        self,
        as_of: datetime,
        settings: RfmScoringSettings,
        *,
        force: bool = False,
        venues: list[UUID] | None = None,
        request: RunRequest | None = None,
    ) -> PlannedRun:
        """Plan a separate run."""
        own = uuid4()
        with connect(self.database.address()) as connection:
            return plan_run(
                connection,
                self.leases,
                RFM_SCORING,
                RunKey(own, RFM_SCORING.name, f"test__{own}"),
                settings,
                request or RunRequest(units=venues, as_of=None, force=force),
                as_of=as_of,
            )

    def work(
        self,
        planned: PlannedRun,
        *,
        clear_number: int = 0,
        opener: Callable[[], psycopg.Connection] | None = None,
    ) -> Scoring:
        """Process every batch of a planned run, then finish it."""
        opener = opener or partial(connect, self.database.address())
        failures: list[UnitFailure] = []
        with opener() as connection:
            for batch in history.load_batches(connection, planned):
                failures += process_batch(
                    opener,
                    self.leases,
                    RFM_SCORING,
                    BatchTry.of(RFM_SCORING, planned, batch, clear_number=clear_number),
                )
            unfinished = finish_run(connection, self.leases, RFM_SCORING, planned)
            attempts = history.last_attempts(connection, planned)
        return Scoring(planned, failures, unfinished, attempts)

    def view(self, name: str, tenant_id: UUID = TENANT) -> list[Row]:
        """Read all rows of a view, as the API's reader sees them for one tenant."""
        query = sql.SQL("SELECT * FROM public.{} ORDER BY {}").format(
            sql.Identifier(name),
            sql.SQL(", ").join(map(sql.Identifier, (VIEWS | HISTORY_VIEWS)[name])),
        )
        with (
            tenant_transaction(self.reader, tenant_id),
            self.reader.cursor(row_factory=dict_row) as cursor,
        ):
            return cursor.execute(query).fetchall()

    def views(self, tenant_id: UUID = TENANT) -> dict[str, list[Row]]:
        """Read all rows of all views."""
        return {name: self.view(name, tenant_id) for name in VIEWS}

    def row_versions(self) -> dict[str, list[tuple[Any, ...]]]:
        """Return the version and place of each row, by table."""
        return {
            name: self.superuser.execute(
                sql.SQL("SELECT xmin::text, ctid::text, t.* FROM public.{} AS t ORDER BY 2").format(
                    sql.Identifier(name)
                )
            ).fetchall()
            for name in STATE_TABLES
        }


@dataclass(frozen=True)
class Sale:
    """An order of the adapter `simple`."""

    user: str | UUID | None
    at: datetime | None
    amount: Decimal | str | int | None = 10
    status: str | None = "completed"
    venue: UUID | None = VENUE
    tenant: UUID = TENANT
    order_id: UUID = field(default_factory=uuid4)

    @property
    def row(self) -> Row:
        """The row of the sale in the table `orders`."""
        return {
            "id": self.order_id,
            "tenant_id": self.tenant,
            "user_id": uid(self.user) if isinstance(self.user, str) else self.user,
            "venue_id": self.venue,
            "status": self.status,
            "total_amount": self.amount if self.amount is None else Decimal(self.amount),
            "created_at": self.at,
        }


class SimpleHouse(House):
    """A house over the adapter `simple`."""

    source_tables = ("orders", "users", "venues")

    def fill(
        self,
        sales: Iterable[Sale],
        *,
        venues: Iterable[tuple[UUID, UUID | None]] = ((VENUE, TENANT),),
        unknown: Iterable[str] = (),
    ) -> None:
        """Fill the source; every buyer is known except the `unknown` ones."""
        rows = [sale.row for sale in sales]
        strangers = {uid(name) for name in unknown}
        users = {row["user_id"] for row in rows} - strangers - {None}
        with self.superuser.transaction():
            self.insert("orders", rows)
            self.insert("users", [{"id": user} for user in users])
            self.insert(
                "venues",
                [
                    {"id": venue, "tenant_id": tenant, "name": str(venue)[:8]}
                    for venue, tenant in venues
                ],
            )

    def score(
        self, sales: Iterable[Sale], as_of: datetime = AS_OF, **options: Any
    ) -> dict[UUID, Row]:
        """Fill the source, run, and return the only venue's scores by customer."""
        self.fill(sales)
        scoring = self.run(as_of, **options)
        assert not scoring.unfinished
        return {row["customer_id"]: row for row in self.view("customer_rfm_scores")}


class PlatformHouse(House):
    """A house over the platform's tables."""

    source_tables = (
        "orders",
        "order_refunds",
        "events",
        "venues",
        "users",
        "gdpr_deletion_requests",
    )


def make_settings(
    rules: Rules | None = None, settings: Mapping[str, Any] | None = None
) -> RfmScoringSettings:
    """Return settings with these rules, and with as few tasks as possible."""
    given = asdict(rules) if rules else {}
    values = {
        name: list(value) if isinstance(value, tuple) else value for name, value in given.items()
    }
    return RfmScoringSettings.model_validate({"max_tasks": 1, **values, **(settings or {})})

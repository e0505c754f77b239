"""Postcards: posts a card to each venue of a tenant and counts the cards. The box is a file."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from uuid import UUID

import psycopg
from pydantic import Field

from venue_analytics import harness
from venue_analytics.harness import SHAPES_RESULTS, Action, Unit, UnitResult


class Settings(harness.TenantSettings, defaults={"cron": "0 9 * * *", "retries": 1}):
    box: str = Field(
        "post-box", max_length=500, description="The post box.", json_schema_extra={"unit": "file"}
    )


class Parameters(harness.RunParameters):
    season: str = Field("spring", description="The season.", json_schema_extra=SHAPES_RESULTS)


def due(run: harness.UnitRun[Settings]) -> Iterator[Action]:
    season = run.parameters.season
    venues = "SELECT venue_id, name FROM source.venues WHERE tenant_id = %s"
    for venue_id, name in run.connection.execute(venues, [run.unit.id]):
        text = f"{season} greetings to {name}\n"
        yield Action(f"{season} {venue_id}", {"box": run.settings.box, "text": text})


def post(card: Action) -> None:
    with Path(card.payload["box"]).open("a") as box:
        box.write(card.payload["text"])


def file_copy(connection: psycopg.Connection, tenant: Unit, card: Action) -> None:
    connection.execute("INSERT INTO postcard VALUES (%s, %s)", [tenant.id, card.key])


def count(run: harness.UnitRun[Settings]) -> UnitResult:
    cards = "SELECT count(*) FROM postcard WHERE tenant_id = %s"
    (number,) = run.connection.execute(cards, [run.unit.id]).fetchone() or (0,)
    return UnitResult(rows_read=number, summary={"cards": number})


def report(results: Mapping[UUID, UnitResult]) -> harness.Report:
    cards = {tenant: str(result.summary["cards"]) for tenant, result in results.items()}
    total = sum(map(int, cards.values()))
    column = harness.Column("Cards", cards, str(total))
    return harness.Report((column,), lines=(f"{total} postcards are on their way.",))


def remove(connection: psycopg.Connection, tenant_id: UUID, _: UUID) -> int:
    return connection.execute("DELETE FROM postcard WHERE tenant_id = %s", [tenant_id]).rowcount


def tenants_held(connection: psycopg.Connection, tenant_id: UUID) -> list[UUID]:
    held = "SELECT DISTINCT tenant_id FROM postcard WHERE tenant_id = %s"
    return [tenant for (tenant,) in connection.execute(held, [tenant_id])]


JOB = harness.Job(
    name="postcards",
    settings=Settings,
    parameters=Parameters,
    steps={"post": harness.Effect(due, post, record=file_copy), "count": count},
    remove=remove,
    units_held=tenants_held,
    report=report,
)

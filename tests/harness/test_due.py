"""Due: if a job knows which units have work now, only those are planned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

import psycopg
import pytest
from tests.harness.nights import AS_OF
from tests.harness.runner import Runner
from tests.harness.simple_venues import ARENA, BALLROOM, CELLAR, DOME, NORTH, SOUTH

from venue_analytics.harness import Job, Unit, UnitResult, VenueSettings

GONE = UUID(int=7)


@dataclass
class Mail:
    """A job whose venues are due while they have mail; it may hold rows of a venue that is gone."""

    waiting: set[UUID] = field(default_factory=set)
    held: list[UUID] = field(default_factory=list)
    asked: list[tuple[list[str], str, VenueSettings, datetime]] = field(default_factory=list)

    @property
    def job(self) -> Job[VenueSettings]:
        """Return the job that the harness runs."""
        return Job(
            "mail",
            VenueSettings,
            {"send": lambda _: UnitResult()},
            lambda *_: 0,
            lambda _, tenant_id: self.held if tenant_id == NORTH else [],
            due=self._due,
        )

    def _due(
        self,
        connection: psycopg.Connection,
        units: Sequence[Unit],
        settings: VenueSettings,
        as_of: datetime,
    ) -> set[UUID]:
        (tenant,) = connection.execute(
            "SELECT current_setting('app.current_tenant_id')"
        ).fetchone() or ("",)
        self.asked.append(([unit.name for unit in units], tenant, settings, as_of))
        return self.waiting


def names(runner: Runner, mail: Mail, run_id: str = "tonight", **options: object) -> list[str]:
    return [unit.name for unit in runner.units(runner.plan(mail.job, run_id, **options))]


def test_only_units_that_are_due_are_planned_and_each_tenant_is_asked_by_itself(
    runner: Runner,
) -> None:
    mail = Mail(waiting={BALLROOM.id, DOME.id})
    settings = VenueSettings(retries=1)
    assert names(runner, mail, retries=1) == ["Ballroom", "Dome"]
    assert mail.asked == [
        (["Arena", "Ballroom"], str(NORTH), settings, AS_OF),
        (["Cellar", "Dome"], str(SOUTH), settings, AS_OF),
    ]


def test_a_run_in_which_nothing_is_due_succeeds_without_units(runner: Runner) -> None:
    mail = Mail()
    run = runner.run(mail.job)
    assert runner.units(run) == []


def test_a_unit_that_the_settings_exclude_is_not_due(runner: Runner) -> None:
    mail = Mail(waiting={ARENA.id, BALLROOM.id})
    assert names(runner, mail, exclude_venues=[ARENA.id]) == ["Ballroom"]


def test_a_unit_that_is_gone_is_planned_although_it_is_not_due(runner: Runner) -> None:
    mail = Mail(waiting={CELLAR.id}, held=[GONE])
    assert names(runner, mail) == [str(GONE), "Cellar"]
    assert all(str(GONE) not in asked for asked, *_ in mail.asked)


def test_a_unit_that_is_requested_by_id_is_planned_although_it_is_not_due(runner: Runner) -> None:
    mail = Mail()
    assert names(runner, mail, conf={"venues": [str(DOME.id)]}) == ["Dome"]
    assert mail.asked == []


def test_due_must_return_ids(runner: Runner) -> None:
    rows = "SELECT venue_id FROM source.venues"
    job = Job(
        "rows",
        VenueSettings,
        {"end": lambda _: UnitResult()},
        lambda *_: 0,
        lambda *_: [],
        due=lambda connection, *_: connection.execute(rows).fetchall(),
    )
    with pytest.raises(TypeError, match=r"due returned \(UUID\(.*must return ids of units"):
        runner.plan(job)

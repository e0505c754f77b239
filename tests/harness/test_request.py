"""The request of one run: everything that is not allowed is named."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from venue_analytics.harness import PermanentError, format_moment
from venue_analytics.harness.request import RunRequest, parameter_schemas
from venue_analytics.jobs.rfm_scoring import JOB as RFM_SCORING

VENUE = UUID("10000000-0000-4000-8000-000000000001")


def read(conf: dict[str, Any]) -> RunRequest:
    return RunRequest.read(conf, RFM_SCORING)


def test_an_empty_request_means_all_venues_now_without_force() -> None:
    assert read({}) == RunRequest(units=None, as_of=None, force=False)


def test_params_as_airflow_passes_them_are_read() -> None:
    request = read({"venues": [str(VENUE)], "as_of": "2026-03-01T02:00:00+01:00", "force": True})
    assert request.units == [VENUE]
    assert request.as_of == datetime(2026, 3, 1, 1, tzinfo=UTC)
    assert request.force


@pytest.mark.parametrize(
    ("as_of", "moment"),
    [
        ("2026-03-01", datetime(2026, 3, 1, tzinfo=UTC)),
        ("2026-03-01T02:00:00", datetime(2026, 3, 1, 2, tzinfo=UTC)),
        ("2026-03-01T02:00:00Z", datetime(2026, 3, 1, 2, tzinfo=UTC)),
        ("2026-03-01 02:00:00-05:00", datetime(2026, 3, 1, 7, tzinfo=UTC)),
    ],
)
def test_as_of_is_utc_unless_it_names_an_offset(as_of: str, moment: datetime) -> None:
    assert read({"as_of": as_of}).as_of == moment


@pytest.mark.parametrize(
    ("conf", "words"),
    [
        ({"colour": "red"}, "colour = 'red': is not a parameter of this run; allowed: venues, as_"),
        ({"venues": ["Arena"]}, "venues.0 = 'Arena': Input should be a valid UUID"),
        ({"venues": str(VENUE)}, f"venues = '{VENUE}': Input should be a valid list"),
        ({"as_of": "yesterday"}, "as_of = 'yesterday': must be an ISO date or timestamp such as"),
        ({"as_of": "0001-01-01"}, "as_of = '0001-01-01': must be a moment of the year 1970 or"),
        ({"as_of": True}, "as_of = 'True': must be an ISO date or timestamp such as"),
        ({"force": "perhaps"}, "force = 'perhaps': Input should be a valid boolean"),
        (
            {"dry_run": True, "force": True},
            "dry_run compares with the current results: it cannot be combined",
        ),
        ({"dry_run": True, "as_of": "2026-03-01"}, "dry_run compares with the current results"),
        ({"settings": {"retries": 1}}, "settings are allowed only with dry_run"),
    ],
)
def test_a_value_that_is_not_allowed_is_named_in_one_line(conf: dict[str, Any], words: str) -> None:
    with pytest.raises(PermanentError) as raised:
        read(conf)
    assert str(raised.value).startswith(f"run parameters: {words}")
    assert "\n" not in str(raised.value)


def test_all_faults_are_reported_at_once() -> None:
    with pytest.raises(PermanentError, match=r"colour = .*; as_of = "):
        read({"as_of": "soon", "colour": 1})


@given(
    conf=st.dictionaries(
        st.sampled_from(list(parameter_schemas(RFM_SCORING))) | st.text(max_size=8),
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text(max_size=20)
        | st.lists(st.text(max_size=5) | st.integers(), max_size=3),
        max_size=4,
    )
)
def test_any_conf_gives_a_request_or_a_permanent_error(conf: dict[str, Any]) -> None:
    with suppress(PermanentError):
        request = read(conf)
        assert request.dry_run or request.settings is None


def test_a_moment_is_written_to_the_second_with_its_zone() -> None:
    assert (
        format_moment(datetime(2026, 3, 1, 2, 0, 0, 123456, tzinfo=UTC))
        == "2026-03-01 02:00:00 UTC"
    )

"""Settings: each fault is one line with the Variable, the field, its value and what is allowed."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from pydantic import Field, ValidationError
from tests.harness.settings_texts import VENUE, texts

from venue_analytics.harness import SettingsError, TenantSettings, VenueSettings
from venue_analytics.harness.settings import MOST_FAULTS, read_settings
from venue_analytics.jobs import JOBS
from venue_analytics.jobs.rfm_scoring.settings import RfmScoringSettings


def read(text: str | None) -> RfmScoringSettings:
    return read_settings(RfmScoringSettings, text, name="Variable rfm_scoring")


def fault(values: dict[str, Any]) -> str:
    with pytest.raises(SettingsError) as raised:
        read(json.dumps(values))
    return str(raised.value)


@pytest.mark.parametrize("text", [None, "", "  \n", "{}"])
def test_an_empty_variable_means_all_defaults(text: str | None) -> None:
    assert read(text) == RfmScoringSettings()


def test_given_values_apply_and_the_rest_are_defaults() -> None:
    settings = read('{"cron": "30 4 * * 1", "recency_days": [7, 14, 30, 60]}')
    assert settings.cron == "30 4 * * 1"
    assert settings.recency_days == [7, 14, 30, 60]
    assert settings.frequency_purchases == [10, 7, 4, 2]


@pytest.mark.parametrize(
    ("field", "value", "shown", "allowed"),
    [
        ("enabled", "yes", "'yes'", "boolean"),
        ("cron", "every night", "'every night'", "five fields such as 0 2 * * *"),
        ("cron", "0 2 * * * *", "'0 2 * * * *'", "five fields"),
        ("cron", "61 2 * * *", "'61 2 * * *'", "five fields"),
        ("timezone", "Berlin", "'Berlin'", "Europe/Berlin"),
        ("timezone", "", "''", "IANA time zone"),
        ("retries", -1, "-1", "greater than or equal to 0"),
        ("retries", "3", "'3'", "integer"),
        ("retries", True, "true", "integer"),
        ("retries", 1.5, "1.5", "integer"),
        ("retry_delay_seconds", 0, "0", "greater than or equal to 1"),
        ("timeout_minutes", 1441, "1441", "less than or equal to 1440"),
        ("max_tasks", 1025, "1025", "less than or equal to 1024"),
        ("retries", None, "null", "integer"),
        ("deadline_minutes", 10_081, "10081", "less than or equal to 10080"),
        ("pool", " ", "' '", "a pool's name, without space at either end"),
        ("pool", "", "''", "at least 1 character"),
        ("cron", "1," * 60 + "1 2 * * *", f"'{'1,' * 39}1…'", "at most 100 characters"),
        ("pool", "a\0b", r"'a\x00b'", "text without control characters"),
        ("pool", "a\nb", r"'a\nb'", "text without control characters"),
        ("", 1, "1", "is not a setting of this job"),
        ("exclude_venues", "all", "'all'", "array"),
        ("recency_days", [30, 60, 90], "[30, 60, 90]", "at least 4 items"),
        ("recency_days", [30, 30, 90, 180], "[30, 30, 90, 180]", "four rising whole numbers"),
        (
            "recency_days",
            [-1, 30, 90, 180],
            "[-1, 30, 90, 180]",
            "whole numbers between 0 and 1000000",
        ),
        ("frequency_purchases", [2, 4, 7, 10], "[2, 4, 7, 10]", "four falling whole numbers"),
        ("frequency_purchases", [4, 3, 2, 0], "[4, 3, 2, 0]", "between 1000000 and 1"),
        ("monetary_percent", [101, 60, 40, 20], "[101, 60, 40, 20]", "between 100 and 1"),
        ("lookback_days", 0, "0", "greater than or equal to 1"),
        ("currency", "euro", "'euro'", "ISO 4217"),
        ("currency", "ZZZ", "'ZZZ'", "ISO 4217"),
        ("timezone", "Factory", "'Factory'", "IANA"),
        ("colour", "red", "'red'", "is not a setting of this job"),
    ],
)
def test_a_fault_is_one_line_with_variable_field_value_and_what_is_allowed(
    field: str, value: Any, shown: str, allowed: str
) -> None:
    message = fault({field: value})
    assert message.count("\n") == 0
    name = field or "''"
    assert message.startswith(f"Variable rfm_scoring: {name} = {shown}: ")
    assert allowed in message


def test_an_item_of_a_list_is_named_by_its_index() -> None:
    assert "exclude_venues.1 = 'nowhere': " in fault({"exclude_venues": [str(VENUE), "nowhere"]})


def test_every_fault_has_its_own_line() -> None:
    lines = fault({"retries": -1, "cron": "", "colour": 1}).split("\n")
    assert [line.split(" = ")[0] for line in lines] == [
        "Variable rfm_scoring: cron",
        "Variable rfm_scoring: retries",
        "Variable rfm_scoring: colour",
    ]


def test_a_long_value_is_cut() -> None:
    assert len(fault({"cron": "x" * 5_000})) < 250


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (
            {"vip_min_total": 8},
            "vip_min_total > regular_min_total > at_risk_min_total must hold; they are 8, 8, 5",
        ),
        (
            {"medium_risk_after_days": 200},
            "high_risk_after_days = 180: must be at least medium_risk_after_days (200)",
        ),
    ],
)
def test_thresholds_out_of_order_are_reported_with_their_values(
    values: dict[str, Any], words: str
) -> None:
    assert fault(values) == f"Variable rfm_scoring: {words}"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"cron": "0 2 * * *"', "Variable rfm_scoring is not valid JSON: "),
        ("[1, 2]", "Variable rfm_scoring must be a JSON object such as"),
        ('"0 2 * * *"', 'and is "0 2 * * *"'),
        ("null", "and is null"),
    ],
)
def test_a_text_that_is_not_a_json_object_is_refused_in_one_line(text: str, words: str) -> None:
    with pytest.raises(SettingsError) as raised:
        read(text)
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_venue_may_differ_in_its_rules() -> None:
    settings = read(json.dumps({"venues": {str(VENUE): {"recency_days": [7, 14, 21, 28]}}}))
    assert settings.for_unit(VENUE).recency_days == [7, 14, 21, 28]
    assert settings.for_unit(UUID(int=1)).recency_days == [30, 60, 90, 180]
    assert settings.for_unit(VENUE).frequency_purchases == [10, 7, 4, 2]


@pytest.mark.parametrize("field", ["cron", "retries", "max_tasks", "venues", "colour"])
def test_a_venue_may_not_differ_in_settings_of_the_run(field: str) -> None:
    message = fault({"venues": {str(VENUE): {field: 1}}})
    assert message.startswith(f"Variable rfm_scoring: venues.{VENUE}.{field} = 1: may not differ")
    assert "recency_days" in message
    assert "cron," not in message.split("allowed: ")[1]


def test_a_bad_override_names_venue_field_value_and_what_is_allowed() -> None:
    message = fault({"venues": {str(VENUE): {"vip_min_total": 99}}})
    assert message == (
        f"Variable rfm_scoring: venues.{VENUE}.vip_min_total = 99: "
        "Input should be less than or equal to 15"
    )


def test_an_override_must_fit_the_venues_other_settings() -> None:
    message = fault({"venues": {str(VENUE): {"vip_min_total": 8}}})
    assert f"venues.{VENUE}." in message
    assert "they are 8, 8, 5" in message


@pytest.mark.parametrize(
    "rules",
    [
        {"recency_days": [30, 60, 90, 181]},
        {"monetary_percent": [81, 60, 40, 20]},
        {"vip_min_total": 13},
        {"lookback_days": 365},
        {"high_risk_min_purchases": 4},
        {"currency": "EUR"},
    ],
)
def test_the_rules_hash_changes_with_what_shapes_a_score(rules: dict[str, Any]) -> None:
    assert read(json.dumps(rules)).rules_hash() != read(None).rules_hash()


@pytest.mark.parametrize(
    "other",
    [
        {"cron": "0 5 * * *"},
        {"timezone": "Europe/Berlin"},
        {"retries": 9},
        {"max_tasks": 1},
        {"pool": "venue_analytics"},
        {"exclude_venues": [str(VENUE)]},
        {"enabled": False},
    ],
)
def test_the_rules_hash_does_not_change_with_when_and_how_a_job_runs(other: dict[str, Any]) -> None:
    assert read(json.dumps(other)).rules_hash() == read(None).rules_hash()


def test_only_the_venue_that_differs_has_another_rules_hash() -> None:
    settings = read(json.dumps({"venues": {str(VENUE): {"vip_min_total": 13}}}))
    assert settings.for_unit(VENUE).rules_hash() == read('{"vip_min_total": 13}').rules_hash()
    assert settings.for_unit(UUID(int=1)).rules_hash() == read(None).rules_hash()


def test_every_fault_of_an_override_has_its_own_line() -> None:
    own = {"retries": 1, "vip_min_total": 99, "currency": "euro"}
    lines = fault({"venues": {str(VENUE): own}}).split("\n")
    assert [line.split(" = ")[0] for line in lines] == [
        f"Variable rfm_scoring: venues.{VENUE}.{name}" for name in own
    ]


def test_a_venue_under_two_spellings_of_its_id_is_refused() -> None:
    venue = str(UUID(int=0xA))
    message = fault({"venues": {venue: {}, venue.upper(): {"vip_min_total": 13}}})
    assert message == (
        f'Variable rfm_scoring: venues.{venue.upper()} = {{"vip_min_total": 13}}: '
        f"is the venue {venue} again"
    )


def test_of_many_faults_the_first_are_listed_and_the_rest_counted() -> None:
    lines = fault({f"colour{number}": 1 for number in range(1_000)}).split("\n")
    assert len(lines) == MOST_FAULTS + 1
    assert lines[-1] == f"Variable rfm_scoring: and {1_000 - MOST_FAULTS} more faults"


def test_names_and_values_are_shown_in_printable_characters() -> None:
    line, place, key = fault(
        {"a\u2028\u202e": "\u2029", "exclude_venues": ["\u2028"], "venues": {"\u2028": {}}}
    ).split("\n")[::-1]
    assert r"a\u2028\u202e = '\u2029'" in line
    assert r"venues.\u2028 = '\u2028'" in place
    assert r"exclude_venues.0 = '\u2028'" in key


@pytest.mark.fault("settings-malformed")
@settings(max_examples=100 * settings().max_examples, suppress_health_check=[HealthCheck.too_slow])
@given(text=texts)  # too_slow: texts of any character are drawn slowly, and there are 10,000
def test_any_text_is_read_or_refused_with_one_printable_line_per_fault(text: str) -> None:
    try:
        parsed = read(text)
    except SettingsError as error:
        for line in str(error).split("\n"):
            assert line.startswith("Variable rfm_scoring")
            assert line.isprintable()
            assert len(line) < 700
        return
    assert parsed.for_unit(VENUE).rules_hash()
    assert read(parsed.model_dump_json()) == parsed


@pytest.mark.parametrize("model", [VenueSettings, *(job.settings for job in JOBS.values())])
def test_every_setting_has_a_unit_and_a_description(model: type[VenueSettings]) -> None:
    for name, field in model.model_json_schema()["properties"].items():
        assert field.get("unit"), name
        assert field.get("description", "").endswith("."), name


def test_lists_that_are_nested_too_deep_raise_a_settings_error() -> None:
    with pytest.raises(SettingsError):
        read('{"cron": ' + "[" * 100_000)


@pytest.mark.parametrize(
    "text",
    [
        '{"cron": "\\ud800"}',
        '{"cron": "\ud800"}',
        '{"retries": ' + "9" * 5_000 + "}",
        '{"retries": NaN}',
        '{"retries": -Infinity}',
        '{"retries": 1e400}',
        '{"retries": ' * 300 + "1" + "}" * 300,
    ],
    ids=["escaped half", "half", "digits", "NaN", "-Infinity", "1e400", "nested"],
)
def test_text_that_python_and_json_read_differently_raises_a_settings_error(text: str) -> None:
    with pytest.raises(SettingsError, match="Variable rfm_scoring"):
        read(text)


def test_a_duplicate_key_is_refused() -> None:
    with pytest.raises(SettingsError, match="'retries' twice"):
        read('{"retries": 3, "retries": 5}')


# a job's own defaults of common settings ---------------------------------------------------


def test_a_job_may_have_its_own_defaults_of_common_settings() -> None:
    class Frequent(VenueSettings, defaults={"cron": "*/5 * * * *", "retries": 1}):
        own: int = Field(7, description="A setting of its own.", json_schema_extra={"unit": "-"})

    class MoreFrequent(Frequent, defaults={"retries": 0}):
        pass

    assert (Frequent().cron, Frequent().retries, Frequent().own) == ("*/5 * * * *", 1, 7)
    assert Frequent().timeout_minutes == VenueSettings().timeout_minutes
    assert read_settings(Frequent, '{"cron": "0 4 * * *"}', name="it").retries == 1
    assert (MoreFrequent().cron, MoreFrequent().retries) == ("*/5 * * * *", 0)
    # its schema shows the same defaults; its base and siblings keep theirs
    shown = Frequent.model_json_schema()["properties"]["retries"]
    assert (shown["default"], shown["description"]) == (1, "Further tries of a task that failed.")
    assert (VenueSettings().retries, TenantSettings().retries) == (3, 3)
    assert VenueSettings().cron == RfmScoringSettings().cron == "0 2 * * *"
    with pytest.raises(SettingsError, match="retries = 21: Input should be less than or equal"):
        read_settings(Frequent, '{"retries": 21}', name="it")


@pytest.mark.parametrize(
    ("defaults", "words"),
    [
        ({"retries": 21}, "less than or equal to 20"),
        ({"retries": "1"}, "valid integer"),
        ({"cron": "every night"}, "must be a cron expression"),
        ({"rettries": 1}, "rettries"),
        ({"max_parallel_tenants": 1}, "max_parallel_tenants"),
    ],
)
def test_a_default_that_is_not_allowed_fails_at_import(
    defaults: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValidationError, match=words):
        type("Wrong", (VenueSettings,), {}, defaults=defaults)
    assert VenueSettings().retries == 3

"""Which column of a file is used for which role."""

import pytest

from venue_analytics.database.purchases.columns import (
    RECOGNISED,
    ColumnChoice,
    LoadError,
    find_columns,
    normalise,
)


@pytest.mark.parametrize(
    "header",
    [
        ["Customer ID", "Order Date", "Total Amount"],
        ["customerId", "orderDate", "totalAmount"],
        ["CUSTOMER_ID", "ORDER-DATE", "total.amount"],
        [" customer id ", "order  date", "Total_Amount"],
    ],
)
def test_case_spaces_dashes_and_camel_case_do_not_matter(header: list[str]) -> None:
    assert find_columns(header, ColumnChoice()) == {"customer": 0, "time": 1, "amount": 2}


def test_a_better_name_wins_whatever_its_position() -> None:
    header = ["total", "user", "date", "amount", "customer_id", "ordered_at"]
    assert find_columns(header, ColumnChoice()) == {"customer": 4, "time": 5, "amount": 3}


def test_no_name_is_recognised_for_two_roles() -> None:
    names = [normalise(name) for common in RECOGNISED.values() for name in common]
    assert len(names) == len(set(names))


def test_a_chosen_column_is_used_and_never_recognised_for_another_role() -> None:
    header = ["customer", "date", "amount", "quantity"]
    found = find_columns(header, ColumnChoice(amount="Quantity"))
    assert found == {"customer": 0, "time": 1, "amount": 3}


def test_of_two_columns_that_differ_in_case_the_exact_match_is_used() -> None:
    header = ["customer", "date", "amount", "Amount"]
    assert find_columns(header, ColumnChoice(amount="Amount"))["amount"] == 3


@pytest.mark.parametrize(
    ("header", "choice", "messages"),
    [
        (["who", "date", "amount"], ColumnChoice(), ["customer", "--customer-column", "'who'"]),
        (["customer", "when", "how much"], ColumnChoice(), ["--time-column", "--amount-column"]),
        (["00004", "1997-01-01", "29.33"], ColumnChoice(), ["looks like a row of data"]),
        (["customer", "date", "amount", "Amount"], ColumnChoice(), ["more than once"]),
        (
            ["customer", "date", "sum", "sum"],
            ColumnChoice(amount="sum"),
            ["more than once", "'sum'"],
        ),
        (
            ["customer", "date", "amount"],
            ColumnChoice(venue="hall"),
            ["'hall'", "--venue-column", "'customer', 'date', 'amount'"],
        ),
    ],
)
def test_the_error_of_a_bad_header_lists_its_columns_and_the_options(
    header: list[str], choice: ColumnChoice, messages: list[str]
) -> None:
    with pytest.raises(LoadError) as error:
        find_columns(header, choice)
    for words in messages:
        assert words in str(error.value)


def test_common_names_are_listed_when_a_column_is_missing() -> None:
    with pytest.raises(LoadError, match="customer_id, customer, customer_number"):
        find_columns(["date", "amount"], ColumnChoice())

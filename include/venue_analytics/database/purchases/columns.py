"""Find the columns of a file by their headers."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields


class LoadError(Exception):
    """Nothing of a file can be loaded; the message says why and what to do."""


@dataclass(frozen=True)
class ColumnChoice:
    """The headers that the user chose; None means to recognise a common name."""

    customer: str | None = None
    time: str | None = None
    amount: str | None = None
    venue: str | None = None
    tickets: str | None = None
    status: str | None = None
    currency: str | None = None


ROLES = tuple(field.name for field in fields(ColumnChoice))
REQUIRED = ("customer", "time", "amount")

# In order of preference: the first one that a file has is used.
_NAMES = {
    "customer": """
        customer_id customer customer_number customer_no customer_nr customer_code customer_key
        cust_id cust client_id client user_id user buyer_id buyer member_id member account_id
        account patron_id patron visitor_id guest_id contact_id customer_name
    """,
    "time": """
        ordered_at order_time order_datetime order_timestamp order_purchase_timestamp order_date
        ordered purchased_at purchase_time purchase_datetime purchase_timestamp purchase_date
        purchased transaction_time transaction_datetime transaction_timestamp transaction_date
        transaction_at booked_at booking_time booking_date sold_at sale_time sale_date sales_date
        paid_at payment_time payment_date invoice_date invoice_time created_at created_time
        created_on created_date created datetime timestamp date time
    """,
    "amount": """
        amount total_amount order_amount order_total purchase_amount transaction_amount amount_paid
        total_paid paid_amount payment_amount sale_amount sales_amount invoice_amount total
        grand_total total_price total_value order_value purchase_value transaction_value
        payment_value total_sales revenue turnover sales spent spend value price
    """,
    "venue": """
        venue venue_name venue_id location location_name location_id theatre theater store
        store_name store_id shop shop_name shop_id branch site
    """,
    "tickets": """
        tickets ticket_count ticket_quantity ticket_qty num_tickets number_of_tickets no_of_tickets
        seats quantity qty units items item_count
    """,
    "status": "status order_status payment_status transaction_status purchase_status",
    "currency": "currency currency_code order_currency iso_currency currency_iso",
}
RECOGNISED = {role: tuple(names.split()) for role, names in _NAMES.items()}


def normalise(header: str) -> str:
    """Return a header without case and punctuation: `Order Date`, `orderDate` → `orderdate`."""
    return re.sub(r"[\W_]+", "", header).casefold()


def find_columns(header: Sequence[str], choice: ColumnChoice) -> dict[str, int]:
    """Return the position of each role's column, without the roles that have none.

    Raises:
        LoadError: a chosen or required column is missing, or a used one is in the header twice.
    """
    names = [normalise(name) for name in header]
    positions: dict[str, int] = {}
    for role in ROLES:
        chosen = getattr(choice, role)
        if chosen is not None:
            positions[role] = _chosen_column(header, names, role, chosen)
    taken = {names[position] for position in positions.values()}
    for role in ROLES:
        if role not in positions:
            common = (normalise(name) for name in RECOGNISED[role])
            match = next((name for name in common if name in names and name not in taken), None)
            if match is not None:
                positions[role] = names.index(match)

    missing = [role for role in REQUIRED if role not in positions]
    if missing:
        raise LoadError(_missing_columns(header, missing))
    for role, position in positions.items():
        name, chosen = header[position].strip(), getattr(choice, role)
        same = [h for h in header if h.strip() == name] if name == chosen else None
        if len(same or [n for n in names if n == names[position]]) > 1:
            raise LoadError(
                f"The column {name!r} ({role}) is in the header more than once: "
                f"{_listed(header)}. Rename one of them, or choose another with --{role}-column."
            )
    return positions


def _chosen_column(header: Sequence[str], names: Sequence[str], role: str, chosen: str) -> int:
    """Return the position of a chosen column: an exact match, else one of the normalised name."""
    stripped = [name.strip() for name in header]
    if chosen.strip() in stripped:
        return stripped.index(chosen.strip())
    if normalise(chosen) and normalise(chosen) in names:
        return names.index(normalise(chosen))
    raise LoadError(
        f"There is no column {chosen!r} (--{role}-column). The file's columns are: "
        f"{_listed(header)}."
    )


def _missing_columns(header: Sequence[str], missing: Sequence[str]) -> str:
    lines = [f"No column is recognised as {', '.join(missing)}. The first line: {_listed(header)}."]
    if any(re.fullmatch(r"[-+]?\d[\d.,:/ T+-]*", name.strip()) for name in header):
        lines.append("That looks like a row of data: the first line must name the columns.")
    for role in missing:
        lines.append(
            f"  {role}: use --{role}-column NAME, or name the column one of: "
            f"{', '.join(RECOGNISED[role])} (case, spaces, dashes and underscores do not matter)."
        )
    return "\n".join(lines)


def _listed(header: Sequence[str]) -> str:
    shown = ", ".join(repr(name.strip()[:40]) for name in header[:50])
    return shown if len(header) <= 50 else f"{shown} and {len(header) - 50} more"

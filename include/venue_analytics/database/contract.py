"""The source contract: the views that jobs read, column by column."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ContractView:
    """One view of schema `source`: its name, its columns with their types, and its unique key."""

    name: str
    columns: dict[str, str]
    key: tuple[str, ...]


UUID, TEXT, INT, BOOL, TIME, CENTS = (
    "uuid",
    "text",
    "integer",
    "boolean",
    "timestamp with time zone",
    "bigint",
)

VIEWS = (
    ContractView(
        "venues",
        {
            "venue_id": UUID,
            "tenant_id": UUID,
            "name": TEXT,
            "timezone": TEXT,
            "currency": TEXT,
            "capacity": INT,
            "open": BOOL,
        },
        ("venue_id",),
    ),
    ContractView(
        "events",
        {
            "event_id": UUID,
            "venue_id": UUID,
            "tenant_id": UUID,
            "name": TEXT,
            "category": TEXT,
            "starts_at": TIME,
            "ends_at": TIME,
            "capacity": INT,
            "status": TEXT,
        },
        ("event_id",),
    ),
    ContractView(
        "orders",
        {
            "order_id": UUID,
            "tenant_id": UUID,
            "venue_id": UUID,
            "event_id": UUID,
            "customer_id": UUID,
            "ordered_at": TIME,
            "updated_at": TIME,
            "status": TEXT,
            "is_sale": BOOL,
            "refunded_at": TIME,
            "amount_cents": CENTS,
            "is_rounded": BOOL,
            "currency": TEXT,
            "tickets": INT,
            "channel": TEXT,
        },
        ("order_id",),
    ),
    ContractView(
        "refunds",
        {
            "refund_id": UUID,
            "order_id": UUID,
            "tenant_id": UUID,
            "venue_id": UUID,
            "refunded_at": TIME,
            "updated_at": TIME,
            "amount_cents": CENTS,
        },
        ("refund_id",),
    ),
    ContractView(
        "scans",
        {
            "scan_id": UUID,
            "event_id": UUID,
            "tenant_id": UUID,
            "venue_id": UUID,
            "ticket_id": UUID,
            "scanned_at": TIME,
            "result": TEXT,
        },
        ("scan_id",),
    ),
    ContractView(
        "customers",
        {
            "customer_id": UUID,
            "tenant_id": UUID,
            "external_id": TEXT,
            "deleted": BOOL,
            "erased": BOOL,
            "updated_at": TIME,
        },
        ("customer_id", "tenant_id"),
    ),
    ContractView("freshness", {"tenant_id": UUID, "loaded_through": TIME}, ("tenant_id",)),
)

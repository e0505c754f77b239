"""Four venues of two tenants over the adapter `simple`, and a fault for one of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid5

import psycopg
from psycopg import sql

from venue_analytics.harness import Unit

NORTH = UUID("00000000-0000-4000-8000-00000000000a")
SOUTH = UUID("00000000-0000-4000-8000-00000000000b")
ARENA = Unit(UUID("10000000-0000-4000-8000-000000000001"), NORTH, "Arena")
BALLROOM = Unit(UUID("10000000-0000-4000-8000-000000000002"), NORTH, "Ballroom")
CELLAR = Unit(UUID("10000000-0000-4000-8000-000000000003"), SOUTH, "Cellar")
DOME = Unit(UUID("10000000-0000-4000-8000-000000000004"), SOUTH, "Dome")
VENUES = (ARENA, BALLROOM, CELLAR, DOME)
CUSTOMERS_EACH = 3
FAULT = "the turnstile is broken"
FIRST_ORDER = datetime(2026, 1, 10, 20, tzinfo=UTC)


def fill(superuser: psycopg.Connection, venues: tuple[Unit, ...] = VENUES) -> None:
    """Add venues, each with three customers who bought once, twice and three times."""
    for venue in venues:
        superuser.execute(
            "INSERT INTO venues VALUES (%s, %s, %s)", [venue.id, venue.tenant_id, venue.name]
        )
        for number in range(1, CUSTOMERS_EACH + 1):
            customer = uuid5(venue.id, f"customer {number}")
            superuser.execute("INSERT INTO users VALUES (%s)", [customer])
            for order in range(number):
                superuser.execute(
                    "INSERT INTO orders VALUES (%s, %s, %s, %s, 'completed', %s, %s)",
                    [
                        uuid5(customer, f"order {order}"),
                        venue.tenant_id,
                        customer,
                        venue.id,
                        10 * number,
                        FIRST_ORDER + timedelta(days=order),
                    ],
                )


def break_venue(
    superuser: psycopg.Connection, venue: Unit, condition: str = "raise_exception"
) -> None:
    """Make PostgreSQL refuse every score of one venue with an error of this condition."""
    superuser.execute(
        sql.SQL(
            "CREATE FUNCTION refuse_score() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN IF new.venue_id = {}::uuid THEN "
            "RAISE EXCEPTION {} USING ERRCODE = {}; END IF; RETURN new; END $$"
        ).format(sql.Literal(str(venue.id)), sql.Literal(FAULT), sql.Literal(condition))
    )
    superuser.execute(
        "CREATE TRIGGER refuse_score BEFORE INSERT ON customer_rfm_state "
        "FOR EACH ROW EXECUTE FUNCTION refuse_score()"
    )


def mend(superuser: psycopg.Connection) -> None:
    """Remove the fault."""
    superuser.execute("DROP FUNCTION refuse_score() CASCADE")


def scored_customers(superuser: psycopg.Connection) -> dict[str, int]:
    """Count the customers who have a score, by the name of their venue."""
    rows = superuser.execute(
        "SELECT v.name, count(*) FROM customer_rfm_scores AS s "
        "JOIN venues AS v ON v.id = s.venue_id GROUP BY v.name"
    ).fetchall()
    return dict(rows)

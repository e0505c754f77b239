"""Baselines that fill the API's original tables directly from the platform's tables.

Each runs as the superuser, in a schema of its own with new tables, by `measuring.measure`.
"""

from __future__ import annotations

import time
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import psycopg
from bench.measuring import Measured, sql_file
from psycopg import sql

if TYPE_CHECKING:
    import pandas as pd

TABLES = ("customer_rfm_scores", "customer_segments", "customer_lifetime_value")
UPSERT = """
INSERT INTO customer_rfm_scores
VALUES (
    %s, %s, %s, %s, %s, %s, %s, %s, %s, %s::bigint / 100.0, %s::bigint / (100.0 * %s), %s, %s,
    %s, %s, %s
)
ON CONFLICT (customer_id, venue_id) DO UPDATE SET
    recency_score = excluded.recency_score,
    frequency_score = excluded.frequency_score,
    monetary_score = excluded.monetary_score,
    total_score = excluded.total_score,
    days_since_last_purchase = excluded.days_since_last_purchase,
    total_purchases = excluded.total_purchases,
    total_spent = excluded.total_spent,
    average_order_value = excluded.average_order_value,
    segment = excluded.segment,
    churn_risk = excluded.churn_risk,
    calculated_at = excluded.calculated_at,
    updated_at = excluded.updated_at
"""
#: The row-by-row baseline scores one in so many customers; all of them would take minutes.
ONE_OF = 40


def one_statement(uri: str, schema: str, as_of: datetime) -> Measured:
    """Fill all tables in one statement over all venues."""
    query = sql_file("one_statement").replace("{customers}", _customers())
    with closing(_fresh_tables(uri, schema)) as connection:
        began = time.monotonic()
        connection.execute(query, {"as_of": as_of, "venue_id": None})
        connection.commit()
        return Measured(time.monotonic() - began, rows=_rows(connection))


def floor(uri: str, schema: str, as_of: datetime, finished: str, directory: Path) -> Measured:
    """Read the input of the scores, and copy finished rows into the tables, without computing.

    Args:
        uri: the address of the database.
        schema: the schema of the tables to fill.
        as_of: purchases before it are read.
        finished: the schema of the rows to copy; they are fetched before the clock starts.
        directory: where the fetched rows are stored.
    """
    with closing(_fresh_tables(uri, schema)) as connection:
        for table in TABLES:
            with (directory / table).open("wb") as file:
                for piece in _copy(connection, f"{finished}.{table} TO STDOUT"):
                    file.write(piece)
        connection.commit()
        began = time.monotonic()
        query = psycopg.ClientCursor(connection).mogrify(
            _customers(), {"as_of": as_of, "venue_id": None}
        )
        for _ in _copy(connection, f"({query}) TO STDOUT"):
            pass
        for table in TABLES:
            into = f"COPY {table} FROM STDIN (FORMAT binary)"
            with (
                (directory / table).open("rb") as file,
                connection.cursor().copy(into) as copy,
            ):
                while piece := file.read(1 << 18):
                    copy.write(piece)
        connection.commit()
        return Measured(time.monotonic() - began, rows=_rows(connection))


def pandas_by_venue(uri: str, schema: str, as_of: datetime) -> Measured:
    """Read the purchases, compute in pandas and write by COPY, in one transaction per venue.

    Lifetime values, which span venues, follow at the end.
    """
    import pandas as pd

    with closing(_fresh_tables(uri, schema)) as connection:
        began = time.monotonic()
        venues = connection.execute("SELECT id, tenant_id FROM public.venues").fetchall()
        everybody = []
        for venue_id, tenant_id in venues:
            rows = connection.execute(
                f"SELECT user_id::text, extract(EPOCH FROM created_at)::float8, cents "  # noqa: S608
                f"FROM ({sql_file('purchases')}) AS p",
                {"as_of": as_of, "venue_id": venue_id},
            ).fetchall()
            purchases = pd.DataFrame(rows, columns=["customer_id", "at", "cents"])
            customers = _score(purchases, as_of)
            names = {"venue_id": str(venue_id), "tenant_id": str(tenant_id), "as_of": str(as_of)}
            customers = customers.assign(**names)
            _write_scores(connection, customers)
            _write_segments(connection, customers, names)
            connection.commit()
            kept = ["customer_id", "tenant_id", "purchases", "spent", "first", "last"]
            everybody.append(customers[kept])
        _write_values(connection, pd.concat(everybody), as_of)
        connection.commit()
        return Measured(time.monotonic() - began, rows=_rows(connection))


def row_by_row(uri: str, schema: str, as_of: datetime) -> Measured:
    """Write only the scores, as the audited service did, for one in `ONE_OF` customers.

    For each customer it reads the orders, reads the spend of every customer of the venue, and
    upserts. As the service assumed, the orders are in an indexed table with venue and net amount;
    it is created before the clock starts.
    """
    with closing(_fresh_tables(uri, schema)) as connection:
        psycopg.ClientCursor(connection).execute(
            "CREATE TABLE purchase AS " + sql_file("purchases"),
            {"as_of": as_of, "venue_id": None},
        )
        connection.execute("CREATE INDEX ON purchase (venue_id, user_id)")
        connection.execute("ANALYZE purchase")
        connection.commit()
        connection.autocommit = True
        seconds, rows = 0.0, 0
        for (venue_id,) in connection.execute("SELECT id FROM public.venues").fetchall():
            customers = connection.execute(
                "SELECT DISTINCT user_id, tenant_id FROM purchase WHERE venue_id = %s "
                "ORDER BY user_id",
                [venue_id],
            ).fetchall()
            chosen = customers[::ONE_OF]
            began = time.monotonic()
            for customer_id, tenant_id in chosen:
                _score_one(connection, venue_id, customer_id, tenant_id, as_of)
            seconds += (time.monotonic() - began) * len(customers) / len(chosen)
            rows += len(chosen)
        note = f"extrapolated from one in {ONE_OF} customers of each venue; only the scores"
        return Measured(seconds, rows=rows, note=note)


def _customers() -> str:
    return sql_file("customers").replace("{purchases}", sql_file("purchases"))


def _fresh_tables(uri: str, schema: str) -> psycopg.Connection[Any]:
    """Connect, and create the original tables in a new schema, first in the search path."""
    connection: psycopg.Connection[Any] = psycopg.connect(uri)
    name = sql.Identifier(schema)
    connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(name))
    connection.execute(sql.SQL("CREATE SCHEMA {}").format(name))
    connection.execute(sql.SQL("SET search_path = {}, public").format(name))
    connection.execute(sql_file("original_tables"))
    connection.commit()
    return connection


def _rows(connection: psycopg.Connection[Any]) -> int:
    counts = [connection.execute(f"SELECT count(*) FROM {t}").fetchone() for t in TABLES]  # noqa: S608
    return sum(row[0] for row in counts if row)


def _copy(connection: psycopg.Connection[Any], what: str) -> Any:
    with connection.cursor().copy(f"COPY {what} (FORMAT binary)") as copy:
        yield from copy


def _score_one(
    connection: psycopg.Connection[Any],
    venue_id: UUID,
    customer_id: UUID,
    tenant_id: UUID,
    as_of: datetime,
) -> None:
    orders = connection.execute(
        "SELECT created_at, cents FROM purchase WHERE venue_id = %s AND user_id = %s",
        [venue_id, customer_id],
    ).fetchall()
    all_spent = connection.execute(
        "SELECT sum(cents)::bigint FROM purchase WHERE venue_id = %s GROUP BY user_id", [venue_id]
    ).fetchall()
    days = (as_of - max(at for at, _ in orders)).days
    spent = sum(cents for _, cents in orders)
    less = sum(other < spent for (other,) in all_spent) * 5
    recency = next((s for s, most in ((5, 30), (4, 60), (3, 90), (2, 180)) if days <= most), 1)
    frequency = next((s for s, n in ((5, 10), (4, 7), (3, 4), (2, 2)) if len(orders) >= n), 1)
    monetary = next((s for s in (5, 4, 3, 2) if less >= (s - 1) * len(all_spent)), 1)
    total = recency + frequency + monetary
    if total >= 12:
        segment = "VIP"
    elif total >= 8:
        segment = "Regular"
    else:
        segment = "At-Risk" if total >= 5 and days <= 180 else "Lost"
    if days > 180 and len(orders) >= 3:
        risk = "high"
    else:
        risk = "medium" if days > 90 and len(orders) >= 2 else "low"
    connection.execute(
        UPSERT,
        [
            *(customer_id, venue_id, tenant_id, recency, frequency, monetary, total, days),
            *(len(orders), spent, spent, len(orders), segment, risk, as_of, as_of, as_of),
        ],
    )


def _score(purchases: pd.DataFrame, as_of: datetime) -> pd.DataFrame:
    import numpy as np

    by_customer = purchases.groupby("customer_id", sort=False)
    customers = by_customer.agg(
        purchases=("cents", "size"), spent=("cents", "sum"), first=("at", "min"), last=("at", "max")
    ).reset_index()
    days = ((as_of.timestamp() - customers["last"]) // 86400).astype(int)
    number = customers["purchases"]
    less = (customers["spent"].rank(method="min").astype(int) - 1) * 5
    recency = np.select([days <= 30, days <= 60, days <= 90, days <= 180], [5, 4, 3, 2], 1)
    frequency = np.select([number >= 10, number >= 7, number >= 4, number >= 2], [5, 4, 3, 2], 1)
    population = len(customers)
    monetary = np.select([less >= population * s for s in (4, 3, 2, 1)], [5, 4, 3, 2], 1)
    total = recency + frequency + monetary
    segment = np.select(
        [total >= 12, total >= 8, (total >= 5) & (days <= 180)],
        ["VIP", "Regular", "At-Risk"],
        "Lost",
    )
    risk = np.select(
        [(days > 180) & (number >= 3), (days > 90) & (number >= 2)], ["high", "medium"], "low"
    )
    return customers.assign(
        recency=recency,
        frequency=frequency,
        monetary=monetary,
        total=total,
        days=days,
        total_spent=customers["spent"] / 100,
        average=(customers["spent"] / number / 100).round(2),
        segment=segment,
        risk=risk,
        lifespan=((as_of.timestamp() - customers["first"]) // 86400).astype(int),
    )


def _write_scores(connection: psycopg.Connection[Any], customers: pd.DataFrame) -> None:
    columns = ["customer_id", "venue_id", "tenant_id", "recency", "frequency", "monetary", "total"]
    columns += ["days", "purchases", "total_spent", "average", "segment", "risk"]
    _write(connection, TABLES[0], customers[[*columns, "as_of", "as_of", "as_of"]])


def _write_segments(
    connection: psycopg.Connection[Any], customers: pd.DataFrame, names: dict[str, str]
) -> None:
    figures = (
        customers.assign(span=customers["lifespan"].clip(lower=30))
        .groupby("segment")[["purchases", "spent", "span"]]
        .sum()
        .assign(count=customers.groupby("segment").size())
        .reindex(["VIP", "Regular", "At-Risk", "Lost"], fill_value=0)
        .reset_index()
    )
    figures = figures.assign(
        **names,
        revenue=figures["spent"] / 100,
        order_value=(figures["spent"] / figures["purchases"] / 100).fillna(0).round(2),
        lifetime=(figures["spent"] / figures["count"] / 100).fillna(0).round(2),
        yearly=(figures["purchases"] * 365.25 / figures["span"]).fillna(0).round(2),
    )
    columns = ["venue_id", "tenant_id", "segment", "count", "revenue", "order_value", "lifetime"]
    _write(connection, TABLES[1], figures[[*columns, "yearly", "as_of"]])


def _write_values(
    connection: psycopg.Connection[Any], everybody: pd.DataFrame, as_of: datetime
) -> None:
    import numpy as np

    customers = (
        everybody.groupby(["customer_id", "tenant_id"], sort=False)
        .agg(
            purchases=("purchases", "sum"),
            spent=("spent", "sum"),
            first=("first", "min"),
            last=("last", "max"),
        )
        .reset_index()
    )
    now = as_of.timestamp()
    lifespan = ((now - customers["first"]) // 86400).astype(int).clip(lower=1)
    days = (now - customers["last"]) // 86400
    churn = np.select([days <= 60, days <= 90, days <= 180], [0.1, 0.2, 0.4], 0.7)
    yearly = 365.25 / lifespan.clip(lower=30)
    values = customers.assign(
        venue_id=None,
        clv=customers["spent"] / 100,
        average=(customers["spent"] / customers["purchases"] / 100).round(2),
        frequency=(customers["purchases"] * yearly).round(2),
        lifespan=lifespan,
        predicted_12=(customers["spent"] / 100 * yearly * (1 - churn)).round(2),
        predicted_24=(customers["spent"] / 100 * yearly * (1 - churn) * (2 - churn)).round(2),
        churn=churn,
        as_of=str(as_of),
    )
    columns = ["customer_id", "tenant_id", "venue_id", "clv", "average", "frequency"]
    columns += ["lifespan", "purchases", "clv", "predicted_12", "predicted_24", "churn"]
    _write(connection, TABLES[2], values[[*columns, "as_of"]])


def _write(connection: psycopg.Connection[Any], table: str, rows: pd.DataFrame) -> None:
    with connection.cursor().copy(f"COPY {table} FROM STDIN (FORMAT csv)") as copy:
        copy.write(rows.to_csv(index=False, header=False))

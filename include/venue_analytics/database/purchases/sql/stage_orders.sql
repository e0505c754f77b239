-- One row: a valid row of the file, until the end of the transaction.
DROP TABLE IF EXISTS pg_temp.staged_orders;
CREATE TEMPORARY TABLE staged_orders (
    file_line bigint NOT NULL,
    order_id uuid NOT NULL,
    venue_id uuid NOT NULL,
    venue_name text NOT NULL,
    customer_id uuid NOT NULL,
    external_id text NOT NULL,
    ordered_at timestamptz NOT NULL,
    amount numeric(12, 2) NOT NULL,
    status text NOT NULL,
    currency text NOT NULL,
    tickets integer
) ON COMMIT DROP;

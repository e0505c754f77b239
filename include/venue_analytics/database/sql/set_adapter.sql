-- No rows: records which adapter defines the source contract.
INSERT INTO source.adapter (name, currency)
VALUES (%(name)s, coalesce(%(currency)s, 'USD'))
ON CONFLICT (only_row) DO UPDATE SET
    name = excluded.name,
    currency = coalesce(%(currency)s, adapter.currency),
    applied_at = now();

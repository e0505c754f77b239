-- No rows: notes which adapter defines the source contract.
INSERT INTO source.adapter (name, currency, keeps_updated_at)
VALUES (%(name)s, coalesce(%(currency)s, 'USD'), %(keeps_updated_at)s)
ON CONFLICT (only_row) DO UPDATE SET
    name = excluded.name,
    currency = coalesce(%(currency)s, adapter.currency),
    keeps_updated_at = excluded.keeps_updated_at,
    applied_at = now();

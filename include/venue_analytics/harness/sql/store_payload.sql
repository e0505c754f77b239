-- No rows: keeps what could not be processed, under its tenant.
INSERT INTO jobs.dead_letter_payload (letter, tenant_id, payload)
VALUES (%(letter)s, %(tenant_id)s, %(payload)s)
ON CONFLICT (letter, tenant_id) DO UPDATE SET payload = excluded.payload;

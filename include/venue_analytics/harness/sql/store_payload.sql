-- No rows: keeps what could not be processed, under its tenant. What was known stays where nothing
-- is known now.
INSERT INTO jobs.dead_letter_payload AS p (letter, tenant_id, payload)
VALUES (%(letter)s, %(tenant_id)s, %(payload)s)
ON CONFLICT (letter, tenant_id) DO UPDATE
    SET payload = CASE excluded.payload WHEN '{}' THEN p.payload ELSE excluded.payload END;

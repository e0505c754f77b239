-- One row: what could not be processed.
SELECT p.payload
FROM jobs.dead_letter_payload AS p
WHERE p.letter = %(letter)s AND p.tenant_id = %(tenant_id)s;

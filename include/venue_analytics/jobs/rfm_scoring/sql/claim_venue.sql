-- No rows: makes the state of a venue that has none yet.
INSERT INTO public.venue_rfm_state (venue_id, tenant_id)
VALUES (%(venue_id)s, %(tenant_id)s)
ON CONFLICT (venue_id) DO NOTHING;

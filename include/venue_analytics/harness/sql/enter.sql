-- One row, empty: the transaction may write this venue; its tenant is set, its fence locked.
SELECT jobs.enter(%(job)s, %(venue_id)s, %(tenant_id)s, %(token)s);

-- No rows: an attempt that resumes the work of a later plan counts as that plan's.
UPDATE jobs.venue_run SET plan_number = %(plan_number)s WHERE id = %(id)s;

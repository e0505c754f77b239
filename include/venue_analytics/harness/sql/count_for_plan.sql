-- No rows: an attempt that resumes the work of a later plan counts as that plan's.
UPDATE jobs.unit_run SET for_plan = %(for_plan)s WHERE id = %(id)s;

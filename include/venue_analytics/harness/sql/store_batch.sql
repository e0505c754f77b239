-- No rows: stores one batch of a plan.
INSERT INTO jobs.batch (run, number, label, venues)
VALUES (%(run)s, %(number)s, %(label)s, %(venues)s);

-- No rows: stores one batch of a plan; its first try opens the round after this one.
INSERT INTO jobs.batch (run, number, label, units, round)
VALUES (%(run)s, %(number)s, %(label)s, %(units)s, %(round)s);

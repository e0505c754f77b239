-- One row: how many successes were deleted that a later one of the same unit has replaced.
SELECT jobs.forget_successes(%(job)s);

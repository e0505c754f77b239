-- No rows: notes that a round of a batch ended well, unless a later round has begun.
UPDATE jobs.batch SET ended_well_at_clear = greatest(ended_well_at_clear, %(clear_number)s)
WHERE run = %(run)s AND number = %(number)s AND round = %(round)s;

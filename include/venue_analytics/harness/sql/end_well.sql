-- One row: how many attempts of this id were still running and have ended well now; with its data,
-- in one transaction. A success forgets the checkpoint; a good end answers the dead letters, but
-- for a dry run, which has done nothing.
WITH ended AS (
    UPDATE jobs.venue_run SET
        outcome = %(outcome)s,
        reason = %(reason)s,
        started_at = %(started_at)s,
        finished_at = clock_timestamp(),
        rows_read = %(rows_read)s,
        rows_written = %(rows_written)s,
        rows_unchanged = %(rows_unchanged)s,
        rows_removed = %(rows_removed)s,
        left_out = %(left_out)s,
        summary = %(summary)s
    WHERE id = %(id)s AND outcome = 'running'
    RETURNING id
),

forgotten AS (
    DELETE FROM jobs.checkpoint
    WHERE job = %(job)s AND venue_id = %(venue_id)s AND %(outcome)s = 'succeeded'
),

answered AS (
    UPDATE jobs.dead_letter SET state = 'resolved', ended_at = clock_timestamp()
    WHERE
        job = %(job)s
        AND venue_id = %(venue_id)s
        AND state IN ('open', 'replaying')
        AND as_of <= %(as_of)s
        AND NOT %(dry_run)s
        AND (
            (kind = 'venue' AND key = %(key)s)
            OR (kind = 'item' AND last_failed_at < %(items_before)s)
        )
)

SELECT count(*) FROM ended;

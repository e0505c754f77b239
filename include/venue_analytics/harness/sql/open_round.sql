-- One row: the round that a try of a batch works in. A new one is opened by the first try after a
-- plan, and where the batch ended well and somebody has cleared the run since. The run is under way
-- again: ended or not, it is for its finish, or the next plan, to say how it ends.
WITH under_way AS (
    UPDATE jobs.run SET outcome = 'planned', finished_at = NULL
    WHERE id = %(run)s AND outcome <> 'planned'
)

UPDATE jobs.batch SET
    round = round
    + (newly_planned OR coalesce(%(clear_number)s > ended_well_at_clear, FALSE))::integer,
    ended_well_at_clear = CASE
        WHEN NOT newly_planned AND %(clear_number)s <= ended_well_at_clear THEN ended_well_at_clear
    END,
    newly_planned = FALSE
WHERE run = %(run)s AND number = %(number)s
RETURNING round;

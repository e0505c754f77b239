"""# RFM scoring

Scores each venue's customers by recency, frequency and monetary value; names segments and churn.

### When
Daily at 02:00 UTC (settings `cron`, `timezone`); when first unpaused, the last interval at once.
Purchases before `as_of` count: the end of the interval, or of a manual run the moment it was
triggered, or the parameter of that name. A scheduled run that has not ended well within
`deadline_minutes` after its interval's end is an error in the triggerer's log.

### Reads and writes
Reads all purchases from the views of schema `source`. Writes what differs: `customer_rfm_state`,
`venue_rfm_state`, `customer_segments`, who moved between segments; the API's tables are views.

### Settings
The Variable `rfm_scoring`, a JSON object: schedule, thresholds, segments, retries, timeout, pool,
overrides by venue. An edit reaches the next run. What is not allowed is named here and by `plan`.
To see first what an edit would do, trigger with `dry_run` and the new `settings`: `finish` logs who
would move between segments, and nothing is written.

### When it is red
`finish` lists the venues that did not end well, with the reason; the others are done, also those of
the same task. Mend the
cause, then clear the run with *Only failed*: that does these venues and `finish` again. The task
`ended_well` does nothing: it keeps a run red until `finish` has succeeded.
- *the source is loaded through …*: it is behind; clear when it has caught up.
- `plan` failed: its log names the setting or parameter, and what is allowed; or it was cleared
  without what follows it: clear the whole run.

A venue that ends with *newer results stand* is no failure: an older night replaces a newer one
only with the parameter `force`.
"""

from airflow.sdk import dag, task

from venue_analytics.jobs import RFM_SCORING
from venue_analytics.orchestration import AirflowJob, ended_well

JOB = AirflowJob(RFM_SCORING)


@dag(**JOB.dag_arguments(__doc__))
def rfm_scoring():
    @task
    def plan():
        return JOB.plan(finish="finish")

    @task(**JOB.mapped_arguments)
    def score(batch):
        JOB.process(batch)

    @task(retries=0)
    def finish():
        JOB.finish(plan="plan", process="score")

    score.expand(batch=plan()) >> finish().as_teardown() >> ended_well()


rfm_scoring()

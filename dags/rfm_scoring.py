"""# RFM scoring

Scores each venue's customers by recency, frequency and monetary value: segment and churn risk.

### When
Daily at 02:00 UTC (settings `cron`, `timezone`). When the DAG is first unpaused, the last interval
runs at once. Only purchases before `as_of` count. `as_of` is the end of the interval; for a manual
run it is the parameter `as_of`, by default the moment of the trigger. If a scheduled run has not
ended well `deadline_minutes` after the end of its interval, the triggerer logs an error.

### Reads and writes
Reads all purchases from the views of schema `source`. Writes rows that differ to
`customer_rfm_state`, `venue_rfm_state` and `customer_segments`, and records movements between
segments. The API's tables are views.

### Settings
The Variable `rfm_scoring`, a JSON object: schedule, thresholds, segments, retries, timeout, pool,
overrides by venue. An edit applies from the next run. Invalid settings are reported here and by
`plan`. To preview an edit, trigger with `dry_run` and the new `settings`: `finish` logs the
movements between segments, and nothing is written.

### When it is red
`finish` lists the venues that did not end well, with the reasons; all other venues are done, even
those in the same task. Fix the cause, then clear the run with *Only failed*: this runs these venues
and `finish` again. The task `ended_well` does nothing; it keeps a run red until `finish` succeeds.
- *the source of tenant … is loaded through …*: the source is behind; clear when it has caught up.
- `plan` failed: its log names the setting or parameter and the allowed values. If `plan` was
  cleared without its downstream tasks, clear the whole run.

A venue skipped with *newer results stand* has not failed: an older night replaces a newer one only
with the parameter `force`.
"""

from airflow.sdk import dag, task

from venue_analytics.jobs.rfm_scoring import JOB
from venue_analytics.orchestration import AirflowJob, ended_well

AIRFLOW = AirflowJob(JOB)


@dag(**AIRFLOW.dag_arguments(__doc__))
def rfm_scoring():
    @task
    def plan():
        return AIRFLOW.plan(finish="finish")

    @task(**AIRFLOW.mapped_arguments)
    def score(batch):
        AIRFLOW.process(batch)

    @task(retries=0)
    def finish():
        AIRFLOW.finish(plan="plan", process="score")

    score.expand(batch=plan()) >> finish().as_teardown() >> ended_well()


rfm_scoring()

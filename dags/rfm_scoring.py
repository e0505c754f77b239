"""# RFM scoring

Scores each venue's customers by recency, frequency and monetary value, and names each one's
segment and churn risk.

**When.** Daily at 02:00 UTC (`cron`, `timezone`). A run counts the purchases before its `as_of`:
the end of its interval, or for a manual run the moment it was triggered, unless the parameter
`as_of` says otherwise. When first unpaused, it runs the last interval at once.

**Reads** the views of schema `source`. **Writes** `customer_rfm_state`, `venue_rfm_state` and
`customer_segments`; the API's `customer_rfm_scores`, `customer_venue_value` and
`customer_lifetime_value` are views over them. Only what changed is written: a second run of the
same night writes nothing.

**Settings.** The Variable `rfm_scoring`, a JSON object: schedule, thresholds, segment rules,
retries, timeout, pool, overrides by venue. An edit reaches the next run. A value that is not
allowed is named above and by the task `plan`; nothing runs on a half-read edit.

**When it is red.** The task `finish` lists the venues that did not end well, with the reason;
the others are done, and readable. Mend the cause, then *Clear* the run with *Only failed*: that
does the failed venues and `finish` again, nothing else.
- *the source … is loaded through …*: the source is behind; clear when it has caught up.
- *newer results stand*: not a failure; an older night does not replace a newer one unless the
  parameter `force` says so.
- *plan* failed: its log names the setting or parameter, and what is allowed.
"""

from airflow.sdk import dag, task

from venue_analytics.jobs import RFM_SCORING
from venue_analytics.orchestration import AirflowJob

JOB = AirflowJob(RFM_SCORING)


@dag(**JOB.dag_arguments(__doc__))
def rfm_scoring():
    @task
    def plan():
        return JOB.plan()

    @task(**JOB.mapped_arguments)
    def score(batch):
        JOB.process(batch)

    @task(retries=0)
    def finish():
        JOB.finish(plan="plan", process="score")

    score.expand(batch=plan()) >> finish().as_teardown(on_failure_fail_dagrun=True)


rfm_scoring()

"""# Postcards

Posts a card to each venue of a tenant.

### When it is red
`finish` names the tenants that did not end well, with the reason. Clear the run with *Only failed*.
"""

from airflow.sdk import dag, task
from tests.new_job.jobs.postcards import JOB

from venue_analytics.orchestration import AirflowJob, ended_well

AIRFLOW = AirflowJob(JOB)


@dag(**AIRFLOW.dag_arguments(__doc__))
def postcards():
    @task
    def plan():
        return AIRFLOW.plan(finish="finish")

    @task(**AIRFLOW.mapped_arguments)
    def post(batch):
        AIRFLOW.process(batch)

    @task(retries=0)
    def finish():
        AIRFLOW.finish(plan="plan", process="post")

    post.expand(batch=plan()) >> finish().as_teardown() >> ended_well()


postcards()

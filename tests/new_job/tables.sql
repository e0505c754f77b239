-- What the job's migration would make: a row a card that was posted.
CREATE TABLE postcard (tenant_id uuid, key text, PRIMARY KEY (tenant_id, key));
GRANT SELECT, INSERT, DELETE ON postcard TO analytics_jobs;

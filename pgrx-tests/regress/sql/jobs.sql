-- What a DBA sees of long work in psql.
\set VERBOSITY default
\set SHOW_CONTEXT never
SELECT tenancy_internal.begin_job('purge', 'quo"te', 'counting', 1000) AS job \gset
SELECT kind, subject, phase, done, total, rate, eta IS NULL AS no_eta, state, pid = pg_backend_pid() AS mine FROM tenancy.jobs;
UPDATE tenancy_internal.jobs SET started_at = started_at - interval '50 seconds', noticed_at = noticed_at - interval '50 seconds';
\set VERBOSITY terse
SELECT tenancy_internal.tell_job(:job, 'deleting', 500) \gset
\set VERBOSITY default
SELECT phase, done, total, round(rate) AS rate, date_trunc('second', eta - told_at) AS eta, state FROM tenancy.jobs;
-- Nobody does it twice at a time, this session neither.
SELECT tenancy_internal.begin_job('purge', 'quo"te', 'counting', 1000);
\echo :SQLSTATE
-- That failed, and took the turn along.
SELECT state FROM tenancy.jobs;
SELECT tenancy_internal.begin_job('purge', 'quo"te', 'counting') AS job \gset
SELECT tenancy_internal.end_job(:job, 'stopped') \gset
SELECT phase, done, total, state, finished_at IS NOT NULL AS ended FROM tenancy.jobs ORDER BY id;

-- Three companies of different size: 390 users, 78 projects, 7,800 tasks, 39,000 messages. The same in each run.
SET ROLE saas_owner;

INSERT INTO saas.countries VALUES ('DE', 'Germany'), ('FR', 'France'), ('US', 'United States');

INSERT INTO saas.tenants VALUES
    ('0a3c9d1e-5b1f-4c3a-9d60-1f7f0e4f2a01', 'acme',    'Acme Robotics',   'US'),
    ('0a3c9d1e-5b1f-4c3a-9d60-1f7f0e4f2a02', 'globex',  'Globex Shipping', 'DE'),
    ('0a3c9d1e-5b1f-4c3a-9d60-1f7f0e4f2a03', 'initech', 'Initech',         'FR');

CREATE TEMPORARY TABLE sizes AS
SELECT t.id AS tenant_id, t.slug, s.users, s.projects
  FROM saas.tenants t
  JOIN (VALUES ('acme', 240, 48), ('globex', 120, 24), ('initech', 30, 6)) AS s(slug, users, projects) USING (slug);

INSERT INTO saas.users (tenant_id, email, name)
SELECT s.tenant_id,
       lower(first.name || '.' || last.name || CASE WHEN n > 120 THEN '2' ELSE '' END || '@' || s.slug || '.example'),
       first.name || ' ' || last.name
  FROM sizes s
 CROSS JOIN LATERAL generate_series(1, s.users) AS n
  JOIN unnest(ARRAY['Ada', 'Ben', 'Chloe', 'Dmitri', 'Elif', 'Farid', 'Grace', 'Hiro', 'Ines', 'Jonas', 'Kofi', 'Lena'])
       WITH ORDINALITY AS first(name, position) ON first.position = n % 12 + 1
  JOIN unnest(ARRAY['Abbott', 'Berger', 'Costa', 'Diallo', 'Evans', 'Fischer', 'Garcia', 'Hansen', 'Ito', 'Jansen'])
       WITH ORDINALITY AS last(name, position) ON last.position = n / 12 % 10 + 1
 ORDER BY s.slug, n;

INSERT INTO saas.projects (tenant_id, title, budget)
SELECT s.tenant_id, verb.word || ' ' || thing.word, 5000 + (n * 7919) % 95000
  FROM sizes s
 CROSS JOIN LATERAL generate_series(1, s.projects) AS n
  JOIN unnest(ARRAY['Relaunch', 'Migrate', 'Audit', 'Redesign', 'Automate', 'Retire', 'Extend', 'Document'])
       WITH ORDINALITY AS verb(word, position) ON verb.position = n % 8 + 1
  JOIN unnest(ARRAY['web shop', 'payroll', 'warehouse', 'mobile app', 'invoicing', 'customer portal'])
       WITH ORDINALITY AS thing(word, position) ON thing.position = n / 8 % 6 + 1
 ORDER BY s.slug, n;

INSERT INTO saas.tasks (tenant_id, project_id, assignee_id, title, status)
SELECT p.tenant_id, p.id, u.first_id + n * 37 % u.users, verb.word || ' ' || thing.word || ' (' || n || ')',
       (ARRAY['open', 'in progress', 'done', 'done'])[n % 4 + 1]
  FROM saas.projects p
  JOIN (SELECT tenant_id, min(id) AS first_id, count(*) AS users FROM saas.users GROUP BY tenant_id) u USING (tenant_id)
 CROSS JOIN generate_series(1, 100) AS n
  JOIN unnest(ARRAY['Draft', 'Review', 'Test', 'Ship', 'Estimate']) WITH ORDINALITY AS verb(word, position)
       ON verb.position = n % 5 + 1
  JOIN unnest(ARRAY['contract', 'import', 'login page', 'report', 'price list', 'backup', 'training'])
       WITH ORDINALITY AS thing(word, position) ON thing.position = n % 7 + 1
 ORDER BY p.id, n;

INSERT INTO saas.messages (tenant_id, task_id, author_id, body, sent_at)
SELECT t.tenant_id, t.id, t.assignee_id,
       (ARRAY['On it.', 'Blocked by legal.', 'Done, please review.', 'Moved to next week.', 'Who can help?'])[n],
       timestamptz '2026-01-05 08:00+00' + t.id * interval '7 minutes' + n * interval '3 hours'
  FROM saas.tasks t CROSS JOIN generate_series(1, 5) AS n
 ORDER BY t.id, n;

INSERT INTO saas.templates (tenant_id, title)
SELECT NULL, title FROM unnest(ARRAY['Weekly report', 'Bug report']) AS title
UNION ALL
SELECT id, name || ' onboarding' FROM saas.tenants;

RESET ROLE;
ANALYZE;

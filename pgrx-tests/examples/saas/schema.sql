-- A project tracker for several companies, as it stands before pg_tenancy: one database, one schema, a tenant column in
-- each table, and nothing but the application's WHERE clauses between the tenants.
CREATE ROLE saas_owner LOGIN;
CREATE ROLE saas_app LOGIN;
CREATE SCHEMA saas AUTHORIZATION saas_owner;
SET ROLE saas_owner;

CREATE TABLE saas.tenants (
    id      uuid PRIMARY KEY,
    slug    text NOT NULL UNIQUE,
    name    text NOT NULL,
    country text NOT NULL
);
CREATE TABLE saas.users (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id uuid   NOT NULL REFERENCES saas.tenants,
    email     text   NOT NULL,
    name      text   NOT NULL,
    UNIQUE (tenant_id, email)
);
CREATE TABLE saas.projects (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id uuid   NOT NULL REFERENCES saas.tenants,
    title     text   NOT NULL,
    budget    numeric(10, 2) NOT NULL
);
CREATE TABLE saas.tasks (
    id          bigint  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id   uuid    NOT NULL REFERENCES saas.tenants,
    project_id  bigint  NOT NULL REFERENCES saas.projects ON DELETE CASCADE,
    assignee_id bigint  REFERENCES saas.users ON DELETE SET NULL,
    title       text    NOT NULL,
    status      text    NOT NULL CHECK (status IN ('open', 'in progress', 'done'))
);
CREATE TABLE saas.messages (
    id        bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id uuid        NOT NULL REFERENCES saas.tenants,
    task_id   bigint      NOT NULL REFERENCES saas.tasks ON DELETE CASCADE,
    author_id bigint      REFERENCES saas.users ON DELETE SET NULL,
    body      text        NOT NULL,
    sent_at   timestamptz NOT NULL
);
-- Templates of a tenant's own, and templates for everybody (no tenant).
CREATE TABLE saas.templates (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id uuid   REFERENCES saas.tenants,
    title     text   NOT NULL
);
-- The same for all tenants.
CREATE TABLE saas.countries (
    code text PRIMARY KEY,
    name text NOT NULL
);

GRANT USAGE ON SCHEMA saas TO saas_app;
GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON ALL TABLES IN SCHEMA saas TO saas_app;
RESET ROLE;

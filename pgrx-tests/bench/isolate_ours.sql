SELECT tenancy.protect_table('ours.customers');
SELECT tenancy.protect_table('ours.orders');
SELECT tenancy.protect_table('ours.entries');
SELECT tenancy.protect_table('ours.skewed');
SELECT tenancy.protect_table('ours.parted');

-- For the contest of sixteen writers.
CREATE TABLE ours.entries_policy (id bigint NOT NULL, tenant_id uuid NOT NULL, amount bigint NOT NULL);
CREATE TABLE ours.entries_reference (LIKE ours.entries_policy);
SELECT tenancy.protect_table('ours.entries_policy', reference => 'policy');
SELECT tenancy.protect_table('ours.entries_reference', reference => 'foreign_key');
GRANT INSERT ON ours.entries_policy, ours.entries_reference TO :app;

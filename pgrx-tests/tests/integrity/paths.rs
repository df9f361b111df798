//! Ways around a protected table.

use super::cases::{Case, Company};

const COPIES: &str =
    "CREATE MATERIALIZED VIEW shop.totals AS SELECT tenant_id, count(*) AS orders FROM shop.orders GROUP BY 1";

/// Behind a view of the current tenant's rows, and what is done then.
macro_rules! behind_view {
    ($then:literal) => {
        concat!(
            "CREATE MATERIALIZED VIEW shop.totals AS SELECT tenant_id, count(*) AS orders FROM shop.orders GROUP BY 1;
             SELECT tenancy.tenant_view('shop.totals');",
            $then
        )
    };
}

/// Words that stand for others would be keywords too: owner, mapping and wrapper are written small.
const CASES: &[Case] = &[
    Case::new(
        "view_past_row_security",
        "CREATE VIEW shop.\"all \"\"orders\" AS SELECT * FROM shop.orders",
        "shop.\"all \"\"orders\"",
    ),
    // Over a view that asks as its invoker, which is then the owner of the one above.
    Case::new(
        "view_past_row_security",
        "CREATE VIEW shop.inner_view WITH (security_invoker) AS SELECT * FROM shop.orders;
         CREATE VIEW shop.outer_view AS SELECT item FROM shop.inner_view",
        "shop.outer_view",
    ),
    Case::new(
        "view_of_copies",
        behind_view!("CREATE VIEW shop.shown AS SELECT orders FROM shop.totals"),
        "shop.shown",
    )
    .mended_by("DROP VIEW shop.shown"),
    Case::new(
        "tenant_view_altered",
        behind_view!("ALTER VIEW shop.totals_of_tenant SET (security_barrier = false)"),
        "shop.totals_of_tenant",
    ),
    Case::new(
        "tenant_view_altered",
        behind_view!("CREATE OR REPLACE VIEW shop.totals_of_tenant WITH (security_barrier) AS SELECT tenant_id, orders FROM shop.totals"),
        "shop.totals_of_tenant",
    )
    .mended_by("DROP VIEW shop.totals_of_tenant; SELECT tenancy.tenant_view('shop.totals')"),
    Case::new(
        "matview_granted",
        behind_view!("GRANT SELECT (orders) ON shop.totals TO APP"),
        "shop.totals",
    ),
    Case::new("matview_without_view", COPIES, "shop.totals"),
    Case::new(
        "matview_without_view",
        "CREATE MATERIALIZED VIEW shop.total AS SELECT count(*) FROM shop.orders",
        "shop.total",
    )
    .mended_by("DROP MATERIALIZED VIEW shop.total"),
    Case::new(
        "rule_on_protected",
        "CREATE RULE note AS ON INSERT TO shop.orders DO ALSO INSERT INTO shop.notes VALUES (1)",
        "note on shop.orders",
    ),
    Case::new(
        "rule_past_row_security",
        "ALTER TABLE shop.notes owner TO CURRENT_USER;
         CREATE RULE spill AS ON INSERT TO shop.notes DO ALSO DELETE FROM shop.orders",
        "spill on shop.notes",
    ),
    Case::new(
        "parent_unprotected",
        "CREATE TABLE shop.base (item text); ALTER TABLE shop.orders INHERIT shop.base",
        "shop.base",
    )
    .mended_by("ALTER TABLE shop.orders NO INHERIT shop.base"),
    Case::new("partition_granted", "GRANT SELECT (what) ON shop.events_2026 TO APP, PUBLIC", "shop.events_2026"),
    Case::new(
        "foreign_table_loops_back",
        "CREATE FOREIGN DATA wrapper loop;
         CREATE SERVER back FOREIGN DATA wrapper loop OPTIONS (dbname 'DBNAME');
         CREATE FOREIGN TABLE shop.mirror (id bigint) SERVER back OPTIONS (table_name 'orders')",
        "shop.mirror",
    )
    .mended_by("DROP FOREIGN TABLE shop.mirror"),
    Case::new(
        "foreign_table_granted",
        "CREATE FOREIGN DATA wrapper far;
         CREATE SERVER away FOREIGN DATA wrapper far OPTIONS (host 'elsewhere', dbname 'DBNAME');
         CREATE FOREIGN TABLE shop.orders_there (tenant_id uuid, id bigint) SERVER away;
         GRANT SELECT ON shop.orders_there TO APP",
        "shop.orders_there",
    ),
    Case::new(
        "published_without_filter",
        "CREATE PUBLICATION news FOR TABLE shop.orders, shop.countries",
        "shop.orders in publication news",
    ),
    Case::new(
        "published_without_filter",
        "CREATE PUBLICATION news FOR TABLE shop.orders WHERE (item <> 'lamp')",
        "shop.orders in publication news",
    ),
    Case::new("published_without_filter", "CREATE PUBLICATION news FOR ALL TABLES", "news")
        .mended_by("DROP PUBLICATION news"),
    Case::new(
        "published_without_filter",
        "CREATE PUBLICATION news FOR TABLES IN SCHEMA shop",
        "shop in publication news",
    ),
    Case::new("large_objects_shared", "SELECT lo_create(4711); GRANT SELECT ON LARGE OBJECT 4711 TO APP", "DBNAME")
        .mended_by("SELECT lo_unlink(4711)"),
    Case::new(
        "function_past_row_security",
        "CREATE FUNCTION shop.count_all() RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER SET search_path = shop, pg_temp AS
            'DECLARE n bigint; BEGIN EXECUTE ''SELECT count(*) FROM orders'' INTO n; RETURN n; END'",
        "shop.count_all()",
    ),
    Case::new(
        "function_past_row_security",
        "CREATE FUNCTION shop.\"count \"\"all\"(text) RETURNS bigint LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog
            BEGIN ATOMIC SELECT count(*) FROM shop.orders; END",
        "shop.\"count \"\"all\"(pg_catalog.text)",
    ),
    Case::new(
        "definer_search_path",
        "GRANT CREATE ON SCHEMA shop TO OWNER;
         CREATE FUNCTION shop.count_own() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS 'SELECT count(*) FROM shop.orders';
         ALTER FUNCTION shop.count_own() owner TO OWNER;
         REVOKE EXECUTE ON FUNCTION shop.count_own() FROM PUBLIC",
        "shop.count_own()",
    ),
    Case::new(
        "definer_public",
        "CREATE FUNCTION shop.count_own() RETURNS bigint LANGUAGE sql SECURITY DEFINER SET search_path = shop, pg_temp
            AS 'SELECT count(*) FROM orders';
         ALTER FUNCTION shop.count_own() owner TO OWNER",
        "shop.count_own()",
    ),
    Case::new(
        "function_untrusted",
        "CREATE FUNCTION shop.backend() RETURNS integer LANGUAGE internal AS 'pg_backend_pid'",
        "shop.backend()",
    ),
    Case::new(
        "trigger_past_row_security",
        "CREATE FUNCTION shop.act() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
            AS 'BEGIN EXECUTE TG_ARGV[0]; RETURN NEW; END';
         CREATE TRIGGER act BEFORE INSERT ON shop.orders FOR EACH ROW EXECUTE FUNCTION shop.act('SELECT 1')",
        "act on shop.orders",
    ),
    Case::new(
        "trigger_past_row_security",
        "CREATE VIEW shop.mine WITH (security_invoker) AS SELECT item FROM shop.orders;
         CREATE FUNCTION shop.act() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
            AS 'BEGIN EXECUTE TG_ARGV[0]; RETURN NEW; END';
         CREATE TRIGGER act INSTEAD OF INSERT ON shop.mine FOR EACH ROW EXECUTE FUNCTION shop.act('SELECT 1')",
        "act on shop.mine",
    ),
    Case::new(
        "trigger_writes_elsewhere",
        "CREATE FUNCTION shop.copy() RETURNS trigger LANGUAGE plpgsql
            AS 'BEGIN INSERT INTO \"shop\".notes (note) VALUES (NEW.item); RETURN NEW; END';
         CREATE TRIGGER copy AFTER INSERT ON shop.orders FOR EACH ROW EXECUTE FUNCTION shop.copy()",
        "copy on shop.orders",
    )
    .mended_by("DROP TRIGGER copy ON shop.orders"),
];

/// What looks like a path and is none.
const HARMLESS: &[&str] = &[
    "CREATE VIEW shop.mine WITH (security_invoker) AS SELECT * FROM shop.orders",
    "CREATE VIEW shop.owned AS SELECT * FROM shop.orders; ALTER VIEW shop.owned owner TO OWNER",
    "CREATE VIEW shop.over_owned AS SELECT item FROM shop.owned",
    "CREATE VIEW shop.lands AS SELECT * FROM shop.countries",
    behind_view!("CREATE VIEW shop.over_totals AS SELECT orders FROM shop.totals_of_tenant"),
    "CREATE PUBLICATION news FOR TABLE shop.orders WHERE (tenant_id = '00000000-0000-0000-0000-000000000001'), shop.notes",
    // Words in a comment, in prose, and behind another schema's name are no tables of ours.
    "CREATE SCHEMA other; CREATE TABLE other.orders (id int);
     CREATE FUNCTION shop.other() RETURNS bigint LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
        AS $$ /* from orders */ SELECT count(*) FROM other.orders WHERE 'all orders' <> '' -- from orders
        $$",
    "CREATE FUNCTION shop.chain() RETURNS trigger LANGUAGE plpgsql
        AS 'BEGIN /* insert into shop.notes */ UPDATE shop.customers SET name = name WHERE id = NEW.customer; NEW.number := 1; RETURN NEW; END';
     CREATE TRIGGER chain BEFORE INSERT ON shop.orders FOR EACH ROW EXECUTE FUNCTION shop.chain()",
    "CREATE FOREIGN DATA wrapper far; CREATE SERVER away FOREIGN DATA wrapper far OPTIONS (host 'elsewhere', dbname 'DBNAME');
     CREATE FOREIGN TABLE shop.mirror (id bigint) SERVER away OPTIONS (table_name 'orders')",
    "SELECT lo_create(4711)",
];

#[test]
fn each_way_around_a_protected_table_is_found_and_closed() {
    let company = Company::open();
    for case in CASES {
        company.tries("catalog", case);
    }
    company.lets_pass("catalog", HARMLESS);
}

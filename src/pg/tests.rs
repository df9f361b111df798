//! The seam itself: what the server says about our quoting and our errors.

use pgrx::prelude::*;

/// Runs `sql` and gives the SQLSTATE and message of the error it raises; used by the rooms' tests.
pub fn refusal(sql: &str) -> (String, String) {
    let block = format!(
        "CREATE OR REPLACE FUNCTION pg_temp.refusal() RETURNS text[] LANGUAGE plpgsql AS $outer$
         BEGIN EXECUTE {}; RETURN NULL;
         EXCEPTION WHEN OTHERS THEN RETURN ARRAY[SQLSTATE, SQLERRM]; END $outer$",
        pgrx::spi::quote_literal(sql)
    );
    Spi::run(&block).unwrap();
    let answer = Spi::get_one::<Vec<String>>("SELECT pg_temp.refusal()").unwrap();
    let [state, message]: [String; 2] = answer.unwrap_or_else(|| panic!("no error: {sql}")).try_into().unwrap();
    (state, message)
}

/// The SQLSTATE of the error that `sql` raises.
pub fn sqlstate(sql: &str) -> String {
    refusal(sql).0
}

#[pg_schema]
mod tests {
    use crate::model::{Deparsed, Ident, Sql};
    use pgrx::prelude::*;

    /// `Ident` may quote more than this server needs, never less.
    #[pg_test]
    fn identifiers_are_quoted_wherever_the_server_quotes() {
        let keywords = Spi::get_one::<Vec<String>>("SELECT array_agg(word ORDER BY word) FROM pg_get_keywords()")
            .unwrap()
            .unwrap();
        let nasty = ["s < e", "Mixed", "quo\"te", "Größe_表", "1st", "a b", "a.b", "_ok", "ok9"].map(str::to_owned);
        for name in keywords.into_iter().chain(nasty) {
            let ours = Ident::new(&name).unwrap().to_string();
            let servers = pgrx::spi::quote_identifier(&name);
            assert!(ours == servers || ours == format!("\"{name}\""), "{name}: {ours} against {servers}");
        }
    }

    #[pg_test]
    fn literals_read_back_as_they_were() {
        for value in ["plain", "it's", r"back\slash", r"both\'", "new\nline", "Größe 表", ""] {
            let sql = Sql::text("SELECT ").literal(value);
            assert_eq!(Spi::get_one::<String>(sql.as_str()).unwrap().as_deref(), Some(value));
        }
    }

    #[pg_test]
    fn deparsed_text_is_taken_as_it_is() {
        let text = Spi::get_one::<String>("SELECT pg_catalog.format('%I', 'Mixed Case')").unwrap().unwrap();
        assert_eq!(Sql::text("").deparsed(&Deparsed::from_catalog(text)).as_str(), "\"Mixed Case\"");
    }

    #[pg_test]
    fn a_refusal_keeps_its_sqlstate_and_message() {
        let (state, message) = crate::pg::tests::refusal("SELECT tenancy.set_tenant('nobody')");
        assert_eq!((state.as_str(), message.as_str()), ("42704", "tenant \"nobody\" does not exist"));
    }
}

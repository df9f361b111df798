//! A statement as its contestants send it.

use std::error::Error;

use anyhow::{Context, Result};
use postgres::{
    Client, Statement,
    types::{Format, IsNull, ToSql, Type, private::BytesMut},
};
use uuid::Uuid;

use super::sides::Side;

/// SQL with `{tenant}`, `{id}`, `{skewed}` for values, and `[...]` around what only the floor says.
#[derive(Debug, Clone, Copy)]
pub struct Template(pub &'static str);

/// How a statement gets to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Parsed once; Bind and Execute. Values go as text, as libpq and most drivers send them.
    Prepared,
    /// The same with binary values.
    Binary,
    /// Text with literals, parsed and planned each time.
    Simple,
}

/// The values of one execution.
#[derive(Debug, Clone, Copy)]
pub struct Values {
    pub tenant: Uuid,
    /// An order of the tenant's, and a row of `parted`.
    pub id: i64,
    /// A row of `skewed` of the tenant's; another one each time.
    pub skewed: i64,
}

impl Template {
    /// The text for one side.
    fn of(self, side: Side) -> String {
        let mut text = String::new();
        let mut rest = self.0;
        while let Some((before, after)) = rest.split_once('[') {
            let (optional, after) = after.split_once(']').expect("a bracket is closed");
            text.push_str(before);
            if side == Side::Floor {
                text.push_str(optional);
            }
            rest = after;
        }
        text + rest
    }

    /// The text with literals.
    pub fn literal(self, side: Side, values: &Values) -> String {
        self.of(side)
            .replace("{tenant}", &format!("'{}'", values.tenant))
            .replace("{id}", &values.id.to_string())
            .replace("{skewed}", &values.skewed.to_string())
    }

    /// The text with parameters, and their order.
    fn numbered(self, side: Side) -> (String, Vec<&'static str>) {
        let mut text = self.of(side);
        let mut order = Vec::new();
        for name in ["{tenant}", "{id}", "{skewed}"] {
            if text.contains(name) {
                order.push(name);
                text = text.replace(name, &format!("${}", order.len()));
            }
        }
        (text, order)
    }
}

/// A value sent as text, which the server parses.
#[derive(Debug)]
struct Text(String);

impl ToSql for Text {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        out.extend_from_slice(self.0.as_bytes());
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Text
    }

    postgres::types::to_sql_checked!();
}

/// A statement ready to be sent again and again.
pub struct Sender {
    template: Template,
    side: Side,
    protocol: Protocol,
    prepared: Option<(Statement, Vec<&'static str>)>,
}

impl Sender {
    pub fn new(client: &mut Client, template: Template, side: Side, protocol: Protocol) -> Result<Self> {
        let prepared = match protocol {
            Protocol::Simple => None,
            Protocol::Prepared | Protocol::Binary => {
                let (text, order) = template.numbered(side);
                let statement = client.prepare(&text).with_context(|| text.clone())?;
                Some((statement, order))
            }
        };
        Ok(Self { template, side, protocol, prepared })
    }

    pub fn send(&self, client: &mut Client, values: &Values) -> Result<()> {
        match &self.prepared {
            None => {
                client.simple_query(&self.template.literal(self.side, values))?;
            }
            Some((statement, order)) => {
                let binary = |name: &str| -> &(dyn ToSql + Sync) {
                    match name {
                        "{tenant}" => &values.tenant,
                        "{id}" => &values.id,
                        _ => &values.skewed,
                    }
                };
                let texts = [
                    ("{tenant}", Text(values.tenant.to_string())),
                    ("{id}", Text(values.id.to_string())),
                    ("{skewed}", Text(values.skewed.to_string())),
                ];
                let text = |name: &str| -> &(dyn ToSql + Sync) {
                    &texts.iter().find(|(placeholder, _)| *placeholder == name).expect("one of the three").1
                };
                let parameters: Vec<&(dyn ToSql + Sync)> = order
                    .iter()
                    .map(|name| if self.protocol == Protocol::Binary { binary(name) } else { text(name) })
                    .collect();
                client.query(statement, &parameters)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Side, Template};

    #[test]
    fn only_the_floor_names_the_tenant() {
        let template = Template("SELECT 1 FROM t WHERE id = {id}[ AND tenant_id = {tenant}]");
        assert_eq!(
            template.numbered(Side::Floor),
            ("SELECT 1 FROM t WHERE id = $2 AND tenant_id = $1".to_owned(), vec!["{tenant}", "{id}"])
        );
        assert_eq!(template.numbered(Side::Ours), ("SELECT 1 FROM t WHERE id = $1".to_owned(), vec!["{id}"]));
    }
}

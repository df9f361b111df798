//! A setting with a value that PostgreSQL refused: where it stands, and how that is mended.

use super::Ident;

/// Where the value of a setting stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// postgresql.conf, a file that it includes, or postgresql.auto.conf.
    File,
    /// The command line or the environment of the server.
    Start,
    AllRoles,
    Database(Ident),
    Role(Ident),
    RoleInDatabase(Ident, Ident),
    /// The options of the connection.
    Client,
    /// A statement of the session.
    Session,
}

impl Place {
    /// The beginning of the statement that stores a setting there.
    pub fn statement(&self) -> Option<String> {
        match self {
            Self::AllRoles => Some("ALTER ROLE ALL".to_owned()),
            Self::Database(database) => Some(format!("ALTER DATABASE {database}")),
            Self::Role(role) => Some(format!("ALTER ROLE {role}")),
            Self::RoleInDatabase(role, database) => Some(format!("ALTER ROLE {role} IN DATABASE {database}")),
            Self::File | Self::Start | Self::Client | Self::Session => None,
        }
    }
}

/// Such a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidSetting {
    pub name: String,
    pub value: String,
    pub place: Place,
    /// What may stand there; None where no setting has that name.
    pub wanted: Option<String>,
}

impl InvalidSetting {
    /// Where it comes from, as a sentence.
    pub fn origin(&self) -> String {
        match &self.place {
            Place::File => "It stands in postgresql.conf, or in a file that belongs to it.".to_owned(),
            Place::Start => "It was given to the server when it was started.".to_owned(),
            Place::Client => "It came with the options of the connection.".to_owned(),
            Place::Session => "A statement of this session has set it.".to_owned(),
            stored => format!("{} ... SET has stored it.", stored.statement().unwrap_or_default()),
        }
    }

    /// What to do, as a sentence.
    pub fn remedy(&self) -> String {
        let name = &self.name;
        match (&self.place, &self.wanted) {
            (Place::File, Some(wanted)) => format!(
                "Correct it in postgresql.conf or with ALTER SYSTEM SET {name} = ... ({wanted}), call pg_reload_conf(), and connect again."
            ),
            (Place::File, None) => format!(
                "Correct the name or remove {name} from postgresql.conf (pg_file_settings shows the line), and restart the server."
            ),
            (Place::Start, _) => format!("Start the server again with a valid {name}, or without it."),
            (Place::Client | Place::Session, _) => format!("Connect again without {name}."),
            (stored, wanted) => {
                let statement = stored.statement().unwrap_or_default();
                match wanted {
                    Some(wanted) => format!("Run {statement} SET {name} = ... ({wanted}), and connect again."),
                    None => format!("Run {statement} RESET {name}, and connect again."),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invalid(place: Place, wanted: Option<&str>) -> InvalidSetting {
        let (name, value) = ("tenancy.context_mode".to_owned(), "sined".to_owned());
        InvalidSetting { name, value, place, wanted: wanted.map(str::to_owned) }
    }

    #[test]
    fn what_is_stored_is_mended_where_it_is_stored() {
        let (role, database) = (Ident::new("App").unwrap(), Ident::new("shop").unwrap());
        for (place, statement) in [
            (Place::AllRoles, "ALTER ROLE ALL"),
            (Place::Database(database.clone()), "ALTER DATABASE shop"),
            (Place::Role(role.clone()), "ALTER ROLE \"App\""),
            (Place::RoleInDatabase(role, database), "ALTER ROLE \"App\" IN DATABASE shop"),
        ] {
            let valued = invalid(place.clone(), Some("open or signed")).remedy();
            assert_eq!(
                valued,
                format!("Run {statement} SET tenancy.context_mode = ... (open or signed), and connect again.")
            );
            let unknown = invalid(place, None).remedy();
            assert_eq!(unknown, format!("Run {statement} RESET tenancy.context_mode, and connect again."));
        }
    }

    #[test]
    fn a_name_that_is_none_stays_until_the_server_is_restarted() {
        assert!(invalid(Place::File, None).remedy().ends_with("restart the server."));
        assert!(invalid(Place::File, Some("open or signed")).remedy().contains("pg_reload_conf()"));
    }
}

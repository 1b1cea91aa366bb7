//! What a URL says.

use std::path::PathBuf;

/// A store's place and settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    /// Which kind of server.
    pub(super) kind: Kind,
    /// The URL up to the settings, as the client takes it.
    pub(super) server: String,
    pub(super) prefix: String,
    pub(super) connections: usize,
    pub(super) tls: Tls,
    /// The certificate authority to check with.
    pub(super) ca: Option<PathBuf>,
    /// Whether tables may be created and changed.
    pub(super) migrates: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Mysql,
    Postgres,
}

impl Kind {
    /// What people call it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Mysql => "MySQL",
            Self::Postgres => "PostgreSQL",
        }
    }
}

/// Whether a connection is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tls {
    Off,
    Prefer,
    Require,
    Verify,
}

/// The longest prefix: PostgreSQL cuts off names that are longer than 63 bytes.
const MAX_PREFIX: usize = 40;

impl Address {
    pub(super) fn parse(url: &str) -> Result<Self, String> {
        let (server, query) = url.split_once('?').unwrap_or((url, ""));
        let (scheme, rest) = server
            .split_once("://")
            .ok_or("`//` must follow the scheme")?;
        let (kind, scheme) = match scheme {
            "mysql" | "mariadb" => (Kind::Mysql, "mysql"),
            "postgres" | "postgresql" => (Kind::Postgres, "postgres"),
            _ => return Err(format!("the scheme `{scheme}` is not known")),
        };
        // A password may hold a `/` only as `%2F`.
        let database = rest.split_once('/').map_or("", |(_, database)| database);
        if database.is_empty() || database.contains('/') {
            return Err(format!(
                "it names no database, as in `{scheme}://USER:PASSWORD@HOST:PORT/DATABASE`"
            ));
        }
        let mut address = Self {
            kind,
            server: format!("{scheme}://{rest}"),
            prefix: "semel".to_owned(),
            connections: 8,
            tls: Tls::Prefer,
            ca: None,
            migrates: true,
        };
        for setting in query.split('&').filter(|setting| !setting.is_empty()) {
            let (name, value) = setting.split_once('=').unwrap_or((setting, ""));
            match name {
                "prefix" => address.prefix = value.to_owned(),
                "pool" => {
                    let number = value.parse().ok().filter(|n| (2..=100).contains(n));
                    address.connections = number.ok_or_else(|| {
                        format!("`pool={value}` is no number of connections from 2 to 100")
                    })?;
                }
                "tls" => {
                    address.tls = match value {
                        "off" => Tls::Off,
                        "prefer" => Tls::Prefer,
                        "require" => Tls::Require,
                        "verify" => Tls::Verify,
                        _ => {
                            return Err(format!(
                                "`tls={value}` is none of `off`, `prefer`, `require` and `verify`"
                            ));
                        }
                    };
                }
                "ca" if value.is_empty() => return Err("`ca=` names no file".to_owned()),
                "ca" => address.ca = Some(PathBuf::from(value)),
                "migrate" => {
                    address.migrates = match value {
                        "auto" => true,
                        "never" => false,
                        _ => {
                            return Err(format!("`migrate={value}` is neither `auto` nor `never`"));
                        }
                    };
                }
                _ => {
                    return Err(format!(
                        "the setting `{name}` is not known; there are `prefix`, `pool`, `tls`, \
                         `ca` and `migrate`"
                    ));
                }
            }
        }
        let prefix = &address.prefix;
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if prefix.len() > MAX_PREFIX
            || !prefix.starts_with(|c: char| c.is_ascii_lowercase())
            || !prefix.chars().all(allowed)
        {
            return Err(format!(
                "the prefix `{prefix}` is not made of a-z, 0-9 and `_`, beginning with a letter, \
                 {MAX_PREFIX} at most"
            ));
        }
        Ok(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read() {
        let url = "mariadb://me:p%2Fw@h:1/db?prefix=a_1&pool=3&tls=verify&ca=/ca.pem&migrate=never";
        let address = Address::parse(url).unwrap();
        assert_eq!(address.kind, Kind::Mysql);
        assert_eq!(address.server, "mysql://me:p%2Fw@h:1/db");
        assert_eq!((address.prefix.as_str(), address.connections), ("a_1", 3));
        assert_eq!(address.tls, Tls::Verify);
        assert_eq!(address.ca, Some(PathBuf::from("/ca.pem")));
        assert!(!address.migrates);
        let address = Address::parse("postgresql://h/db").unwrap();
        assert_eq!(address.server, "postgres://h/db");
        assert_eq!((address.prefix.as_str(), address.migrates), ("semel", true));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (url, says) in [
            ("mysql:h/db", "`//` must follow"),
            ("mysql://h", "names no database"),
            ("postgres://h/", "names no database"),
            ("mysql://h/db?prefx=a", "`prefx` is not known"),
            ("mysql://h/db?pool=1", "`pool=1`"),
            ("mysql://h/db?tls=yes", "`tls=yes`"),
            ("mysql://h/db?migrate=no", "`migrate=no`"),
            ("mysql://h/db?prefix=A", "the prefix `A`"),
            ("mysql://h/db?prefix=a;b", "the prefix `a;b`"),
            ("mysql://h/db?prefix=", "the prefix ``"),
        ] {
            let error = Address::parse(url).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }
}

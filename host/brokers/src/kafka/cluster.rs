use std::fmt;

use rdkafka::ClientConfig;

use crate::tls::{TlsFileError, TlsFiles};

/// A cluster: where some of its brokers are, and how they are spoken to.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct KafkaCluster {
    servers: String,
    pub(super) tls: Option<TlsFiles>,
    pub(super) login: Option<Login>,
}

/// A user and how it proves to be that user.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Login {
    pub(super) mechanism: Mechanism,
    pub(super) user: String,
    pub(super) password: String,
}

/// A way to log in (SASL).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Mechanism {
    /// Shows the password to the broker (RFC 4616).
    #[default]
    Plain,
    /// Proves to know the password (RFC 7677).
    ScramSha256,
    /// The same with the longer hash.
    ScramSha512,
}

impl KafkaCluster {
    /// One that is spoken to plainly and without a user, by its brokers' addresses, separated
    /// by `,`.
    pub fn at(servers: impl Into<String>) -> Self {
        Self {
            servers: servers.into(),
            tls: None,
            login: None,
        }
    }

    /// The brokers' addresses, separated by `,`.
    pub fn servers(&self) -> &str {
        &self.servers
    }

    /// Whether the files that its URL names can be used.
    pub fn check_files(&self) -> Result<(), TlsFileError> {
        self.tls.as_ref().map_or(Ok(()), TlsFiles::check)
    }

    /// What consumers and producers have in common.
    pub(super) fn client_config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.servers)
            .set("client.id", "semel")
            // A broker that comes back is to be found soon.
            .set("reconnect.backoff.max.ms", "2000")
            .set("topic.metadata.refresh.interval.ms", "30000")
            // Brokers close idle connections, which is no news.
            .set("log.connection.close", "false")
            .set(
                "security.protocol",
                match (&self.tls, &self.login) {
                    (None, None) => "plaintext",
                    (None, Some(_)) => "sasl_plaintext",
                    (Some(_), None) => "ssl",
                    (Some(_), Some(_)) => "sasl_ssl",
                },
            );
        if let Some(login) = &self.login {
            config
                .set("sasl.mechanism", login.mechanism.name())
                .set("sasl.username", &login.user)
                .set("sasl.password", &login.password);
        }
        if let Some(files) = &self.tls {
            let settings = [
                ("ssl.ca.location", &files.ca),
                ("ssl.certificate.location", &files.certificate),
                ("ssl.key.location", &files.key),
            ];
            // The system's authorities, wherever it keeps them.
            config.set("ssl.ca.location", "probe");
            for (setting, path) in settings {
                if let Some(path) = path {
                    config.set(setting, path.to_string_lossy());
                }
            }
        }
        config
    }
}

impl Mechanism {
    const ALL: [Self; 3] = [Self::Plain, Self::ScramSha256, Self::ScramSha512];

    /// Its registered name.
    fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }

    pub(super) fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.name() == name)
    }
}

// Without the password.
impl fmt::Debug for KafkaCluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaCluster")
            .field("servers", &self.servers)
            .field("tls", &self.tls)
            .field("user", &self.login.as_ref().map(|login| &login.user))
            .finish_non_exhaustive()
    }
}

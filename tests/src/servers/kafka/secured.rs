use anyhow::Result;

use super::super::certificates::Certificates;

/// The listeners of a broker that let in only whom they know.
#[derive(Debug)]
pub struct Secured {
    /// What they show, and who signed what they trust.
    pub certificates: Certificates,
    /// The port on which clients log in over TLS.
    pub login_port: u16,
    /// The port on which clients show a certificate.
    pub mutual_port: u16,
}

impl Secured {
    /// Who may log in.
    pub const USER: &str = "semel";

    /// With what; it has characters that a URL must encode.
    pub const PASSWORD: &str = "p@ss/w:rd";

    /// Listeners on a port and the one behind it.
    pub(super) fn at(port: u16) -> Result<Self> {
        Ok(Self {
            certificates: Certificates::new()?,
            login_port: port,
            mutual_port: port + 1,
        })
    }

    /// More listeners, as `listeners` and `advertised.listeners` take them.
    pub(super) fn listeners(&self) -> String {
        let (login, mutual) = (self.login_port, self.mutual_port);
        format!(",LOGIN://127.0.0.1:{login},MUTUAL://127.0.0.1:{mutual}")
    }

    /// What is spoken there, as `listener.security.protocol.map` takes it.
    pub(super) fn protocols(&self) -> &str {
        ",LOGIN:SASL_SSL,MUTUAL:SSL"
    }

    /// What they show, trust and ask for.
    pub(super) fn settings(&self) -> String {
        let (user, password) = (Self::USER, Self::PASSWORD);
        let both = self.certificates.key_and_certificate();
        let ca = self.certificates.ca();
        format!(
            "ssl.keystore.type=PEM\n\
             ssl.keystore.location={}\n\
             ssl.truststore.type=PEM\n\
             ssl.truststore.location={}\n\
             listener.name.mutual.ssl.client.auth=required\n\
             sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512\n\
             listener.name.login.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_{user}=\"{password}\";\n\
             listener.name.login.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;\n\
             listener.name.login.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;\n",
            both.display(),
            ca.display()
        )
    }

    /// More arguments for formatting the storage, where the users are.
    pub(super) fn format_arguments(&self) -> Vec<String> {
        let (user, password) = (Self::USER, Self::PASSWORD);
        ["SCRAM-SHA-256", "SCRAM-SHA-512"]
            .into_iter()
            .flat_map(|mechanism| {
                let user = format!("{mechanism}=[name={user},password={password}]");
                ["--add-scram".to_owned(), user]
            })
            .collect()
    }
}

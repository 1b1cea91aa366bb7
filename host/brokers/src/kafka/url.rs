use std::str::FromStr;

use super::cluster::{KafkaCluster, Login, Mechanism};
use crate::percent::decoded;
use crate::tls::TlsFiles;

/// The consumer group's first part where the URL gives none.
const DEFAULT_GROUP: &str = "semel";

/// What a URL of a cluster with TLS begins with.
const TLS_SCHEME: &str = "kafka+ssl";

/// Where a Kafka cluster is, and who consumes there:
/// `kafka://[USER:PASSWORD@]HOST:PORT[,HOST:PORT…][?group=NAME][&instance=ID]`, with the addresses
/// of some of its brokers, or `kafka+ssl://` with TLS. A user logs in as `mechanism=` says:
/// `PLAIN`, unless it is `SCRAM-SHA-256` or `SCRAM-SHA-512`. With TLS, `ca=FILE` is whom to trust,
/// and `certificate=FILE` and `key=FILE` are shown to brokers that ask. What is no letter in a
/// name is written as `%XX`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaUrl {
    /// The cluster.
    pub cluster: KafkaCluster,
    /// What the names of the consumer groups start with.
    pub group: String,
    /// The host's name as a static member of its groups, if it is to be one. No other host of
    /// the group may have the same.
    pub instance: Option<String>,
}

impl KafkaUrl {
    /// The same with another group, as long as that is a name.
    pub fn with_group(self, group: &str) -> Result<Self, KafkaUrlError> {
        check_name("group", group)?;
        Ok(Self {
            group: group.to_owned(),
            ..self
        })
    }

    /// The consumer group of a plugin. Each plugin has its own: hosts with different plugins
    /// in one group would acknowledge messages that a plugin has not seen.
    pub fn group_of(&self, plugin: &str) -> String {
        format!("{}-{plugin}", self.group)
    }

    /// Takes a destination's URL apart, which has a topic behind the address. None where it
    /// names no topic.
    pub fn destination(url: &str) -> Result<Option<(KafkaCluster, String)>, KafkaUrlError> {
        let (url, topic) = parse(url)?;
        if topic.is_empty() {
            return Ok(None);
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        match topic.len() <= 249 && topic.chars().all(allowed) {
            true => Ok(Some((url.cluster, topic.to_owned()))),
            false => Err(KafkaUrlError::from(format!(
                "`{topic}` is no name of a topic: 1 to 249 of a-z, A-Z, 0-9, `.`, `_` and `-`"
            ))),
        }
    }
}

/// Why a text is no [`KafkaUrl`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is no Kafka address: {reason}; write `kafka://HOST:PORT?group=NAME`")]
pub struct KafkaUrlError {
    /// What is wrong with it. It contains no password.
    pub reason: String,
}

impl From<String> for KafkaUrlError {
    fn from(reason: String) -> Self {
        Self { reason }
    }
}

impl FromStr for KafkaUrl {
    type Err = KafkaUrlError;

    fn from_str(url: &str) -> Result<Self, Self::Err> {
        let (url, topic) = parse(url)?;
        match topic {
            "" => Ok(url),
            _ => Err(KafkaUrlError::from(
                "a path follows the address (topics are the plugins')".to_owned(),
            )),
        }
    }
}

/// The URL, and what follows the address.
fn parse(url: &str) -> Result<(KafkaUrl, &str), KafkaUrlError> {
    let (tls, rest) = match url.split_once("://") {
        Some(("kafka", rest)) => (false, rest),
        Some((TLS_SCHEME, rest)) => (true, rest),
        _ => {
            let reason = format!("it does not start with `kafka://` or `{TLS_SCHEME}://`");
            return Err(reason.into());
        }
    };
    let (address, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, path) = address.split_once('/').unwrap_or((address, ""));
    let (credentials, servers) = match authority.rsplit_once('@') {
        Some((credentials, servers)) => (Some(credentials), servers),
        // A password's `/` or `?` would be taken for the address's end.
        None if rest.contains('@') => {
            let reason = "an `@` follows the address: write what is no letter as `%XX`";
            return Err(reason.to_owned().into());
        }
        None => (None, authority),
    };
    check_servers(servers)?;

    let (mut group, mut instance, mut mechanism) = (DEFAULT_GROUP, None, None);
    let mut files = TlsFiles::default();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("group", value)) => group = value,
            Some(("instance", value)) => instance = Some(value),
            Some(("mechanism", value)) => {
                let known = Mechanism::by_name(value).ok_or_else(|| {
                    format!("`mechanism={value}` is none of `PLAIN`, `SCRAM-SHA-256` and `SCRAM-SHA-512`")
                })?;
                mechanism = Some(known);
            }
            Some((name, value)) if files.take(name, value)? => {}
            _ => return Err(format!("`{pair}` is no known parameter").into()),
        }
    }
    check_name("group", group)?;
    if let Some(instance) = instance {
        check_name("instance", instance)?;
    }
    files.agree(tls, TLS_SCHEME)?;
    let mut cluster = KafkaCluster::at(servers);
    cluster.tls = tls.then_some(files);
    cluster.login = match credentials.map(|text| text.split_once(':')) {
        Some(Some((user, password))) => Some(Login {
            mechanism: mechanism.unwrap_or_default(),
            user: decoded(user)?,
            password: decoded(password)?,
        }),
        Some(None) => return Err("its user has no password".to_owned().into()),
        None if mechanism.is_some() => {
            return Err("`mechanism=` goes with a user: `USER:PASSWORD@`"
                .to_owned()
                .into());
        }
        None => None,
    };
    let url = KafkaUrl {
        cluster,
        group: group.to_owned(),
        instance: instance.map(str::to_owned),
    };
    Ok((url, path))
}

fn check_servers(servers: &str) -> Result<(), String> {
    for server in servers.split(',') {
        let (host, port) = server
            .rsplit_once(':')
            .ok_or_else(|| format!("`{server}` has no port (a broker's is 9092)"))?;
        if host.is_empty() || host.contains('@') {
            return Err(format!("`{server}` has no usable host"));
        }
        if !port.parse::<u16>().is_ok_and(|port| port > 0) {
            return Err(format!("`{port}` is no port"));
        }
    }
    Ok(())
}

fn check_name(what: &str, name: &str) -> Result<(), String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    match (1..=128).contains(&name.len()) && name.chars().all(allowed) {
        true => Ok(()),
        false => Err(format!(
            "the {what} `{name}` is not 1 to 128 of a-z, A-Z, 0-9, `-`, `_` and `.`"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(url: &str) -> Vec<Option<String>> {
        let url: KafkaUrl = url.parse().unwrap();
        let config = url.cluster.client_config();
        let names = [
            "security.protocol",
            "sasl.mechanism",
            "sasl.username",
            "sasl.password",
            "ssl.ca.location",
            "ssl.key.location",
        ];
        names
            .map(|name| config.get(name).map(str::to_owned))
            .to_vec()
    }

    #[test]
    fn reads_addresses_group_and_instance() {
        let url: KafkaUrl = "kafka://a:9092,[::1]:1?group=g&instance=h-1"
            .parse()
            .unwrap();
        assert_eq!(url.cluster, KafkaCluster::at("a:9092,[::1]:1"));
        assert_eq!(url.instance.as_deref(), Some("h-1"));
        assert_eq!(url.group_of("points.v2"), "g-points.v2");
        assert_eq!(url.clone().with_group("h").unwrap().group, "h");
        assert!(url.with_group("a b").is_err());
        let url: KafkaUrl = "kafka://a:9092/".parse().unwrap();
        assert_eq!((url.group.as_str(), url.instance), ("semel", None));
    }

    #[test]
    fn reads_how_to_log_in_and_whom_to_trust() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(
            settings("kafka+ssl://me:p%40s%3As@a:1?mechanism=SCRAM-SHA-512&ca=/etc/ca.pem"),
            [
                some("sasl_ssl"),
                some("SCRAM-SHA-512"),
                some("me"),
                some("p@s:s"),
                some("/etc/ca.pem"),
                None
            ]
        );
        assert_eq!(
            settings("kafka://me:pw@a:1,b:2"),
            [
                some("sasl_plaintext"),
                some("PLAIN"),
                some("me"),
                some("pw"),
                None,
                None
            ]
        );
        assert_eq!(
            settings("kafka+ssl://a:1?certificate=c.pem&key=k.pem"),
            [some("ssl"), None, None, None, some("probe"), some("k.pem")]
        );
        assert_eq!(settings("kafka://a:1")[0], some("plaintext"));
        let url: KafkaUrl = "kafka+ssl://me:s3cret@a:1".parse().unwrap();
        assert!(!format!("{url:?}").contains("s3cret"));
    }

    #[test]
    fn a_destination_is_a_cluster_and_a_topic() {
        let found = KafkaUrl::destination("kafka://a:1,b:2/points.v2?group=g").unwrap();
        let expected = (KafkaCluster::at("a:1,b:2"), "points.v2".to_owned());
        assert_eq!(found, Some(expected));
        for nowhere in ["kafka://a:1", "kafka://a:1/"] {
            assert_eq!(KafkaUrl::destination(nowhere), Ok(None));
        }
        for (url, reason) in [
            ("kafka://a:1/a/b", "no name of a topic"),
            ("kafka://a/t", "no port"),
        ] {
            let error = KafkaUrl::destination(url).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn says_what_is_wrong_and_no_password() {
        let cases = [
            ("rocketmq://a:1", "does not start"),
            ("kafka://", "no port"),
            ("kafka://a", "no port"),
            ("kafka://:1", "no usable host"),
            ("kafka://a:1/t", "a path follows"),
            ("kafka://a:x", "`x` is no port"),
            ("kafka://me:secret@a", "`a` has no port"),
            ("kafka://me:/secret@a:1", "an `@` follows"),
            ("kafka://me:se%cret@a:1", "two hexadecimal digits"),
            ("kafka://me@a:1", "has no password"),
            ("kafka://me:secret@a:1?mechanism=GSSAPI", "is none of"),
            ("kafka://a:1?mechanism=PLAIN", "goes with a user"),
            ("kafka://me:secret@a:1?ca=/c", "go with `kafka+ssl://`"),
            ("kafka+ssl://me:secret@a:1?key=/k", "go together"),
            ("kafka://a:1?groop=x", "no known parameter"),
            ("kafka://a:1?group=", "the group `` is not"),
            ("kafka://a:1?instance=a b", "the instance `a b` is not"),
        ];
        for (url, reason) in cases {
            let error = url.parse::<KafkaUrl>().unwrap_err().to_string();
            assert!(error.contains(reason) && !error.contains("cret"), "{error}");
        }
    }
}

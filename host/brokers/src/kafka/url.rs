use std::fmt;
use std::str::FromStr;

/// The consumer group's first part where the URL gives none.
const DEFAULT_GROUP: &str = "semel";

/// Where a Kafka cluster is: `kafka://HOST:PORT[,HOST:PORT…][?group=NAME][&instance=ID]`, with
/// the addresses of some of its brokers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaUrl {
    /// The brokers' addresses, separated by `,`.
    pub servers: String,
    /// What the names of the consumer groups start with.
    pub group: String,
    /// The host's name as a static member of its groups, if it is to be one. No other host of
    /// the group may have the same.
    pub instance: Option<String>,
}

impl KafkaUrl {
    /// The consumer group of a plugin. Each plugin has its own: hosts with different plugins
    /// in one group would acknowledge messages that a plugin has not seen.
    pub fn group_of(&self, plugin: &str) -> String {
        format!("{}-{plugin}", self.group)
    }
}

/// Why a text is no [`KafkaUrl`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{url}` is no Kafka address: {reason}; write `kafka://HOST:PORT?group=NAME`")]
pub struct KafkaUrlError {
    /// The text.
    pub url: String,
    /// What is wrong with it.
    pub reason: String,
}

impl FromStr for KafkaUrl {
    type Err = KafkaUrlError;

    fn from_str(url: &str) -> Result<Self, Self::Err> {
        parse(url).map_err(|reason| KafkaUrlError {
            url: url.to_owned(),
            reason,
        })
    }
}

impl fmt::Display for KafkaUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "kafka://{}?group={}", self.servers, self.group)?;
        match &self.instance {
            Some(instance) => write!(f, "&instance={instance}"),
            None => Ok(()),
        }
    }
}

fn parse(url: &str) -> Result<KafkaUrl, String> {
    let rest = url
        .strip_prefix("kafka://")
        .ok_or("it does not start with `kafka://`")?;
    let (servers, query) = rest.split_once('?').unwrap_or((rest, ""));
    let servers = servers.strip_suffix('/').unwrap_or(servers);
    for server in servers.split(',') {
        let (host, port) = server
            .rsplit_once(':')
            .ok_or_else(|| format!("`{server}` has no port (a broker's is 9092)"))?;
        if host.contains('@') {
            return Err("user and password are not supported".to_owned());
        }
        if host.is_empty() || host.contains('/') {
            return Err(format!("`{server}` has no usable host"));
        }
        if !port.parse::<u16>().is_ok_and(|port| port > 0) {
            return Err(format!("`{port}` is no port"));
        }
    }
    let (mut group, mut instance) = (DEFAULT_GROUP, None);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("group", value)) => group = value,
            Some(("instance", value)) => instance = Some(value),
            _ => return Err(format!("`{pair}` is no known parameter")),
        }
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    for (what, name) in [("group", Some(group)), ("instance", instance)] {
        let Some(name) = name else { continue };
        if name.is_empty() || name.len() > 128 || !name.chars().all(allowed) {
            return Err(format!(
                "the {what} `{name}` is not 1 to 128 of a-z, A-Z, 0-9, `-`, `_` and `.`"
            ));
        }
    }
    Ok(KafkaUrl {
        servers: servers.to_owned(),
        group: group.to_owned(),
        instance: instance.map(str::to_owned),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_addresses_group_and_instance() {
        let url: KafkaUrl = "kafka://a:9092,[::1]:1?group=g&instance=h-1"
            .parse()
            .unwrap();
        assert_eq!(url.servers, "a:9092,[::1]:1");
        assert_eq!(url.instance.as_deref(), Some("h-1"));
        assert_eq!(url.to_string().parse(), Ok(url.clone()));
        assert_eq!(url.group_of("points.v2"), "g-points.v2");
        let url: KafkaUrl = "kafka://a:9092/".parse().unwrap();
        assert_eq!((url.group.as_str(), url.instance), ("semel", None));
    }

    #[test]
    fn says_what_is_wrong() {
        let cases = [
            ("rocketmq://a:1", "does not start"),
            ("kafka://", "no port"),
            ("kafka://a", "no port"),
            ("kafka://:1", "no usable host"),
            ("kafka://u:p@a:1", "not supported"),
            ("kafka://a:x", "`x` is no port"),
            ("kafka://a:1?groop=x", "no known parameter"),
            ("kafka://a:1?group=", "the group `` is not"),
            ("kafka://a:1?instance=a b", "the instance `a b` is not"),
        ];
        for (url, reason) in cases {
            let error = url.parse::<KafkaUrl>().unwrap_err();
            assert!(error.to_string().contains(reason), "{error}");
        }
    }
}

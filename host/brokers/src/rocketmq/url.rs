use std::fmt;
use std::str::FromStr;

/// The consumer group's first part where the URL gives none.
const DEFAULT_GROUP: &str = "semel";

/// Where a RocketMQ cluster is: `rocketmq://HOST:PORT[,HOST:PORT…][?group=NAME]`, with the
/// addresses of its name servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RocketMqUrl {
    /// The name servers' addresses, separated by `;` as the client wants them.
    pub name_server: String,
    /// What the names of the consumer and producer groups start with.
    pub group: String,
}

impl RocketMqUrl {
    /// The consumer group of a plugin. Each plugin has its own: hosts with different plugins
    /// in one group would acknowledge messages that a plugin has not seen.
    pub fn group_of(&self, plugin: &str) -> String {
        // A dot is the one character of plugin names that groups can't have.
        format!("{}-{}", self.group, plugin.replace('.', "%2E"))
    }
}

/// Why a text is no [`RocketMqUrl`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{url}` is no RocketMQ address: {reason}; write `rocketmq://HOST:PORT?group=NAME`")]
pub struct RocketMqUrlError {
    /// The text.
    pub url: String,
    /// What is wrong with it.
    pub reason: String,
}

impl FromStr for RocketMqUrl {
    type Err = RocketMqUrlError;

    fn from_str(url: &str) -> Result<Self, Self::Err> {
        parse(url).map_err(|reason| RocketMqUrlError {
            url: url.to_owned(),
            reason,
        })
    }
}

impl fmt::Display for RocketMqUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let servers = self.name_server.replace(';', ",");
        write!(f, "rocketmq://{servers}?group={}", self.group)
    }
}

fn parse(url: &str) -> Result<RocketMqUrl, String> {
    let rest = url
        .strip_prefix("rocketmq://")
        .ok_or("it does not start with `rocketmq://`")?;
    let (servers, query) = rest.split_once('?').unwrap_or((rest, ""));
    let servers = servers.strip_suffix('/').unwrap_or(servers);
    let servers: Vec<&str> = servers.split([',', ';']).collect();
    for server in &servers {
        let (host, port) = server
            .rsplit_once(':')
            .ok_or_else(|| format!("`{server}` has no port (a name server's is 9876)"))?;
        if host.is_empty() || host.contains(['/', '@']) {
            return Err(format!("`{server}` has no usable host"));
        }
        if !port.parse::<u16>().is_ok_and(|port| port > 0) {
            return Err(format!("`{port}` is no port"));
        }
    }
    let mut group = DEFAULT_GROUP;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("group", value)) => group = value,
            _ => return Err(format!("`{pair}` is no known parameter")),
        }
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_%|".contains(c);
    if group.is_empty() || group.len() > 128 || !group.chars().all(allowed) {
        return Err(format!(
            "the group `{group}` is not 1 to 128 of a-z, A-Z, 0-9, `-`, `_`, `%` and `|`"
        ));
    }
    Ok(RocketMqUrl {
        name_server: servers.join(";"),
        group: group.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_addresses_and_group() {
        let url: RocketMqUrl = "rocketmq://a:9876,[::1]:1?group=g".parse().unwrap();
        assert_eq!(url.name_server, "a:9876;[::1]:1");
        assert_eq!(url.to_string().parse(), Ok(url.clone()));
        assert_eq!(url.group_of("points.v2"), "g-points%2Ev2");
        let url: RocketMqUrl = "rocketmq://a:9876/".parse().unwrap();
        assert_eq!(url.group, "semel");
    }

    #[test]
    fn says_what_is_wrong() {
        let cases = [
            ("kafka://a:1", "does not start"),
            ("rocketmq://", "no port"),
            ("rocketmq://a", "no port"),
            ("rocketmq://:1", "no usable host"),
            ("rocketmq://a:x", "`x` is no port"),
            ("rocketmq://a:0", "`0` is no port"),
            ("rocketmq://a:1?groop=x", "no known parameter"),
            ("rocketmq://a:1?group=", "the group `` is not"),
            ("rocketmq://a:1?group=a.b", "the group `a.b` is not"),
        ];
        for (url, reason) in cases {
            let error = url.parse::<RocketMqUrl>().unwrap_err();
            assert!(error.to_string().contains(reason), "{error}");
        }
    }
}

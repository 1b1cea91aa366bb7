use std::fmt;
use std::str::FromStr;

use lapin::uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo};

use super::queue::RabbitMqQueueKind;
use crate::percent::decoded;
use crate::tls::{TlsFileError, TlsFiles};

/// After how many seconds of silence the other side is asked for a sign of life.
const HEARTBEAT: u16 = 10;

/// How many messages of a queue are handed to one host and not acknowledged, unless the URL
/// says otherwise.
const DEFAULT_PREFETCH: u16 = 1000;

/// Where a RabbitMQ broker is:
/// `amqp://[USER:PASSWORD@]HOST:PORT[/VHOST][?prefetch=N][&declare=quorum]`, or `amqps://` with
/// TLS, then also with `ca=FILE`, an authority to trust beside the system's, and `certificate=FILE` and
/// `key=FILE`, shown to brokers that ask. `declare` may also be `quorum-single`. What is no letter in
/// a name is written as `%XX`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RabbitMqUrl {
    pub(super) tls: Option<TlsFiles>,
    user: String,
    password: String,
    host: String,
    port: u16,
    /// The virtual host: `/` unless the URL names one.
    pub vhost: String,
    /// How many messages of a queue may be on their way in a host.
    pub prefetch: u16,
    /// What queues are declared as where they are missing, if they are.
    pub declare: Option<RabbitMqQueueKind>,
}

/// Where messages are published to: `amqp://…/VHOST/QUEUE` or `amqp://…/VHOST/EXCHANGE/KEY`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RabbitMqDestination {
    /// The exchange; empty for the one that leads to queues by their names.
    pub exchange: String,
    /// The routing key, or the queue's name.
    pub routing_key: String,
}

/// Why a text is no [`RabbitMqUrl`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is no RabbitMQ address: {reason}; write `amqp://USER:PASSWORD@HOST:PORT/VHOST`")]
pub struct RabbitMqUrlError {
    /// What is wrong with it. It contains no password.
    pub reason: String,
}

impl RabbitMqUrl {
    /// Takes a destination's URL apart. None where it names neither a queue nor an exchange
    /// with a routing key.
    pub fn destination(url: &str) -> Result<Option<(Self, RabbitMqDestination)>, RabbitMqUrlError> {
        let (url, path) = parse(url).map_err(|reason| RabbitMqUrlError { reason })?;
        let (exchange, routing_key) = match path.as_slice() {
            [queue] if !queue.is_empty() => (String::new(), queue.clone()),
            [exchange, key] if !exchange.is_empty() => (exchange.clone(), key.clone()),
            _ => return Ok(None),
        };
        for name in [&exchange, &routing_key] {
            if name.len() > 255 {
                let reason = format!("`{name}` has more than 255 bytes");
                return Err(RabbitMqUrlError { reason });
            }
        }
        let destination = RabbitMqDestination {
            exchange,
            routing_key,
        };
        Ok(Some((url, destination)))
    }

    /// Whether the files that it names can be used.
    pub fn check_files(&self) -> Result<(), TlsFileError> {
        self.tls.as_ref().map_or(Ok(()), TlsFiles::check)
    }

    /// The address without credentials, for people.
    pub fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    pub(super) fn uri(&self) -> AMQPUri {
        AMQPUri {
            scheme: match self.tls {
                Some(_) => AMQPScheme::AMQPS,
                None => AMQPScheme::AMQP,
            },
            authority: AMQPAuthority {
                userinfo: AMQPUserInfo {
                    username: self.user.clone(),
                    password: self.password.clone(),
                },
                host: self.host.clone(),
                port: self.port,
            },
            vhost: self.vhost.clone(),
            query: AMQPQueryString {
                heartbeat: Some(HEARTBEAT),
                ..AMQPQueryString::default()
            },
        }
    }
}

impl FromStr for RabbitMqUrl {
    type Err = RabbitMqUrlError;

    fn from_str(url: &str) -> Result<Self, Self::Err> {
        let (url, path) = parse(url).map_err(|reason| RabbitMqUrlError { reason })?;
        match path.is_empty() {
            true => Ok(url),
            false => Err(RabbitMqUrlError {
                reason:
                    "more than a virtual host follows the address (queues are the plugins' topics)"
                        .to_owned(),
            }),
        }
    }
}

// Without the password.
impl fmt::Debug for RabbitMqUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RabbitMqUrl")
            .field("address", &self.address())
            .field("tls", &self.tls)
            .field("vhost", &self.vhost)
            .finish_non_exhaustive()
    }
}

/// The URL, and what follows the virtual host.
fn parse(url: &str) -> Result<(RabbitMqUrl, Vec<String>), String> {
    let (tls, rest) = match url.split_once("://") {
        Some(("amqp", rest)) => (false, rest),
        Some(("amqps", rest)) => (true, rest),
        _ => return Err("it does not start with `amqp://` or `amqps://`".to_owned()),
    };
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (credentials, address) = authority.rsplit_once('@').unwrap_or(("guest", authority));
    let (user, password) = credentials
        .split_once(':')
        .unwrap_or((credentials, "guest"));
    let (host, port) = address
        .rsplit_once(':')
        .filter(|(_, port)| !port.contains(']'))
        .ok_or_else(|| format!("`{address}` has no port (5672 is the usual one, 5671 with TLS)"))?;
    if host.is_empty() {
        return Err("it has no host".to_owned());
    }
    let port = port
        .parse::<u16>()
        .ok()
        .filter(|port| *port > 0)
        .ok_or_else(|| format!("`{port}` is no port"))?;
    let mut segments = path.split('/').map(decoded);
    let vhost = segments.next().transpose()?.filter(|name| !name.is_empty());
    let path = segments.collect::<Result<Vec<_>, _>>()?;

    let (mut prefetch, mut declare) = (DEFAULT_PREFETCH, None);
    let mut files = TlsFiles::default();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("prefetch", value)) => {
                let number = value.parse().ok().filter(|number| *number > 0);
                prefetch = number
                    .ok_or_else(|| format!("`prefetch={value}` is no number from 1 to 65535"))?;
            }
            Some(("declare", "quorum")) => declare = Some(RabbitMqQueueKind::Quorum),
            Some(("declare", "quorum-single")) => {
                declare = Some(RabbitMqQueueKind::QuorumSingle);
            }
            Some(("declare", value)) => {
                return Err(format!(
                    "`declare={value}` is none of `quorum` and `quorum-single`"
                ));
            }
            Some((name, value)) if files.take(name, value)? => {}
            _ => return Err(format!("`{pair}` is no known parameter")),
        }
    }
    files.agree(tls, "amqps")?;
    let url = RabbitMqUrl {
        tls: tls.then_some(files),
        user: decoded(user)?,
        password: decoded(password)?,
        host: host.to_owned(),
        port,
        vhost: vhost.unwrap_or_else(|| "/".to_owned()),
        prefetch,
        declare,
    };
    Ok((url, path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_address_credentials_and_virtual_host() {
        let url: RabbitMqUrl = "amqp://me:p%40ss%2F@h:5672/a%2Fb?prefetch=7&declare=quorum"
            .parse()
            .unwrap();
        assert_eq!((url.user.as_str(), url.password.as_str()), ("me", "p@ss/"));
        assert_eq!(
            (url.address().as_str(), url.vhost.as_str()),
            ("h:5672", "a/b")
        );
        assert_eq!(
            (url.prefetch, url.declare),
            (7, Some(RabbitMqQueueKind::Quorum))
        );
        assert!(!format!("{url:?}").contains("p@ss"));
        for text in [
            "amqps://[::1]:5671",
            "amqps://[::1]:5671/",
            "amqps://[::1]:5671/%2F",
        ] {
            let url: RabbitMqUrl = text.parse().unwrap();
            assert_eq!((url.vhost.as_str(), url.user.as_str()), ("/", "guest"));
            assert_eq!(url.uri().authority.host, "[::1]");
        }
    }

    #[test]
    fn a_destination_is_a_queue_or_an_exchange_with_a_routing_key() {
        let parts = |url: &str| {
            let found = RabbitMqUrl::destination(url).unwrap();
            found.map(|(url, to)| (url.vhost, to.exchange, to.routing_key))
        };
        let owned = |a: &str, b: &str, c: &str| Some((a.to_owned(), b.to_owned(), c.to_owned()));
        assert_eq!(parts("amqp://h:1/v/q"), owned("v", "", "q"));
        assert_eq!(parts("amqp://h:1//q"), owned("/", "", "q"));
        assert_eq!(parts("amqp://h:1/%2F/x/a%2Fb"), owned("/", "x", "a/b"));
        assert_eq!(parts("amqp://h:1/v/x/"), owned("v", "x", ""));
        for url in [
            "amqp://h:1",
            "amqp://h:1/v",
            "amqp://h:1/v/",
            "amqp://h:1/v/x/k/l",
        ] {
            assert_eq!(parts(url), None, "{url}");
        }
    }

    #[test]
    fn says_what_is_wrong_and_no_password() {
        let cases = [
            ("kafka://a:1", "does not start"),
            ("amqp://me:secret@a", "`a` has no port"),
            ("amqp://[::1]", "has no port"),
            ("amqp://:1", "no host"),
            ("amqp://a:x", "`x` is no port"),
            ("amqp://a:1/v/q", "more than a virtual host"),
            ("amqp://me:se%cret@a:1", "two hexadecimal digits"),
            ("amqp://a:1?prefetch=0", "no number from 1"),
            ("amqp://a:1?declare=classic", "none of"),
            ("amqp://a:1?group=x", "no known parameter"),
            ("amqp://me:secret@a:1?ca=/c", "go with `amqps://`"),
        ];
        for (url, reason) in cases {
            let error = url.parse::<RabbitMqUrl>().unwrap_err().to_string();
            assert!(error.contains(reason) && !error.contains("cret"), "{error}");
        }
    }
}

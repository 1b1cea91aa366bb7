//! How the server is set up, and what is refused before it starts.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;
use std::{io, num};

use reqwest::Url;

/// A bearer token or secret that can be guessed protects nothing.
const MIN_BEARER_BYTES: usize = 16;
const MIN_SECRET_BYTES: usize = 32;

/// Where and how to listen.
#[derive(Clone)]
pub struct HttpSourceConfig {
    /// `http://ADDRESS:PORT` or `https://ADDRESS:PORT`, where the address is an IP address of
    /// this machine or `localhost`.
    pub url: String,
    /// The certificate and key of `https`.
    pub tls: Option<HttpTls>,
    /// Requests must bear one of these. Without any, whoever can connect may post.
    pub bearer_tokens: Vec<String>,
    /// What a request meets whose message is being handled already.
    pub in_flight: InFlight,
    /// The largest body in bytes.
    pub body_limit: usize,
    /// Messages received and not settled, at most. Each holds a body.
    pub waiting: num::NonZeroUsize,
    /// Connections at a time. Others wait to be accepted.
    pub connections: num::NonZeroUsize,
    /// How long a request's head, and then its body, may take to arrive.
    pub read_timeout: Duration,
    /// How long a request waits for its message to be settled.
    pub reply_timeout: Duration,
    /// What one-time tokens are made with. Hosts that share it accept each other's.
    pub token_secret: Option<String>,
    /// How long a one-time token can be spent. Done records must live longer.
    pub token_lifetime: Duration,
    /// For how long clients send a request again. Done records must live longer.
    pub redelivery: Duration,
}

/// PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpTls {
    /// The certificate, followed by those that lead to its root.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// What a request meets whose idempotency key and payload are being handled already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InFlight {
    /// A conflict, at once.
    #[default]
    Conflict,
    /// The outcome of the first.
    Wait,
}

impl HttpSourceConfig {
    /// The defaults, at this URL.
    pub fn new(url: impl Into<String>) -> Self {
        const WAITING: num::NonZeroUsize = num::NonZeroUsize::new(256).expect("it is not 0");
        const CONNECTIONS: num::NonZeroUsize = num::NonZeroUsize::new(1024).expect("it is not 0");
        Self {
            url: url.into(),
            tls: None,
            bearer_tokens: Vec::new(),
            in_flight: InFlight::default(),
            body_limit: 1 << 20,
            waiting: WAITING,
            connections: CONNECTIONS,
            read_timeout: Duration::from_secs(10),
            reply_timeout: Duration::from_secs(30),
            token_secret: None,
            token_lifetime: Duration::from_secs(3600),
            redelivery: Duration::ZERO,
        }
    }

    /// The address to listen at, if all of this can be used.
    pub(super) fn check(&self) -> Result<SocketAddr, HttpSourceError> {
        let (address, encrypted) = self.address().map_err(|reason| HttpSourceError::Url {
            url: self.url.clone(),
            reason,
        })?;
        if encrypted != self.tls.is_some() {
            return Err(HttpSourceError::Tls {
                url: self.url.clone(),
                encrypted,
            });
        }
        if !address.ip().is_loopback() && (!encrypted || self.bearer_tokens.is_empty()) {
            return Err(HttpSourceError::Exposed { address });
        }
        for (at, token) in self.bearer_tokens.iter().enumerate() {
            if token.len() < MIN_BEARER_BYTES || !token.bytes().all(|byte| byte.is_ascii_graphic())
            {
                return Err(HttpSourceError::Bearer { number: at + 1 });
            }
        }
        if let Some(secret) = &self.token_secret
            && secret.len() < MIN_SECRET_BYTES
        {
            return Err(HttpSourceError::Secret);
        }
        for (name, time) in [
            ("read-timeout", self.read_timeout),
            ("reply-timeout", self.reply_timeout),
            ("token-lifetime", self.token_lifetime),
        ] {
            if time.is_zero() {
                return Err(HttpSourceError::Zero { name });
            }
        }
        Ok(address)
    }

    fn address(&self) -> Result<(SocketAddr, bool), String> {
        let url = Url::parse(&self.url).map_err(|error| error.to_string())?;
        let encrypted = match url.scheme() {
            "http" => false,
            "https" => true,
            other => return Err(format!("the scheme `{other}` is not `http` or `https`")),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err("user and password have no place in it".to_owned());
        }
        if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            return Err("nothing may follow the port".to_owned());
        }
        let host = url.host_str().unwrap_or_default();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let ip: IpAddr = match bare {
            "localhost" => Ipv4Addr::LOCALHOST.into(),
            bare => bare
                .parse()
                .map_err(|_| format!("`{host}` is no IP address of this machine"))?,
        };
        let port = url.port_or_known_default().unwrap_or_default();
        Ok((SocketAddr::new(ip, port), encrypted))
    }
}

/// Secrets are not printed.
impl fmt::Debug for HttpSourceConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpSourceConfig")
            .field("url", &self.url)
            .field("tls", &self.tls)
            .field("in_flight", &self.in_flight)
            .finish_non_exhaustive()
    }
}

/// Why the server does not start.
#[derive(Debug, thiserror::Error)]
pub enum HttpSourceError {
    /// The URL is none to listen at.
    #[error(
        "`{url}` can't be listened at: {reason}; write `http://127.0.0.1:8080`, or `https://ADDRESS:PORT` for other machines"
    )]
    Url {
        /// The URL.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// `https` without a certificate, or the reverse.
    #[error("`{url}` {}", if *encrypted {
        "needs a certificate and a key: set `tls-certificate` and `tls-key` under [source.http] to PEM files"
    } else {
        "is not encrypted, but a certificate is configured: write `https://`, or take `tls-certificate` and `tls-key` out of [source.http]"
    })]
    Tls {
        /// The URL.
        url: String,
        /// Whether it is an `https` URL.
        encrypted: bool,
    },
    /// Other machines could post, unencrypted or without being known.
    #[error(
        "other machines can reach {address}, so it needs TLS and a bearer token: write `https://`, and set `tls-certificate`, `tls-key` and `bearer-tokens` under [source.http]; or listen at 127.0.0.1, behind a proxy that does both"
    )]
    Exposed {
        /// The address.
        address: SocketAddr,
    },
    /// A bearer token can't be used.
    #[error(
        "entry {number} of `bearer-tokens` under [source.http] can't be used: a bearer token is at least {MIN_BEARER_BYTES} visible ASCII characters, such as `openssl rand -hex 32` gives"
    )]
    Bearer {
        /// Which, from 1.
        number: usize,
    },
    /// The secret is too short.
    #[error(
        "`token-secret` under [source.http] has less than {MIN_SECRET_BYTES} bytes: whoever guesses it makes tokens; use what `openssl rand -hex 32` gives"
    )]
    Secret,
    /// A time of nothing.
    #[error(
        "`{name}` under [source.http] is 0, so that no request could succeed: give it a time such as `30s`"
    )]
    Zero {
        /// The setting.
        name: &'static str,
    },
    /// A PEM file can't be used.
    #[error("`{setting}` under [source.http]: `{path}` can't be used: {reason}")]
    Pem {
        /// The setting.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Certificate and key don't work together.
    #[error("the certificate `{certificate}` and the key `{key}` can't be used together: {reason}")]
    Certificate {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// Why.
        reason: rustls::Error,
    },
    /// The address is taken, or is none of this machine.
    #[error("can't listen at {address}: {source}; choose another port, or stop what listens there")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The system's reason.
        source: io::Error,
    },
    /// Two plugins want the same topic.
    #[error(
        "the plugins `{first}` and `{second}` both handle the topic `{topic}`, and a request has one reply: give one of them another topic under [plugins.NAME], or serve it from another host at another port"
    )]
    SharedTopic {
        /// The topic.
        topic: String,
        /// A plugin that handles it.
        first: String,
        /// Another.
        second: String,
    },
    /// A header that no request can have.
    #[error(
        "the plugin `{plugin}` reads `header:{header}`, but the names of HTTP headers are handed over in lower case: write `header:{}` under [plugins.{plugin}]",
        header.to_ascii_lowercase()
    )]
    HeaderCase {
        /// The plugin.
        plugin: String,
        /// The header's name as written.
        header: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(change: impl FnOnce(&mut HttpSourceConfig)) -> String {
        let mut config = HttpSourceConfig::new("http://127.0.0.1:8080");
        change(&mut config);
        config.check().unwrap_err().to_string()
    }

    fn tls() -> HttpTls {
        HttpTls {
            certificate: "c.pem".into(),
            key: "k.pem".into(),
        }
    }

    #[test]
    fn loopback_needs_nothing() {
        for (url, address) in [
            ("http://127.0.0.1:8080", "127.0.0.1:8080"),
            ("http://localhost", "127.0.0.1:80"),
            ("http://[::1]:8080/", "[::1]:8080"),
            ("http://127.1.2.3:1", "127.1.2.3:1"),
        ] {
            let checked = HttpSourceConfig::new(url).check().unwrap();
            assert_eq!(checked.to_string(), address);
        }
    }

    #[test]
    fn other_machines_need_tls_and_a_bearer_token() {
        let bearer = || vec!["0123456789abcdef".to_owned()];
        for url in [
            "http://0.0.0.0:8080",
            "http://192.168.1.2:8080",
            "http://[::]:8080",
        ] {
            let alone = refusal(|config| config.url = url.into());
            assert!(alone.contains("needs TLS and a bearer token"), "{alone}");
            let without_tls = refusal(|config| {
                config.url = url.into();
                config.bearer_tokens = bearer();
            });
            assert!(without_tls.contains("needs TLS"), "{without_tls}");
            let without_bearer = refusal(|config| {
                config.url = url.replace("http", "https");
                config.tls = Some(tls());
            });
            assert!(without_bearer.contains("bearer token"), "{without_bearer}");
            let mut both = HttpSourceConfig::new(url.replace("http", "https"));
            both.tls = Some(tls());
            both.bearer_tokens = bearer();
            both.check().unwrap();
        }
    }

    #[test]
    fn what_can_not_be_used_is_refused_with_what_to_do() {
        let with_url = |url: &str| refusal(|config| config.url = url.into());
        for (shown, what) in [
            (with_url("127.0.0.1:8080"), "can't be listened at"),
            (with_url("ftp://127.0.0.1"), "the scheme `ftp`"),
            (
                with_url("http://example.com:80"),
                "no IP address of this machine",
            ),
            (with_url("http://127.0.0.1:80/orders"), "nothing may follow"),
            (with_url("http://a:b@127.0.0.1:80"), "no place"),
            (with_url("https://127.0.0.1:80"), "set `tls-certificate`"),
            (
                refusal(|config| config.tls = Some(tls())),
                "write `https://`",
            ),
            (
                refusal(|config| config.bearer_tokens = vec!["x".repeat(16), "short".into()]),
                "entry 2 of `bearer-tokens`",
            ),
            (
                refusal(|config| config.token_secret = Some("x".into())),
                "openssl",
            ),
            (
                refusal(|config| config.reply_timeout = Duration::ZERO),
                "`reply-timeout`",
            ),
        ] {
            assert!(shown.contains(what), "{shown}");
        }
    }

    #[test]
    fn secrets_are_not_printed() {
        let mut config = HttpSourceConfig::new("http://127.0.0.1:1");
        config.bearer_tokens = vec!["s3cret-s3cret-s3cret".into()];
        config.token_secret = Some("s3cret".into());
        assert!(!format!("{config:?}").contains("s3cret"));
    }
}

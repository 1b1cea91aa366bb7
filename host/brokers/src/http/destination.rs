//! A URL that outgoing messages are posted to, and what is refused of it before the start.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use axum::http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use reqwest::Url;

use super::address::Place;
use super::request::IDEMPOTENCY_KEY;
use super::resolver::Reach;

/// The header of the record key.
pub const SEMEL_KEY: HeaderName = HeaderName::from_static("semel-key");

/// Headers that the client sets itself, whatever anyone says.
pub const RESERVED: [HeaderName; 10] = [
    CONNECTION,
    CONTENT_LENGTH,
    EXPECT,
    HOST,
    IDEMPOTENCY_KEY,
    SEMEL_KEY,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// One destination.
#[derive(Clone)]
pub struct HttpDestination {
    /// The name that plugins publish to.
    pub name: String,
    /// Where to.
    pub url: String,
    /// How.
    pub method: HttpMethod,
    /// Headers of every request, such as `Authorization`. They come before those of messages.
    pub headers: Vec<(String, String)>,
    /// How long one request may take, from connecting to the end of the response.
    pub timeout: Duration,
    /// Whether private networks and this machine may be connected to.
    pub allow_private: bool,
    /// Whether the request may go over the network unencrypted.
    pub allow_plain: bool,
}

/// How to hand over a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HttpMethod {
    /// `POST`.
    #[default]
    Post,
    /// `PUT`.
    Put,
}

/// A destination that was checked.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) reach: Reach,
}

impl HttpDestination {
    /// The defaults, for this name and URL.
    pub fn new(name: impl Into<String>, url: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            url: url.into(),
            method: HttpMethod::default(),
            headers: Vec::new(),
            timeout: Duration::from_secs(30),
            allow_private: false,
            allow_plain: false,
        }
    }

    pub(super) fn check(&self) -> Result<Target, HttpDestinationError> {
        let url = Url::parse(&self.url).map_err(|error| self.unusable(&error.to_string()))?;
        let plain = match url.scheme() {
            "https" => false,
            "http" => true,
            other => {
                return Err(
                    self.unusable(&format!("the scheme `{other}` is not `https` or `http`"))
                );
            }
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(self.unusable(
                "user and password have no place in it: set `headers = { Authorization = \"Basic ${…}\" }`",
            ));
        }
        if url.fragment().is_some() {
            return Err(self.unusable("servers never see what follows `#`"));
        }
        let host = url.host_str().unwrap_or_default();
        let literal: Option<IpAddr> = host.trim_matches(['[', ']']).parse().ok();
        let local = match literal {
            Some(ip) => Place::of(ip) == Place::Loopback,
            None => host == "localhost",
        };
        let reach = match (self.allow_private, plain && !self.allow_plain) {
            (true, true) if local => Reach::Loopback,
            (_, true) => {
                return Err(HttpDestinationError::Plain {
                    name: self.name.clone(),
                    url: self.url.clone(),
                });
            }
            (true, false) => Reach::Private,
            (false, false) => Reach::Public,
        };
        // Only names are resolved, so an address is checked here.
        if let Some(address) = literal.filter(|&address| !reach.permits(address)) {
            return Err(HttpDestinationError::Forbidden {
                name: self.name.clone(),
                address,
                private: Place::of(address) != Place::Forbidden,
            });
        }
        if self.timeout.is_zero() {
            return Err(self.unusable("its `timeout` is 0, so that no request could succeed"));
        }
        Ok(Target {
            headers: self.static_headers()?,
            url,
            reach,
        })
    }

    fn static_headers(&self) -> Result<HeaderMap, HttpDestinationError> {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            let refuse = |reason: &str| HttpDestinationError::Header {
                name: self.name.clone(),
                header: name.clone(),
                reason: reason.to_owned(),
            };
            let parsed: HeaderName = name.parse().map_err(|_| refuse("it is no header's name"))?;
            if RESERVED.contains(&parsed) {
                return Err(refuse("the host sets it itself"));
            }
            let mut value = HeaderValue::from_str(value)
                .map_err(|_| refuse("its value has characters that no header can have"))?;
            value.set_sensitive(true);
            headers.append(parsed, value);
        }
        Ok(headers)
    }

    fn unusable(&self, reason: &str) -> HttpDestinationError {
        HttpDestinationError::Url {
            name: self.name.clone(),
            url: redacted(&self.url),
            reason: reason.to_owned(),
        }
    }
}

/// Headers may be secrets, which are not printed.
impl fmt::Debug for HttpDestination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpDestination")
            .field("name", &self.name)
            .field("url", &redacted(&self.url))
            .finish_non_exhaustive()
    }
}

/// A URL without what may be a password.
fn redacted(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    match rest[..end].rfind('@') {
        Some(at) => format!("{scheme}://…@{}", &rest[at + 1..]),
        None => url.to_owned(),
    }
}

/// Why a destination can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HttpDestinationError {
    /// The URL is none to post to.
    #[error(
        "[destinations.{name}] `{url}` can't be posted to: {reason}; write `https://HOST/PATH`"
    )]
    Url {
        /// The destination.
        name: String,
        /// Its URL.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Messages would go over the network in the clear.
    #[error(
        "[destinations.{name}] `{url}` is not encrypted: write `https://`, or set `allow-plain = true` under [destinations.{name}.http] if everyone on the way may read the messages; for this machine, `allow-private = true` is enough"
    )]
    Plain {
        /// The destination.
        name: String,
        /// Its URL.
        url: String,
    },
    /// The address is none of the public internet.
    #[error("[destinations.{name}] {address} is not on the public internet: {}", if *private {
        "set `allow-private = true` under [destinations.NAME.http] if plugins may post there"
    } else {
        "no destination may be a link-local, multicast, unspecified or reserved address"
    })]
    Forbidden {
        /// The destination.
        name: String,
        /// The address.
        address: IpAddr,
        /// Whether it could be allowed.
        private: bool,
    },
    /// A header that can't be sent.
    #[error("[destinations.{name}.http] the header `{header}` can't be set: {reason}")]
    Header {
        /// The destination.
        name: String,
        /// The header's name.
        header: String,
        /// Why.
        reason: String,
    },
    /// The system's certificates can't be read, for one.
    #[error("[destinations.{name}] no HTTP client can be made: {reason}")]
    Client {
        /// The destination.
        name: String,
        /// Why.
        reason: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(url: &str, change: impl FnOnce(&mut HttpDestination)) -> String {
        let mut destination = HttpDestination::new("charges", url);
        change(&mut destination);
        destination.check().unwrap_err().to_string()
    }

    #[test]
    fn the_public_internet_over_tls_needs_nothing() {
        let target = HttpDestination::new("charges", "https://payments.example/charges?a=b");
        assert_eq!(target.check().unwrap().reach, Reach::Public);
    }

    #[test]
    fn what_is_not_public_or_not_encrypted_must_be_allowed() {
        let as_is = |url: &str| refusal(url, |_| {});
        for url in [
            "https://127.0.0.1/",
            "https://[::1]/",
            "https://10.1.2.3/",
            "https://0x7f.1/",
        ] {
            assert!(as_is(url).contains("allow-private = true"), "{url}");
        }
        for url in [
            "https://169.254.169.254/",
            "https://[::ffff:169.254.169.254]/",
            "https://0/",
        ] {
            let shown = refusal(url, |it| it.allow_private = true);
            assert!(shown.contains("no destination may be"), "{shown}");
        }
        for url in [
            "http://payments.example/",
            "http://127.0.0.1/",
            "http://localhost/",
        ] {
            assert!(as_is(url).contains("not encrypted"), "{url}");
        }
        let private = |url: &str, plain: bool| {
            let mut destination = HttpDestination::new("charges", url);
            (destination.allow_private, destination.allow_plain) = (true, plain);
            destination.check().map(|target| target.reach)
        };
        assert_eq!(private("http://localhost:1/", false), Ok(Reach::Loopback));
        assert_eq!(private("http://127.0.0.1:1/", false), Ok(Reach::Loopback));
        assert_eq!(private("http://10.0.0.1/", true), Ok(Reach::Private));
        assert!(private("http://10.0.0.1/", false).is_err());
    }

    #[test]
    fn what_can_not_be_used_is_refused_with_what_to_do() {
        let as_is = |url: &str| refusal(url, |_| {});
        let with_header = |name: &str, value: &str| {
            refusal("https://h/", |it| {
                it.headers = vec![(name.into(), value.into())]
            })
        };
        for (shown, what) in [
            (
                as_is("payments"),
                "[destinations.charges] `payments` can't be posted to",
            ),
            (as_is("ftp://h/"), "the scheme `ftp`"),
            (as_is("https://me:s3cret@h/"), "headers = { Authorization"),
            (as_is("https://h/#x"), "follows `#`"),
            (with_header("Host", "x"), "the host sets it itself"),
            (with_header("a b", "x"), "no header's name"),
            (with_header("a", "s3cret\n"), "no header can have"),
        ] {
            assert!(shown.contains(what) && !shown.contains("s3cret"), "{shown}");
        }
    }
}

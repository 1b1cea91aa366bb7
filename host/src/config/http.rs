//! What the file says of HTTP.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use serde::Deserialize;

use super::{Size, Span};

/// `[source.http]`.
#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct HttpSourceOptions {
    /// A PEM file: the certificate of `https`, and those that lead to its root.
    pub tls_certificate: Option<PathBuf>,
    /// A PEM file: its private key.
    pub tls_key: Option<PathBuf>,
    /// Requests must bear one of these.
    pub bearer_tokens: Vec<String>,
    /// What a request meets whose message is being handled already.
    pub in_flight: Option<InFlightOption>,
    /// The largest body.
    pub body_limit: Option<Size>,
    /// Messages received and not settled.
    pub waiting: Option<NonZeroUsize>,
    /// Connections at a time.
    pub connections: Option<NonZeroUsize>,
    /// For a request's head, and then its body.
    pub read_timeout: Option<Span>,
    /// How long a request waits for its reply.
    pub reply_timeout: Option<Span>,
    /// What one-time tokens are made with.
    pub token_secret: Option<String>,
    /// How long one can be spent.
    pub token_lifetime: Option<Span>,
}

/// `in-flight` under `[source.http]`.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum InFlightOption {
    /// It conflicts.
    Conflict,
    /// It waits for the first.
    Wait,
}

/// `[destinations.NAME.http]`.
#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct HttpDestinationOptions {
    /// How messages are handed over.
    pub method: Option<MethodOption>,
    /// Headers of every request.
    pub headers: BTreeMap<String, String>,
    /// For one request.
    pub timeout: Option<Span>,
    /// The destination that responses are published to.
    pub on_response: Option<String>,
    /// Private networks and this machine may be posted to.
    pub allow_private: bool,
    /// Messages may go over the network unencrypted.
    pub allow_plain: bool,
}

/// `method` under `[destinations.NAME.http]`.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "UPPERCASE")]
pub enum MethodOption {
    /// `POST`.
    Post,
    /// `PUT`.
    Put,
}

/// Tokens and secrets are not printed.
impl fmt::Debug for HttpSourceOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpSourceOptions").finish_non_exhaustive()
    }
}

/// Headers may be secrets, which are not printed.
impl fmt::Debug for HttpDestinationOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpDestinationOptions")
            .finish_non_exhaustive()
    }
}

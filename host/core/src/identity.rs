//! The names of things: what makes a message, a run, a value or an outgoing message itself.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// The longest business key or lane in bytes. Every store can index this much.
pub const MAX_KEY_BYTES: usize = 1024;

/// A plugin's name: what its records, state and dead letters are filed under.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PluginName(Arc<str>);

impl PluginName {
    /// A name as given. Manifests are checked before they get here.
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PluginName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

macro_rules! key_bytes {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub struct $name(Bytes);

        impl $name {
            /// Wraps bytes; those from messages come through a [`KeyExpression`](crate::KeyExpression).
            pub fn new(bytes: impl Into<Bytes>) -> Self {
                Self(bytes.into())
            }

            /// The bytes.
            pub fn as_bytes(&self) -> &[u8] {
                &self.0
            }

            /// The bytes, shared.
            pub fn to_bytes(&self) -> Bytes {
                self.0.clone()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match std::str::from_utf8(&self.0) {
                    Ok(text) => f.write_str(text),
                    Err(_) => write!(f, "{}", self.0.escape_ascii()),
                }
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "\"{}\"", self.0.escape_ascii())
            }
        }
    };
}

key_bytes! {
    /// What makes two messages the same message. Compared byte for byte.
    BusinessKey
}
key_bytes! {
    /// What messages must share to be handled in the order of their arrival.
    Lane
}

/// The unit of "exactly once": a plugin and a business key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RecordId {
    /// Whose record.
    pub plugin: PluginName,
    /// Of which message.
    pub key: BusinessKey,
}

/// One run of a handler, unique across hosts and restarts. A record bears the id of the run
/// that wrote it, so a commit whose reply was lost is known again.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RunId([u8; 16]);

impl RunId {
    /// The `count`th run of the host process that drew the random number `instance`.
    pub fn new(instance: u64, count: u64) -> Self {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&instance.to_be_bytes());
        id[8..].copy_from_slice(&count.to_be_bytes());
        Self(id)
    }

    /// From stored bytes.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// As bytes to store.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

/// The first 128 bits of the BLAKE3 hash of a message's body. Same key and another
/// fingerprint means that a producer used one key for two messages.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Fingerprint([u8; 16]);

impl Fingerprint {
    /// Of a body, as the broker handed it over.
    pub fn of(body: &[u8]) -> Self {
        let mut first = [0; 16];
        first.copy_from_slice(&blake3::hash(body).as_bytes()[..16]);
        Self(first)
    }

    /// From stored bytes.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// As bytes to store.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

macro_rules! hex_display {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }
    )*};
}

hex_display!(RunId, Fingerprint);

/// The id of an outgoing message: a function of plugin, business key and ordinal alone, so
/// that whoever publishes it again publishes the same id. 32 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct MessageId(String);

impl MessageId {
    /// The id of the `ordinal`th message (from 0) that handling `record` publishes.
    pub fn derive(record: &RecordId, ordinal: u32) -> Self {
        Self(derive_hex(
            "semel message id",
            record,
            &ordinal.to_be_bytes(),
        ))
    }

    /// The id of the message that bears the response to `request`.
    pub fn response_to(request: &Self) -> Self {
        let hash = blake3::hash(format!("semel response to {request}").as_bytes());
        Self(hash.to_hex()[..32].to_owned())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// 32 hexadecimal digits that depend on a purpose, a record and a suffix. Every part but the
/// last is preceded by its length, so no two splits of the same bytes collide.
pub(crate) fn derive_hex(purpose: &str, record: &RecordId, suffix: &[u8]) -> String {
    let hash = record_hasher(purpose, record).update(suffix).finalize();
    hash.to_hex()[..32].to_owned()
}

/// The hash of a purpose and a record, open for more.
pub(crate) fn record_hasher(purpose: &str, record: &RecordId) -> blake3::Hasher {
    let mut hasher = blake3::Hasher::new();
    for part in [
        purpose.as_bytes(),
        record.plugin.as_str().as_bytes(),
        record.key.as_bytes(),
    ] {
        hasher
            .update(&(part.len() as u64).to_be_bytes())
            .update(part);
    }
    hasher
}

/// A name in a plugin's durable state.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StateKey {
    /// The plugin's name, or that of a namespace which the operator shares between plugins.
    pub namespace: Arc<str>,
    /// The name that the handler uses.
    pub name: Arc<str>,
}

/// The store-wide number of the commit that last wrote something. It never repeats, also
/// not when a value is deleted and written anew. 0 is the version of what isn't there.
pub type Version = u64;

//! Version numbers: which messages are versions of one thing, and what becomes of those that
//! come out of order.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{KeyError, KeyExpression, Message, PluginName};

/// How a plugin's messages are numbered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versioning {
    /// Where the version stands: a non-negative 64-bit integer in decimal text.
    pub version: KeyExpression,
    /// Where the thing stands of which the messages are versions, such as an account.
    pub entity: KeyExpression,
    /// The version that an entity begins with. None: whichever comes first.
    pub first: Option<u64>,
    /// How long a message that skips versions waits for those before it. None: not at all.
    pub wait: Option<Duration>,
}

/// What becomes of a message that skips versions of its entity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Gap {
    /// It is handled. Those that it skipped are stale when they come.
    #[default]
    Skip,
    /// It waits for those before it, up to a bound.
    Wait,
}

/// Why a message can't be compared with others of its entity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VersionError {
    /// The entity or the version can't be taken from it.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// What stands in the version's place is no version.
    #[error(
        "the version `{text}`, found by `{expression}`, is not a whole number from 0 to 18446744073709551615"
    )]
    NotANumber {
        /// What was found.
        text: String,
        /// Where.
        expression: KeyExpression,
    },
}

impl Versioning {
    /// The entity and the version of a message.
    pub fn of(&self, message: &Message) -> Result<(String, u64), VersionError> {
        let entity = self.entity.evaluate(message)?;
        let text = self.version.evaluate(message)?;
        match parse_version(&text) {
            Some(version) => Ok((entity, version)),
            None => Err(VersionError::NotANumber {
                text,
                expression: self.version.clone(),
            }),
        }
    }

    /// The namespace of the versions that were last applied, by entity. No plugin and no
    /// operator can name one that has a `#`.
    pub fn namespace(plugin: &PluginName) -> Arc<str> {
        format!("{plugin}#versions").into()
    }
}

/// Reads a version. A sign is none, also where it says nothing.
pub(crate) fn parse_version(text: &str) -> Option<u64> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

//! What a plugin says of itself.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Gap, KeyExpression, Versioning};

/// How long a message waits for the versions before it, unless the plugin says otherwise.
const DEFAULT_GAP_TIMEOUT: Duration = Duration::from_secs(30);

/// A plugin's manifest, as the SDK writes it into the custom section `semel:manifest` (JSON),
/// and as a sidecar `NAME.toml` or the host's configuration overrides it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Manifest {
    /// The version of the manifest's form: `0.1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub semel: Option<String>,
    /// The plugin's name: 1 to 64 of `a-z`, `A-Z`, `0-9`, `-`, `_` and `.`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The plugin's own version, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plugin_version: Option<String>,
    /// The topics that it handles.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topics: Option<Vec<String>>,
    /// Where the business key stands in a message. Without it: the source's stable id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<KeyExpression>,
    /// Where the lane stands in a message. Without it messages run in any order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order_by: Option<KeyExpression>,
    /// Where the version stands in a message: one that is not newer than what was applied of
    /// its entity is stale, and has no effects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<KeyExpression>,
    /// Where the thing stands of which messages are versions, such as an account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entity: Option<KeyExpression>,
    /// What becomes of a message that skips versions. Without it: it is handled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gap: Option<Gap>,
    /// How long a message waits for the versions before it, such as `30s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gap_timeout: Option<String>,
    /// The version that an entity begins with, for messages that wait. Without it: whichever
    /// comes first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_version: Option<u64>,
    /// How long a done record lives, such as `7d`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<String>,
}

impl Manifest {
    /// This manifest with everything that `over` says in place of its own.
    pub fn overridden_by(self, over: &Manifest) -> Manifest {
        let over = over.clone();
        Manifest {
            semel: over.semel.or(self.semel),
            name: over.name.or(self.name),
            plugin_version: over.plugin_version.or(self.plugin_version),
            topics: over.topics.or(self.topics),
            key: over.key.or(self.key),
            order_by: over.order_by.or(self.order_by),
            version: over.version.or(self.version),
            entity: over.entity.or(self.entity),
            gap: over.gap.or(self.gap),
            gap_timeout: over.gap_timeout.or(self.gap_timeout),
            first_version: over.first_version.or(self.first_version),
            retention: over.retention.or(self.retention),
        }
    }

    /// Checks everything that can be checked without a message.
    pub fn validate(&self) -> Result<(), ManifestError> {
        if let Some(form) = &self.semel
            && form != "0.1"
        {
            return Err(ManifestError::Form(form.clone()));
        }
        let name = self.name.as_deref().unwrap_or_default();
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if name.is_empty() || name.len() > 64 || !name.chars().all(allowed) {
            return Err(ManifestError::Name(name.to_owned()));
        }
        match &self.topics {
            Some(topics) if !topics.is_empty() && topics.iter().all(|t| !t.is_empty()) => {}
            _ => return Err(ManifestError::NoTopics),
        }
        if let Some(text) = &self.retention {
            parse_duration(text).ok_or_else(|| ManifestError::Retention(text.clone()))?;
        }
        self.versioning().map(drop)
    }

    /// How messages are numbered, if they are.
    pub fn versioning(&self) -> Result<Option<Versioning>, ManifestError> {
        let (version, entity) = match (&self.version, &self.entity) {
            (Some(version), Some(entity)) => (version.clone(), entity.clone()),
            (Some(_), None) => return Err(ManifestError::Alone("version", "entity")),
            (None, Some(_)) => return Err(ManifestError::Alone("entity", "version")),
            (None, None) => {
                let alone = [
                    ("gap", self.gap.is_some()),
                    ("gap-timeout", self.gap_timeout.is_some()),
                    ("first-version", self.first_version.is_some()),
                ];
                let alone = alone.into_iter().find(|(_, given)| *given);
                return alone.map_or(Ok(None), |(name, _)| {
                    Err(ManifestError::Alone(name, "version"))
                });
            }
        };
        if version.is_composite() {
            return Err(ManifestError::CompositeVersion(version));
        }
        if self.key.as_ref() == Some(&entity) {
            return Err(ManifestError::KeyIsEntity(entity, version));
        }
        let timeout = match &self.gap_timeout {
            Some(text) => {
                parse_duration(text).ok_or_else(|| ManifestError::GapTimeout(text.clone()))?
            }
            None => DEFAULT_GAP_TIMEOUT,
        };
        let wait = (self.gap == Some(Gap::Wait)).then_some(timeout);
        if wait.is_some() && self.order_by.is_some() {
            return Err(ManifestError::TwoOrders);
        }
        Ok(Some(Versioning {
            version,
            entity,
            first: self.first_version,
            wait,
        }))
    }
}

/// A manifest that can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// A form that this host does not know.
    #[error(
        "the manifest has the form `{0}`, this host knows `0.1`: build the plugin with an SDK of this host's version"
    )]
    Form(String),
    /// The name can't be used.
    #[error("the name `{0}` is not 1 to 64 of a-z, A-Z, 0-9, `-`, `_` and `.`")]
    Name(String),
    /// There is nothing to subscribe to.
    #[error("no topics: give `topics = [\"…\"]` in the handler's attribute or in a sidecar file")]
    NoTopics,
    /// The retention can't be read.
    #[error("the retention `{0}` is not a number with s, m, h or d, such as `7d`")]
    Retention(String),
    /// A setting lacks the one that it needs.
    #[error(
        "`{0}` means nothing without `{1}`: number messages with, for example, `version = \"json:/version\"` and `entity = \"json:/account_id\"`"
    )]
    Alone(&'static str, &'static str),
    /// The version has several terms, which make no number.
    #[error("the version `{0}` has several terms: give the one where the number stands")]
    CompositeVersion(KeyExpression),
    /// All versions of an entity would have one key.
    #[error(
        "the key and the entity are both `{0}`, so that every version but the first would be refused as a second message of its key: take a key such as `{0} + {1}`"
    )]
    KeyIsEntity(KeyExpression, KeyExpression),
    /// The bound on waiting can't be read.
    #[error("the gap-timeout `{0}` is not a number with ms, s, m, h or d, such as `30s`")]
    GapTimeout(String),
    /// Order of arrival and order of version are both asked for.
    #[error(
        "`gap = \"wait\"` and `order-by` contradict each other: the one takes messages in the order of their versions, the other in the order of their arrival. Leave one out"
    )]
    TwoOrders,
}

/// Reads a duration such as `500ms`, `30s`, `15m`, `12h` or `7d`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .filter(|&at| at > 0)?;
    let number: u64 = text[..digits].parse().ok()?;
    let milliseconds = match &text[digits..] {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    Some(Duration::from_millis(number.checked_mul(milliseconds)?))
}

//! What a plugin says of itself.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::KeyExpression;

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
    pub version: Option<String>,
    /// The topics that it handles.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topics: Option<Vec<String>>,
    /// Where the business key stands in a message. Without it: the source's stable id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<KeyExpression>,
    /// Where the lane stands in a message. Without it messages run in any order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order_by: Option<KeyExpression>,
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
            version: over.version.or(self.version),
            topics: over.topics.or(self.topics),
            key: over.key.or(self.key),
            order_by: over.order_by.or(self.order_by),
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
        Ok(())
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

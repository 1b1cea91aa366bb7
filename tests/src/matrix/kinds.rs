use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Error, Result, bail};

use crate::servers::store::StoreKind;

/// Where messages come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SourceKind {
    RocketMq,
    Kafka,
    RabbitMq,
    Http,
    File,
}

/// A source with a store, such as `kafka/redis`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cell {
    pub source: SourceKind,
    pub store: StoreKind,
}

impl SourceKind {
    pub const ALL: [Self; 5] = [
        Self::RocketMq,
        Self::Kafka,
        Self::RabbitMq,
        Self::Http,
        Self::File,
    ];

    /// Whether several hosts can share a topic.
    pub fn has_groups(self) -> bool {
        matches!(self, Self::RocketMq | Self::Kafka | Self::RabbitMq)
    }

    fn name(self) -> &'static str {
        match self {
            Self::RocketMq => "rocketmq",
            Self::Kafka => "kafka",
            Self::RabbitMq => "rabbitmq",
            Self::Http => "http",
            Self::File => "file",
        }
    }
}

impl Cell {
    /// All of them, those of a source together.
    pub fn all() -> impl Iterator<Item = Self> {
        SourceKind::ALL.into_iter().flat_map(|source| {
            let with = move |store| Self { source, store };
            StoreKind::ALL.into_iter().map(with)
        })
    }

    /// Whether several hosts can work on it together.
    pub fn has_groups(self) -> bool {
        self.source.has_groups() && self.store.is_shared()
    }
}

impl fmt::Display for SourceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}/{}", self.source, self.store))
    }
}

impl FromStr for Cell {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (source, store) = text
            .split_once('/')
            .with_context(|| format!("`{text}` is no cell: write `kafka/redis`"))?;
        let source = SourceKind::ALL.into_iter().find(|s| s.name() == source);
        let store = StoreKind::ALL.into_iter().find(|s| s.name() == store);
        match (source, store) {
            (Some(source), Some(store)) => Ok(Self { source, store }),
            _ => {
                let names: Vec<String> = Self::all().map(|cell| cell.to_string()).collect();
                bail!("`{text}` is no cell: there are {}", names.join(", "))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_have_names() {
        for cell in Cell::all() {
            assert_eq!(cell.to_string().parse::<Cell>().unwrap(), cell);
        }
        let error = "kafka/oracle".parse::<Cell>().unwrap_err().to_string();
        assert!(error.contains("kafka/postgres"), "{error}");
    }
}

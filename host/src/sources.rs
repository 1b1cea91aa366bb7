//! Where messages come from.

use std::sync::Arc;

use anyhow::Result;
use semel_brokers::{FileName, FileProgress, FileSource};
use semel_core::Source;

use crate::brokers::Brokers;
use crate::host::Incoming;
use crate::plugins::ReadyPlugin;

/// Sources that are ready to be read.
pub struct Opened {
    /// One for each plugin, in their order.
    pub sources: Vec<Arc<dyn Source>>,
    /// How far an input is read.
    pub progress: Option<Arc<FileProgress>>,
}

/// Opens a source for each plugin. Brokers are not connected to before they are read.
pub fn open(incoming: &Incoming, plugins: &[ReadyPlugin], brokers: &Brokers) -> Result<Opened> {
    match incoming {
        Incoming::Input { file, .. } => input(file, plugins),
        Incoming::Broker { url, group_prefix } => {
            let sources = plugins.iter().map(|plugin| {
                brokers.source(
                    url,
                    group_prefix.as_deref(),
                    plugin.name.as_str(),
                    &plugin.topics,
                )
            });
            Ok(Opened {
                sources: sources.collect::<Result<_>>()?,
                progress: None,
            })
        }
    }
}

fn input(file: &FileName, plugins: &[ReadyPlugin]) -> Result<Opened> {
    let subscriptions = plugins.iter().map(|plugin| plugin.topics.clone());
    let (sources, progress) = FileSource::open(file, subscriptions.collect())?;
    let sources = sources
        .into_iter()
        .map(|source| Arc::new(source) as Arc<dyn Source>);
    Ok(Opened {
        sources: sources.collect(),
        progress: Some(progress),
    })
}

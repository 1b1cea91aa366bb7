//! Where outgoing messages leave the host.

use std::collections::HashSet;
use std::sync::Arc;

use anyhow::Result;
use semel_brokers::{FileName, FileSink};
use semel_core::{Sink, Transactions};

use crate::brokers::Brokers;
use crate::config::Config;

/// Where outgoing messages go.
pub struct Outlet {
    /// Publishes them. Without one they stay in the store.
    pub sink: Option<Arc<dyn Sink>>,
    /// Sends half messages, once they are started.
    pub transactions: Option<Arc<dyn Transactions>>,
    /// The destinations that lead somewhere; none means any.
    names: Option<HashSet<Arc<str>>>,
}

impl Outlet {
    /// `--output` takes every destination. Otherwise those that the configuration maps lead to
    /// where it says, and all others are denied. An input with neither keeps its outgoing
    /// messages in the store: the operator did not say where they belong, and a run that ends
    /// can't fill the store for ever.
    pub fn open(
        output: Option<&FileName>,
        config: &Config,
        serves: bool,
        brokers: &Brokers,
    ) -> Result<Self> {
        if let Some(file) = output {
            return Ok(Self {
                sink: Some(Arc::new(FileSink::open(file)?)),
                transactions: None,
                names: None,
            });
        }
        if config.destinations.is_empty() && !serves {
            tracing::info!(
                "no --output and no [destinations]: what plugins publish waits in the store for a run that has one"
            );
            return Ok(Self {
                sink: None,
                transactions: None,
                names: None,
            });
        }
        if config.destinations.is_empty() {
            tracing::info!(
                "no [destinations] are configured, so plugins are denied to publish; --output would take everything"
            );
        }
        let destinations = config.destinations.iter();
        let destinations = destinations.map(|(name, config)| (name.as_str(), config));
        let names = config.destinations.keys().map(|name| name.as_str().into());
        Ok(Self {
            sink: Some(Arc::new(brokers.router(destinations)?)),
            transactions: None,
            names: Some(names.collect()),
        })
    }

    /// The destinations that lead somewhere; none means any.
    pub fn names(&self) -> Option<&HashSet<Arc<str>>> {
        self.names.as_ref()
    }
}

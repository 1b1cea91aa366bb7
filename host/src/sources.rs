//! Where messages come from.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::{Result, ensure};
use semel_brokers::{FileName, FileProgress, FileSource};
use semel_core::{Finding, PluginName, Source};

use crate::brokers::{Brokers, is_amqp, is_http};
use crate::config::SourceConfig;
use crate::declared::DeclaredPlugin;
use crate::host::Incoming;
#[cfg(feature = "http")]
use crate::http;

/// Sources that are ready to be read.
pub struct Opened {
    /// One for each plugin, in their order.
    pub sources: Vec<Arc<dyn Source>>,
    /// How far an input is read.
    pub progress: Option<Arc<FileProgress>>,
}

/// Opens a source for each plugin. Brokers are not connected to before they are read.
pub async fn open(
    incoming: &Incoming,
    configured: Option<&SourceConfig>,
    plugins: &[DeclaredPlugin],
    brokers: &Brokers,
) -> Result<Opened> {
    if let Some(source) = configured {
        check(source)?;
    }
    match incoming {
        Incoming::Input { file, .. } => input(file, plugins),
        #[cfg(feature = "http")]
        Incoming::Broker {
            url, redelivery, ..
        } if is_http(url) => {
            let options = configured.and_then(|source| source.http.clone());
            let options = options.unwrap_or_default();
            Ok(Opened {
                sources: http::sources(url, &options, *redelivery, plugins).await?,
                progress: None,
            })
        }
        Incoming::Broker {
            url,
            group_prefix,
            redelivery,
        } => {
            warn_of_ids(plugins);
            if is_amqp(url) {
                check_queues(plugins.iter().map(|plugin| (&plugin.name, &plugin.topics)))?;
            }
            let sources = plugins.iter().map(|plugin| {
                brokers.source(
                    url,
                    group_prefix.as_deref(),
                    plugin.name.as_str(),
                    &plugin.topics,
                    *redelivery,
                )
            });
            Ok(Opened {
                sources: sources.collect::<Result<_>>()?,
                progress: None,
            })
        }
    }
}

/// What is configured must go together, also where the command line names another source.
pub fn check(
    SourceConfig {
        url,
        group_prefix,
        http,
        ..
    }: &SourceConfig,
) -> Result<()> {
    ensure!(
        http.is_none() || is_http(url),
        "[source.http] goes for `http://` and `https://` URLs only: take it out, or change `url` under [source]"
    );
    ensure!(
        group_prefix.is_none() || !is_http(url),
        "`group-prefix` under [source] names consumer groups, which HTTP has none of: take it out"
    );
    ensure!(
        group_prefix.is_none() || !is_amqp(url),
        "`group-prefix` under [source] names consumer groups, which RabbitMQ has none of: take it out"
    );
    Ok(())
}

/// A queue hands each message to one consumer: two plugins would have a part of them each.
pub fn check_queues<'p>(
    plugins: impl Iterator<Item = (&'p PluginName, &'p Vec<String>)>,
) -> Result<()> {
    let mut owners: HashMap<&str, &PluginName> = HashMap::new();
    for (plugin, queues) in plugins {
        for queue in queues {
            let owner = *owners.entry(queue).or_insert(plugin);
            ensure!(
                owner == plugin,
                "the plugins `{owner}` and `{plugin}` both consume the queue `{queue}`, and RabbitMQ would give each message to one of them only: bind a queue for each to the exchange, and name it with `topics` under [plugins.{plugin}]"
            );
        }
    }
    Ok(())
}

fn warn_of_ids(plugins: &[DeclaredPlugin]) {
    for plugin in plugins.iter().filter(|plugin| plugin.key.is_id()) {
        tracing::warn!(plugin = %plugin.name, "{}", key_is_id());
    }
}

/// What it means that a plugin goes by the ids of a broker.
pub fn key_is_id() -> Finding {
    Finding::warning(
        "key",
        "its key is `id`, the broker's own message id: that catches redeliveries, but not a producer's resends",
    )
    .advise("give it a key such as `json:/order_id`")
}

fn input(file: &FileName, plugins: &[DeclaredPlugin]) -> Result<Opened> {
    warn_of_ids(plugins);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_plugins_share_a_queue() {
        let (a, b) = (PluginName::new("a"), PluginName::new("b"));
        let queues = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let (one, two): (Vec<_>, Vec<_>) = (queues(&["q", "r", "q"]), queues(&["s"]));
        assert!(check_queues([(&a, &one), (&b, &two)].into_iter()).is_ok());
        let error = check_queues([(&a, &one), (&b, &one)].into_iter()).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("`a` and `b`") && text.contains("[plugins.b]"),
            "{text}"
        );
    }
}

//! RabbitMQ by URL.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use semel_brokers::{
    RabbitMqDestination, RabbitMqSink, RabbitMqSinkConfig, RabbitMqSource, RabbitMqSourceConfig,
    RabbitMqUrl,
};
use semel_core::Source;

use crate::admin::redacted;
use crate::destinations::Router;

/// A source of queues. `redelivery` is for how long messages stay there, if anyone knows.
pub fn source(
    url: &str,
    queues: &[String],
    redelivery: Option<Duration>,
) -> Result<Arc<dyn Source>> {
    let url: RabbitMqUrl = url.parse()?;
    url.check_files()?;
    Ok(Arc::new(RabbitMqSource::new(RabbitMqSourceConfig {
        url,
        queues: queues.to_vec(),
        redelivery,
    })))
}

/// Destinations that are queues, or exchanges with routing keys, by broker.
#[derive(Default)]
pub struct Destinations {
    brokers: BTreeMap<RabbitMqUrl, BTreeMap<String, RabbitMqDestination>>,
}

impl Destinations {
    /// Adds one: `amqp://HOST:PORT/VHOST/QUEUE` or `amqp://HOST:PORT/VHOST/EXCHANGE/KEY`.
    pub fn add(&mut self, name: &str, url: &str) -> Result<()> {
        let about = || format!("[destinations.{name}] `{}` can't be used", redacted(url));
        let parsed = RabbitMqUrl::destination(url).with_context(about)?;
        let (broker, destination) = parsed
            .context("it names neither a queue nor an exchange with a routing key: give `amqp://HOST:PORT/VHOST/QUEUE` or `amqp://HOST:PORT/VHOST/EXCHANGE/KEY`")
            .with_context(about)?;
        broker.check_files().with_context(about)?;
        let destinations = self.brokers.entry(broker).or_default();
        destinations.insert(name.to_owned(), destination);
        Ok(())
    }

    /// Leads them to sinks.
    pub fn add_to(self, router: &mut Router) {
        for (url, destinations) in self.brokers {
            let names: Vec<Arc<str>> = destinations
                .keys()
                .map(|name| name.as_str().into())
                .collect();
            let config = RabbitMqSinkConfig { url, destinations };
            router.add(names, Arc::new(RabbitMqSink::new(config)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_of_a_broker_share_a_sink() {
        let mut destinations = Destinations::default();
        for (name, url) in [
            ("a", "amqp://me:pw@h:1/v/q"),
            ("b", "amqp://me:pw@h:1/v/x/k"),
            ("c", "amqp://me:pw@h:1/w/q"),
        ] {
            destinations.add(name, url).unwrap();
        }
        let counts: Vec<_> = destinations.brokers.values().map(BTreeMap::len).collect();
        assert_eq!(counts, [2, 1]);
        let error = destinations.add("d", "amqp://me:pw@h:1/v").unwrap_err();
        let text = format!("{error:#}");
        assert!(
            text.contains("[destinations.d]") && text.contains("VHOST/QUEUE"),
            "{text}"
        );
        assert!(!text.contains("pw"), "{text}");
    }
}

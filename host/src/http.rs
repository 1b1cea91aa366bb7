//! HTTP as it is configured: one server for all plugins, and a client for each destination.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use semel_brokers::{
    HttpDestination, HttpMethod, HttpServer, HttpSink, HttpSourceConfig, HttpSubscription, HttpTls,
    InFlight, ResponseSink,
};
use semel_core::{Finding, Sink, Source};

use crate::config::{HttpDestinationOptions, HttpSourceOptions, InFlightOption, MethodOption};
use crate::declared::DeclaredPlugin;
use crate::destinations::Router;

/// Listens at `url`, with a source for each plugin. `redelivery` is for how long clients send a
/// request again, where the operator says so.
pub async fn sources(
    url: &str,
    options: &HttpSourceOptions,
    redelivery: Option<Duration>,
    plugins: &[DeclaredPlugin],
) -> Result<Vec<Arc<dyn Source>>> {
    let config = HttpSourceConfig {
        redelivery: redelivery.unwrap_or_default(),
        ..source_config(url, options)?
    };
    let server = HttpServer::bind(&config, &subscriptions(plugins)).await?;
    tracing::info!(address = %server.address(), "listening");
    let sources = server.into_sources().into_iter();
    Ok(sources
        .map(|source| Arc::new(source) as Arc<dyn Source>)
        .collect())
}

/// Looks at a configuration, and at whether the port is free, without serving anybody. Also for
/// how long a client's one-time token may be sent again.
pub async fn examine(
    url: &str,
    options: &HttpSourceOptions,
    plugins: &[DeclaredPlugin],
) -> Result<(Vec<Finding>, Duration)> {
    let config = source_config(url, options)?;
    let findings = HttpServer::examine(&config, &subscriptions(plugins)).await;
    Ok((findings, config.token_lifetime))
}

fn subscriptions(plugins: &[DeclaredPlugin]) -> Vec<HttpSubscription> {
    let plugins = plugins.iter().map(|plugin| HttpSubscription {
        plugin: plugin.name.to_string(),
        topics: plugin.topics.clone(),
        key: plugin.key.clone(),
        others: plugin.other_expressions(),
    });
    plugins.collect()
}

fn source_config(url: &str, options: &HttpSourceOptions) -> Result<HttpSourceConfig> {
    let options = options.clone();
    let defaults = HttpSourceConfig::new(url);
    let tls = match (options.tls_certificate, options.tls_key) {
        (None, None) => None,
        (Some(certificate), Some(key)) => Some(HttpTls { certificate, key }),
        (Some(_), None) => bail!("[source.http] has `tls-certificate` but no `tls-key`: set both"),
        (None, Some(_)) => bail!("[source.http] has `tls-key` but no `tls-certificate`: set both"),
    };
    Ok(HttpSourceConfig {
        tls,
        bearer_tokens: options.bearer_tokens,
        in_flight: match options.in_flight {
            None => defaults.in_flight,
            Some(InFlightOption::Conflict) => InFlight::Conflict,
            Some(InFlightOption::Wait) => InFlight::Wait,
        },
        body_limit: options
            .body_limit
            .map_or(defaults.body_limit, |size| size.0),
        waiting: options.waiting.unwrap_or(defaults.waiting),
        connections: options.connections.unwrap_or(defaults.connections),
        read_timeout: options
            .read_timeout
            .map_or(defaults.read_timeout, |time| time.0),
        reply_timeout: options
            .reply_timeout
            .map_or(defaults.reply_timeout, |time| time.0),
        token_secret: options.token_secret,
        token_lifetime: options
            .token_lifetime
            .map_or(defaults.token_lifetime, |time| time.0),
        ..defaults
    })
}

/// A sink for the destination `name`. Responses go to one that `router` knows already.
pub fn sink(
    name: &str,
    url: &str,
    options: &HttpDestinationOptions,
    router: &Router,
) -> Result<Arc<dyn Sink>> {
    let responses = match &options.on_response {
        None => None,
        Some(to) => match router.sink_named(to) {
            Some(sink) => Some(ResponseSink {
                destination: to.as_str().into(),
                sink,
            }),
            None => bail!(
                "[destinations.{name}.http] `on-response = \"{to}\"` names no topic of a broker: add [destinations.{to}] with the URL of one, such as `rocketmq://HOST:PORT/TOPIC`"
            ),
        },
    };
    let destination = destination(name, url, options);
    Ok(Arc::new(HttpSink::new(&destination, responses)?))
}

fn destination(name: &str, url: &str, options: &HttpDestinationOptions) -> HttpDestination {
    let defaults = HttpDestination::new(name, url);
    HttpDestination {
        method: match options.method {
            None => defaults.method,
            Some(MethodOption::Post) => HttpMethod::Post,
            Some(MethodOption::Put) => HttpMethod::Put,
        },
        headers: options.headers.clone().into_iter().collect(),
        timeout: options.timeout.map_or(defaults.timeout, |time| time.0),
        allow_private: options.allow_private,
        allow_plain: options.allow_plain,
        ..defaults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_comes_with_its_key() {
        let options = HttpSourceOptions {
            tls_key: Some("k.pem".into()),
            ..HttpSourceOptions::default()
        };
        let error = source_config("https://127.0.0.1:1", &options).unwrap_err();
        assert!(
            error.to_string().contains("no `tls-certificate`"),
            "{error}"
        );
    }

    #[test]
    fn responses_go_to_a_broker() {
        let options = HttpDestinationOptions {
            on_response: Some("answers".into()),
            ..HttpDestinationOptions::default()
        };
        let sink = sink("charges", "https://h/", &options, &Router::default());
        let Err(error) = sink else {
            panic!("it was opened");
        };
        assert!(
            error.to_string().contains("[destinations.answers]"),
            "{error}"
        );
    }
}

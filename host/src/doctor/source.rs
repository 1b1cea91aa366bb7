//! Where messages come from, and whether they are remembered for long enough.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use semel_brokers::{Survey, examine_input};
use semel_core::Finding;

use super::places::Places;
use super::{Report, Setup, part};
use crate::brokers::{Brokers, is_amqp, is_http};
use crate::declared::DeclaredPlugin;
use crate::host::Incoming;
#[cfg(feature = "http")]
use crate::http;
use crate::{retention, sources};

/// Looks at the source, and compares the plugins' retention with it.
pub(super) async fn examine(
    setup: &Setup,
    plugins: &[DeclaredPlugin],
    brokers: &Brokers,
) -> Vec<Report> {
    let (url, group_prefix, redelivery) = match &setup.incoming {
        None => {
            let none = Finding::unchecked("source", "there is none")
                .advise("give --source URL or --input FILE, or set `url` under [source]");
            return part("source", [none]);
        }
        Some(Incoming::Input { file, .. }) => return part("source", [examine_input(file)]),
        Some(Incoming::Broker {
            url,
            group_prefix,
            redelivery,
        }) => (url, group_prefix.as_deref(), *redelivery),
    };
    let looked = match is_http(url) {
        true => examine_http(setup, url, redelivery, plugins).await,
        false => {
            let source = Broker {
                url,
                group_prefix,
                redelivery,
            };
            source.examine(plugins, brokers).await
        }
    };
    match looked {
        Ok(Looked { survey, redelivery }) => {
            let mut reports = part("source", survey.findings);
            for (plugin, redelivery) in plugins.iter().zip(redelivery) {
                let finding = compared(plugin, redelivery, &survey.kept);
                reports.extend(part(&format!("plugin {}", plugin.name), [finding]));
            }
            reports
        }
        Err(error) => part(
            "source",
            [Finding::failure("settings", format!("{error:#}"))],
        ),
    }
}

struct Looked {
    survey: Survey,
    /// For how long messages of each plugin may be delivered again, as a host assumes.
    redelivery: Vec<Duration>,
}

/// The broker's word counts where it keeps messages for longer than a host assumes.
fn compared(
    plugin: &DeclaredPlugin,
    assumed: Duration,
    kept: &BTreeMap<String, Duration>,
) -> Finding {
    let told = plugin.topics.iter().filter_map(|topic| kept.get(topic));
    let longest = told.max().copied().unwrap_or_default().max(assumed);
    retention::compared(
        &plugin.name,
        plugin.retention,
        longest,
        plugin.allow_short_retention,
    )
}

struct Broker<'a> {
    url: &'a str,
    group_prefix: Option<&'a str>,
    redelivery: Option<Duration>,
}

impl Broker<'_> {
    async fn examine(&self, plugins: &[DeclaredPlugin], brokers: &Brokers) -> Result<Looked> {
        if is_amqp(self.url) {
            sources::check_queues(plugins.iter().map(|plugin| (&plugin.name, &plugin.topics)))?;
        }
        let mut redelivery = Vec::with_capacity(plugins.len());
        for plugin in plugins {
            // It connects to nothing before it is read.
            let source = brokers.source(
                self.url,
                self.group_prefix,
                plugin.name.as_str(),
                &plugin.topics,
                self.redelivery,
            )?;
            redelivery.push(source.redelivery().unwrap_or_default());
        }
        let topics = plugins.iter().flat_map(|plugin| plugin.topics.clone());
        let mut places = Places::default();
        places.add_source(self.url, topics.collect())?;
        let survey = places.examine(brokers).await;
        Ok(Looked { survey, redelivery })
    }
}

#[cfg(feature = "http")]
async fn examine_http(
    setup: &Setup,
    url: &str,
    redelivery: Option<Duration>,
    plugins: &[DeclaredPlugin],
) -> Result<Looked> {
    let configured = setup.config.source.as_ref();
    let options = configured.and_then(|source| source.http.clone());
    let (findings, tokens) = http::examine(url, &options.unwrap_or_default(), plugins).await?;
    Ok(Looked {
        survey: Survey {
            findings,
            ..Survey::default()
        },
        redelivery: vec![redelivery.unwrap_or_default().max(tokens); plugins.len()],
    })
}

#[cfg(not(feature = "http"))]
async fn examine_http(
    _: &Setup,
    _: &str,
    _: Option<Duration>,
    _: &[DeclaredPlugin],
) -> Result<Looked> {
    anyhow::bail!("this host was built without HTTP")
}

//! What `semel doctor` looks at: each part by those who know it, and all of them side by side.
//! Nothing is changed anywhere.

mod configuration;
mod places;
mod plugins;
mod source;

use std::path::PathBuf;
use std::time::Duration;

use semel_brokers::{FileName, examine_output};
use semel_core::{Finding, Level, PluginName};
use serde::Serialize;
use tokio::time::timeout;

pub use self::configuration::explain;

use self::places::Places;
use crate::brokers::Brokers;
use crate::config::Config;
use crate::declared::DeclaredPlugin;
use crate::host::Incoming;

/// How long a server may take for everything that is asked of it.
const PATIENCE: Duration = Duration::from_secs(11);

/// How long letting go of clients may take.
const FAREWELL: Duration = Duration::from_secs(2);

/// What to look at.
pub struct Setup {
    /// What the file says.
    pub config: Config,
    /// Where it is, if there is one.
    pub config_file: Option<PathBuf>,
    /// Where the plugins are.
    pub plugins: PathBuf,
    /// The store's URL.
    pub store: String,
    /// Where messages come from, if anyone says so.
    pub incoming: Option<Incoming>,
    /// Where everything goes that plugins publish, if to one file.
    pub output: Option<FileName>,
}

/// A finding with the part of the set-up that it is about.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Such as `store`.
    pub part: String,
    /// What was found there.
    #[serde(flatten)]
    pub finding: Finding,
}

/// Findings of one part.
fn part(part: &str, findings: impl IntoIterator<Item = Finding>) -> Vec<Report> {
    let findings = findings.into_iter();
    findings
        .map(|finding| Report {
            part: part.to_owned(),
            finding,
        })
        .collect()
}

/// Looks at everything.
pub async fn examine(setup: Setup) -> Vec<Report> {
    let (plugins, files) = plugins::inspect(&setup);
    let mut reports = part("configuration", configuration::examine(&setup, &plugins));
    reports.extend(files);
    let brokers = Brokers::default();
    let (store, source, destinations) = tokio::join!(
        examine_store(&setup, &plugins),
        source::examine(&setup, &plugins, &brokers),
        examine_destinations(&setup, &brokers),
    );
    reports.extend(part("store", store));
    reports.extend(source);
    reports.extend(part("destinations", destinations));
    // Nothing rests on it: the process ends.
    let _ = timeout(FAREWELL, brokers.shutdown()).await;
    together(reports)
}

/// The findings of each part side by side, in the order in which the parts come.
fn together(reports: Vec<Report>) -> Vec<Report> {
    let mut parts: Vec<(String, Vec<Report>)> = Vec::new();
    for report in reports {
        match parts.iter_mut().find(|(part, _)| *part == report.part) {
            Some((_, same)) => same.push(report),
            None => parts.push((report.part.clone(), vec![report])),
        }
    }
    parts.into_iter().flat_map(|(_, same)| same).collect()
}

async fn examine_store(setup: &Setup, plugins: &[DeclaredPlugin]) -> Vec<Finding> {
    let url = setup.store.as_str();
    let names: Vec<PluginName> = plugins.iter().map(|plugin| plugin.name.clone()).collect();
    let examining = async {
        let mut findings = semel_stores::examine(url, &names).await;
        let failed = findings.iter().any(|it| it.level == Level::Failure);
        let granted = setup.config.plugins.values().flat_map(|plugin| &plugin.sql);
        for grants in granted.filter(|_| semel_stores::is_database(url) && !failed) {
            findings.extend(semel_stores::examine_grants(url, &grants.clone().into()).await);
        }
        findings
    };
    let examined = timeout(PATIENCE, examining).await;
    examined.unwrap_or_else(|_| vec![silence("server")])
}

async fn examine_destinations(setup: &Setup, brokers: &Brokers) -> Vec<Finding> {
    if let Some(output) = &setup.output {
        return vec![examine_output(output)];
    }
    let destinations = &setup.config.destinations;
    if destinations.is_empty() {
        return vec![
            Finding::note(
                "destinations",
                "there are none: a host that serves denies plugins to publish",
            )
            .advise("add [destinations.NAME] with a url, or use --output, if plugins publish"),
        ];
    }
    let all = destinations.iter().map(|(name, to)| (name.as_str(), to));
    if let Err(error) = brokers.router(all) {
        return vec![Finding::failure("destinations", format!("{error:#}"))];
    }
    let mut findings = Vec::new();
    let mut places = Places::default();
    for (name, to) in destinations {
        findings.extend(places.add_destination(name, to));
    }
    let survey = places.examine(brokers).await;
    let of_topics = survey.findings.into_iter();
    findings.extend(of_topics.filter(|finding| finding.subject != "clock"));
    findings
}

/// For a server that lets us wait.
fn silence(subject: &str) -> Finding {
    Finding::failure(subject, format!("no answer within {PATIENCE:?}"))
        .advise("see whether it hangs, and whether a firewall drops what is sent to it")
}

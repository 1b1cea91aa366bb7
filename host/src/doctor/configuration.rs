//! Whether the parts of a configuration go together.

use std::collections::HashSet;
use std::sync::Arc;

use semel_core::Finding;

use super::Setup;
use crate::declared::DeclaredPlugin;
use crate::destinations::granted;
use crate::sources;

/// Why a configuration can't be read at all.
pub fn explain(error: &anyhow::Error) -> Finding {
    Finding::failure("semel.toml", format!("{error:#}"))
        .advise("put it right first: nothing else was checked, as the rest depends on it")
}

pub fn examine(setup: &Setup, plugins: &[DeclaredPlugin]) -> Vec<Finding> {
    let config = &setup.config;
    let mut findings = vec![match &setup.config_file {
        Some(file) => Finding::good("semel.toml", format!("{} can be used", file.display())),
        None => Finding::note(
            "semel.toml",
            "there is none: defaults and the command line hold",
        ),
    }];
    if let Some(Err(error)) = config.source.as_ref().map(sources::check) {
        findings.push(Finding::failure("[source]", error.to_string()));
    }
    let mapped: HashSet<Arc<str>> = config
        .destinations
        .keys()
        .map(|name| name.as_str().into())
        .collect();
    for (name, configured) in &config.plugins {
        let subject = format!("[plugins.{name}]");
        if !plugins.iter().any(|plugin| plugin.name.as_str() == name) {
            let found = "no plugin has that name, so that it changes nothing";
            findings.push(Finding::warning(subject, found).advise(format!(
                "correct the name, or put the plugin's file into {}",
                setup.plugins.display()
            )));
            continue;
        }
        // Everything leads to the output.
        let mapped = setup.output.is_none().then_some(&mapped);
        findings.push(match granted(mapped, configured.destinations.as_deref()) {
            Ok(_) => Finding::good(subject, "it is of a plugin that is there"),
            Err(missing) => Finding::failure(
                subject,
                format!("it allows the destination `{missing}`, which leads nowhere"),
            )
            .advise(format!(
                "add [destinations.{missing}] with a url, or use --output"
            )),
        });
        if configured.sql.is_some() && !semel_stores::is_database(&setup.store) {
            findings.push(
                Finding::failure(
                    format!("[plugins.{name}.sql]"),
                    "it grants tables, and the store is in no database",
                )
                .advise("take a store at `mysql:` or `postgres:`, or take the grants out"),
            );
        }
    }
    findings
}

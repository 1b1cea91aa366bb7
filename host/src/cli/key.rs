use anyhow::Result;
use clap::{Args, Subcommand};
use semel_core::{BusinessKey, KeyExpression, ParkedRow, PluginName, RecordId, RecordState};
use serde::Serialize;
use serde_json::value::RawValue;

use super::StoreArgs;
use crate::output;

/// Look at what became of a message
#[derive(Args, Debug)]
pub struct KeyArgs {
    #[command(subcommand)]
    command: KeyCommand,
}

#[derive(Debug, Subcommand)]
enum KeyCommand {
    /// Show the record of a business key: absent, parked, done or dead
    #[command(after_help = "\
Several KEYs are the parts of a composite key, in the order of the plugin's key expression.

Examples:
  semel key show points order-17
  semel key show transfer eu-west 4711     The key of `header:region + json:/id`
  semel key show points order-17 --json")]
    Show {
        /// The plugin's name
        plugin: String,
        /// The key, or its parts
        #[arg(required = true, value_name = "KEY")]
        key: Vec<String>,
        #[command(flatten)]
        store: StoreArgs,
    },
}

/// A record as it is printed. What does not apply is left out.
#[derive(Serialize)]
struct RecordLine {
    plugin: String,
    key: Box<RawValue>,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    fingerprint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    run: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reply: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parked: Option<ParkedLine>,
}

#[derive(Serialize)]
struct ParkedLine {
    attempt: u32,
    due_ms: u64,
    reason: String,
    position: String,
}

impl KeyArgs {
    /// Looks it up and prints it.
    pub async fn execute(self) -> Result<()> {
        let KeyCommand::Show { plugin, key, store } = self.command;
        let (_, admin) = store.open().await?;
        let record = RecordId {
            plugin: PluginName::new(&plugin),
            key: BusinessKey::new(KeyExpression::compose(&key)),
        };
        let (state, row) = admin.record(&record).await?;
        if store.json {
            output::print_json(&RecordLine::new(&record, &state, row))
        } else {
            output::properties(&described(&record, &state, row))
        }
    }
}

fn name(state: &RecordState) -> &'static str {
    match state {
        RecordState::Absent => "absent",
        RecordState::Parked { .. } => "parked",
        RecordState::Done { .. } => "done",
        RecordState::Dead { .. } => "dead",
    }
}

impl RecordLine {
    fn new(record: &RecordId, state: &RecordState, row: Option<ParkedRow>) -> Self {
        let (run, reply) = match state {
            RecordState::Done { run, reply, .. } => (
                Some(run.to_string()),
                reply.as_deref().map(output::json_of_bytes),
            ),
            _ => (None, None),
        };
        Self {
            plugin: record.plugin.to_string(),
            key: output::text_or_base64(record.key.as_bytes()),
            state: name(state),
            fingerprint: state.fingerprint().map(|print| print.to_string()),
            run,
            reply,
            parked: row.map(|row| ParkedLine {
                attempt: row.attempt,
                due_ms: row.due_ms,
                reason: row.reason,
                position: row.position.to_string(),
            }),
        }
    }
}

fn described(
    record: &RecordId,
    state: &RecordState,
    row: Option<ParkedRow>,
) -> Vec<(&'static str, String)> {
    let meaning = match state {
        RecordState::Absent => "absent: never handled, or longer ago than the retention",
        RecordState::Parked { .. } => "parked: waits to be run again",
        RecordState::Done { .. } => "done: its effects are applied",
        RecordState::Dead { .. } => "dead: given up, see `semel dead list`",
    };
    let mut lines = vec![
        ("plugin", record.plugin.to_string()),
        ("key", record.key.to_string()),
        ("state", meaning.to_owned()),
    ];
    if let Some(fingerprint) = state.fingerprint() {
        lines.push(("fingerprint", fingerprint.to_string()));
    }
    if let RecordState::Done { run, reply, .. } = state {
        lines.push(("run", run.to_string()));
        if let Some(reply) = reply {
            lines.push(("reply", output::text_of_bytes(reply)));
        }
    }
    if let Some(row) = row {
        lines.extend([
            ("failed runs", row.attempt.to_string()),
            ("due", output::time_text(row.due_ms)),
            ("reason", row.reason),
            ("received at", row.position.to_string()),
        ]);
    }
    lines
}

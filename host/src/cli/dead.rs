use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use clap::{Args, Subcommand};
use semel_core::{
    Admin, Cause, Clock, DeadLetter, DeadLetterId, Header, OutboxRow, PluginName, SystemClock,
};
use serde::Serialize;
use serde_json::value::RawValue;

use super::StoreArgs;
use crate::admin::PAGE;
use crate::config::duration_text;
use crate::input_line;
use crate::output::{self, Listing, Row};
use crate::retention::Retentions;

/// Look at messages that were given up, and decide about them
#[derive(Args, Debug)]
pub struct DeadArgs {
    #[command(subcommand)]
    command: DeadCommand,
}

#[derive(Debug, Subcommand)]
enum DeadCommand {
    /// List dead letters
    #[command(after_help = "\
Examples:
  semel dead list
  semel dead list --plugin points --json")]
    List {
        /// Only those of this plugin
        #[arg(long, value_name = "PLUGIN")]
        plugin: Option<String>,
        #[command(flatten)]
        store: StoreArgs,
    },
    /// Show one dead letter with everything that is known of it
    #[command(after_help = "\
With --json it prints the message alone, as a line that `semel run --input` reads: correct it
and send it again. Of an undeliverable letter it prints the outgoing message, as a line that
`semel run --output` writes.

Examples:
  semel dead show 3f2a9c0d1e5b7a86
  semel dead show 3f2a9c0d1e5b7a86 --json > fixed.jsonl")]
    Show {
        /// As `semel dead list` gives it
        id: String,
        #[command(flatten)]
        store: StoreArgs,
    },
    /// Have messages handled again, with no attempts counted, or published again
    #[command(after_help = "\
Messages that are `rejected` or `exhausted` are parked and due at once; those that are
`undeliverable` go back to their place in the outbox. A running host takes them up, or the next
`semel run`. Letters of another cause can't be replayed.

A letter that is older than its plugin's retention is refused without --force. If the message was
put right since under another key, the record of that may have expired, and so may what the
consumers of the plugin's messages remember: it would take effect twice.

Examples:
  semel dead replay 3f2a9c0d1e5b7a86
  semel dead replay --plugin points --yes")]
    Replay {
        #[command(flatten)]
        selection: Selection,
        /// Also letters that are older than their plugin's retention
        #[arg(long)]
        force: bool,
    },
    /// Forget dead letters; later copies of the same messages are still dropped
    #[command(after_help = "\
Examples:
  semel dead drop 3f2a9c0d1e5b7a86
  semel dead drop --all --yes")]
    Drop(Selection),
}

/// Which letters to act on.
#[derive(Args, Debug)]
struct Selection {
    /// As `semel dead list` gives them
    #[arg(value_name = "ID", required_unless_present_any = ["plugin", "all"])]
    ids: Vec<String>,
    /// All of this plugin
    #[arg(long, value_name = "PLUGIN", conflicts_with_all = ["ids", "all"])]
    plugin: Option<String>,
    /// All there are
    #[arg(long, conflicts_with = "ids")]
    all: bool,
    /// Go ahead; without it, --plugin and --all only count
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    store: StoreArgs,
}

/// A letter in a listing.
#[derive(Serialize)]
struct LetterRow {
    id: String,
    plugin: String,
    cause: String,
    reason: String,
    key: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    destination: Option<String>,
    message_id: String,
    position: String,
    attempts: u32,
    dead_ms: u64,
}

impl From<&DeadLetter> for LetterRow {
    fn from(letter: &DeadLetter) -> Self {
        let outgoing = letter.outgoing.as_ref().map(|row| &row.outgoing);
        let key = match (&letter.record, outgoing) {
            (Some(record), _) => Some(record.key.as_bytes()),
            (None, Some(outgoing)) => outgoing.key.as_deref(),
            (None, None) => None,
        };
        let topic = letter.message.topic.to_string();
        let (topic, destination) = match outgoing {
            Some(_) => (None, Some(topic)),
            None => (Some(topic), None),
        };
        Self {
            id: letter.id.to_string(),
            plugin: letter.plugin.to_string(),
            cause: letter.cause.to_string(),
            reason: letter.reason.clone(),
            key: key.map(output::text_or_base64),
            topic,
            destination,
            message_id: letter.message.id.clone(),
            position: letter.position.to_string(),
            attempts: letter.attempts,
            dead_ms: letter.dead_ms,
        }
    }
}

impl Row for LetterRow {
    const COLUMNS: &'static [&'static str] = &["id", "plugin", "cause", "key", "since", "reason"];

    fn cells(&self) -> Vec<String> {
        let key = self.key.as_ref().map_or("-", |key| key.get());
        let reason = match &self.destination {
            Some(destination) => format!("{destination}: {}", self.reason),
            None => self.reason.clone(),
        };
        vec![
            self.id.clone(),
            self.plugin.clone(),
            self.cause.clone(),
            key.trim_matches('"').to_owned(),
            output::time_text(self.dead_ms),
            reason,
        ]
    }
}

/// What a replay or a drop did.
#[derive(Serialize)]
struct Done {
    id: String,
    #[serde(flatten)]
    result: Outcome,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case", tag = "result")]
enum Outcome {
    Replayed,
    Dropped,
    Refused { reason: String },
}

impl Row for Done {
    const COLUMNS: &'static [&'static str] = &["id", "result"];

    fn cells(&self) -> Vec<String> {
        let result = match &self.result {
            Outcome::Replayed => "replayed: it is taken up again".to_owned(),
            Outcome::Dropped => "dropped".to_owned(),
            // The reason is too long for a table: it is on stderr.
            Outcome::Refused { .. } => "refused".to_owned(),
        };
        vec![self.id.clone(), result]
    }
}

/// What to do with each letter of a [`Selection`].
enum Action<'c> {
    /// If there are retentions, only what is younger.
    Replay(Option<Retentions<'c>>),
    Drop,
}

impl DeadArgs {
    /// Does what was asked.
    pub async fn execute(self) -> Result<()> {
        match self.command {
            DeadCommand::List { plugin, store } => list(plugin.as_deref(), &store).await,
            DeadCommand::Show { id, store } => show(&id, &store).await,
            DeadCommand::Replay { selection, force } => {
                let (config, store) = selection.store.open().await?;
                let retentions = (!force).then(|| Retentions::read(&config));
                selection.act(&Action::Replay(retentions), &*store).await
            }
            DeadCommand::Drop(selection) => {
                let (_, store) = selection.store.open().await?;
                selection.act(&Action::Drop, &*store).await
            }
        }
    }
}

async fn list(plugin: Option<&str>, args: &StoreArgs) -> Result<()> {
    let (_, store) = args.open().await?;
    let mut listing = Listing::new(args.json);
    let mut pages = Pages::new(plugin);
    while let Some(letters) = pages.next(&*store).await? {
        let rows: Vec<LetterRow> = letters.iter().map(LetterRow::from).collect();
        listing.page(&rows)?;
    }
    listing.finish("No dead letters.")
}

async fn show(id: &str, args: &StoreArgs) -> Result<()> {
    let (_, store) = args.open().await?;
    let letter = store.dead(&DeadLetterId::from_text(id)).await?;
    let letter = letter.ok_or_else(|| anyhow!(unknown(id)))?;
    if args.json {
        return output::print_json(&input_line::of_letter(&letter));
    }
    output::properties(&described(&letter))
}

fn described(letter: &DeadLetter) -> Vec<(&'static str, String)> {
    let message = &letter.message;
    let mut lines = vec![
        ("id", letter.id.to_string()),
        ("plugin", letter.plugin.to_string()),
        ("cause", letter.cause.to_string()),
        ("reason", letter.reason.clone()),
        ("dead since", output::time_text(letter.dead_ms)),
    ];
    if let Some(row) = &letter.outgoing {
        lines.extend(described_outgoing(row));
        return lines;
    }
    lines.extend([
        ("attempts", letter.attempts.to_string()),
        ("received at", letter.position.to_string()),
    ]);
    if let Some(record) = &letter.record {
        lines.push(("key", record.key.to_string()));
    }
    if letter.cause == Cause::Malformed {
        lines.push(("input", output::text_of_bytes(&message.body)));
        return lines;
    }
    lines.extend([
        ("topic", message.topic.to_string()),
        ("message id", message.id.clone()),
        ("sent", output::time_text(message.timestamp_ms)),
    ]);
    lines.extend(described_headers(&message.headers));
    lines.push(("body", output::text_of_bytes(&message.body)));
    if let Some(detail) = &letter.detail {
        lines.push(("detail", detail.clone()));
    }
    lines
}

fn described_outgoing(row: &OutboxRow) -> Vec<(&'static str, String)> {
    let outgoing = &row.outgoing;
    let mut lines = vec![
        ("destination", outgoing.destination.to_string()),
        ("message id", row.message_id.to_string()),
    ];
    if let Some(key) = &outgoing.key {
        lines.push(("key", output::text_of_bytes(key)));
    }
    if let Some(lane) = &row.lane {
        lines.push(("lane", lane.lane.to_string()));
    }
    if row.due_ms > 0 {
        lines.push(("due", output::time_text(row.due_ms)));
    }
    lines.extend(described_headers(&outgoing.headers));
    lines.push(("body", output::text_of_bytes(&outgoing.body)));
    lines
}

fn described_headers(headers: &[Header]) -> impl Iterator<Item = (&'static str, String)> {
    let headers = headers.iter();
    headers.map(|header| ("header", format!("{}: {}", header.name, header.value)))
}

fn unknown(id: &str) -> String {
    format!("no dead letter has the id `{id}`: `semel dead list` shows those there are")
}

impl Selection {
    async fn act(&self, action: &Action<'_>, store: &dyn Admin) -> Result<()> {
        if self.ids.is_empty() {
            self.act_on_all(action, store).await
        } else {
            self.act_on_ids(action, store).await
        }
    }

    async fn act_on_ids(&self, action: &Action<'_>, store: &dyn Admin) -> Result<()> {
        let mut listing = Listing::new(self.store.json);
        let mut refused = 0;
        for id in &self.ids {
            let id = DeadLetterId::from_text(id);
            let result = match store.dead(&id).await? {
                Some(letter) => action.apply(&letter, store).await?,
                None => Outcome::Refused {
                    reason: unknown(id.as_str()),
                },
            };
            if let Outcome::Refused { reason } = &result {
                refused += 1;
                eprintln!("{id}: {reason}");
            }
            listing.page(&[Done {
                id: id.to_string(),
                result,
            }])?;
        }
        listing.finish("")?;
        if refused > 0 {
            bail!("{refused} of {} refused", self.ids.len());
        }
        Ok(())
    }

    async fn act_on_all(&self, action: &Action<'_>, store: &dyn Admin) -> Result<()> {
        let mut pages = Pages::new(self.plugin.as_deref());
        let mut listing = Listing::new(self.store.json);
        let (mut concerned, mut left, mut old) = (0, 0, 0);
        while let Some(letters) = pages.next(store).await? {
            let (letters, others): (Vec<_>, Vec<_>) = letters
                .into_iter()
                .partition(|letter| action.applies_to(letter));
            left += others.len();
            let (refused, letters): (Vec<_>, Vec<_>) = letters
                .into_iter()
                .partition(|letter| action.too_old(letter).is_some());
            old += refused.len();
            concerned += letters.len();
            if !self.yes {
                continue;
            }
            let mut rows = Vec::with_capacity(letters.len());
            for letter in &letters {
                rows.push(Done {
                    id: letter.id.to_string(),
                    result: action.apply(letter, store).await?,
                });
            }
            listing.page(&rows)?;
        }
        if left > 0 {
            eprintln!(
                "not replayed, as they end no record that could be taken up again: {left}; {}",
                way_out("ID")
            );
        }
        let verb = action.verb();
        if !self.yes && concerned > 0 {
            bail!("{concerned} to {verb}: add --yes to go ahead");
        }
        listing.finish(&format!("No dead letters to {verb}."))?;
        if old > 0 {
            bail!(
                "refused, as they are older than their plugin's retention: {old}; `semel dead replay --help` says why, and --force replays them all the same"
            );
        }
        Ok(())
    }
}

impl Action<'_> {
    fn verb(&self) -> &'static str {
        match self {
            Self::Replay(_) => "replay",
            Self::Drop => "drop",
        }
    }

    fn applies_to(&self, letter: &DeadLetter) -> bool {
        match self {
            Self::Replay(_) => letter.cause.has_record() || letter.outgoing.is_some(),
            Self::Drop => true,
        }
    }

    /// Why a letter is too old, if it is.
    fn too_old(&self, letter: &DeadLetter) -> Option<String> {
        let Self::Replay(Some(retentions)) = self else {
            return None;
        };
        let retention = retentions.of(&letter.plugin);
        let age = Duration::from_millis(SystemClock.now_ms().saturating_sub(letter.dead_ms));
        (age > retention).then(|| {
            format!(
                "it was given up on {}, longer ago than the plugin `{}` remembers what it has handled ({}): if the message was put right since under another key, nobody need know of that any more, and it would take effect twice. --force replays it all the same",
                output::time_text(letter.dead_ms),
                letter.plugin,
                duration_text(retention),
            )
        })
    }

    async fn apply(&self, letter: &DeadLetter, store: &dyn Admin) -> Result<Outcome> {
        if !self.applies_to(letter) {
            return Ok(Outcome::Refused {
                reason: format!(
                    "it is {} ({}) and ends no record that could be taken up again; {}",
                    letter.cause,
                    letter.reason,
                    way_out(letter.id.as_str())
                ),
            });
        }
        if let Some(reason) = self.too_old(letter) {
            return Ok(Outcome::Refused { reason });
        }
        let (done, outcome) = match self {
            Self::Replay(_) => (
                store.replay(&letter.id, SystemClock.now_ms()).await?,
                Outcome::Replayed,
            ),
            Self::Drop => (store.drop_dead(&letter.id).await?, Outcome::Dropped),
        };
        Ok(if done {
            outcome
        } else {
            Outcome::Refused {
                reason: "someone else was faster: it is no longer there".to_owned(),
            }
        })
    }
}

fn way_out(id: &str) -> String {
    format!(
        "`semel dead show {id} --json > fixed.jsonl` writes the message as an input line: correct it, then `semel run --input fixed.jsonl`"
    )
}

/// Dead letters, a page at a time.
struct Pages {
    plugin: Option<PluginName>,
    after: Option<DeadLetterId>,
}

impl Pages {
    fn new(plugin: Option<&str>) -> Self {
        Self {
            plugin: plugin.map(PluginName::new),
            after: None,
        }
    }

    async fn next(&mut self, store: &dyn Admin) -> Result<Option<Vec<DeadLetter>>> {
        let letters = store
            .list_dead(self.plugin.as_ref(), self.after.as_ref(), PAGE)
            .await?;
        let Some(last) = letters.last() else {
            return Ok(None);
        };
        self.after = Some(last.id.clone());
        Ok(Some(letters))
    }
}

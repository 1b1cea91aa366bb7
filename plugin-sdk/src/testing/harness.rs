//! The host's stand-in.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::run::{Answers, Run, Shared};
use super::{Incoming, Outcome, key};
use crate::{Context, Handler, Level, Message, Result, SqlRows, SqlValue, Staged};

/// Runs one handler natively: see [the module](crate::testing).
pub struct Harness {
    handle: fn(&mut Context) -> Result<Option<Vec<u8>>>,
    manifest: Manifest,
    config: HashMap<String, String>,
    destinations: Option<BTreeSet<String>>,
    rows: Option<Answers>,
    max_effects: usize,
    state: BTreeMap<String, Vec<u8>>,
    published: Vec<Published>,
    statements: Vec<Staged>,
    log: Vec<LogLine>,
    records: HashMap<Vec<u8>, Record>,
    /// The version last applied of each entity.
    versions: HashMap<String, u64>,
    /// Keys of parked messages, in the order of their arrival.
    parked: Vec<Vec<u8>>,
    received: u64,
}

/// A message that the handler published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// The id that [`Context::send`] gave.
    pub id: String,
    /// The destination's name.
    pub destination: String,
    /// The record key.
    pub key: Option<Vec<u8>>,
    /// Headers, in order.
    pub headers: Vec<(String, String)>,
    /// The payload.
    pub body: Vec<u8>,
    /// The delay that was asked for.
    pub delay: Option<Duration>,
}

/// A line that the handler logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// How much it matters.
    pub level: Level,
    /// What it says.
    pub text: String,
}

/// The part of the manifest that decides which messages are one.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Manifest {
    name: String,
    topics: Option<Vec<String>>,
    key: Option<String>,
    order_by: Option<String>,
    version: Option<String>,
    entity: Option<String>,
    gap: Option<String>,
    first_version: Option<u64>,
}

/// What the harness remembers of a key.
#[derive(Debug)]
struct Record {
    /// The message that came first.
    message: Message,
    revision: Option<Revision>,
    /// Whether it waits for the versions before it.
    waits: bool,
    /// What its run replied.
    reply: Option<Vec<u8>>,
}

/// A message's entity and its version.
#[derive(Clone, Debug)]
struct Revision {
    entity: String,
    number: u64,
}

/// Whether a message may be handled.
enum Turn {
    Now,
    Stale,
    /// This version comes first.
    Early(u64),
}

impl Harness {
    /// A host with this handler, an empty state, and every destination granted.
    ///
    /// # Panics
    /// If the handler's manifest is not one that [`macro@crate::handler`] wrote.
    pub fn new<H: Handler>() -> Self {
        Self {
            handle: H::handle,
            manifest: serde_json::from_str(H::MANIFEST).expect("the attribute writes a manifest"),
            config: HashMap::new(),
            destinations: None,
            rows: None,
            max_effects: usize::MAX,
            state: BTreeMap::new(),
            published: Vec::new(),
            statements: Vec::new(),
            log: Vec::new(),
            records: HashMap::new(),
            versions: HashMap::new(),
            parked: Vec::new(),
            received: 0,
        }
    }

    /// Configures a value.
    pub fn with_config(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.config.insert(name.into(), value.into());
        self
    }

    /// Puts a value into the state, as JSON.
    ///
    /// # Panics
    /// If the value has no JSON form.
    pub fn with_state(
        mut self,
        name: impl Into<String>,
        value: &(impl Serialize + ?Sized),
    ) -> Self {
        let bytes = serde_json::to_vec(value).expect("a test's state has a JSON form");
        self.state.insert(name.into(), bytes);
        self
    }

    /// Grants these destinations and no others.
    pub fn with_destinations<D: Into<String>>(
        mut self,
        destinations: impl IntoIterator<Item = D>,
    ) -> Self {
        self.destinations = Some(destinations.into_iter().map(Into::into).collect());
        self
    }

    /// Answers queries in place of a database: the text and its parameters make the rows.
    pub fn with_rows(mut self, answer: impl Fn(&str, &[SqlValue]) -> SqlRows + 'static) -> Self {
        self.rows = Some(Rc::new(answer));
        self
    }

    /// Refuses a run's effects (state writes, outgoing messages and statements) beyond this many. Without
    /// it there is no limit.
    pub fn with_max_effects(mut self, max_effects: usize) -> Self {
        self.max_effects = max_effects;
        self
    }

    /// Delivers a value as JSON to the handler's first topic.
    ///
    /// # Panics
    /// If the value has no JSON form, or the handler panics.
    pub fn deliver(&mut self, body: &(impl Serialize + ?Sized)) -> Outcome {
        self.deliver_message(Incoming::json(body))
    }

    /// Delivers a message.
    ///
    /// # Panics
    /// If the handler panics.
    pub fn deliver_message(&mut self, incoming: Incoming) -> Outcome {
        self.received += 1;
        let (message, revision) = match self.admit(incoming) {
            Ok(admitted) => admitted,
            Err(reason) => return Outcome::Refused { reason },
        };
        match self.records.get(&message.key) {
            None => self.decide(message, revision, true),
            Some(record) if record.message.body == message.body => Outcome::Duplicate {
                reply: record.reply.clone(),
            },
            Some(_) => Outcome::Refused {
                reason: format!(
                    "the key `{}` was seen before with another body",
                    message.key.escape_ascii()
                ),
            },
        }
    }

    /// Delivers messages in the host's input format, JSON Lines: see
    /// [`Incoming::from_json_line`].
    ///
    /// # Panics
    /// If a line holds no message, or the handler panics.
    pub fn deliver_lines(&mut self, lines: &str) -> Vec<Outcome> {
        let deliver = |(number, line)| match Incoming::from_json_line(line) {
            Ok(incoming) => self.deliver_message(incoming),
            Err(error) => panic!("line {}: {error}", number + 1),
        };
        lines.lines().enumerate().map(deliver).collect()
    }

    /// Runs every parked message again, however long it asked to wait. Those that wait for the
    /// versions before them have waited long enough, and go in the order of their versions.
    ///
    /// # Panics
    /// If the handler panics.
    pub fn retry_parked(&mut self) -> Vec<Outcome> {
        let parked = std::mem::take(&mut self.parked);
        let mut records: Vec<Record> = parked
            .iter()
            .filter_map(|key| self.records.remove(key))
            .collect();
        records.sort_by_key(|record| record.revision.as_ref().map(|revision| revision.number));
        let again = |mut record: Record| {
            record.message.attempt += u32::from(!record.waits);
            self.decide(record.message, record.revision, false)
        };
        records.into_iter().map(again).collect()
    }

    /// The value under a name of the state, if there is one.
    ///
    /// # Panics
    /// If the stored value is not the JSON of a `T`.
    pub fn state<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        let bytes = self.state.get(name)?;
        match serde_json::from_slice(bytes) {
            Ok(value) => Some(value),
            Err(error) => panic!(
                "the state value `{name}` is `{}`: {error}",
                bytes.escape_ascii()
            ),
        }
    }

    /// The bytes under a name of the state, if there are any.
    pub fn state_bytes(&self, name: &str) -> Option<&[u8]> {
        self.state.get(name).map(Vec::as_slice)
    }

    /// The names in the state, in order.
    pub fn state_names(&self) -> impl Iterator<Item = &str> {
        self.state.keys().map(String::as_str)
    }

    /// All messages that were published, in order.
    pub fn published(&self) -> &[Published] {
        &self.published
    }

    /// All statements that were staged by runs that were applied, in order. The harness has no
    /// tables, so it takes each of them for carried out.
    pub fn statements(&self) -> &[Staged] {
        &self.statements
    }

    /// All lines that were logged, also by runs that failed.
    pub fn log(&self) -> &[LogLine] {
        &self.log
    }

    /// The message as the handler will see it, or why it never will.
    fn admit(&self, incoming: Incoming) -> Result<(Message, Option<Revision>), String> {
        let topics = self.manifest.topics.as_deref().unwrap_or_default();
        let topic = match (&incoming.topic, topics) {
            (Some(topic), []) => topic,
            (None, [first, ..]) => first,
            (Some(topic), topics) if topics.contains(topic) => topic,
            (Some(topic), _) => {
                return Err(format!(
                    "the handler has no topic `{topic}`, its are {topics:?}"
                ));
            }
            (None, []) => return Err("neither the message nor the handler has a topic".into()),
        };
        let id = incoming.id.clone();
        let id = id.unwrap_or_else(|| format!("message-{}", self.received));
        let expression = self.manifest.key.as_deref().unwrap_or("id");
        let key = key::evaluate(expression, &incoming, &id)?.into_bytes();
        if let Some(expression) = &self.manifest.order_by {
            key::evaluate(expression, &incoming, &id)?;
        }
        let revision = match (&self.manifest.entity, &self.manifest.version) {
            (Some(entity), Some(version)) => Some(Revision {
                entity: key::evaluate(entity, &incoming, &id)?,
                number: key::evaluate_version(version, &incoming, &id)?,
            }),
            _ => None,
        };
        let message = Message {
            id,
            key,
            topic: topic.clone(),
            headers: incoming.headers,
            body: incoming.body,
            timestamp_ms: incoming.timestamp_ms,
            attempt: incoming.attempt,
        };
        Ok((message, revision))
    }

    /// Runs the handler if it is the message's turn. `patient` messages wait for the versions
    /// before them.
    fn decide(&mut self, message: Message, revision: Option<Revision>, patient: bool) -> Outcome {
        let turn = revision
            .as_ref()
            .map_or(Turn::Now, |revision| self.turn(revision, patient));
        let (outcome, reply) = match turn {
            Turn::Now => self.run(&message),
            Turn::Stale => (Outcome::Stale, None),
            Turn::Early(next) => {
                let reason = format!("waits for version {next}");
                let after = None;
                (Outcome::Parked { reason, after }, None)
            }
        };
        if outcome.is_parked() {
            self.parked.push(message.key.clone());
        }
        if let (true, Some(revision)) = (outcome.is_applied(), &revision) {
            self.versions
                .insert(revision.entity.clone(), revision.number);
        }
        let record = Record {
            revision,
            waits: matches!(turn, Turn::Early(_)),
            reply,
            message,
        };
        self.records.insert(record.message.key.clone(), record);
        outcome
    }

    fn turn(&self, revision: &Revision, patient: bool) -> Turn {
        let last = self.versions.get(&revision.entity).copied();
        if last.is_some_and(|last| revision.number <= last) {
            return Turn::Stale;
        }
        let next = last.map(|last| last + 1).or(self.manifest.first_version);
        let waits = patient && self.manifest.gap.as_deref() == Some("wait");
        match next {
            Some(next) if waits && revision.number > next => Turn::Early(next),
            _ => Turn::Now,
        }
    }

    /// Runs the handler, and keeps its effects if it succeeds. Gives the reply as well.
    fn run(&mut self, message: &Message) -> (Outcome, Option<Vec<u8>>) {
        let run = Rc::new(RefCell::new(Run {
            record: format!("{}/{}", self.manifest.name, message.key.escape_ascii()),
            state: self.state.clone(),
            config: self.config.clone(),
            destinations: self.destinations.clone(),
            rows: self.rows.clone(),
            effects_left: self.max_effects,
            ..Run::default()
        }));
        let backend = Box::new(Shared(Rc::clone(&run)));
        let mut context = Context::new(message.clone(), backend);
        let returned = (self.handle)(&mut context);

        let mut run = run.take();
        self.log.append(&mut run.log);
        let returned = returned.map_err(|error| match error.is_retry() {
            true => Outcome::Parked {
                reason: error.reason().to_owned(),
                after: error.delay(),
            },
            false => Outcome::Rejected {
                reason: error.reason().to_owned(),
            },
        });
        let returned = match (returned, run.not_a_counter) {
            (Ok(_), Some(name)) => Err(Outcome::Rejected {
                reason: format!("the state value `{name}` is not a 64-bit decimal counter"),
            }),
            (returned, _) => returned,
        };
        match returned {
            Ok(reply) => {
                self.state = run.state;
                self.published.append(&mut run.published);
                self.statements.append(&mut run.statements);
                let outcome = Outcome::Applied {
                    reply: reply.clone(),
                };
                (outcome, reply)
            }
            Err(outcome) => (outcome, None),
        }
    }
}

impl fmt::Debug for Harness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Harness")
            .field("manifest", &self.manifest)
            .field("state", &self.state)
            .field("published", &self.published)
            .finish_non_exhaustive()
    }
}

impl Published {
    /// The payload, read as JSON.
    ///
    /// # Panics
    /// If it is not the JSON of a `T`.
    pub fn json<T: DeserializeOwned>(&self) -> T {
        match serde_json::from_slice(&self.body) {
            Ok(value) => value,
            Err(error) => panic!(
                "the message to `{}` is `{}`: {error}",
                self.destination,
                self.body.escape_ascii()
            ),
        }
    }
}

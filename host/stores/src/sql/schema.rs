//! The tables, and how they come to be.
//!
//! Names begin with the prefix of the store. Keys are bytes and compared as such. A key of two
//! parts is one column, the first part with its length before it.
//!
//! | table | key | content |
//! |---|---|---|
//! | `schema` | | how many steps of the schema are done |
//! | `sequence` | | the last version given out and the store's time; the lock of all commits |
//! | `horizon` | plugin | done records and checks before this time do not count |
//! | `record` | plugin and business key | done, parked or dead, by which run |
//! | `parked` | plugin and business key | the row of a parked record; by lane and offset, by due time |
//! | `state` | namespace and name | version and value |
//! | `outbox` | version, ordinal | outgoing messages; by lane |
//! | `dead` | id | dead letters; by plugin |
//! | `fence` | plugin and run | runs that must not be committed any more |
//!
//! A lane is a hash of plugin, partition and lane (in `outbox`: plugin and lane): all three
//! together may be longer than an index takes.

use std::time::{Duration, Instant};

use semel_core::{LanePosition, OutboxLane, PluginName, RecordId, RunId, StateKey, StoreError};

use super::answer::{Cells, take};
use super::server::{Conversation, Failure, Server};
use super::text::Words;
use crate::codec::CompositeKey;

/// How long a host waits for another that migrates.
const PATIENCE: Duration = Duration::from_secs(60);

/// A hash that stands for a lane.
pub(super) type LaneId = [u8; 16];

/// Of parked rows.
pub(super) fn lane_id(plugin: &PluginName, at: &LanePosition) -> LaneId {
    let key = CompositeKey::new(plugin.as_str().as_bytes())
        .part(at.partition.as_str().as_bytes())
        .last(at.lane.as_bytes());
    hash(&key)
}

/// Of outgoing messages.
pub(super) fn outbox_lane_id(lane: &OutboxLane) -> LaneId {
    hash(&CompositeKey::new(lane.plugin.as_str().as_bytes()).last(lane.lane.as_bytes()))
}

fn hash(key: &CompositeKey) -> LaneId {
    let mut id = [0; 16];
    id.copy_from_slice(&blake3::hash(key.as_bytes()).as_bytes()[..16]);
    id
}

/// The id of a record, and of its parked row.
pub(super) fn record_id(id: &RecordId) -> Vec<u8> {
    let key = CompositeKey::new(id.plugin.as_str().as_bytes());
    key.last(id.key.as_bytes()).into_bytes()
}

/// The id of a state value.
pub(super) fn state_id(key: &StateKey) -> Vec<u8> {
    let id = CompositeKey::new(key.namespace.as_bytes());
    id.last(key.name.as_bytes()).into_bytes()
}

/// The id of a fence.
pub(super) fn fence_id(plugin: &PluginName, run: RunId) -> Vec<u8> {
    let id = CompositeKey::new(plugin.as_str().as_bytes());
    id.last(run.as_bytes()).into_bytes()
}

/// The names of a store's tables.
#[derive(Clone, Debug)]
pub(super) struct Tables {
    pub(super) prefix: String,
    pub(super) schema: String,
    pub(super) sequence: String,
    pub(super) horizon: String,
    pub(super) record: String,
    pub(super) parked: String,
    pub(super) state: String,
    pub(super) outbox: String,
    pub(super) dead: String,
    pub(super) fence: String,
}

impl Tables {
    /// All of them.
    pub(super) fn all(&self) -> [&str; 9] {
        [
            &self.schema,
            &self.sequence,
            &self.horizon,
            &self.record,
            &self.parked,
            &self.state,
            &self.outbox,
            &self.dead,
            &self.fence,
        ]
    }

    /// Whether a table of this name is the store's. Some servers take names in any case.
    pub(super) fn has(&self, name: &str) -> bool {
        self.all().iter().any(|own| own.eq_ignore_ascii_case(name))
    }

    pub(super) fn new(prefix: &str) -> Self {
        let table = |name: &str| format!("{prefix}_{name}");
        Self {
            prefix: prefix.to_owned(),
            schema: table("schema"),
            sequence: table("sequence"),
            horizon: table("horizon"),
            record: table("record"),
            parked: table("parked"),
            state: table("state"),
            outbox: table("outbox"),
            dead: table("dead"),
            fence: table("fence"),
        }
    }
}

/// How far the schema is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Progress {
    pub(super) done: usize,
    pub(super) known: usize,
}

/// How many steps of the schema are done. None where there is no schema.
pub(super) async fn progress(server: &Server, tables: &Tables) -> Result<Progress, StoreError> {
    let known = server.words().steps.len();
    // The name is ours: no wildcard of LIKE is in question here.
    let ask = format!(
        "SELECT COUNT(*) FROM information_schema.tables \
         WHERE table_name = '{}' AND table_schema = {}",
        tables.schema,
        if server.words().on_conflict {
            "current_schema()"
        } else {
            "DATABASE()"
        }
    );
    let mut sets = server.ask_text(ask).await?;
    let mut rows = take(&mut sets, 0);
    let count = rows.first_mut().map_or(Ok(0), Cells::number)?;
    if count == 0 {
        return Ok(Progress { done: 0, known });
    }
    let ask = format!("SELECT version FROM {}", tables.schema);
    let mut sets = server.ask_text(ask).await?;
    let mut rows = take(&mut sets, 0);
    let done = rows.first_mut().map_or(Ok(0), Cells::number)?;
    Ok(Progress {
        done: usize::try_from(done).unwrap_or(usize::MAX),
        known,
    })
}

/// Does the steps that are not done yet. Returns how many there were. Hosts that start at the
/// same time do it one after the other.
pub(super) async fn migrate(server: &Server, tables: &Tables) -> Result<usize, StoreError> {
    let mut conversation = server.converse().await.map_err(Failure::into_error)?;
    let steps = migrate_locked(server, &mut conversation, tables).await;
    let steps = steps.map_err(Failure::into_error)?;
    conversation.end();
    Ok(steps)
}

async fn migrate_locked(
    server: &Server,
    conversation: &mut Conversation<'_>,
    tables: &Tables,
) -> Result<usize, Failure> {
    let words: &Words = server.words();
    let until = Instant::now() + PATIENCE;
    while !try_lock(words, conversation).await? {
        if Instant::now() > until {
            return Err(Failure::Final(StoreError::Unavailable {
                reason: format!(
                    "another host migrates the store's tables, and has not ended within \
                     {PATIENCE:?}"
                ),
                source: None,
            }));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let done = progress(server, tables).await?.done;
    let mut steps = 0;
    for (at, step) in words.steps.iter().enumerate().skip(done) {
        // MySQL commits each definition by itself, so each can be repeated after a crash.
        for statement in *step {
            conversation
                .run(statement.replace("{p}", &tables.prefix))
                .await?;
        }
        let version = at + 1;
        let schema = &tables.schema;
        conversation
            .run(match at {
                0 => format!("INSERT INTO {schema} (version) VALUES ({version})"),
                _ => format!("UPDATE {schema} SET version = {version}"),
            })
            .await?;
        steps += 1;
    }
    let unlock = match words.on_conflict {
        true => "SELECT pg_advisory_unlock(5913120)::text",
        false => "SELECT RELEASE_LOCK('semel migrate')",
    };
    conversation.run(unlock.to_owned()).await?;
    Ok(steps)
}

async fn try_lock(words: &Words, conversation: &mut Conversation<'_>) -> Result<bool, Failure> {
    let lock = match words.on_conflict {
        true => "SELECT CASE WHEN pg_try_advisory_lock(5913120) THEN 1 ELSE 0 END",
        false => "SELECT GET_LOCK('semel migrate', 0)",
    };
    let mut sets = conversation.run(lock.to_owned()).await?;
    let mut rows = take(&mut sets, 0);
    let locked = rows.first_mut().map_or(Ok(None), Cells::number_or_null);
    Ok(locked? == Some(1))
}

//! The store in a MySQL, MariaDB or PostgreSQL database, shared by any number of hosts.
//!
//! # Why it is right
//!
//! A commit takes two round trips. The first begins a transaction, locks the one row of the
//! table `sequence` (`SELECT … FOR UPDATE`), and then looks up all that the batch is about. The
//! rules of the protocol are applied to that in memory ([`semel_core::decide`]). The second
//! writes, notes version and time in the locked row, and commits.
//!
//! Statements of plugins on tables beside the store's are carried out between the two round trips,
//! each run's behind a savepoint, so that one that misses takes back its own and no other's. A table
//! that the server could not take back is not changed at all (`server/targets.rs`).
//!
//! Everything else that decides by what is stored (fences, expiry, replays, refusals) takes the
//! same lock first. So they happen one after the other, and under READ COMMITTED, where each
//! statement sees what was committed before it began, a holder sees all that earlier holders
//! wrote and nobody writes beside it: not to rows that it read, and not to rows that it did
//! *not find*, which row locks alone would leave to others. Nobody holds one row and waits for
//! the next, so hosts can't deadlock each other; where an operator's own transaction gets in the
//! way, the server picks one to roll back, and a commit that was picked is tried again as a
//! whole. Versions and the store's time ascend in the order of the commits.
//!
//! Other ways were weighed: a lock for each record, state value and lane needs placeholder rows
//! for what is absent, and hundreds of locks for a batch; advisory locks by hash are
//! PostgreSQL's alone within a transaction; SERIALIZABLE aborts batches for false conflicts and
//! differs between the servers. The price is that hosts on one store commit one after the other.
//! A batch grows with the wait, so it is paid in latency first. Stores with different prefixes
//! do not wait for each other.
//!
//! The primary keys are the last line of defence: a record that was not there is inserted and
//! nothing else, so if it is there after all, the server refuses the transaction.
//!
//! # Time
//!
//! A done record bears the store's time, which every commit moves on to the server's clock and
//! never back. A check answers with the time of the last commit, read before the records. A
//! commit that the check did not see comes later, so its records are not older than the check,
//! which is what rule 18 needs; clocks are only used to forget.

mod access;
mod address;
mod admin;
mod answer;
mod book;
mod client;
mod expiry;
mod mysql;
mod open;
mod outbox;
mod postgres;
mod questions;
mod rows;
mod schema;
mod server;
mod survey;
mod text;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use semel_core::crash::{CrashPoint, crash_point};
use semel_core::decide::Decision;
use semel_core::{
    CheckQuery, Checked, DeadLetter, Finding, Fingerprint, OutboxRow, OutboxScan, Outcome,
    ParkedRow, PluginName, RecordId, RecordState, RowId, Run, RunId, SqlAccess, SqlGrants,
    StateKey, Store, StoreError, Version, Versioned,
};

use self::access::Access;
use self::answer::{Cells, take, unexpected};
use self::book::{DEAD, DONE, Facts, PARKED};
use self::questions::Questions;
use self::rows::insert_letters;
use self::schema::{Tables, lane_id, record_id, state_id};
use self::server::{Failure, Patience, Server, Target};
use self::text::{limit, signed};
use crate::OpenError;

/// A store in a MySQL, MariaDB or PostgreSQL database.
#[derive(Debug)]
pub struct SqlStore {
    kind: address::Kind,
    server: Server,
    /// For queries of plugins, which must not keep commits from a connection.
    reader: Arc<Server>,
    tables: Tables,
}

impl SqlStore {
    /// Opens the store in the database at `mysql://USER:PASSWORD@HOST:PORT/DATABASE`, where
    /// `mariadb:` means the same, or at `postgres://USER:PASSWORD@HOST:PORT/DATABASE`. Settings
    /// may follow after a `?`, joined by `&`:
    ///
    /// - `prefix=NAME`: what the tables' names begin with, so that several stores may share a
    ///   database; `semel` if not given.
    /// - `pool=N`: connections at most, 2 to 100; 8 if not given. Queries of plugins have as many
    ///   again.
    /// - `tls=off|prefer|require|verify`: whether the connection is encrypted; `prefer` if not
    ///   given. `verify` also checks the server's certificate and name.
    /// - `ca=FILE`: the certificate authority to check with, in place of the well-known ones.
    /// - `migrate=never`: tables are not created or changed; [`migrate`](Self::migrate) is.
    pub async fn open(url: &str) -> Result<Self, OpenError> {
        open::open(url).await
    }

    /// Creates the store's tables, or brings them up to date. Returns how many steps that
    /// took; none if they were.
    pub async fn migrate(url: &str) -> Result<usize, OpenError> {
        open::migrate(url).await
    }

    /// Looks at the server and at what waits there. See [`examine`](crate::examine).
    pub(crate) async fn examine(url: &str, plugins: &[PluginName]) -> Vec<Finding> {
        open::examine(url, plugins).await
    }

    /// Looks at tables beside the store's. See [`examine_grants`](crate::examine_grants).
    pub(crate) async fn examine_grants(url: &str, grants: &SqlGrants) -> Vec<Finding> {
        open::examine_grants(url, grants).await
    }

    async fn try_commit(&self, runs: &[Run]) -> Result<Vec<Outcome>, Failure> {
        let words = self.server.words();
        let mut conversation = self.server.converse().await?;
        let mut script = self.server.script();
        let asked = Questions::ask(&mut script, words, &self.tables, runs);
        let mut sets = conversation.run_all(script).await?;
        let mut facts = Facts::new(&mut sets, &asked)?;
        let mut decision = Decision::default();
        for run in runs {
            let statements = run.statements();
            let outcome = match decision.judge(&mut facts, run)? {
                Some(outcome) => outcome,
                None if statements.is_empty() => decision.apply(&mut facts, run)?,
                None => match conversation.carry_out(statements).await? {
                    Some(miss) => Outcome::Missed(miss),
                    None => decision.apply(&mut facts, run)?,
                },
            };
            decision.note(run, outcome);
        }
        let outcomes = decision.into_outcomes();
        if !facts.has_changes() {
            conversation.run("ROLLBACK".to_owned()).await?;
            conversation.end();
            return Ok(outcomes);
        }
        let mut script = self.server.script();
        facts.write(&mut script, words, &self.tables);
        // All that is to be written is decided, and the lock is held.
        crash_point(CrashPoint::CommitWritten);
        conversation.commit(script).await?;
        Ok(outcomes)
    }

    /// Looks records up: the state of each that is there, by its key, with the horizon of each
    /// plugin before it. `extra` is asked in the same round trip.
    async fn look_up(
        &self,
        ids: &[&RecordId],
        extra: Option<String>,
    ) -> Result<LookUp, StoreError> {
        let words = self.server.words();
        let plugins: BTreeSet<_> = ids.iter().map(|id| &id.plugin).collect();
        let mut script = self.server.script();
        // The time first: what is committed after it is not older.
        let time = script.add(&format!(
            "SELECT bucket FROM {} WHERE id = 1",
            self.tables.sequence
        ));
        let horizons = script.add(&format!(
            "SELECT plugin, bucket FROM {} WHERE plugin IN {}",
            self.tables.horizon,
            words.list(plugins.iter().map(|plugin| plugin.as_str().as_bytes()))
        ));
        let records = script.add(&format!(
            "SELECT id, kind, run, fingerprint, bucket, parked, reply FROM {} WHERE {}",
            self.tables.record,
            words.id_in(ids.iter().map(|id| record_id(id)))
        ));
        let extra = extra.map(|extra| script.add(&extra));
        let mut sets = self.server.ask(script).await?;
        let mut found = LookUp::default();
        let time = take(&mut sets, time).first_mut().map(Cells::number);
        found.time_ms = time.ok_or_else(unexpected)??;
        for mut row in take(&mut sets, horizons) {
            found.horizons.insert(row.plugin()?, row.number()?);
        }
        for mut row in take(&mut sets, records) {
            let id = row.record()?;
            let state = record_state(&mut row, found.horizon(&id.plugin))?;
            found.states.insert(id, state);
        }
        if let Some(extra) = extra {
            found.extra = take(&mut sets, extra);
        }
        Ok(found)
    }
}

/// What [`SqlStore::look_up`] found.
#[derive(Default)]
struct LookUp {
    time_ms: u64,
    horizons: HashMap<PluginName, u64>,
    states: HashMap<RecordId, RecordState>,
    extra: Vec<Cells>,
}

impl LookUp {
    fn horizon(&self, plugin: &PluginName) -> u64 {
        self.horizons.get(plugin).copied().unwrap_or(0)
    }

    fn state(&self, id: &RecordId) -> RecordState {
        self.states.get(id).cloned().unwrap_or_default()
    }
}

/// From kind, run, fingerprint, bucket, parked and reply.
fn record_state(row: &mut Cells, horizon: u64) -> Result<RecordState, StoreError> {
    let kind = row.number()?;
    let (run, fingerprint) = (row.run()?, Fingerprint::from_bytes(row.id()?));
    let (bucket, parked) = (row.number_or_null()?, row.number_or_null()?);
    match (kind, bucket, parked) {
        (DONE, Some(bucket), _) if bucket < horizon => Ok(RecordState::Absent),
        (DONE, Some(_), _) => Ok(RecordState::Done {
            fingerprint,
            run,
            reply: row.bytes_or_null()?,
        }),
        (PARKED, _, Some(version)) => Ok(RecordState::Parked {
            fingerprint,
            version,
        }),
        (DEAD, _, _) => Ok(RecordState::Dead { fingerprint }),
        _ => Err(unexpected()),
    }
}

/// From version and content.
fn parked_row(row: &mut Cells) -> Result<ParkedRow, StoreError> {
    let version: Version = row.number()?;
    let parked: ParkedRow = row.decoded("parked row")?;
    Ok(ParkedRow { version, ..parked })
}

#[async_trait]
impl Store for SqlStore {
    async fn check(&self, queries: &[CheckQuery]) -> Result<Vec<Checked>, StoreError> {
        if queries.is_empty() {
            return Ok(Vec::new());
        }
        let words = self.server.words();
        let ids: Vec<_> = queries.iter().map(|query| &query.record).collect();
        let lane_of = |query: &CheckQuery| {
            let at = query.lane.as_ref()?;
            Some((lane_id(&query.record.plugin, at), at.offset))
        };
        let lanes: BTreeSet<_> = queries.iter().filter_map(lane_of).map(|at| at.0).collect();
        let lanes = (!lanes.is_empty()).then(|| {
            format!(
                "SELECT lane, MIN(pos) FROM {} WHERE lane IN {} GROUP BY lane",
                self.tables.parked,
                words.list(lanes.iter().map(|lane| &lane[..]))
            )
        });
        let mut found = self.server.inside(self.look_up(&ids, lanes)).await?;
        let mut first = HashMap::new();
        for mut row in std::mem::take(&mut found.extra) {
            first.insert(row.id()?, row.number()?);
        }
        let checked = queries.iter().map(|query| Checked {
            state: found.state(&query.record),
            behind: lane_of(query)
                .and_then(|(lane, offset)| first.get(&lane).map(|first| *first < offset))
                .unwrap_or(false),
            bucket: found.time_ms.max(found.horizon(&query.record.plugin)),
        });
        Ok(checked.collect())
    }

    async fn read(&self, keys: &[StateKey]) -> Result<Vec<Versioned>, StoreError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let words = self.server.words();
        let ask = self.server.ask_text(format!(
            "SELECT id, version, value FROM {} WHERE {}",
            self.tables.state,
            words.id_in(keys.iter().map(state_id))
        ));
        let mut sets = self.server.inside(ask).await?;
        let mut found = HashMap::new();
        for mut row in take(&mut sets, 0) {
            let id = row.bytes()?;
            let value = Versioned {
                version: row.number()?,
                value: Some(row.bytes()?),
            };
            found.insert(id, value);
        }
        let value_of = |key: &StateKey| found.get(&state_id(key)[..]).cloned().unwrap_or_default();
        Ok(keys.iter().map(value_of).collect())
    }

    async fn commit(&self, runs: &[Run]) -> Result<Vec<Outcome>, StoreError> {
        if runs.is_empty() {
            return Ok(Vec::new());
        }
        let commit = async {
            let mut patience = Patience::default();
            loop {
                match self.try_commit(runs).await {
                    Ok(outcomes) => return Ok(outcomes),
                    Err(failure) => patience.after(failure).await?,
                }
            }
        };
        self.server.inside(commit).await
    }

    async fn bury(&self, letters: &[DeadLetter]) -> Result<(), StoreError> {
        if letters.is_empty() {
            return Ok(());
        }
        let mut script = self.server.script();
        let leaving = self.server.words().or_leave("id");
        insert_letters(&mut script, &self.tables, &leaving, letters.iter());
        self.server.inside(self.server.ask(script)).await?;
        Ok(())
    }

    async fn due(
        &self,
        plugin: &PluginName,
        now_ms: u64,
        rows: usize,
    ) -> Result<Vec<ParkedRow>, StoreError> {
        let ask = self.server.ask_text(format!(
            "SELECT version, content FROM {} WHERE {} AND due <= {} ORDER BY due, id LIMIT {}",
            format_args!("{} AS p", self.tables.parked),
            self.is_head(plugin),
            signed(now_ms),
            limit(rows)
        ));
        let mut sets = self.server.inside(ask).await?;
        let mut rows = take(&mut sets, 0);
        rows.iter_mut().map(parked_row).collect()
    }

    async fn parked(&self, plugin: &PluginName) -> Result<(u64, Option<u64>), StoreError> {
        let mut script = self.server.script();
        let parked = &self.tables.parked;
        script.add(&format!(
            "SELECT COUNT(*) FROM {parked} WHERE plugin = {}",
            self.server.words().bytes(plugin.as_str().as_bytes())
        ));
        script.add(&format!(
            "SELECT MIN(due) FROM {parked} AS p WHERE {}",
            self.is_head(plugin)
        ));
        let mut sets = self.server.inside(self.server.ask(script)).await?;
        let count = take(&mut sets, 0).first_mut().map(Cells::number);
        let first = take(&mut sets, 1).first_mut().map(Cells::number_or_null);
        Ok((count.ok_or_else(unexpected)??, first.transpose()?.flatten()))
    }

    async fn outbox(&self, scan: &OutboxScan) -> Result<Vec<OutboxRow>, StoreError> {
        self.server.inside(self.scan_outbox(scan)).await
    }

    async fn confirm(&self, rows: &[RowId]) -> Result<(), StoreError> {
        self.server.inside(self.confirm_outgoing(rows)).await
    }

    async fn refuse(&self, letters: &[DeadLetter]) -> Result<(), StoreError> {
        self.server.inside(self.refuse_outgoing(letters)).await
    }

    async fn outbox_len(&self) -> Result<u64, StoreError> {
        let ask = format!("SELECT COUNT(*) FROM {}", self.tables.outbox);
        let mut sets = self.server.inside(self.server.ask_text(ask)).await?;
        let count = take(&mut sets, 0).first_mut().map(Cells::number);
        count.ok_or_else(unexpected)?
    }

    async fn fence(&self, record: &RecordId, run: RunId) -> Result<bool, StoreError> {
        self.server.inside(self.fence_run(record, run)).await
    }

    async fn sql(&self, grants: &SqlGrants) -> Result<Arc<dyn SqlAccess>, StoreError> {
        let reader = Arc::clone(&self.reader);
        let access = Access::new(grants.clone(), self.kind, &self.tables, reader)?;
        for (_, changes, target) in access.survey().await? {
            match target {
                Target::Unfit(reason) if changes => return Err(StoreError::failed(reason)),
                // It may be made while the host runs, and is looked at before it is changed.
                Target::Absent(reason) => tracing::warn!("{reason}"),
                Target::Fit | Target::Unfit(_) => {}
            }
        }
        Ok(Arc::new(access))
    }

    async fn expire(
        &self,
        plugin: &PluginName,
        retention: Duration,
        now_ms: u64,
    ) -> Result<u64, StoreError> {
        self.server
            .inside(self.expire_records(plugin, retention, now_ms))
            .await
    }
}

impl SqlStore {
    /// A condition on `p`: a plugin's parked rows that wait for nothing but their time.
    fn is_head(&self, plugin: &PluginName) -> String {
        format!(
            "p.plugin = {} AND NOT EXISTS (SELECT 1 FROM {} AS q WHERE q.lane = p.lane AND \
             q.pos < p.pos)",
            self.server.words().bytes(plugin.as_str().as_bytes()),
            self.tables.parked
        )
    }
}

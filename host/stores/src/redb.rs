//! The embedded store: one file, no server, every commit synced to disk.

mod buckets;
mod fences;
mod ledger;
mod outbox;
mod parked;
mod reader;
mod survey;
mod tables;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable};
use semel_core::{
    Admin, CheckQuery, Checked, Clock, DeadLetter, DeadLetterId, Finding, OutboxRow, OutboxScan,
    Outcome, ParkedRow, PluginName, RecordId, RecordState, RowId, Run, RunId, StateEntry, StateKey,
    Store, StoreError, StoreStats, SystemClock, Versioned,
};

use self::buckets::AllBuckets;
use self::reader::Reader;
use self::writer::{Writer, load_buckets, read_buckets};
use crate::OpenError;
use crate::codec::CodecError;

/// The file in its directory.
const FILE: &str = "semel.redb";

/// How the file is laid out.
const FORMAT: u64 = 1;

/// How much of the file is kept in memory.
const CACHE_BYTES: usize = 256 << 20;

/// A store in a directory of this machine. One process at a time can have it open.
pub struct RedbStore {
    // Stopped before the database is closed.
    writer: Writer,
    database: Arc<Database>,
    time: Arc<Time>,
    buckets: Arc<RwLock<Arc<AllBuckets>>>,
    path: PathBuf,
}

impl RedbStore {
    /// Opens the store in this directory, which is made if it is missing.
    pub fn open(directory: &Path) -> Result<Self, OpenError> {
        Self::open_with_clock(directory, Arc::new(SystemClock))
    }

    /// Opens the store in this directory, on another clock.
    pub fn open_with_clock(directory: &Path, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        let path = directory.join(FILE);
        let refused = |reason: String| OpenError::Refused {
            store: format!("the redb store {}", path.display()),
            reason,
        };
        std::fs::create_dir_all(directory).map_err(|error| {
            refused(format!(
                "its directory can't be made ({error}): give another one, as in `redb:./semel-data`"
            ))
        })?;
        let database = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create(&path)
            .map_err(|error| {
                refused(match error {
                    DatabaseError::DatabaseAlreadyOpen => {
                        "another process has it open: stop that one first, or give another \
                         directory"
                            .to_owned()
                    }
                    error => format!("it can't be opened: {error}"),
                })
            })?;
        let database = Arc::new(database);
        prepare(&database).map_err(|error| refused(error.to_string()))?;
        Self::start(database, path.clone(), clock).map_err(|error| refused(error.to_string()))
    }

    /// Looks at the directory and at what waits there. See [`examine`](crate::examine).
    pub(crate) fn examine(directory: &Path, plugins: &[PluginName]) -> Vec<Finding> {
        survey::examine(directory, plugins)
    }

    fn start(
        database: Arc<Database>,
        path: PathBuf,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, Broken> {
        let time = Arc::new(Time {
            clock,
            latest_ms: AtomicU64::new(0),
        });
        let buckets = Arc::new(RwLock::new(Arc::new(load_buckets(&database)?)));
        let writer = Writer::start(
            Arc::clone(&database),
            Arc::clone(&time),
            Arc::clone(&buckets),
        )?;
        Ok(Self {
            writer,
            database,
            time,
            buckets,
            path,
        })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Look-ups take microseconds, as a rule from memory, so they are made where they are
    /// asked for.
    fn look<T>(&self, up: impl FnOnce(&Reader<'_>) -> Result<T, Broken>) -> Result<T, StoreError> {
        let transaction = self.database.begin_read().map_err(Broken::from)?;
        let buckets = read_buckets(&self.buckets);
        let reader = Reader {
            transaction,
            buckets: &buckets,
        };
        Ok(up(&reader)?)
    }
}

impl std::fmt::Debug for RedbStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedbStore")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// Makes all tables and checks the format.
fn prepare(database: &Database) -> Result<(), Broken> {
    let transaction = database.begin_write()?;
    {
        let mut meta = transaction.open_table(tables::META)?;
        let format = meta.get("format")?.map(|format| format.value());
        match format {
            None => {
                meta.insert("format", FORMAT)?;
            }
            Some(FORMAT) => {}
            Some(other) => return Err(Broken::Format(other)),
        }
        transaction.open_table(tables::HORIZONS)?;
        transaction.open_table(tables::BUCKETS)?;
        transaction.open_table(tables::STATE)?;
        transaction.open_table(tables::RECORDS)?;
        transaction.open_table(tables::PARKED)?;
        transaction.open_table(tables::PARKED_COUNTS)?;
        transaction.open_table(tables::LANES)?;
        transaction.open_table(tables::DUE)?;
        transaction.open_table(tables::DEAD)?;
        transaction.open_table(tables::OUTBOX)?;
        transaction.open_table(tables::OUTBOX_LANES)?;
        transaction.open_table(tables::FENCES)?;
    }
    transaction.commit()?;
    Ok(())
}

/// A clock that never goes back while the process runs.
struct Time {
    clock: Arc<dyn Clock>,
    latest_ms: AtomicU64,
}

impl Time {
    fn now_ms(&self) -> u64 {
        let now_ms = self.clock.now_ms();
        self.latest_ms
            .fetch_max(now_ms, Ordering::SeqCst)
            .max(now_ms)
    }
}

/// Why the file does not serve.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error(transparent)]
    Redb(#[from] redb::Error),
    #[error(transparent)]
    Codec(#[from] CodecError),
    #[error("its writer thread can't be started: {0}")]
    Thread(std::io::Error),
    #[error(
        "it has the format {0}, this semel knows {FORMAT}: use the semel that wrote it, or give \
         another directory"
    )]
    Format(u64),
}

macro_rules! broken_from {
    ($($error:ident),*) => {$(
        impl From<redb::$error> for Broken {
            fn from(error: redb::$error) -> Self {
                Self::Redb(error.into())
            }
        }
    )*};
}

broken_from!(
    StorageError,
    TableError,
    TransactionError,
    CommitError,
    SetDurabilityError
);

impl From<Broken> for StoreError {
    fn from(broken: Broken) -> Self {
        Self::Failed {
            reason: format!("redb: {broken}"),
            source: Some(Arc::new(broken)),
        }
    }
}

#[async_trait]
impl Store for RedbStore {
    async fn check(&self, queries: &[CheckQuery]) -> Result<Vec<Checked>, StoreError> {
        let now_ms = self.time.now_ms();
        self.look(|reader| reader.check(queries, now_ms))
    }

    async fn read(&self, keys: &[StateKey]) -> Result<Vec<Versioned>, StoreError> {
        self.look(|reader| reader.read(keys))
    }

    async fn commit(&self, runs: &[Run]) -> Result<Vec<Outcome>, StoreError> {
        let runs = runs.to_vec();
        self.writer
            .write(runs.len(), move |ledger| ledger.commit(&runs))
            .await
    }

    async fn bury(&self, letters: &[DeadLetter]) -> Result<(), StoreError> {
        let letters = letters.to_vec();
        self.writer
            .write(letters.len(), move |ledger| ledger.bury(&letters))
            .await
    }

    async fn due(
        &self,
        plugin: &PluginName,
        now_ms: u64,
        limit: usize,
    ) -> Result<Vec<ParkedRow>, StoreError> {
        self.look(|reader| reader.due(plugin, now_ms, limit))
    }

    async fn parked(&self, plugin: &PluginName) -> Result<(u64, Option<u64>), StoreError> {
        self.look(|reader| reader.parked(plugin))
    }

    async fn outbox(&self, scan: &OutboxScan) -> Result<Vec<OutboxRow>, StoreError> {
        self.look(|reader| reader.outbox(scan))
    }

    async fn confirm(&self, rows: &[RowId]) -> Result<(), StoreError> {
        let rows = rows.to_vec();
        self.writer
            .write(rows.len() / 4, move |ledger| ledger.confirm(&rows))
            .await
    }

    async fn refuse(&self, letters: &[DeadLetter]) -> Result<(), StoreError> {
        let letters = letters.to_vec();
        self.writer
            .write(letters.len(), move |ledger| ledger.refuse(&letters))
            .await
    }

    async fn outbox_len(&self) -> Result<u64, StoreError> {
        self.look(|reader| reader.outbox_len())
    }

    async fn fence(&self, record: &RecordId, run: RunId) -> Result<bool, StoreError> {
        let record = record.clone();
        self.writer
            .write(1, move |ledger| ledger.fence(&record, run))
            .await
    }

    async fn expire(
        &self,
        plugin: &PluginName,
        retention: Duration,
        now_ms: u64,
    ) -> Result<u64, StoreError> {
        let plugin = plugin.clone();
        let retention_ms = u64::try_from(retention.as_millis()).unwrap_or(u64::MAX);
        self.writer
            .write(1, move |ledger| {
                ledger.expire(&plugin, retention_ms, now_ms)
            })
            .await
    }
}

#[async_trait]
impl Admin for RedbStore {
    async fn list_state(
        &self,
        namespace: &str,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<StateEntry>, StoreError> {
        self.look(|reader| reader.list_state(namespace, prefix, after, limit))
    }

    async fn record(
        &self,
        record: &RecordId,
    ) -> Result<(RecordState, Option<ParkedRow>), StoreError> {
        self.look(|reader| reader.record(record))
    }

    async fn list_dead(
        &self,
        plugin: Option<&PluginName>,
        after: Option<&DeadLetterId>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, StoreError> {
        self.look(|reader| reader.list_dead(plugin, after, limit))
    }

    async fn dead(&self, id: &DeadLetterId) -> Result<Option<DeadLetter>, StoreError> {
        self.look(|reader| reader.dead(id))
    }

    async fn replay(&self, id: &DeadLetterId, now_ms: u64) -> Result<bool, StoreError> {
        let id = id.clone();
        self.writer
            .write(1, move |ledger| ledger.replay(&id, now_ms))
            .await
    }

    async fn drop_dead(&self, id: &DeadLetterId) -> Result<bool, StoreError> {
        let id = id.clone();
        self.writer
            .write(1, move |ledger| ledger.drop_dead(&id))
            .await
    }

    async fn stats(&self, plugin: &PluginName) -> Result<StoreStats, StoreError> {
        self.look(|reader| reader.stats(plugin))
    }
}

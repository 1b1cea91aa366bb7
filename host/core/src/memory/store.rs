//! A store in memory: the reference that the durable ones are compared with.

mod ledger;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use crate::decide::no_tables;
use crate::{
    Admin, CheckQuery, Checked, Clock, DeadLetter, DeadLetterId, Miss, OutboxRow, OutboxScan,
    Outcome, ParkedRow, PluginName, RecordId, RecordState, RowId, Run, RunId, StateEntry, StateKey,
    Statement, Store, StoreError, StoreStats, SystemClock, Versioned,
};
use ledger::Ledger;

/// A store that forgets everything when its last handle goes, and that can be told to fail.
///
/// A clone is another handle to the same store: give each simulated host its own.
#[derive(Clone)]
pub struct MemoryStore {
    clock: Arc<dyn Clock>,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    ledger: Ledger,
    faults: Option<Box<dyn FnMut(StoreCall) -> Option<StoreFault> + Send>>,
    /// Calls that are to fail yet.
    failing: usize,
    /// Commits whose replies are to be lost yet.
    losing: usize,
    /// Commits under way that nobody waits for any more.
    late: Vec<Vec<Run>>,
    /// Stands in for tables of the user's.
    tables: Option<Box<CarryOut>>,
}

/// Carries out the statements of a run, or says how they missed.
type CarryOut = dyn FnMut(&[Statement]) -> Option<Miss> + Send;

impl Shared {
    fn commit(&mut self, runs: &[Run], now_ms: u64) -> Vec<Outcome> {
        let tables = &mut self.tables;
        self.ledger.commit(runs, now_ms, |statements| match tables {
            Some(tables) => tables(statements),
            None => Some(no_tables()),
        })
    }
}

/// A call to a [`MemoryStore`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StoreCall {
    /// [`Store::check`].
    Check,
    /// [`Store::read`].
    Read,
    /// [`Store::commit`].
    Commit,
    /// [`Store::bury`].
    Bury,
    /// [`Store::due`].
    Due,
    /// [`Store::parked`].
    Parked,
    /// [`Store::outbox`].
    Outbox,
    /// [`Store::confirm`].
    Confirm,
    /// [`Store::refuse`].
    Refuse,
    /// [`Store::outbox_len`].
    OutboxLen,
    /// [`Store::fence`].
    Fence,
    /// [`Store::expire`].
    Expire,
    /// Any method of [`Admin`].
    Admin,
}

/// How a call fails. The caller sees [`StoreError::Unavailable`] each time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StoreFault {
    /// The request never arrives.
    Lost,
    /// The request is carried out and its reply is lost.
    ReplyLost,
    /// A commit is carried out at [`MemoryStore::land_late`]. Another request never arrives.
    Late,
}

impl MemoryStore {
    /// An empty store on the machine's clock.
    pub fn new() -> Self {
        Self::with_clock(Arc::new(SystemClock))
    }

    /// An empty store.
    pub fn with_clock(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            shared: Arc::default(),
        }
    }

    /// Lets `decide` say of each call whether and how it fails, before
    /// [`fail_next`](Self::fail_next) and [`lose_replies`](Self::lose_replies) are looked at.
    pub fn inject(&self, decide: impl FnMut(StoreCall) -> Option<StoreFault> + Send + 'static) {
        self.shared().faults = Some(Box::new(decide));
    }

    /// Lets the next `calls` calls of any kind fail without effect.
    pub fn fail_next(&self, calls: usize) {
        self.shared().failing = calls;
    }

    /// Lets the replies of the next `commits` commits be lost.
    pub fn lose_replies(&self, commits: usize) {
        self.shared().losing = commits;
    }

    /// Lets `carry_out` carry out the statements of each run that is to be applied, all or none, or
    /// say how they missed.
    pub fn keep_tables(
        &self,
        carry_out: impl FnMut(&[Statement]) -> Option<Miss> + Send + 'static,
    ) {
        self.shared().tables = Some(Box::new(carry_out));
    }

    /// Ends all faults. Commits that are late stay so.
    pub fn heal(&self) {
        let mut shared = self.shared();
        shared.faults = None;
        shared.failing = 0;
        shared.losing = 0;
    }

    /// Carries out the commits that a [`StoreFault::Late`] held back. Returns how many there were.
    pub fn land_late(&self) -> usize {
        let now_ms = self.clock.now_ms();
        let mut shared = self.shared();
        let late = std::mem::take(&mut shared.late);
        for runs in &late {
            shared.commit(runs, now_ms);
        }
        late.len()
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn call<T>(
        &self,
        operation: StoreCall,
        body: impl FnOnce(&mut Ledger, u64) -> T,
    ) -> Result<T, StoreError> {
        let now_ms = self.clock.now_ms();
        let mut shared = self.shared();
        let fault = shared.next_fault(operation);
        if matches!(fault, Some(StoreFault::Lost | StoreFault::Late)) {
            return Err(unavailable(operation));
        }
        let answer = body(&mut shared.ledger, now_ms);
        match fault {
            Some(_) => Err(unavailable(operation)),
            None => Ok(answer),
        }
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryStore").finish_non_exhaustive()
    }
}

impl Shared {
    fn next_fault(&mut self, operation: StoreCall) -> Option<StoreFault> {
        if let Some(decide) = &mut self.faults
            && let Some(fault) = decide(operation)
        {
            return Some(fault);
        }
        if self.failing > 0 {
            self.failing -= 1;
            return Some(StoreFault::Lost);
        }
        if operation == StoreCall::Commit && self.losing > 0 {
            self.losing -= 1;
            return Some(StoreFault::ReplyLost);
        }
        None
    }
}

fn unavailable(operation: StoreCall) -> StoreError {
    StoreError::Unavailable {
        reason: format!("an injected fault ({operation:?})"),
        source: None,
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn check(&self, queries: &[CheckQuery]) -> Result<Vec<Checked>, StoreError> {
        self.call(StoreCall::Check, |ledger, now_ms| {
            queries
                .iter()
                .map(|query| ledger.check(query, now_ms))
                .collect()
        })
    }

    async fn read(&self, keys: &[StateKey]) -> Result<Vec<Versioned>, StoreError> {
        self.call(StoreCall::Read, |ledger, _| {
            keys.iter().map(|key| ledger.read(key)).collect()
        })
    }

    async fn commit(&self, runs: &[Run]) -> Result<Vec<Outcome>, StoreError> {
        let now_ms = self.clock.now_ms();
        let mut shared = self.shared();
        let fault = shared.next_fault(StoreCall::Commit);
        match fault {
            Some(StoreFault::Lost) => {}
            Some(StoreFault::Late) => shared.late.push(runs.to_vec()),
            Some(StoreFault::ReplyLost) => {
                shared.commit(runs, now_ms);
            }
            None => return Ok(shared.commit(runs, now_ms)),
        }
        Err(unavailable(StoreCall::Commit))
    }

    async fn bury(&self, letters: &[DeadLetter]) -> Result<(), StoreError> {
        self.call(StoreCall::Bury, |ledger, _| {
            letters.iter().for_each(|letter| ledger.bury(letter));
        })
    }

    async fn due(
        &self,
        plugin: &PluginName,
        now_ms: u64,
        limit: usize,
    ) -> Result<Vec<ParkedRow>, StoreError> {
        self.call(StoreCall::Due, |ledger, _| {
            ledger.due(plugin, now_ms, limit)
        })
    }

    async fn parked(&self, plugin: &PluginName) -> Result<(u64, Option<u64>), StoreError> {
        self.call(StoreCall::Parked, |ledger, _| ledger.parked(plugin))
    }

    async fn outbox(&self, scan: &OutboxScan) -> Result<Vec<OutboxRow>, StoreError> {
        self.call(StoreCall::Outbox, |ledger, _| ledger.outbox(scan))
    }

    async fn confirm(&self, rows: &[RowId]) -> Result<(), StoreError> {
        self.call(StoreCall::Confirm, |ledger, _| {
            rows.iter().for_each(|row| ledger.confirm(row));
        })
    }

    async fn refuse(&self, letters: &[DeadLetter]) -> Result<(), StoreError> {
        self.call(StoreCall::Refuse, |ledger, _| {
            letters.iter().for_each(|letter| ledger.refuse(letter));
        })
    }

    async fn outbox_len(&self) -> Result<u64, StoreError> {
        self.call(StoreCall::OutboxLen, |ledger, _| ledger.outbox_len())
    }

    async fn fence(&self, record: &RecordId, run: RunId) -> Result<bool, StoreError> {
        self.call(StoreCall::Fence, |ledger, now_ms| {
            ledger.fence(record, run, now_ms)
        })
    }

    async fn expire(
        &self,
        plugin: &PluginName,
        retention: Duration,
        now_ms: u64,
    ) -> Result<u64, StoreError> {
        let retention_ms = u64::try_from(retention.as_millis()).unwrap_or(u64::MAX);
        self.call(StoreCall::Expire, |ledger, _| {
            ledger.expire(plugin, retention_ms, now_ms)
        })
    }
}

#[async_trait]
impl Admin for MemoryStore {
    async fn list_state(
        &self,
        namespace: &str,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<StateEntry>, StoreError> {
        self.call(StoreCall::Admin, |ledger, _| {
            ledger.list_state(namespace, prefix, after, limit)
        })
    }

    async fn record(
        &self,
        record: &RecordId,
    ) -> Result<(RecordState, Option<ParkedRow>), StoreError> {
        self.call(StoreCall::Admin, |ledger, _| ledger.record(record))
    }

    async fn list_dead(
        &self,
        plugin: Option<&PluginName>,
        after: Option<&DeadLetterId>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, StoreError> {
        self.call(StoreCall::Admin, |ledger, _| {
            ledger.list_dead(plugin, after, limit)
        })
    }

    async fn dead(&self, id: &DeadLetterId) -> Result<Option<DeadLetter>, StoreError> {
        self.call(StoreCall::Admin, |ledger, _| ledger.dead(id))
    }

    async fn replay(&self, id: &DeadLetterId, now_ms: u64) -> Result<bool, StoreError> {
        self.call(StoreCall::Admin, |ledger, _| ledger.replay(id, now_ms))
    }

    async fn drop_dead(&self, id: &DeadLetterId) -> Result<bool, StoreError> {
        self.call(StoreCall::Admin, |ledger, _| ledger.drop_dead(id))
    }

    async fn stats(&self, plugin: &PluginName) -> Result<StoreStats, StoreError> {
        self.call(StoreCall::Admin, |ledger, _| ledger.stats(plugin))
    }
}

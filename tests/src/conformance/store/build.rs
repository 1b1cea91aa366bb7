//! Runs and messages to try a store with.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use semel_core::{
    Admin, BusinessKey, Cause, CheckQuery, Checked, DeadLetter, DeadLetterId, Effects, Expected,
    Fingerprint, Header, Lane, Message, Outcome, Outgoing, Park, ParkedRow, Partition, PluginName,
    Position, Read, RecordId, RecordState, Run, RunId, StateKey, StateOp, Verdict, Version,
    Versioned, Write,
};

/// The plugin of the runs made here.
pub fn plugin() -> PluginName {
    PluginName::new("points")
}

/// A record of that plugin.
pub fn record(key: impl AsRef<[u8]>) -> RecordId {
    RecordId {
        plugin: plugin(),
        key: BusinessKey::new(Bytes::copy_from_slice(key.as_ref())),
    }
}

/// A state key of that plugin.
pub fn state(name: &str) -> StateKey {
    StateKey {
        namespace: "points".into(),
        name: name.into(),
    }
}

/// A run id that was not used before.
pub fn run_id() -> RunId {
    static COUNT: AtomicU64 = AtomicU64::new(1);
    RunId::new(0x5e3e1, COUNT.fetch_add(1, Ordering::Relaxed))
}

/// A message with this body.
pub fn message(body: &[u8]) -> Message {
    Message {
        id: "7F0000010001".to_owned(),
        topic: "orders".into(),
        keys: vec!["k 1".to_owned(), "ключ".to_owned()],
        headers: vec![Header {
            name: "trace".to_owned(),
            value: "a=b\0c".to_owned(),
        }],
        body: Bytes::copy_from_slice(body),
        timestamp_ms: 1_700_000_000_123,
    }
}

/// A successful run without effects, of a message with the body `body`.
pub fn done(key: impl AsRef<[u8]>) -> Run {
    Run {
        id: run_id(),
        record: record(key),
        fingerprint: Fingerprint::of(b"body"),
        position: position(1),
        lane: None,
        expected: Expected::Absent,
        bucket: 0,
        reads: Vec::new(),
        ended_ms: 1_700_000_000_500,
        verdict: Verdict::Done(Effects::default()),
    }
}

/// A place in the one partition.
pub fn position(offset: u64) -> Position {
    Position {
        partition: Partition::new("rocketmq:orders/broker-a/3"),
        offset,
    }
}

/// A run that parks its message until `due_ms`.
pub fn park(key: impl AsRef<[u8]>, due_ms: u64) -> Run {
    let mut run = done(key);
    run.verdict = Verdict::Park(Park {
        row: Box::new(row_of(&run, due_ms)),
        behind: false,
    });
    run
}

/// A run that buries its message.
pub fn dead(key: impl AsRef<[u8]>, cause: Cause) -> Run {
    let mut run = done(key);
    let id = DeadLetterId::of_record(&run.record);
    run.verdict = Verdict::Dead(Box::new(letter(id, Some(run.record.clone()), cause)));
    run
}

fn row_of(run: &Run, due_ms: u64) -> ParkedRow {
    ParkedRow {
        record: run.record.clone(),
        fingerprint: run.fingerprint,
        message: message(b"body"),
        position: run.position.clone(),
        lane: run.lane.clone(),
        attempt: 1,
        waits_since_ms: None,
        due_ms,
        reason: "the bank is closed".to_owned(),
        version: 0,
    }
}

/// A dead letter.
pub fn letter(id: DeadLetterId, record: Option<RecordId>, cause: Cause) -> DeadLetter {
    DeadLetter {
        id,
        plugin: plugin(),
        record,
        cause,
        reason: "no such user".to_owned(),
        detail: Some("panicked at …\n  0: main".to_owned()),
        message: message(b"body"),
        outgoing: None,
        position: position(1),
        attempts: 3,
        dead_ms: 1_700_000_001_000,
    }
}

/// A letter that ends no record.
pub fn stray(offset: u64) -> DeadLetter {
    let id = DeadLetterId::of_position(&plugin(), &position(offset));
    letter(id, None, Cause::NoKey)
}

/// Changes to a run that read well in a row.
pub trait Changed: Sized {
    /// At this offset of this lane.
    fn in_lane(self, lane: &str, offset: u64) -> Self;
    /// Of a message with this body.
    fn with_body(self, body: &[u8]) -> Self;
    /// After a check that found this row.
    fn found(self, version: Version) -> Self;
    /// Only because its lane's predecessor is parked.
    fn behind(self) -> Self;
    /// Having read this.
    fn reading(self, name: &str, base: Version, seen: &[u32]) -> Self;
    /// With one more write.
    fn writing(self, name: &str, op: StateOp) -> Self;
    /// With one more write of a value.
    fn putting(self, name: &str, value: &str) -> Self {
        self.writing(name, StateOp::Put(Bytes::copy_from_slice(value.as_bytes())))
    }
    /// With one more addition.
    fn adding(self, name: &str, delta: i64) -> Self {
        self.writing(name, StateOp::Add(delta))
    }
    /// With one more message to publish.
    fn publishing(self, body: &str, delay_ms: Option<u64>) -> Self;
    /// With a reply.
    fn replying(self, reply: &[u8]) -> Self;
    /// Of another plugin.
    fn of_plugin(self, plugin: &str) -> Self;
}

impl Changed for Run {
    fn in_lane(mut self, lane: &str, offset: u64) -> Self {
        self.lane = Some(Lane::new(Bytes::copy_from_slice(lane.as_bytes())));
        self.position = position(offset);
        let (lane, position) = (self.lane.clone(), self.position.clone());
        if let Verdict::Park(park) = &mut self.verdict {
            park.row.lane = lane;
            park.row.position = position;
        }
        self
    }

    fn with_body(mut self, body: &[u8]) -> Self {
        self.fingerprint = Fingerprint::of(body);
        let fingerprint = self.fingerprint;
        if let Verdict::Park(park) = &mut self.verdict {
            park.row.fingerprint = fingerprint;
            park.row.message = message(body);
        }
        self
    }

    fn found(mut self, version: Version) -> Self {
        self.expected = Expected::Parked(version);
        self
    }

    fn behind(mut self) -> Self {
        if let Verdict::Park(park) = &mut self.verdict {
            park.behind = true;
            park.row.attempt = 0;
        }
        self
    }

    fn reading(mut self, name: &str, base: Version, seen: &[u32]) -> Self {
        self.reads.push(Read {
            key: state(name),
            base,
            seen: seen.to_vec(),
        });
        self
    }

    fn writing(mut self, name: &str, op: StateOp) -> Self {
        let key = state(name);
        effects(&mut self).writes.push(Write { key, op });
        self
    }

    fn publishing(mut self, body: &str, delay_ms: Option<u64>) -> Self {
        effects(&mut self).outgoing.push(outgoing(body, delay_ms));
        self
    }

    fn replying(mut self, reply: &[u8]) -> Self {
        effects(&mut self).reply = Some(Bytes::copy_from_slice(reply));
        self
    }

    fn of_plugin(mut self, plugin: &str) -> Self {
        self.record.plugin = PluginName::new(plugin);
        let record = self.record.clone();
        match &mut self.verdict {
            Verdict::Park(park) => park.row.record = record,
            Verdict::Dead(letter) => {
                letter.plugin = record.plugin.clone();
                letter.id = DeadLetterId::of_record(&record);
                letter.record = Some(record);
            }
            Verdict::Done(_) => {}
        }
        self
    }
}

fn effects(run: &mut Run) -> &mut Effects {
    match &mut run.verdict {
        Verdict::Done(effects) => effects,
        _ => panic!("only a successful run has effects"),
    }
}

/// A message to publish.
pub fn outgoing(body: &str, delay_ms: Option<u64>) -> Outgoing {
    Outgoing {
        destination: "points-granted".into(),
        key: Some(Bytes::from_static(b"u\0\xff")),
        headers: vec![Header {
            name: "content-type".to_owned(),
            value: "application/json".to_owned(),
        }],
        body: Bytes::copy_from_slice(body.as_bytes()),
        delay_ms,
    }
}

/// Commits a batch whose runs are checked first, unless they were.
pub async fn commit(store: &Arc<dyn Admin>, runs: &[Run]) -> Vec<Outcome> {
    let mut runs = runs.to_vec();
    for run in &mut runs {
        if run.bucket == 0 {
            run.bucket = check(store, &run.record).await.bucket;
        }
    }
    let outcomes = store.commit(&runs).await.expect("the commit is answered");
    assert_eq!(outcomes.len(), runs.len());
    outcomes
}

/// Commits one run.
pub async fn commit_one(store: &Arc<dyn Admin>, run: &Run) -> Outcome {
    commit(store, std::slice::from_ref(run)).await.remove(0)
}

/// Commits one run that must be applied. Returns its version.
pub async fn apply(store: &Arc<dyn Admin>, run: &Run) -> Version {
    version(&commit_one(store, run).await)
}

/// The version of an outcome that must be `Applied`.
pub fn version(outcome: &Outcome) -> Version {
    match outcome {
        Outcome::Applied { version, .. } => *version,
        other => panic!("not applied: {other:?}"),
    }
}

/// Whether a run was applied.
pub fn applied(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Applied { .. })
}

/// Checks one record outside lanes.
pub async fn check(store: &Arc<dyn Admin>, record: &RecordId) -> Checked {
    let query = CheckQuery {
        record: record.clone(),
        lane: None,
    };
    let answers = store.check(&[query]).await.expect("the check is answered");
    answers.into_iter().next().expect("one answer a query")
}

/// Checks a run's record where it stands in its lane.
pub async fn check_run(store: &Arc<dyn Admin>, run: &Run) -> Checked {
    let query = CheckQuery {
        record: run.record.clone(),
        lane: run.lane_position(),
    };
    let answers = store.check(&[query]).await.expect("the check is answered");
    answers.into_iter().next().expect("one answer a query")
}

/// The version of a record's parked row.
pub async fn parked_version(store: &Arc<dyn Admin>, record: &RecordId) -> Version {
    match check(store, record).await.state {
        RecordState::Parked { version, .. } => version,
        other => panic!("not parked: {other:?}"),
    }
}

/// Reads one value.
pub async fn read(store: &Arc<dyn Admin>, name: &str) -> Versioned {
    let values = store
        .read(&[state(name)])
        .await
        .expect("the read is answered");
    values.into_iter().next().expect("one answer a key")
}

/// Reads one value as text, or nothing.
pub async fn text(store: &Arc<dyn Admin>, name: &str) -> Option<String> {
    let value = read(store, name).await.value?;
    Some(String::from_utf8(value.to_vec()).expect("text"))
}

/// The plugin's due rows, by business key.
pub async fn due(store: &Arc<dyn Admin>, now_ms: u64) -> Vec<String> {
    let rows = store
        .due(&plugin(), now_ms, 100)
        .await
        .expect("due is answered");
    rows.iter().map(|row| row.record.key.to_string()).collect()
}

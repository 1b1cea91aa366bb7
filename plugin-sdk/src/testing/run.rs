//! One run's effects, held back.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;

use super::{LogLine, Published};
use crate::backend::{Backend, EffectError};
use crate::sql::{SqlError, SqlRows, SqlValue, Staged};
use crate::{Level, Outgoing};

/// What a run sees and does. The harness keeps what comes of it if the run succeeds.
#[derive(Default)]
pub(super) struct Run {
    /// The plugin and the business key, as text: what ids and random bytes depend on.
    pub(super) record: String,
    pub(super) state: BTreeMap<String, Vec<u8>>,
    pub(super) published: Vec<Published>,
    pub(super) statements: Vec<Staged>,
    pub(super) rows: Option<Answers>,
    pub(super) log: Vec<LogLine>,
    pub(super) config: HashMap<String, String>,
    pub(super) destinations: Option<BTreeSet<String>>,
    /// How many effects it may still ask for.
    pub(super) effects_left: usize,
    /// A name that was added to and is no counter.
    pub(super) not_a_counter: Option<String>,
    pub(super) random_calls: u64,
}

/// Answers queries in place of a database.
pub(super) type Answers = Rc<dyn Fn(&str, &[SqlValue]) -> SqlRows>;

/// The run, shared between the harness and the context.
pub(super) struct Shared(pub(super) Rc<RefCell<Run>>);

impl Run {
    fn charge(&mut self) -> Result<(), EffectError> {
        match self.effects_left.checked_sub(1) {
            Some(left) => {
                self.effects_left = left;
                Ok(())
            }
            None => Err(EffectError::LimitExceeded),
        }
    }
}

impl Backend for Shared {
    fn get(&self, name: &str) -> Option<Vec<u8>> {
        self.0.borrow().state.get(name).cloned()
    }

    fn put(&self, name: &str, value: &[u8]) -> Result<(), EffectError> {
        let mut run = self.0.borrow_mut();
        run.charge()?;
        run.state.insert(name.to_owned(), value.to_vec());
        Ok(())
    }

    fn delete(&self, name: &str) -> Result<(), EffectError> {
        let mut run = self.0.borrow_mut();
        run.charge()?;
        run.state.remove(name);
        Ok(())
    }

    fn add(&self, name: &str, delta: i64) -> Result<(), EffectError> {
        let mut run = self.0.borrow_mut();
        run.charge()?;
        let before = match run.state.get(name) {
            None => Some(0),
            Some(bytes) => std::str::from_utf8(bytes)
                .ok()
                .and_then(|text| text.parse().ok()),
        };
        match before.and_then(|before: i64| before.checked_add(delta)) {
            Some(sum) => {
                run.state
                    .insert(name.to_owned(), sum.to_string().into_bytes());
            }
            None => run.not_a_counter = Some(name.to_owned()),
        }
        Ok(())
    }

    fn publish(&self, outgoing: Outgoing) -> Result<String, EffectError> {
        let mut run = self.0.borrow_mut();
        if let Some(granted) = &run.destinations
            && !granted.contains(&outgoing.destination)
        {
            return Err(EffectError::Denied);
        }
        run.charge()?;
        let id = format!("{}#{}", run.record, run.published.len());
        run.published.push(Published {
            id: id.clone(),
            destination: outgoing.destination,
            key: outgoing.key,
            headers: outgoing.headers,
            body: outgoing.body,
            delay: outgoing.delay,
        });
        Ok(id)
    }

    fn execute(&self, statement: Staged) -> Result<(), SqlError> {
        let mut run = self.0.borrow_mut();
        run.charge().map_err(|_| SqlError::LimitExceeded)?;
        run.statements.push(statement);
        Ok(())
    }

    fn query(&self, text: &str, parameters: &[SqlValue]) -> Result<SqlRows, SqlError> {
        let answers = self.0.borrow().rows.clone();
        match answers {
            Some(answer) => Ok(answer(text, parameters)),
            None => Err(SqlError::Refused(
                "the harness has no tables: answer queries with `Harness::with_rows`".to_owned(),
            )),
        }
    }

    fn config(&self, name: &str) -> Option<String> {
        self.0.borrow().config.get(name).cloned()
    }

    fn idempotency_key(&self, label: &str) -> String {
        format!("{}@{label}", self.0.borrow().record)
    }

    fn random(&self, len: u32) -> Vec<u8> {
        let mut run = self.0.borrow_mut();
        let seed = format!("{}?{}", run.record, run.random_calls);
        run.random_calls += 1;
        // FNV-1a for a start, SplitMix64 from there: even enough for tests.
        let start = seed.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let words = (1..).flat_map(|turn: u64| {
            let mut word = start.wrapping_add(turn.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            (word ^ word >> 31).to_le_bytes()
        });
        words.take(len as usize).collect()
    }

    fn log(&self, level: Level, text: &str) {
        let text = text.to_owned();
        self.0.borrow_mut().log.push(LogLine { level, text });
    }
}

//! One life of a host: from its start to its shutdown or death.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::future::{pending, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, Once};
use std::task::{Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use semel_core::crash::{CrashPoint, at_crash_points};
use semel_core::{CheckQuery, Delivery, Failure, Finished, Position, RecordId, RunContext, Runner};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::order::{Order, handle};
use crate::world::{World, lock};

/// A task that is polled so often without time passing goes round in circles.
const MANY_POLLS: u32 = 5_000;

pub struct Life {
    pub host: usize,
    pub world: Arc<World>,
    /// Cancelled at its death.
    dead: CancellationToken,
    /// It stands still until then.
    paused: Mutex<Option<Instant>>,
    /// It dies when it passes this crash point so many times more.
    doom: Mutex<Option<(CrashPoint, u32)>>,
    /// What it has looked up. Nothing else may run.
    checked: Mutex<HashSet<RecordId>>,
    /// Deliveries of which it has not told what became of them.
    untold: Mutex<BTreeMap<Position, u32>>,
}

/// How often hosts died at each crash point, in all runs of this process.
static DEATHS: [AtomicU64; CrashPoint::ALL.len()] =
    [const { AtomicU64::new(0) }; CrashPoint::ALL.len()];

/// Crash points at which no host has died so far.
pub fn never_died_at() -> impl Iterator<Item = CrashPoint> {
    let deaths = |point: &CrashPoint| DEATHS[*point as usize].load(Relaxed);
    CrashPoint::ALL
        .iter()
        .copied()
        .filter(move |point| deaths(point) == 0)
}

thread_local! {
    /// Whose task it is: the engine spawns tasks of its own, which are known by their calls.
    static TASKS: RefCell<HashMap<tokio::task::Id, Arc<Life>>> = RefCell::default();
}

impl Life {
    pub fn new(world: &Arc<World>, host: usize, doom: Option<(CrashPoint, u32)>) -> Arc<Self> {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| at_crash_points(pass));
        Arc::new(Self {
            host,
            world: Arc::clone(world),
            dead: CancellationToken::new(),
            paused: Mutex::default(),
            doom: Mutex::new(doom),
            checked: Mutex::default(),
            untold: Mutex::default(),
        })
    }

    pub fn die(&self) {
        if !self.dead.is_cancelled() {
            self.world.note(format_args!("h{} dies", self.host));
            self.dead.cancel();
        }
    }

    pub fn is_dead(&self) -> bool {
        self.dead.is_cancelled()
    }

    pub async fn died(&self) {
        self.dead.cancelled().await;
    }

    pub fn pause(&self, time: Duration) {
        *lock(&self.paused) = Some(Instant::now() + time);
    }

    pub fn paused(&self) -> Option<Instant> {
        let thawed = self.world.thaw.is_cancelled();
        lock(&self.paused).filter(|until| !thawed && Instant::now() < *until)
    }

    /// Waits while it stands still.
    pub async fn awake(&self) {
        while let Some(until) = self.paused() {
            tokio::select! {
                biased;
                () = self.world.thaw.cancelled() => {}
                () = sleep_until(until) => {}
            }
        }
    }

    /// Every call to the world outside begins and ends here: a host that stands still waits, and
    /// one that is dead stays.
    pub async fn stand(self: &Arc<Self>) {
        self.enlist();
        self.awake().await;
        if self.is_dead() {
            pending::<()>().await;
        }
    }

    pub fn checked(&self, queries: &[CheckQuery]) {
        let records = queries.iter().map(|query| query.record.clone());
        lock(&self.checked).extend(records);
    }

    pub fn delivered(&self, deliveries: &[Delivery]) {
        if self.world.plan.settles {
            let mut untold = lock(&self.untold);
            for delivery in deliveries {
                *untold.entry(delivery.position.clone()).or_default() += 1;
            }
        }
    }

    pub fn told(&self, position: &Position) {
        let mut untold = lock(&self.untold);
        match untold.get_mut(position) {
            Some(1) => _ = untold.remove(position),
            Some(times) => *times -= 1,
            None => self
                .world
                .fail(format!("{position} is told more often than delivered")),
        }
    }

    /// Deliveries of which it has not told what became of them.
    pub fn untold(&self) -> Vec<Position> {
        match self.is_dead() {
            true => Vec::new(),
            false => lock(&self.untold).keys().cloned().collect(),
        }
    }

    /// Runs a task of the host until it ends, or is dropped in mid-air as the host dies.
    pub fn spawn<F>(self: &Arc<Self>, task: F) -> JoinHandle<Option<F::Output>>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let life = Arc::clone(self);
        tokio::spawn(async move {
            life.enlist();
            let mut task = pin!(task);
            let mut awake = pin!(None);
            let mut spins = (Instant::now(), 0);
            let paced = poll_fn(|context| {
                if life.paused().is_some() {
                    awake.set(Some(life.awake()));
                }
                if let Some(awake) = awake.as_mut().as_pin_mut() {
                    ready!(awake.poll(context));
                }
                awake.set(None);
                spins = match spins {
                    (at, count) if at == Instant::now() => (at, count + 1),
                    _ => (Instant::now(), 0),
                };
                if spins.1 > MANY_POLLS {
                    life.world.fail(format!("h{} spins", life.host));
                    return Poll::Pending;
                }
                task.as_mut().poll(context)
            });
            tokio::select! {
                biased;
                () = life.died() => None,
                output = paced => Some(output),
            }
        })
    }

    fn enlist(self: &Arc<Self>) {
        if let Some(task) = tokio::task::try_id() {
            TASKS.with_borrow_mut(|tasks| {
                tasks.entry(task).or_insert_with(|| Arc::clone(self));
            });
        }
    }
}

/// Forgets whose task was whose: a run is over.
pub fn disband() {
    TASKS.with_borrow_mut(HashMap::clear);
}

/// A host passes a crash point.
fn pass(point: CrashPoint) {
    let Some(task) = tokio::task::try_id() else {
        return;
    };
    let Some(life) = TASKS.with_borrow(|tasks| tasks.get(&task).cloned()) else {
        return;
    };
    let mut doom = lock(&life.doom);
    if let Some((at, left)) = doom.as_mut()
        && *at == point
    {
        *left -= 1;
        if *left == 0 {
            *doom = None;
            DEATHS[point as usize].fetch_add(1, Relaxed);
            life.world
                .note(format_args!("h{} at {}", life.host, point.name()));
            // What it still does in this poll, nobody sees: each call outside stays there.
            life.die();
        }
    }
}

/// Runs orders on a host.
pub struct OrderRunner {
    pub life: Arc<Life>,
}

#[async_trait]
impl Runner for OrderRunner {
    async fn run(&self, mut context: RunContext) -> Finished {
        let life = &self.life;
        life.stand().await;
        if !lock(&life.checked).contains(context.record()) {
            life.world
                .fail(format!("{} runs unchecked", context.record().key));
        }
        life.world.travel().await;
        let order = serde_json::from_slice::<Order>(&context.message().body);
        let attempt = context.attempt();
        let answer = match order {
            Ok(order) => handle(&mut context, &order, attempt).await,
            Err(error) => Err(Failure::Reject {
                reason: error.to_string(),
            }),
        };
        life.world.travel().await;
        life.stand().await;
        let verdict = answer
            .as_ref()
            .map_or_else(|failure| format!("{failure:?}"), |_| "ok".into());
        life.world.note(format_args!(
            "h{} ran {}: {verdict}",
            life.host,
            context.record().key
        ));
        Finished {
            context,
            answer: answer.map(Some),
        }
    }
}

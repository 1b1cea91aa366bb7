//! What the simulated hosts share: time, dice, the servers, and the one who watches.

use std::fmt::{Arguments, Write};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use semel_core::Clock;
use semel_core::memory::MemoryStore;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::broker::Broker;
use crate::life::Life;
use crate::market::Market;
use crate::oracle::{Broken, Oracle};
use crate::plan::{Plan, RETENTION, Seam};

/// When simulated time begins, in milliseconds since 1970-01-01 UTC.
const EPOCH_MS: i64 = 1_700_000_000_000;
/// What a host takes for a lost reply.
const TIMEOUT_MS: u64 = 120;

pub struct World {
    pub plan: Plan,
    /// Whether what happens is printed at once.
    loud: bool,
    start: Instant,
    dice: Mutex<StdRng>,
    trace: Mutex<String>,
    pub store: MemoryStore,
    pub store_clock: Arc<WallClock>,
    pub broker: Broker,
    pub market: Market,
    oracle: Mutex<Oracle>,
    broken: Mutex<Option<Broken>>,
    /// Cancelled when an invariant is broken.
    pub failed: CancellationToken,
    /// From here on nothing fails.
    healed: AtomicBool,
    outages: Mutex<[Option<Instant>; 3]>,
    /// Requests on their way. They arrive even if whoever sent them is dead.
    pub in_flight: AtomicUsize,
    /// Hosts whose engine ended with its source.
    pub finished: AtomicUsize,
    /// Cancelled when those who stood still while records expired go on.
    pub thaw: CancellationToken,
    /// The present life of each host.
    pub lives: Mutex<Vec<Option<Arc<Life>>>>,
    pub clocks: Vec<Arc<WallClock>>,
    /// Host processes so far: each is an instance of its own.
    pub instances: AtomicU64,
}

/// A wall clock that may jump.
pub struct WallClock {
    start: Instant,
    offset_ms: AtomicI64,
    latest_ms: AtomicU64,
}

impl WallClock {
    fn new(start: Instant) -> Arc<Self> {
        Arc::new(Self {
            start,
            offset_ms: AtomicI64::new(0),
            latest_ms: AtomicU64::new(0),
        })
    }

    pub fn jump(&self, by_ms: i64) {
        self.now_ms();
        self.offset_ms.fetch_add(by_ms, Relaxed);
    }

    /// The latest time that it may have told so far.
    pub fn latest_ms(&self) -> u64 {
        self.now_ms().max(self.latest_ms.load(Relaxed))
    }
}

impl Clock for WallClock {
    fn now_ms(&self) -> u64 {
        let since = self.start.elapsed().as_millis() as i64;
        let now = (EPOCH_MS + since + self.offset_ms.load(Relaxed)) as u64;
        self.latest_ms.fetch_max(now, Relaxed);
        now
    }
}

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The request never arrives.
    Lost,
    /// The request is carried out, and its reply is lost.
    ReplyLost,
    /// The request is carried out long after its sender gave up, and maybe died.
    Late,
}

impl World {
    pub fn new(plan: Plan, loud: bool) -> Arc<Self> {
        let start = Instant::now();
        let store_clock = WallClock::new(start);
        Arc::new(Self {
            loud,
            start,
            // Not the seed itself: the plan was drawn with it.
            dice: Mutex::new(StdRng::seed_from_u64(!plan.seed)),
            trace: Mutex::default(),
            store: MemoryStore::with_clock(store_clock.clone()),
            store_clock,
            broker: Broker::new(plan.partitions),
            market: Market::default(),
            oracle: Mutex::new(Oracle::new(&plan)),
            broken: Mutex::default(),
            failed: CancellationToken::new(),
            healed: AtomicBool::new(false),
            outages: Mutex::default(),
            in_flight: AtomicUsize::new(0),
            finished: AtomicUsize::new(0),
            thaw: CancellationToken::new(),
            lives: Mutex::new(vec![None; plan.hosts]),
            clocks: (0..plan.hosts).map(|_| WallClock::new(start)).collect(),
            instances: AtomicU64::new(0),
            plan,
        })
    }

    // === what happened ===

    /// Adds a line to the trace.
    pub fn note(&self, what: Arguments<'_>) {
        let mut trace = lock(&self.trace);
        let at = self.start.elapsed().as_millis();
        if self.loud {
            println!("{at:>6} {what}");
        }
        writeln!(trace, "{at:>6} {what}").expect("a string takes everything");
    }

    pub fn trace(&self) -> String {
        lock(&self.trace).clone()
    }

    /// Lets the oracle look at something. The first thing that it objects to ends the run.
    pub fn judge<T>(&self, look: impl FnOnce(&mut Oracle) -> Result<T, Broken>) -> Option<T> {
        match look(&mut lock(&self.oracle)) {
            Ok(verdict) => Some(verdict),
            Err(broken) => {
                self.fail(broken);
                None
            }
        }
    }

    pub fn fail(&self, broken: Broken) {
        self.note(format_args!("BROKEN {broken}"));
        lock(&self.broken).get_or_insert(broken);
        self.failed.cancel();
    }

    pub fn broken(&self) -> Option<Broken> {
        lock(&self.broken).clone()
    }

    /// Whether done records have expired since the start.
    pub fn is_aged(&self) -> bool {
        self.start.elapsed() > RETENTION
    }

    // === dice ===

    /// A number below `below`.
    pub fn roll(&self, below: u64) -> u64 {
        lock(&self.dice).random_range(0..below)
    }

    pub fn chance(&self, percent: u32) -> bool {
        percent > 0 && self.roll(100) < u64::from(percent)
    }

    // === faults ===

    /// Whether and how the next call fails.
    pub fn fault(&self, seam: Seam) -> Option<Fault> {
        if self.healed.load(Relaxed) {
            return None;
        }
        let away = lock(&self.outages)[seam as usize].is_some_and(|until| Instant::now() < until);
        let percent = match seam {
            _ if away => 100,
            Seam::Store => self.plan.store_faults,
            Seam::Source => self.plan.source_faults,
            Seam::Sink => self.plan.sink_faults,
        };
        self.chance(percent)
            .then(|| match self.roll(if away { 4 } else { 3 }) {
                0 => Fault::ReplyLost,
                1 => Fault::Late,
                _ => Fault::Lost,
            })
    }

    pub fn begin_outage(&self, seam: Seam, for_ms: u64) {
        let until = Instant::now() + Duration::from_millis(for_ms);
        lock(&self.outages)[seam as usize] = Some(until);
    }

    /// Ends all faults, and sets the clocks to the latest time that any of them ever told.
    pub fn heal(&self) {
        self.healed.store(true, Relaxed);
        let clocks = || self.clocks.iter().chain([&self.store_clock]);
        let latest = clocks()
            .map(|clock| clock.latest_ms())
            .max()
            .unwrap_or_default();
        clocks().for_each(|clock| clock.jump(latest.cast_signed() - clock.now_ms().cast_signed()));
    }

    // === the network ===

    /// What a message takes to get to its receiver.
    pub async fn travel(&self) {
        match (self.plan.latency, self.roll(4)) {
            (_, 0) | (0, 1) => {}
            (0, _) | (_, 1) => tokio::task::yield_now().await,
            (latency, _) => self.sleep(1 + self.roll(latency)).await,
        }
    }

    /// Time until a reply that doesn't come is given up.
    pub async fn time_out(&self) {
        self.sleep(1 + self.roll(TIMEOUT_MS)).await;
    }

    /// What a late request takes: it may even outlive the done records.
    pub async fn dawdle(&self) {
        if self.plan.freezes.is_some() && self.roll(3) == 0 {
            self.in_flight.fetch_sub(1, Relaxed);
            self.thaw.cancelled().await;
            self.in_flight.fetch_add(1, Relaxed);
        }
        let most = [TIMEOUT_MS, 500, 2_000][self.roll(3) as usize];
        self.sleep(most + self.roll(most)).await;
    }

    pub async fn sleep(&self, ms: u64) {
        sleep(Duration::from_millis(ms)).await;
    }

    /// Carries out a request, whatever becomes of its sender.
    pub fn send(self: &Arc<Self>, request: impl Future<Output = ()> + Send + 'static) {
        self.in_flight.fetch_add(1, Relaxed);
        let world = Arc::clone(self);
        tokio::spawn(async move {
            request.await;
            world.in_flight.fetch_sub(1, Relaxed);
        });
    }

    /// A host that is alive.
    pub fn anyone(&self) -> Option<Arc<Life>> {
        let lives = lock(&self.lives).clone();
        let alive = lives.into_iter().flatten().filter(|life| !life.is_dead());
        let mut alive: Vec<_> = alive.collect();
        match alive.len() {
            0 => None,
            count => Some(alive.swap_remove(self.roll(count as u64) as usize)),
        }
    }

    /// The broker takes a host for gone, unless it has started again.
    pub fn evict(&self, life: &Arc<Life>) {
        if self
            .life(life.host)
            .is_some_and(|present| Arc::ptr_eq(&present, life))
        {
            self.broker.leave(self, life.host);
        }
    }

    /// The host's life that is going on.
    pub fn life(&self, host: usize) -> Option<Arc<Life>> {
        lock(&self.lives)[host].clone()
    }

    /// Forgets all lives, which know the world that they are in: it ends.
    pub fn end(&self) {
        lock(&self.lives).clear();
    }
}

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

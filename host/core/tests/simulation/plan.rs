//! What a seed stands for: a script of messages, and everything that is to go wrong.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use semel_core::crash::CrashPoint;
use semel_core::{FlowLimits, RelayConfig, Versioning};

use crate::script::{Script, Sent};

/// The plugin under test.
pub const PLUGIN: &str = "ledger";
/// A destination at which every second message is refused.
pub const PICKY: &str = "picky";
/// A destination to which messages may go in transactions.
pub const TRANSACTIONAL: &str = "transactional";
/// How long a done record lives.
pub const RETENTION: Duration = Duration::from_secs(7 * 86_400);
/// After so many failures a message is dead.
pub const MAX_ATTEMPTS: u32 = 3;

/// A simulated run, but for the dice that fall on the way.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub hosts: usize,
    pub partitions: usize,
    /// Whether the plugin declares a lane.
    pub lanes: bool,
    /// How messages are numbered, if they are.
    pub versioning: Option<Versioning>,
    /// Whether every version is sent and can be handled: then none is skipped.
    pub complete: bool,
    pub sent: Vec<Sent>,
    pub flow: FlowLimits,
    pub relay: RelayConfig,
    /// Whether there are transactions around commits.
    pub transactions: bool,
    /// Whether someone waits at the source.
    pub settles: bool,
    /// The longest a message of the network takes, in milliseconds.
    pub latency: u64,
    /// Shares of calls that fail, in percent.
    pub store_faults: u32,
    pub source_faults: u32,
    pub sink_faults: u32,
    /// What happens, by time.
    pub events: Vec<(u64, Event)>,
    /// How each life of each host ends, but for the last ones.
    pub lives: Vec<Vec<Ending>>,
    /// When faults end, in milliseconds from the start.
    pub heal: u64,
    /// Whether the source comes to an end, as a file does, or the hosts are shut down.
    pub source_ends: bool,
    /// A host that stands still until all done records have expired.
    pub freezes: Option<usize>,
}

/// Something that happens to the world.
#[derive(Clone, Copy, Debug)]
pub enum Event {
    /// The broker gives the partitions to other hosts.
    Rebalance,
    /// A host stands still for so many milliseconds, and then goes on as if nothing were.
    Pause { host: usize, for_ms: u64 },
    /// A host's clock jumps.
    Clock { host: usize, by_ms: i64 },
    /// The store's clock jumps.
    StoreClock { by_ms: i64 },
    /// The store, the source or the sinks can't be reached for so long.
    Outage { of: Seam, for_ms: u64 },
    /// The host that [`Plan::freezes`] names stands still.
    Freeze,
    /// An operator looks at the dead letters.
    Operator,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seam {
    Store,
    Source,
    Sink,
}

/// How a life of a host ends.
#[derive(Clone, Copy, Debug)]
pub enum Ending {
    /// It dies when it passes a crash point for the `nth` time, or after `at_most` milliseconds.
    CrashPoint {
        point: CrashPoint,
        nth: u32,
        at_most: u64,
    },
    /// It dies after so many milliseconds, wherever it is.
    Crash { after: u64 },
    /// It is shut down after so many milliseconds.
    Shutdown { after: u64 },
}

impl Plan {
    pub fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let rng = &mut rng;
        let hosts = *[1, 1, 2, 2, 2, 3, 3, 4, 5].choose(rng).expect("not empty");
        let partitions = rng.random_range(1..=3);
        let lanes = rng.random_bool(0.5);
        let numbered = rng.random_bool(0.3);
        let complete = numbered && !lanes && rng.random_bool(0.4);
        let span = *[0, 200, 1_000, 2_000].choose(rng).expect("not empty");
        let mut plan = Self {
            seed,
            hosts,
            partitions,
            lanes,
            versioning: numbered.then(|| versioning(rng, lanes, complete)),
            complete,
            sent: Script {
                partitions,
                lanes,
                complete,
                span,
            }
            .write(rng),
            flow: FlowLimits {
                concurrency: rng.random_range(1..=3),
                batch: rng.random_range(1..=12),
                in_flight: rng.random_range(1..=32),
                in_flight_bytes: if rng.random_bool(0.2) { 1_500 } else { 1 << 20 },
                cached_values: *[0, 3, 1_000].choose(rng).expect("not empty"),
            },
            relay: RelayConfig {
                batch: rng.random_range(1..=8),
                queue: rng.random_range(1..=16),
                capacity: if rng.random_bool(0.3) {
                    rng.random_range(1..5)
                } else {
                    1_000
                },
                sweep_interval: Duration::from_millis(500),
                retry_pause: Duration::from_millis(40),
            },
            transactions: rng.random_bool(0.4),
            settles: rng.random_bool(0.4),
            latency: *[0, 1, 5, 40].choose(rng).expect("not empty"),
            store_faults: share(rng),
            source_faults: share(rng),
            sink_faults: share(rng),
            events: Vec::new(),
            lives: vec![Vec::new(); hosts],
            heal: span + rng.random_range(300..1_500),
            source_ends: rng.random_bool(0.3),
            freezes: None,
        };
        // Who waits for a version gives up when much time passes.
        if hosts > 1 && !complete && rng.random_bool(0.2) {
            plan.freezes = Some(rng.random_range(0..hosts));
        }
        plan.events(rng);
        plan.endings(rng);
        plan
    }

    fn events(&mut self, rng: &mut StdRng) {
        let times = 0..self.heal;
        let mut add =
            |rng: &mut StdRng, share: f64, most: usize, event: &dyn Fn(&mut StdRng) -> Event| {
                if rng.random_bool(share) {
                    for _ in 0..rng.random_range(1..=most) {
                        self.events
                            .push((rng.random_range(times.clone()), event(rng)));
                    }
                }
            };
        let hosts = self.hosts;
        let any_host = move |rng: &mut StdRng| rng.random_range(0..hosts);
        add(rng, 0.5, 4, &|_| Event::Rebalance);
        add(rng, 0.4, 3, &|rng| Event::Pause {
            host: any_host(rng),
            for_ms: *[20, 300, 2_000, 4_000].choose(rng).expect("not empty"),
        });
        // Who waits for a version looks again after half the time that it has waited, by its clock.
        let waits = self
            .versioning
            .as_ref()
            .is_some_and(|rules| rules.wait.is_some());
        let jump = move |rng: &mut StdRng| {
            let most = *[50, 3_000, 3_600_000].choose(rng).expect("not empty");
            let most = if waits { 1_000 } else { most };
            rng.random_range(-most..=most)
        };
        add(rng, 0.3, 3, &|rng| Event::Clock {
            host: any_host(rng),
            by_ms: jump(rng),
        });
        add(rng, 0.2, 2, &|rng| Event::StoreClock { by_ms: jump(rng) });
        add(rng, 0.3, 2, &|rng| Event::Outage {
            of: *[Seam::Store, Seam::Store, Seam::Source, Seam::Sink]
                .choose(rng)
                .expect("not empty"),
            for_ms: rng.random_range(50..1_500),
        });
        add(rng, 0.4, 5, &|_| Event::Operator);
        if self.freezes.is_some() {
            self.events.push((rng.random_range(times), Event::Freeze));
        }
        self.events.sort_by_key(|(at, _)| *at);
    }

    fn endings(&mut self, rng: &mut StdRng) {
        if rng.random_bool(0.3) {
            return;
        }
        for lives in &mut self.lives {
            for _ in 0..*[0, 1, 1, 2, 3].choose(rng).expect("not empty") {
                let after = rng.random_range(1..self.heal);
                lives.push(match rng.random_range(0..10) {
                    0..6 => Ending::CrashPoint {
                        point: *CrashPoint::ALL.choose(rng).expect("not empty"),
                        nth: *[1, 1, 2, 3, 5, 8].choose(rng).expect("not empty"),
                        at_most: after,
                    },
                    6..9 => Ending::Crash { after },
                    _ => Ending::Shutdown { after },
                });
            }
        }
    }
}

fn share(rng: &mut StdRng) -> u32 {
    match rng.random_bool(0.5) {
        true => 0,
        false => rng.random_range(1..30),
    }
}

/// Lanes and waiting for versions exclude each other.
fn versioning(rng: &mut StdRng, lanes: bool, complete: bool) -> Versioning {
    let wait = match complete {
        true => Some(Duration::from_secs(3_600)),
        false if lanes || rng.random_bool(0.5) => None,
        false => Some(Duration::from_millis(rng.random_range(1..1_500))),
    };
    Versioning {
        version: "json:/version".parse().expect("an expression"),
        entity: "json:/item".parse().expect("an expression"),
        first: (complete || rng.random_bool(0.3)).then_some(1),
        wait,
    }
}

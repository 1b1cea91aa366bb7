//! What a seed stands for: a script of messages, and everything that is to go wrong.

use std::collections::HashMap;
use std::ops::Range;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use semel_core::crash::CrashPoint;
use semel_core::{FlowLimits, RelayConfig};

use crate::order::{End, Order, Step};

/// The plugin under test.
pub const PLUGIN: &str = "ledger";
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
    pub sent: Vec<Sent>,
    pub flow: FlowLimits,
    pub relay: RelayConfig,
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

/// A message that a producer sends.
#[derive(Clone, Debug)]
pub struct Sent {
    pub at: u64,
    pub partition: usize,
    pub content: Content,
}

#[derive(Clone, Debug)]
pub enum Content {
    Order(Order),
    /// A message without a business key.
    Keyless,
    /// Bytes that are no message.
    Malformed,
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
        let span = *[0, 200, 1_000, 2_000].choose(rng).expect("not empty");
        let mut plan = Self {
            seed,
            hosts,
            partitions,
            lanes,
            sent: messages(rng, partitions, lanes, span),
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
            latency: *[0, 1, 5, 40].choose(rng).expect("not empty"),
            store_faults: share(rng),
            source_faults: share(rng),
            sink_faults: share(rng),
            events: Vec::new(),
            lives: vec![Vec::new(); hosts],
            heal: span + rng.random_range(300..1_500),
            source_ends: rng.random_bool(0.3),
            freezes: (hosts > 1 && rng.random_bool(0.2)).then(|| rng.random_range(0..hosts)),
        };
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
        let jump = |rng: &mut StdRng| {
            let most: i64 = *[50, 3_000, 3_600_000].choose(rng).expect("not empty");
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

/// Orders of which several share a key, and some bad input.
fn messages(rng: &mut StdRng, partitions: usize, lanes: bool, span: u64) -> Vec<Sent> {
    let keys = *[3, 12, 40].choose(rng).expect("not empty");
    let oddities = rng.random_bool(0.4);
    let mut models: HashMap<u32, (usize, Order)> = HashMap::new();
    let count = rng.random_range(1..=40);
    let mut sent: Vec<_> = (0..count)
        .map(|index| {
            let at = rng.random_range(0..=span);
            let anywhere = rng.random_range(0..partitions);
            if oddities && rng.random_bool(0.1) {
                let content = match rng.random_bool(0.5) {
                    true => Content::Keyless,
                    false => Content::Malformed,
                };
                return Sent {
                    at,
                    partition: anywhere,
                    content,
                };
            }
            let key = rng.random_range(0..keys);
            let (home, model) = models
                .entry(key)
                .or_insert_with(|| (anywhere, order(rng, key, 0..4)));
            let mut order = model.clone();
            if oddities && rng.random_bool(0.15) {
                order.tag += 2 * index;
            }
            // Equal keys are in one lane; where there are lanes, also in one partition.
            let partition = if lanes { *home } else { anywhere };
            Sent {
                at,
                partition,
                content: Content::Order(order),
            }
        })
        .collect();
    sent.sort_by_key(|sent| sent.at);
    sent
}

fn order(rng: &mut StdRng, key: u32, steps: Range<usize>) -> Order {
    Order {
        key: format!("k{key}"),
        lane: format!("l{}", rng.random_range(0..3)),
        tag: rng.random_range(0..2),
        steps: (0..rng.random_range(steps)).map(|_| step(rng)).collect(),
        failures: *[0, 0, 0, 0, 0, 0, 1, 2, 9].choose(rng).expect("not empty"),
        end: match rng.random_range(0..20) {
            0 => End::Reject,
            1 | 2 => End::RejectIfOdd,
            _ => End::Succeed,
        },
    }
}

fn step(rng: &mut StdRng) -> Step {
    let name = |rng: &mut StdRng, names: &[&str]| names.choose(rng).expect("not empty").to_string();
    match rng.random_range(0..12) {
        0..4 => Step::Move {
            from: name(rng, &["a", "b", "c"]),
            to: name(rng, &["a", "b", "c"]),
            amount: rng.random_range(1..9),
        },
        4 | 5 => Step::Bump {
            name: name(rng, &["a", "n", "n", "t"]),
            by: rng.random_range(-3..9),
        },
        6 => Step::Note {
            name: name(rng, &["t", "u"]),
        },
        7 => Step::Erase {
            name: name(rng, &["b", "n", "t", "u"]),
        },
        8 => Step::Look {
            name: name(rng, &["a", "n", "t", "u"]),
        },
        _ => Step::Tell {
            to: name(rng, &["out", "out", "picky"]),
            delay_ms: rng.random_bool(0.15).then(|| rng.random_range(0..900)),
        },
    }
}

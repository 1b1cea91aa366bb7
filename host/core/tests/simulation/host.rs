//! A host: the lives that it leads, one after the other.

use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use semel_core::crash::CrashPoint;
use semel_core::{
    Engine, EngineConfig, EngineError, EngineParts, Grants, PluginName, Relay, RetryPolicy, Stats,
    StoreError,
};
use tokio::runtime::Handle;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::broker::Consumer;
use crate::halves::Transactor;
use crate::life::{Life, OrderRunner};
use crate::market::Producer;
use crate::plan::{Ending, MAX_ATTEMPTS, PLUGIN, RETENTION};
use crate::store::RemoteStore;
use crate::world::{World, lock};

/// A host that is not heard of for so long loses its partitions.
pub const SESSION_MS: u64 = 250;
/// How long a host that is shut down on the way waits for the outbox.
const FINISH: Duration = Duration::from_secs(1);

/// Lives as planned, and at last until all is `over`.
pub async fn live(world: Arc<World>, host: usize, over: CancellationToken) {
    for ending in world.plan.lives[host].clone() {
        let (doom, after) = match ending {
            Ending::CrashPoint {
                point,
                nth,
                at_most,
            } => (Some((point, nth)), at_most),
            Ending::Crash { after } | Ending::Shutdown { after } => (None, after),
        };
        let process = Process::start(&world, host, doom);
        let died = timeout(Duration::from_millis(after), process.life.died()).await;
        match (ending, died) {
            (Ending::Shutdown { .. }, Err(_)) => process.shut_down(Some(FINISH)).await,
            _ => process.crash().await,
        }
        world.sleep(world.roll(600)).await;
    }
    loop {
        let mut process = Process::start(&world, host, None);
        tokio::select! {
            biased;
            () = over.cancelled() => break process.shut_down(None).await,
            ended = &mut process.engine => match ended {
                Ok(Some(Err(_))) if world.is_aged() => {
                    process.engine = tokio::spawn(async { None });
                    process.crash().await;
                }
                ended => {
                    report(&world, ended);
                    world.finished.fetch_add(1, Relaxed);
                    process.engine = tokio::spawn(async { None });
                    over.cancelled().await;
                    break process.shut_down(None).await;
                }
            }
        }
    }
}

/// What runs in one life of a host.
struct Process {
    life: Arc<Life>,
    engine: JoinHandle<Option<Result<(), EngineError>>>,
    relay: JoinHandle<Option<Result<(), StoreError>>>,
    shutdown: CancellationToken,
    finish: CancellationToken,
    stop: CancellationToken,
}

impl Process {
    fn start(world: &Arc<World>, host: usize, doom: Option<(CrashPoint, u32)>) -> Self {
        world.note(format_args!("h{host} starts"));
        let life = Life::new(world, host, doom);
        lock(&world.lives)[host] = Some(Arc::clone(&life));
        world.broker.join(world, host);
        let store = RemoteStore::new(&life);
        let stats = Arc::new(Stats::default());
        let clock = &world.clocks[host];
        let (relay, handle) = Relay::new(
            world.plan.relay,
            store.clone(),
            Producer::new(&life),
            clock.clone(),
            Arc::clone(&stats),
        );
        let parts = EngineParts {
            source: Consumer::new(&life),
            store,
            runner: Arc::new(OrderRunner {
                life: Arc::clone(&life),
            }),
            clock: clock.clone(),
            relay: handle,
            transactions: world.plan.transactions.then(|| Transactor::new(&life) as _),
            workers: Handle::current(),
            stats,
        };
        let shutdown = CancellationToken::new();
        let (finish, stop) = (CancellationToken::new(), CancellationToken::new());
        let engine = Engine::new(engine_config(world), parts);
        Self {
            engine: life.spawn(engine.run(shutdown.clone())),
            relay: life.spawn(relay.run(finish.clone(), stop.clone())),
            life,
            shutdown,
            finish,
            stop,
        }
    }

    /// Ends at once, wherever it is. The broker may take a while to notice.
    async fn crash(self) {
        let Self {
            life,
            engine,
            relay,
            ..
        } = self;
        life.die();
        let world = Arc::clone(&life.world);
        report(&world, engine.await);
        report(&world, relay.await);
        tokio::spawn(async move {
            world.sleep(world.roll(2) * SESSION_MS).await;
            world.evict(&life);
        });
    }

    /// Ends in good order. With `patience`, what is left in the outbox after it is left to others.
    async fn shut_down(self, patience: Option<Duration>) {
        let world = Arc::clone(&self.life.world);
        world.note(format_args!("h{} is shut down", self.life.host));
        self.shutdown.cancel();
        report(&world, self.engine.await);
        self.finish.cancel();
        if let Some(patience) = patience {
            let stop = self.stop;
            tokio::spawn(async move {
                tokio::time::sleep(patience).await;
                stop.cancel();
            });
        }
        report(&world, self.relay.await);
        self.life.die();
    }
}

fn engine_config(world: &World) -> EngineConfig {
    EngineConfig {
        plugin: PluginName::new(PLUGIN),
        key: "json:/key".parse().expect("a key"),
        order_by: world
            .plan
            .lanes
            .then(|| "json:/lane".parse().expect("a key")),
        versioning: world.plan.versioning.clone(),
        grants: Arc::new(Grants {
            namespace: PLUGIN.into(),
            ..Grants::default()
        }),
        retention: RETENTION,
        retry: RetryPolicy {
            max_attempts: MAX_ATTEMPTS,
            first_delay: Duration::from_millis(60),
            max_delay: Duration::from_millis(500),
        },
        flow: world.plan.flow,
        wait_for_parked: true,
        instance: world.instances.fetch_add(1, Relaxed),
    }
}

/// No task of a host ends with an error, unless it died, or slept while records expired.
fn report<E: Display>(world: &World, ended: Result<Option<Result<(), E>>, JoinError>) {
    match ended {
        Ok(None | Some(Ok(()))) => {}
        Ok(Some(Err(_))) if world.is_aged() => {}
        Ok(Some(Err(error))) => world.fail(format!("a host gives up: {error}")),
        Err(error) => world.fail(format!("a host panics: {error}")),
    }
}

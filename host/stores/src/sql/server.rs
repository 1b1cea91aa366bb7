//! Connections to a database server: bounded in number and in time.

pub(super) mod statements;
mod targets;

use std::collections::HashSet;
use std::future::poll_fn;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use semel_core::{QueryLimits, SqlRows, SqlValue, StoreError};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, SemaphorePermit};

pub(super) use self::statements::{QueryFailure, Refusal};
pub(super) use self::targets::Target;
use super::answer::Set;
use super::text::{Script, Words};

/// How long a connection may take, and how long one may be waited for.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a round trip may take. Longer than servers are told to take for a statement.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection that was idle for longer is closed: servers are told to close those that are
/// idle for much longer, so that a host that stands still holds up the others for a bounded time.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// How often a transaction is begun that the server rolled back in favour of another.
const ATTEMPTS: u32 = 8;

/// The length of statements that are sent in one round trip, in bytes.
const ROUND_TRIP: usize = 1 << 20;

/// Makes connections.
#[async_trait]
pub(super) trait Connector: Send + Sync + 'static {
    /// A connection, ready for use.
    async fn connect(&self) -> Result<Box<dyn Connection>, sqlx::Error>;

    /// How this kind of server says things.
    fn words(&self) -> &'static Words;

    /// What an error means.
    fn meaning(&self, error: &sqlx::Error) -> Meaning;

    /// What an error says of the statement of a plugin that met it. None if it is not about the
    /// statement.
    fn refusal(&self, error: &sqlx::Error) -> Option<Refusal>;
}

/// A connection.
#[async_trait]
pub(super) trait Connection: Send {
    /// Sends statements as text and gives their answers in order.
    async fn run(&mut self, text: String) -> Result<Vec<Set>, sqlx::Error>;

    /// Sends a statement with parameters. Returns how many rows it inserted, matched or deleted.
    async fn execute(&mut self, text: &str, parameters: &[SqlValue]) -> Result<u64, sqlx::Error>;

    /// Sends a query with parameters.
    async fn query(
        &mut self,
        text: &str,
        parameters: &[SqlValue],
        limits: QueryLimits,
    ) -> Result<SqlRows, sqlx::Error>;
}

/// What connections are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The store's own work.
    Store,
    /// Queries of plugins: nothing can be written over them.
    Queries,
}

/// What an error of a server or a connection means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// The transaction was rolled back in favour of another.
    RolledBack,
    /// The connection is gone, or in no state to go on.
    Lost,
    /// The server is out of service for now, and did nothing.
    OutOfService,
    /// Someone must act. What to do, where it is known.
    Help(String),
}

/// What an error of the client itself means.
pub(super) fn meaning_of_client(error: &sqlx::Error) -> Meaning {
    match error {
        sqlx::Error::Tls(_) => Meaning::Help(
            "the connection can't be encrypted: see to the server's certificate, or set `tls=` \
             and `ca=` in the store's URL"
                .to_owned(),
        ),
        sqlx::Error::Configuration(_) => Meaning::Help(String::new()),
        // It may have been cut off anywhere.
        _ => Meaning::Lost,
    }
}

/// Why an attempt failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// Nothing was done, and another attempt may go well.
    Again(sqlx::Error),
    /// The connection was lost before anything was asked to be kept.
    Lost(sqlx::Error),
    /// It is of no use to try again here.
    Final(StoreError),
}

impl Failure {
    pub(super) fn into_error(self) -> StoreError {
        match self {
            Self::Again(error) | Self::Lost(error) => {
                StoreError::unavailable(format!("the database: {error}"), error)
            }
            Self::Final(error) => error,
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Final(error)
    }
}

/// How often and when to try again.
#[derive(Debug, Default)]
pub(super) struct Patience {
    attempts: u32,
    lost: u32,
}

impl Patience {
    /// Waits before another attempt, or says why there is none.
    pub(super) async fn after(&mut self, failure: Failure) -> Result<(), StoreError> {
        self.attempts += 1;
        self.lost += u32::from(matches!(failure, Failure::Lost(_)));
        // A server that was started again leaves all idle connections dead, and they were dropped.
        let in_vain = self.attempts >= ATTEMPTS || self.lost > 1;
        if in_vain || matches!(failure, Failure::Final(_)) {
            return Err(failure.into_error());
        }
        if matches!(failure, Failure::Again(_)) {
            // Those that collided come back at different times.
            let spread = RandomState::new().build_hasher().finish() % 8;
            let wait = Duration::from_millis(u64::from(self.attempts) * 3 + spread);
            tokio::time::sleep(wait).await;
        }
        Ok(())
    }
}

/// A database server.
///
/// It has a pool of its own and not that of sqlx, which asks for a sign of life whenever a
/// connection comes back, gives back connections in the midst of a transaction, and does not
/// tell why a server can't be reached.
pub(super) struct Server {
    connector: Box<dyn Connector>,
    words: &'static Words,
    permits: Semaphore,
    /// The one that was used last is at the end.
    idle: Mutex<Vec<(Box<dyn Connection>, Instant)>>,
    /// Where the connections live. Whoever asks may be on threads that do no I/O, such as those
    /// that plugins run on.
    runtime: Handle,
    /// The longest statement that the server takes, in bytes.
    longest: usize,
    /// Tables of the user's that were found fit to be changed.
    fit: Mutex<HashSet<Arc<str>>>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("words", &self.words.server)
            .finish_non_exhaustive()
    }
}

impl Server {
    pub(super) fn new(connector: Box<dyn Connector>, connections: usize, longest: usize) -> Self {
        Self {
            words: connector.words(),
            connector,
            permits: Semaphore::new(connections),
            idle: Mutex::default(),
            runtime: Handle::current(),
            longest,
            fit: Mutex::default(),
        }
    }

    pub(super) fn words(&self) -> &'static Words {
        self.words
    }

    /// An empty script.
    pub(super) fn script(&self) -> Script {
        Script::new(self.words, ROUND_TRIP.min(self.longest / 2))
    }

    /// Runs a request where connections live, whoever waits for it.
    pub(super) async fn inside<T>(&self, request: impl Future<Output = T> + Send) -> T {
        let mut request = pin!(Entered {
            runtime: &self.runtime,
            request: Some(Box::pin(request)),
        });
        poll_fn(|context| request.as_mut().poll(context)).await
    }

    /// Asks for something, outside of a transaction. Nothing may be written this way that must
    /// not be written twice.
    pub(super) async fn ask(&self, script: Script) -> Result<Vec<Set>, StoreError> {
        let parts = script.into_parts();
        let mut patience = Patience::default();
        loop {
            match self.try_ask(&parts).await {
                Ok(sets) => return Ok(sets),
                Err(failure) => patience.after(failure).await?,
            }
        }
    }

    /// As [`ask`](Self::ask), a statement.
    pub(super) async fn ask_text(&self, statement: String) -> Result<Vec<Set>, StoreError> {
        let mut script = self.script();
        script.add(&statement);
        self.ask(script).await
    }

    async fn try_ask(&self, parts: &[String]) -> Result<Vec<Set>, Failure> {
        let mut conversation = self.converse().await?;
        let mut sets = Vec::new();
        for part in parts {
            sets.extend(conversation.run(part.clone()).await?);
        }
        conversation.end();
        Ok(sets)
    }

    /// A connection of one's own.
    pub(super) async fn converse(&self) -> Result<Conversation<'_>, Failure> {
        let waited = tokio::time::timeout(CONNECT_TIMEOUT, self.permits.acquire()).await;
        let Ok(Ok(permit)) = waited else {
            return Err(Failure::Final(StoreError::Unavailable {
                reason: format!(
                    "all connections to the database were in use for {CONNECT_TIMEOUT:?}: it is \
                     too slow, or `pool=N` in the store's URL too small"
                ),
                source: None,
            }));
        };
        let connection = match self.take_idle() {
            Some(connection) => connection,
            None => {
                let connecting = self.connector.connect();
                match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
                    Ok(Ok(connection)) => connection,
                    Ok(Err(error)) => return Err(Failure::Final(self.unreachable(error))),
                    Err(_) => {
                        return Err(Failure::Final(StoreError::Unavailable {
                            reason: format!(
                                "{} let no one connect within {CONNECT_TIMEOUT:?}",
                                self.words.server
                            ),
                            source: None,
                        }));
                    }
                }
            }
        };
        Ok(Conversation {
            server: self,
            connection: Some(connection),
            _permit: permit,
        })
    }

    fn unreachable(&self, error: sqlx::Error) -> StoreError {
        match self.connector.meaning(&error) {
            Meaning::Help(help) => failed(self.words, &error, &help),
            _ => StoreError::unavailable(format!("{}: {error}", self.words.server), error),
        }
    }

    fn take_idle(&self) -> Option<Box<dyn Connection>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|(_, since)| since.elapsed() < IDLE_TIMEOUT);
        idle.pop().map(|(connection, _)| connection)
    }

    fn forget_idle(&self) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.clear();
    }
}

fn failed(words: &Words, error: &sqlx::Error, help: &str) -> StoreError {
    StoreError::Failed {
        reason: match help {
            "" => format!("{}: {error}", words.server),
            help => format!("{}: {error}: {help}", words.server),
        },
        source: None,
    }
}

/// An answer, if it comes in time.
async fn in_time<T>(answer: impl Future<Output = sqlx::Result<T>>) -> sqlx::Result<T> {
    let answered = tokio::time::timeout(ANSWER_TIMEOUT, answer).await;
    answered.unwrap_or_else(|_| {
        Err(sqlx::Error::Io(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("no answer within {ANSWER_TIMEOUT:?}"),
        )))
    })
}

/// A connection while it is in use. Unless it is [ended](Self::end), it is closed, and the
/// server rolls back what was begun on it.
pub(super) struct Conversation<'a> {
    server: &'a Server,
    connection: Option<Box<dyn Connection>>,
    _permit: SemaphorePermit<'a>,
}

impl Conversation<'_> {
    /// Sends statements that ask, or whose effects end with the transaction.
    pub(super) async fn run(&mut self, text: String) -> Result<Vec<Set>, Failure> {
        self.send(text).await.map_err(|error| self.failure(error))
    }

    /// As [`run`](Self::run), in as many round trips as it takes.
    pub(super) async fn run_all(&mut self, script: Script) -> Result<Vec<Set>, Failure> {
        let mut sets = Vec::new();
        for part in script.into_parts() {
            sets.extend(self.run(part).await?);
        }
        Ok(sets)
    }

    /// Sends statements of which the last one commits. If the connection is lost meanwhile,
    /// nobody knows what became of them.
    pub(super) async fn run_last(&mut self, text: String) -> Result<Vec<Set>, Failure> {
        let words = self.server.words;
        let sent = self.send(text).await;
        sent.map_err(|error| match self.failure(error) {
            Failure::Lost(error) => Failure::Final(StoreError::unavailable(
                format!("{} was lost in a commit: {error}", words.server),
                error,
            )),
            failure => failure,
        })
    }

    /// Sends statements of which the last one commits, and gives the connection back.
    pub(super) async fn commit(mut self, script: Script) -> Result<(), Failure> {
        let mut parts = script.into_parts();
        let last = parts.pop().unwrap_or_default();
        for part in parts {
            self.run(part).await?;
        }
        self.run_last(last).await?;
        self.end();
        Ok(())
    }

    async fn send(&mut self, text: String) -> Result<Vec<Set>, sqlx::Error> {
        if text.len() > self.server.longest {
            return Err(sqlx::Error::InvalidArgument(format!(
                "a statement of {} bytes is longer than the {} that the server takes",
                text.len(),
                self.server.longest
            )));
        }
        in_time(self.connection()?.run(text)).await
    }

    /// The connection, unless it failed before.
    fn connection(&mut self) -> sqlx::Result<&mut Box<dyn Connection>> {
        self.connection.as_mut().ok_or(sqlx::Error::PoolClosed)
    }

    fn failure(&mut self, error: sqlx::Error) -> Failure {
        // Whatever happened, the connection may be in the midst of a transaction.
        self.connection = None;
        if let sqlx::Error::InvalidArgument(reason) = &error {
            return Failure::Final(StoreError::failed(format!(
                "{}: {reason}: raise `max_allowed_packet` to more than twice the size of the \
                 largest message or value",
                self.server.words.server
            )));
        }
        match self.server.connector.meaning(&error) {
            Meaning::RolledBack => Failure::Again(error),
            Meaning::Lost => {
                self.server.forget_idle();
                Failure::Lost(error)
            }
            Meaning::OutOfService => Failure::Final(StoreError::unavailable(
                format!("{}: {error}", self.server.words.server),
                error,
            )),
            Meaning::Help(help) => Failure::Final(failed(self.server.words, &error, &help)),
        }
    }

    /// Gives the connection back: nothing is under way on it.
    pub(super) fn end(mut self) {
        if let Some(connection) = self.connection.take() {
            let idle = self.server.idle.lock();
            let mut idle = idle.unwrap_or_else(PoisonError::into_inner);
            idle.push((connection, Instant::now()));
        }
    }
}

/// A future that is polled and dropped in a runtime.
struct Entered<'a, F> {
    runtime: &'a Handle,
    request: Option<Pin<Box<F>>>,
}

impl<F: Future> Future for Entered<'_, F> {
    type Output = F::Output;

    fn poll(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<F::Output> {
        let this = &mut *self;
        let _runtime = this.runtime.enter();
        let request = this.request.as_mut();
        request
            .expect("it is only taken when this is dropped")
            .as_mut()
            .poll(context)
    }
}

impl<F> Drop for Entered<'_, F> {
    fn drop(&mut self) {
        let _runtime = self.runtime.enter();
        self.request = None;
    }
}

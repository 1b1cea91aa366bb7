//! Connections, scripts and errors.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::{ConnectionLike, ConnectionManager, ConnectionManagerConfig};
use redis::{
    Client as Server, Cmd, ErrorKind, FromRedisValue, Pipeline, RedisError, ServerErrorKind, Value,
};
use semel_core::StoreError;
use tokio::runtime::Handle;

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// How long the server may take to answer. Then the outcome is unknown.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long replicas may take to confirm.
const REPLICA_TIMEOUT: Duration = Duration::from_secs(5);

/// A server-side script.
pub(super) struct Script {
    code: &'static str,
    hash: String,
}

impl Script {
    pub(super) fn new(code: &'static str) -> Self {
        Self {
            code,
            hash: redis::Script::new(code).get_hash().to_owned(),
        }
    }

    fn call(&self, command: &str, script: &str, keys: &[Vec<u8>], args: &[&[u8]]) -> Cmd {
        let mut call = redis::cmd(command);
        call.arg(script).arg(keys.len()).arg(keys).arg(args);
        call
    }
}

/// Two connections to one server: look-ups do not wait behind commits.
#[derive(Clone)]
pub(super) struct Client {
    reads: ConnectionManager,
    writes: ConnectionManager,
    /// Where the connections live, also those that are made anew.
    runtime: Handle,
    /// How many replicas must confirm each commit.
    replicas: u32,
}

impl Client {
    pub(super) async fn connect(server: &Server, replicas: u32) -> Result<Self, RedisError> {
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(RESPONSE_TIMEOUT))
            .set_number_of_retries(1)
            .set_max_delay(Duration::from_millis(500));
        Ok(Self {
            reads: ConnectionManager::new_with_config(server.clone(), config.clone()).await?,
            writes: ConnectionManager::new_with_config(server.clone(), config).await?,
            runtime: Handle::current(),
            replicas,
        })
    }

    /// Looks something up.
    pub(super) async fn look_up<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, StoreError> {
        let mut connection = self.reads.clone();
        let answer = self.bounded(connection.req_packed_command(command)).await?;
        understood(answer)
    }

    /// Looks several things up, one after the other.
    pub(super) async fn look_up_all(&self, commands: &Pipeline) -> Result<Vec<Value>, StoreError> {
        let mut connection = self.reads.clone();
        let answers = connection.req_packed_commands(commands, 0, commands.len());
        let answers = self.bounded(answers).await?;
        answers.into_iter().map(understood::<Value>).collect()
    }

    /// Changes several things, one after the other.
    pub(super) async fn change(&self, commands: &Pipeline) -> Result<Vec<Value>, StoreError> {
        self.write(commands.clone()).await?.map_err(store_error)
    }

    /// Runs a script that changes something.
    pub(super) async fn run<T: FromRedisValue>(
        &self,
        script: &Script,
        keys: &[Vec<u8>],
        args: &[&[u8]],
    ) -> Result<T, StoreError> {
        let alone = |call| {
            let mut commands = redis::pipe();
            commands.add_command(call);
            commands
        };
        let call = script.call("EVALSHA", &script.hash, keys, args);
        let mut answers = self.write(alone(call)).await?;
        // A server that was restarted does not know the script, and has done nothing.
        if answers.as_ref().is_err_and(is_unknown_script) {
            let call = script.call("EVAL", script.code, keys, args);
            answers = self.write(alone(call)).await?;
        }
        let answer = answers.map_err(store_error)?.into_iter().next();
        understood(answer.unwrap_or(Value::Nil))
    }

    /// Sends commands and waits until enough replicas have what they wrote. The wait goes over
    /// the same connection, as a server counts by connection.
    async fn write(
        &self,
        mut commands: Pipeline,
    ) -> Result<Result<Vec<Value>, RedisError>, StoreError> {
        if self.replicas > 0 {
            let patience = u64::try_from(REPLICA_TIMEOUT.as_millis()).unwrap_or(u64::MAX);
            commands.cmd("WAIT").arg(self.replicas).arg(patience);
        }
        let mut connection = self.writes.clone();
        let answers = connection.req_packed_commands(&commands, 0, commands.len());
        let answers = self.in_time(answers).await?;
        let answers = answers.and_then(|answers| {
            let answers = answers.into_iter().map(Value::extract_error);
            answers.collect::<Result<Vec<_>, _>>()
        });
        if self.replicas > 0
            && let Ok(answers) = &answers
        {
            let confirmed: u32 = understood(answers.last().cloned().unwrap_or(Value::Nil))?;
            if confirmed < self.replicas {
                return Err(StoreError::Unavailable {
                    reason: format!(
                        "{confirmed} of {} replicas confirmed within {REPLICA_TIMEOUT:?}",
                        self.replicas
                    ),
                    source: None,
                });
            }
        }
        Ok(answers)
    }

    async fn bounded<T>(
        &self,
        request: impl Future<Output = Result<T, RedisError>>,
    ) -> Result<T, StoreError> {
        self.in_time(request).await?.map_err(store_error)
    }

    /// An answer in time. The client has timeouts of its own; this one also covers its waiting
    /// for a connection.
    async fn in_time<T>(&self, request: impl Future<Output = T>) -> Result<T, StoreError> {
        let patience = CONNECT_TIMEOUT * 2 + RESPONSE_TIMEOUT;
        let elapsed = |_| StoreError::Unavailable {
            reason: format!("Redis did not answer within {patience:?}"),
            source: None,
        };
        // A request may connect anew, and who asks may be on threads that do no I/O, such as
        // those that plugins run on.
        let mut request = pin!(request);
        let request = poll_fn(|context| {
            let _runtime = self.runtime.enter();
            request.as_mut().poll(context)
        });
        tokio::time::timeout(patience, request)
            .await
            .map_err(elapsed)
    }
}

fn is_unknown_script(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}

fn understood<T: FromRedisValue>(answer: Value) -> Result<T, StoreError> {
    let answer = answer.extract_error().map_err(store_error)?;
    T::from_redis_value(answer).map_err(|error| StoreError::Failed {
        reason: format!("Redis gave an answer that makes no sense: {error}"),
        source: Some(Arc::new(error)),
    })
}

/// Codes of a server that will be of service again by itself.
const PASSING: [&str; 8] = [
    "LOADING",
    "BUSY",
    "TRYAGAIN",
    "MASTERDOWN",
    "CLUSTERDOWN",
    "READONLY",
    "NOREPLICAS",
    "UNKILLABLE",
];

/// What an error of the client means.
pub(super) fn store_error(error: RedisError) -> StoreError {
    let code = error.code().unwrap_or_default().to_owned();
    if error.is_io_error()
        || error.is_timeout()
        || error.is_connection_dropped()
        || matches!(error.kind(), ErrorKind::Io)
        || PASSING.contains(&code.as_str())
    {
        return StoreError::unavailable(format!("Redis: {error}"), error);
    }
    let reason = match code.as_str() {
        "OOM" => format!("Redis has no memory left ({error}): raise its `maxmemory`"),
        "MISCONF" => format!("Redis can't save to its disk ({error}): see to that disk"),
        "NOAUTH" | "WRONGPASS" | "NOPERM" => format!(
            "Redis denies access ({error}): give user and password, as in \
             `redis://USER:PASSWORD@HOST:PORT/DB`, of a user that may run scripts"
        ),
        _ => format!("Redis: {error}"),
    };
    StoreError::Failed {
        reason,
        source: Some(Arc::new(error)),
    }
}

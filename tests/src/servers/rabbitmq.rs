//! RabbitMQ: an Erlang process on loopback, and the port mapper that it needs.

mod backlogs;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};
use lapin::options::{
    ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
    QueuePurgeOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection, ConnectionProperties, ExchangeKind};
use tempfile::TempDir;
use tokio::sync::OnceCell;

use super::program::{free_ports, home, try_start, wait_until_up};
use crate::child::{Process, bound_command};

/// What starts the server without becoming another user, on Debian and elsewhere.
const PROGRAMS: [&str; 2] = [
    "/usr/lib/rabbitmq/bin/rabbitmq-server",
    "/usr/local/sbin/rabbitmq-server",
];

/// How long it may take until it is up.
const BOOT: Duration = Duration::from_secs(180);

/// What it logs when it is.
const UP: &str = "Server startup complete";

/// A broker with its own ports and directory. It stops when it is dropped, and also when the
/// process that started it dies.
#[derive(Debug)]
pub struct RabbitMq {
    // Dropped before their directory.
    process: Option<Process>,
    port_mapper: Option<Process>,
    home: TempDir,
    settings: String,
    port: u16,
    watched: bool,
}

impl RabbitMq {
    /// Starts a broker and waits until it is up.
    pub async fn start() -> Result<Self> {
        Self::start_with(&[]).await
    }

    /// The same with more lines for `rabbitmq.conf`.
    pub async fn start_with(settings: &[&str]) -> Result<Self> {
        let home = home("rabbitmq")?;
        let mut server = Self {
            process: None,
            port_mapper: None,
            home,
            settings: settings.join("\n"),
            port: 0,
            watched: false,
        };
        try_start(async || {
            // For clients, for other nodes, and the port mapper's.
            server.port = free_ports(&[0, 1, 2])?;
            server.restart().await
        })
        .await?;
        Ok(server)
    }

    /// The broker that the tests of a process share. Each uses queues of its own.
    pub async fn shared() -> Result<&'static Self> {
        static SHARED: OnceCell<RabbitMq> = OnceCell::const_new();
        SHARED.get_or_try_init(Self::start).await
    }

    /// The address as the host takes it.
    pub fn url(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}", self.port)
    }

    /// The port that it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The process id, for measuring.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    /// A connection and a channel, for as long as both are held.
    pub async fn channel(&self) -> Result<(Connection, Channel)> {
        let url = format!("{}/%2f", self.url());
        let connection = Connection::connect(&url, ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        Ok((connection, channel))
    }

    /// Declares a quorum queue.
    pub async fn declare_queue(&self, queue: &str) -> Result<()> {
        self.declare_queue_with(queue, &[]).await
    }

    /// The same with more arguments, such as `("x-max-length", AMQPValue::LongInt(1))`.
    pub async fn declare_queue_with(
        &self,
        queue: &str,
        arguments: &[(&str, AMQPValue)],
    ) -> Result<()> {
        let mut table = FieldTable::default();
        let kind = AMQPValue::LongString("quorum".into());
        table.insert("x-queue-type".into(), kind);
        for (name, value) in arguments {
            table.insert((*name).into(), value.clone());
        }
        let durable = QueueDeclareOptions {
            durable: true,
            ..QueueDeclareOptions::default()
        };
        let (_connection, channel) = self.channel().await?;
        channel.queue_declare(queue.into(), durable, table).await?;
        Ok(())
    }

    /// Declares a topic exchange and binds a queue to it.
    pub async fn bind(&self, exchange: &str, routing_key: &str, queue: &str) -> Result<()> {
        let (_connection, channel) = self.channel().await?;
        let options = ExchangeDeclareOptions::default();
        let table = FieldTable::default();
        channel
            .exchange_declare(exchange.into(), ExchangeKind::Topic, options, table.clone())
            .await?;
        let options = QueueBindOptions::default();
        channel
            .queue_bind(
                queue.into(),
                exchange.into(),
                routing_key.into(),
                options,
                table,
            )
            .await?;
        Ok(())
    }

    /// Deletes a queue with all that is in it.
    pub async fn delete_queue(&self, queue: &str) -> Result<()> {
        let (_connection, channel) = self.channel().await?;
        let options = QueueDeleteOptions::default();
        channel.queue_delete(queue.into(), options).await?;
        Ok(())
    }

    /// Empties a queue of what nobody was handed.
    pub async fn purge_queue(&self, queue: &str) -> Result<()> {
        let (_connection, channel) = self.channel().await?;
        let options = QueuePurgeOptions::default();
        channel.queue_purge(queue.into(), options).await?;
        Ok(())
    }

    /// How many messages of a queue nobody holds.
    pub async fn ready(&self, queue: &str) -> Result<u32> {
        let (_connection, channel) = self.channel().await?;
        let passive = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        let table = FieldTable::default();
        let found = channel.queue_declare(queue.into(), passive, table).await?;
        Ok(found.message_count())
    }

    /// Kills it with SIGKILL.
    pub fn kill(&mut self) {
        // Dropped, they are killed.
        self.process = None;
        self.port_mapper = None;
        self.forget_backlogs();
    }

    /// Starts it again, or for the first time, on the same ports and files.
    pub async fn restart(&mut self) -> Result<()> {
        self.kill();
        let home = self.home.path();
        let config = format!(
            "listeners.tcp.local = 127.0.0.1:{}\n\
             loopback_users.guest = true\n\
             log.console = true\n\
             log.console.level = info\n\
             disk_free_limit.absolute = 50MB\n\
             {}\n",
            self.port, self.settings
        );
        fs::write(home.join("rabbitmq.conf"), config)?;
        fs::write(home.join("enabled_plugins"), "[].\n")?;
        fs::write(home.join("rabbitmq-env.conf"), "")?;
        let log = File::create(self.log_path())?;

        // The server would start one that outlives it.
        let mut command = bound_command(Path::new("epmd"));
        command
            .args(["-address", "127.0.0.1", "-port"])
            .arg((self.port + 2).to_string())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log.try_clone()?);
        self.port_mapper = Some(Process::start(command)?);

        let program = PROGRAMS.iter().map(Path::new).find(|path| path.exists());
        let program =
            program.context("rabbitmq-server is missing: run scripts/install-tools.sh")?;
        let mut command = bound_command(program);
        command
            // With this the script becomes the server and does not stay its parent.
            .env("RABBITMQ_ALLOW_INPUT", "1")
            .arg("-noinput")
            .env("HOME", home)
            .env("RABBITMQ_CONF_ENV_FILE", home.join("rabbitmq-env.conf"))
            .env("RABBITMQ_CONFIG_FILE", home.join("rabbitmq.conf"))
            .env(
                "RABBITMQ_ENABLED_PLUGINS_FILE",
                home.join("enabled_plugins"),
            )
            .env("RABBITMQ_MNESIA_BASE", home.join("data"))
            .env("RABBITMQ_LOG_BASE", home.join("logs"))
            .env("RABBITMQ_LOGS", "-")
            .env("RABBITMQ_PID_FILE", home.join("pid"))
            // Names of nodes are the port mapper's, of which each server has its own.
            .env("RABBITMQ_NODENAME", "semel@localhost")
            .env("RABBITMQ_DIST_PORT", (self.port + 1).to_string())
            .env("ERL_EPMD_PORT", (self.port + 2).to_string())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env(
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
                "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none \
                 -kernel inet_dist_use_interface {127,0,0,1}",
            )
            .env_remove("NOTIFY_SOCKET")
            .current_dir(home)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let process = Process::start(command)?;
        let log = self.log_path();
        let is_up = async || is_started(&log) && self.channel().await.is_ok();
        let up = wait_until_up("RabbitMQ", process, &log, BOOT, is_up);
        self.process = Some(up.await?);
        match self.watched {
            true => self.watch_backlogs(),
            false => Ok(()),
        }
    }

    fn log_path(&self) -> PathBuf {
        self.home.path().join("server.log")
    }
}

impl Drop for RabbitMq {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Whether a server's log says that it is up.
fn is_started(log: &Path) -> bool {
    fs::read_to_string(log).is_ok_and(|log| log.contains(UP))
}

//! Apache Kafka: one Java process on loopback, broker and controller in one (KRaft).

mod secured;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::{ClientConfig, config::RDKafkaLogLevel};
use tempfile::TempDir;
use tokio::sync::OnceCell;
use tokio::task::spawn_blocking;

pub use secured::Secured;

use super::program::{free_ports, home, tools, try_start, wait_until_up};
use crate::child::{Process, bound_command};

/// The version that `scripts/install-tools.sh` installs.
const VERSION: &str = "4.3.1";

/// How long the Java process may take until it answers.
const BOOT: Duration = Duration::from_secs(180);

/// How long one request to a server may take.
const REQUEST: Duration = Duration::from_secs(30);

/// Any 16 bytes in base64.
const CLUSTER_ID: &str = "c2VtZWwtdGVzdHMtMDAwMA";

/// A broker with its own ports and directory. It stops when it is dropped, and also when the
/// process that started it dies.
#[derive(Debug)]
pub struct Kafka {
    home: TempDir,
    jars: PathBuf,
    secured: Option<Secured>,
    port: u16,
    controller_port: u16,
    process: Option<Process>,
}

impl Kafka {
    /// Starts a broker and waits until it is up.
    pub async fn start() -> Result<Self> {
        Self::launch(false).await
    }

    /// Starts one with listeners that let in only whom they know, beside the plain one.
    pub async fn start_secured() -> Result<Self> {
        Self::launch(true).await
    }

    async fn launch(secured: bool) -> Result<Self> {
        let jars = jars()?;
        let home = home("kafka")?;
        let mut server = Self {
            home,
            jars,
            secured: None,
            port: 0,
            controller_port: 0,
            process: None,
        };
        try_start(async || {
            server.port = free_ports(&[0, 1, 2, 3])?;
            server.controller_port = server.port + 1;
            if secured {
                server.secured = Some(Secured::at(server.port + 2)?);
            }
            server.format_and_start().await
        })
        .await?;
        Ok(server)
    }

    /// The broker that the tests of a process share. Each uses topics and groups of its own.
    pub async fn shared() -> Result<&'static Self> {
        static SHARED: OnceCell<Kafka> = OnceCell::const_new();
        SHARED.get_or_try_init(Self::start).await
    }

    /// The broker's address.
    pub fn servers(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Its listeners that let in only whom they know, if it was started with them.
    pub fn secured(&self) -> Option<&Secured> {
        self.secured.as_ref()
    }

    /// The address as the host takes it.
    pub fn url(&self) -> String {
        format!("kafka://{}", self.servers())
    }

    /// The process id, for measuring.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    /// Creates a topic and waits until clients can use it.
    pub async fn create_topic(&self, topic: &str, partitions: i32) -> Result<()> {
        self.create_topic_with(topic, partitions, &[]).await
    }

    /// The same with settings of the topic, such as `("max.message.bytes", "1000")`.
    pub async fn create_topic_with(
        &self,
        topic: &str,
        partitions: i32,
        settings: &[(&str, &str)],
    ) -> Result<()> {
        let replication = TopicReplication::Fixed(1);
        let mut new = NewTopic::new(topic, partitions, replication);
        for (name, value) in settings {
            new = new.set(name, value);
        }
        let created = self.admin()?.create_topics([&new], &options()).await?;
        for result in created {
            result.map_err(|(topic, code)| anyhow::anyhow!("creating {topic}: {code}"))?;
        }
        let (client, topic) = (self.client(None)?, topic.to_owned());
        spawn_blocking(move || {
            let deadline = Instant::now() + REQUEST;
            while led_partitions(&client, &topic) < partitions {
                ensure!(Instant::now() < deadline, "nobody leads {topic}");
                thread::sleep(Duration::from_millis(20));
            }
            Ok(())
        })
        .await?
    }

    /// Deletes a topic. Clients that know it find out when they use it.
    pub async fn delete_topic(&self, topic: &str) -> Result<()> {
        let deleted = self.admin()?.delete_topics(&[topic], &options()).await?;
        for result in deleted {
            result.map_err(|(topic, code)| anyhow::anyhow!("deleting {topic}: {code}"))?;
        }
        Ok(())
    }

    /// The offset behind the last message of a partition.
    pub async fn end_of(&self, topic: &str, partition: i32) -> Result<u64> {
        let (client, topic) = (self.client(None)?, topic.to_owned());
        spawn_blocking(move || {
            let (_, end) = client.fetch_watermarks(&topic, partition, REQUEST)?;
            Ok(u64::try_from(end)?)
        })
        .await?
    }

    /// The offset that a group consumes next of a partition; none before it committed any.
    pub async fn committed(&self, group: &str, topic: &str, partition: i32) -> Result<Option<u64>> {
        let client = self.client(Some(group))?;
        let mut asked = TopicPartitionList::new();
        asked.add_partition(topic, partition);
        let found = spawn_blocking(move || client.committed_offsets(asked, REQUEST)).await??;
        let offset = found.elements().first().map(|element| element.offset());
        Ok(match offset {
            Some(Offset::Offset(offset)) => Some(u64::try_from(offset)?),
            _ => None,
        })
    }

    /// Kills it with SIGKILL.
    pub fn kill(&mut self) {
        // Dropped, it is killed.
        self.process = None;
    }

    /// Starts it again on the same port and files, after [`kill`](Self::kill).
    pub async fn restart(&mut self) -> Result<()> {
        self.kill();
        let log_path = self.log_path();
        let log = File::options().create(true).append(true).open(&log_path)?;
        let mut command = self.java("256m");
        command
            .arg("kafka.Kafka")
            .arg(self.config_path())
            .stdout(log.try_clone()?)
            .stderr(log);
        let process = Process::start(command);
        let process = process.context("Kafka needs Java: run scripts/install-tools.sh")?;
        let is_up = async || self.answers().await.unwrap_or(false);
        let up = wait_until_up("Kafka", process, &log_path, BOOT, is_up);
        self.process = Some(up.await?);
        Ok(())
    }

    async fn format_and_start(&mut self) -> Result<()> {
        let home = self.home.path().display();
        let (port, controller) = (self.port, self.controller_port);
        let secured = self.secured.as_ref();
        let more_listeners = secured.map(Secured::listeners).unwrap_or_default();
        let more_protocols = secured.map(Secured::protocols).unwrap_or_default();
        let more_settings = secured.map(Secured::settings).unwrap_or_default();
        let config = format!(
            "process.roles=broker,controller\n\
             node.id=1\n\
             controller.quorum.voters=1@127.0.0.1:{controller}\n\
             listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}{more_listeners}\n\
             advertised.listeners=PLAINTEXT://127.0.0.1:{port}{more_listeners}\n\
             controller.listener.names=CONTROLLER\n\
             listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT{more_protocols}\n\
             log.dirs={home}/data\n\
             auto.create.topics.enable=false\n\
             num.network.threads=2\n\
             num.io.threads=2\n\
             offsets.topic.num.partitions=4\n\
             offsets.topic.replication.factor=1\n\
             transaction.state.log.num.partitions=1\n\
             transaction.state.log.replication.factor=1\n\
             transaction.state.log.min.isr=1\n\
             share.coordinator.state.topic.replication.factor=1\n\
             share.coordinator.state.topic.min.isr=1\n\
             group.initial.rebalance.delay.ms=0\n\
             log.segment.bytes=67108864\n\
             log.index.size.max.bytes=1048576\n\
             {more_settings}",
        );
        fs::write(self.config_path(), config)?;
        let mut command = self.java("128m");
        command
            .args(["kafka.tools.StorageTool", "format", "--ignore-formatted"])
            .args(["--cluster-id", CLUSTER_ID, "--config"])
            .arg(self.config_path())
            .args(secured.map(Secured::format_arguments).unwrap_or_default());
        let output = spawn_blocking(move || command.output()).await?;
        let output = output.context("Kafka needs Java: run scripts/install-tools.sh")?;
        ensure!(
            output.status.success(),
            "Kafka's storage can't be formatted: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        self.restart().await
    }

    fn java(&self, heap: &str) -> Command {
        let mut command = bound_command(Path::new("java"));
        command
            .args([&format!("-Xms{heap}"), &format!("-Xmx{heap}")])
            .args(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])
            .arg(format!("-Dkafka.logs.dir={}", self.home.path().display()))
            .arg("-cp")
            .arg(self.jars.join("*"))
            .current_dir(self.home.path())
            .stdin(Stdio::null());
        command
    }

    fn config_path(&self) -> PathBuf {
        self.home.path().join("server.properties")
    }

    fn log_path(&self) -> PathBuf {
        self.home.path().join("server.log")
    }

    async fn answers(&self) -> Result<bool> {
        let client = self.client(None)?;
        let answer = spawn_blocking(move || {
            let metadata = client.fetch_metadata(None, Duration::from_secs(2));
            metadata.is_ok_and(|metadata| !metadata.brokers().is_empty())
        });
        Ok(answer.await?)
    }

    fn client(&self, group: Option<&str>) -> Result<BaseConsumer> {
        let mut config = self.config();
        config.set("group.id", group.unwrap_or("asks"));
        Ok(config.create()?)
    }

    fn admin(&self) -> Result<AdminClient<DefaultClientContext>> {
        Ok(self.config().create()?)
    }

    fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", self.servers())
            .set("enable.auto.commit", "false")
            .set_log_level(RDKafkaLogLevel::Emerg);
        config
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        self.kill();
    }
}

fn options() -> AdminOptions {
    AdminOptions::new()
        .operation_timeout(Some(REQUEST))
        .request_timeout(Some(REQUEST))
}

/// How many partitions of a topic have a leader.
fn led_partitions(client: &BaseConsumer, topic: &str) -> i32 {
    let Ok(metadata) = client.fetch_metadata(Some(topic), REQUEST) else {
        return 0;
    };
    let topics = metadata.topics().iter();
    let led = topics
        .flat_map(|topic| topic.partitions())
        .filter(|partition| partition.leader() >= 0 && partition.error().is_none());
    i32::try_from(led.count()).unwrap_or(i32::MAX)
}

/// Where the jars are.
fn jars() -> Result<PathBuf> {
    let jars = tools()?.join(format!("kafka-{VERSION}/lib"));
    ensure!(
        jars.join(format!("kafka_2.13-{VERSION}.jar")).exists(),
        "Kafka is not installed in {}: run scripts/install-tools.sh",
        jars.display()
    );
    Ok(jars)
}

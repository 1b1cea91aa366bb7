//! Apache RocketMQ: a name server and a broker, two Java processes on loopback.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::OnceCell;

use super::program::{free_ports, home, tools, try_start, wait_until_up};
use crate::child::{Process, bound_command};

/// The version that `scripts/install-tools.sh` installs.
const VERSION: &str = "5.5.0";

/// How long a Java process may take to say that it is up.
const BOOT: Duration = Duration::from_secs(180);

/// How long one request to a server may take.
const REQUEST: Duration = Duration::from_secs(30);

/// Settings with which a broker soon lets go of the queues of a host that is gone.
pub const FORGETFUL: [&str; 2] = [
    // A host that is paused keeps its connections. Those of hosts at work are never silent for
    // longer than 2 seconds.
    "serverChannelMaxIdleTimeSeconds=6",
    // A heartbeat that is handled after its sender's connection broke makes a member of the
    // group that is not there. Those who live send one every 30 seconds.
    "channelExpiredTimeout=45000",
];

/// A RocketMQ cluster of one broker with its own ports and directory. It stops when it is
/// dropped, and also when the process that started it dies.
#[derive(Debug)]
pub struct RocketMq {
    home: TempDir,
    jars: PathBuf,
    settings: String,
    name_server_port: u16,
    broker_port: u16,
    name_server: Option<Process>,
    broker: Option<Process>,
}

impl RocketMq {
    /// Starts a cluster and waits until it is up.
    pub async fn start() -> Result<Self> {
        Self::start_with(&[]).await
    }

    /// The same with more lines for the broker's configuration; they come last and so prevail.
    pub async fn start_with(settings: &[&str]) -> Result<Self> {
        let jars = jars()?;
        let home = home("rocketmq")?;
        let mut cluster = Self {
            home,
            jars,
            settings: settings.join("\n"),
            name_server_port: 0,
            broker_port: 0,
            name_server: None,
            broker: None,
        };
        try_start(async || {
            cluster.name_server_port = free_ports(&[0])?;
            // The broker listens on its port, two below it, and one above it.
            cluster.broker_port = free_ports(&[-2, 0, 1])?;
            cluster.restart().await
        })
        .await?;
        Ok(cluster)
    }

    /// The cluster that the tests of a process share. Each uses topics and groups of its own.
    pub async fn shared() -> Result<&'static Self> {
        static SHARED: OnceCell<RocketMq> = OnceCell::const_new();
        SHARED.get_or_try_init(Self::start).await
    }

    /// The name server's address.
    pub fn name_server(&self) -> String {
        format!("127.0.0.1:{}", self.name_server_port)
    }

    /// The address as the host takes it.
    pub fn url(&self) -> String {
        format!("rocketmq://{}", self.name_server())
    }

    /// The process ids of name server and broker, for measuring.
    pub fn pids(&self) -> Vec<u32> {
        let children = [&self.name_server, &self.broker];
        children.into_iter().flatten().map(Process::id).collect()
    }

    /// The broker's port.
    pub fn broker_port(&self) -> u16 {
        self.broker_port
    }

    /// The offset behind the last message of a queue.
    pub fn end_of(&self, topic: &str, queue: u32) -> Result<u64> {
        let fields = json!({ "topic": topic, "queueId": queue.to_string() });
        offset(&request(self.broker_port, GET_MAX_OFFSET, &fields)?)
    }

    /// How many messages a topic of so many queues has.
    pub fn stored(&self, topic: &str, queues: u32) -> Result<usize> {
        let ends = (0..queues).map(|queue| self.end_of(topic, queue));
        let stored: u64 = ends.sum::<Result<_>>()?;
        Ok(usize::try_from(stored)?)
    }

    /// The offset that a group consumes next of a queue; none before it committed any.
    pub fn committed(&self, group: &str, topic: &str, queue: u32) -> Result<Option<u64>> {
        let fields = json!({
            "consumerGroup": group,
            "topic": topic,
            "queueId": queue.to_string(),
            // A group that is new is not to look like one at the queue's start.
            "setZeroIfNotFound": "false",
        });
        let answer = answer(self.broker_port, QUERY_CONSUMER_OFFSET, &fields)?;
        match answer["code"].as_i64() {
            Some(QUERY_NOT_FOUND) => Ok(None),
            _ => offset(&succeeded(answer)?).map(Some),
        }
    }

    /// Creates a topic and waits until clients can find it.
    pub async fn create_topic(&self, topic: &str, queues: u32) -> Result<()> {
        self.set_topic(topic, queues, READ_AND_WRITE).await
    }

    /// Lets nobody write to a topic any more.
    pub async fn forbid_writing(&self, topic: &str, queues: u32) -> Result<()> {
        self.set_topic(topic, queues, READ).await
    }

    async fn set_topic(&self, topic: &str, queues: u32, permission: u8) -> Result<()> {
        let fields = json!({
            "topic": topic,
            "defaultTopic": "TBW102",
            "readQueueNums": queues.to_string(),
            "writeQueueNums": queues.to_string(),
            "perm": permission.to_string(),
            "topicFilterType": "SINGLE_TAG",
            "topicSysFlag": "0",
            "order": "false",
        });
        let (broker, name_server) = (self.broker_port, self.name_server_port);
        let deadline = Instant::now() + REQUEST;
        loop {
            let (fields, route) = (fields.clone(), json!({ "topic": topic }));
            let result = tokio::task::spawn_blocking(move || {
                request(broker, UPDATE_AND_CREATE_TOPIC, &fields)?;
                request(name_server, GET_ROUTE_INFO_BY_TOPIC, &route)
            })
            .await?;
            match result {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() > deadline => {
                    return Err(error.context(format!("creating the topic {topic}")));
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }

    /// Deletes a topic from the broker. Clients that know it find out when they use it.
    pub async fn delete_topic(&self, topic: &str) -> Result<()> {
        let (broker, fields) = (self.broker_port, json!({ "topic": topic }));
        let deleted = move || request(broker, DELETE_TOPIC_IN_BROKER, &fields);
        tokio::task::spawn_blocking(deleted).await?.map(drop)
    }

    /// Kills both processes with SIGKILL.
    pub fn kill(&mut self) {
        // Dropped, they are killed.
        self.broker = None;
        self.name_server = None;
    }

    /// Starts the processes again, or for the first time, on the same ports and files.
    pub async fn restart(&mut self) -> Result<()> {
        self.kill();
        let home = self.home.path().to_owned();
        // The broker leaves this behind when it is killed, and locks it anew.
        fs::create_dir_all(home.join("store"))?;
        let name_server = format!(
            "listenPort={}\nbindAddress=127.0.0.1\n",
            self.name_server_port
        );
        // A machine that is busy is no reason to turn messages away.
        let broker = format!(
            "brokerClusterName=semel\n\
             brokerName=broker-a\n\
             brokerId=0\n\
             brokerIP1=127.0.0.1\n\
             bindAddress=127.0.0.1\n\
             listenPort={port}\n\
             fastListenPort={fast}\n\
             haListenPort={ha}\n\
             namesrvAddr=127.0.0.1:{name_server}\n\
             storePathRootDir={store}\n\
             storePathCommitLog={store}/commitlog\n\
             autoCreateTopicEnable=false\n\
             autoCreateSubscriptionGroup=true\n\
             mappedFileSizeCommitLog=67108864\n\
             transactionTimeOut=3000\n\
             transactionCheckInterval=2000\n\
             transactionOpBatchInterval=200\n\
             waitTimeMillsInSendQueue=5000\n\
             osPageCacheBusyTimeOutMills=5000\n\
             diskMaxUsedSpaceRatio=98\n\
             {settings}\n",
            port = self.broker_port,
            fast = self.broker_port - 2,
            ha = self.broker_port + 1,
            name_server = self.name_server_port,
            store = home.join("store").display(),
            settings = self.settings,
        );
        let class = "org.apache.rocketmq.namesrv.NamesrvStartup";
        let up = self.launch("namesrv", class, &name_server, "256m");
        self.name_server = Some(up.await?);
        let class = "org.apache.rocketmq.broker.BrokerStartup";
        let up = self.launch("broker", class, &broker, "1g");
        self.broker = Some(up.await?);
        Ok(())
    }

    /// Starts a process and waits until it is up.
    async fn launch(&self, name: &str, class: &str, config: &str, heap: &str) -> Result<Process> {
        let home = self.home.path();
        let config_path = home.join(format!("{name}.conf"));
        fs::write(&config_path, config)?;
        let log_path = home.join(format!("{name}.log"));
        let log = File::create(&log_path)?;
        let mut command = bound_command(Path::new("java"));
        command
            .args(["-Xms128m", &format!("-Xmx{heap}"), "-XX:+UseSerialGC"])
            .arg("-XX:MaxDirectMemorySize=1g")
            .arg(format!("-Duser.home={}", home.display()))
            .arg("-cp")
            .arg(self.jars.join("*"))
            .arg(class)
            .arg("-c")
            .arg(&config_path)
            .env("ROCKETMQ_HOME", home)
            .env_remove("NAMESRV_ADDR")
            .current_dir(home)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let process = Process::start(command);
        let process = process.context("RocketMQ needs Java: run scripts/install-tools.sh")?;
        let is_up =
            async || fs::read_to_string(&log_path).is_ok_and(|log| log.contains("boot success"));
        wait_until_up(
            &format!("RocketMQ's {name}"),
            process,
            &log_path,
            BOOT,
            is_up,
        )
        .await
    }
}

impl Drop for RocketMq {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Where the jars are.
fn jars() -> Result<PathBuf> {
    let jars = tools()?.join(format!("rocketmq-{VERSION}/lib"));
    ensure!(
        jars.join(format!("rocketmq-broker-{VERSION}.jar")).exists(),
        "RocketMQ is not installed in {}: run scripts/install-tools.sh",
        jars.display()
    );
    Ok(jars)
}

const QUERY_CONSUMER_OFFSET: i32 = 14;
const UPDATE_AND_CREATE_TOPIC: i32 = 17;
const GET_MAX_OFFSET: i32 = 30;
const GET_ROUTE_INFO_BY_TOPIC: i32 = 105;
const DELETE_TOPIC_IN_BROKER: i32 = 215;

// A topic's permissions.
const READ: u8 = 4;
const READ_AND_WRITE: u8 = 6;

/// The broker knows nothing of what was asked for.
const QUERY_NOT_FOUND: i64 = 22;

/// A request that must succeed.
fn request(port: u16, code: i32, fields: &Value) -> Result<Value> {
    succeeded(answer(port, code, fields)?)
}

fn succeeded(answer: Value) -> Result<Value> {
    let (code, remark) = (&answer["code"], &answer["remark"]);
    ensure!(*code == 0, "RocketMQ answers {code}: {remark}");
    Ok(answer)
}

fn offset(answer: &Value) -> Result<u64> {
    let offset = answer["extFields"]["offset"].as_str();
    let offset = offset.with_context(|| format!("no offset is in {answer}"))?;
    Ok(offset.parse()?)
}

/// One request in RocketMQ's remoting protocol, and the header of the answer. A request is the
/// length of the rest, the length of the header, the header as JSON, no body.
fn answer(port: u16, code: i32, fields: &Value) -> Result<Value> {
    let header = serde_json::to_vec(&json!({
        "code": code,
        "language": "JAVA",
        "version": 473,
        "opaque": 1,
        "flag": 0,
        "serializeTypeCurrentRPC": "JSON",
        "extFields": fields,
    }))?;
    let header_length = u32::try_from(header.len())?;
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(REQUEST))?;
    stream.write_all(&(header_length + 4).to_be_bytes())?;
    stream.write_all(&header_length.to_be_bytes())?;
    stream.write_all(&header)?;

    let mut lengths = [0; 8];
    stream.read_exact(&mut lengths)?;
    // The highest byte is the header's encoding.
    let header_length = u32::from_be_bytes([0, lengths[5], lengths[6], lengths[7]]);
    let mut header = vec![0; header_length as usize];
    stream.read_exact(&mut header)?;
    Ok(serde_json::from_slice(&header)?)
}

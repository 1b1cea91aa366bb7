//! `semel doctor` on real servers, good, bad and gone.

use std::net::TcpListener;
use std::time::Instant;

use anyhow::Context;
use semel_tests::servers::kafka::Kafka;
use semel_tests::servers::mariadb::MariadbServer;
use semel_tests::servers::postgres::PostgresServer;
use semel_tests::servers::rabbitmq::RabbitMq;
use semel_tests::servers::redis::RedisServer;
use semel_tests::servers::rocketmq::RocketMq;

use super::*;

/// Within what time the doctor ends, also if a server hangs: its own bounds, and some time for a
/// busy machine.
const END: Duration = Duration::from_secs(20);

/// What it reported.
struct Told {
    code: Option<i32>,
    reports: Vec<Value>,
}

/// Has the plugin consume a topic and publish to a destination, with more settings of that.
fn configure(site: &Site, topic: &str, destination: &str, settings: &str) -> Result<()> {
    let text = format!(
        "[plugins.points]\ntopics = [\"{topic}\"]\n\
         [destinations.points-granted]\nurl = \"{destination}\"\n{settings}"
    );
    site.write("semel.toml", text)
}

/// Runs it with these words.
fn doctor(site: &Site, words: &[&str]) -> Result<Told> {
    let arguments = [&["doctor", "--json"], words].concat();
    let started = Instant::now();
    let ended = site.run(&arguments, LIMIT)?;
    let took = started.elapsed();
    ensure!(took < END, "it took {took:?}");
    Ok(Told {
        code: ended.status.code(),
        reports: json_lines(&ended.stdout).with_context(|| ended.stderr)?,
    })
}

impl Told {
    /// Fails unless a point has this level and a text with all parts.
    fn says(&self, part: &str, subject: &str, level: &str, parts: &[&str]) -> Result<()> {
        let mut points = self
            .reports
            .iter()
            .filter(|report| report["part"] == part && report["subject"] == subject);
        let said = |report: &Value| {
            let text = format!("{} {}", report["found"], report["advice"]);
            report["level"] == level && parts.iter().all(|part| text.contains(part))
        };
        ensure!(
            points.any(said),
            "no {level} of {part}, {subject} with {parts:?} in {:#?}",
            self.reports
        );
        Ok(())
    }

    /// Fails if anything but notes is bad.
    fn is_all_good(&self) -> Result<()> {
        let mut reports = self.reports.iter();
        let bad =
            reports.find(|report| report["level"] == "warning" || report["level"] == "failure");
        ensure!(bad.is_none(), "{bad:#?}");
        self.ends_with(0)
    }

    fn ends_with(&self, code: i32) -> Result<()> {
        ensure!(
            self.code == Some(code),
            "{:?}: {:#?}",
            self.code,
            self.reports
        );
        Ok(())
    }
}

#[test]
fn a_new_set_up_with_files_is_good_and_stays_untouched() -> Result<()> {
    let site = site(&[order("1", "o-1", 1_250)])?;
    let words = [
        "--store",
        "redb:data",
        "--input",
        "in.jsonl",
        "--output",
        "out.jsonl",
    ];
    let told = doctor(&site, &words)?;
    told.is_all_good()?;
    told.says("plugin points", "points.wasm", "good", &["orders"])?;
    told.says("plugin points", "key", "good", &["json:/order_id"])?;
    told.says("store", "file", "note", &["not checked", "semel.redb"])?;
    told.says("source", "file", "good", &["in.jsonl"])?;
    told.says("destinations", "file", "note", &["out.jsonl"])?;
    ensure!(!site.path("data").exists() && !site.path("out.jsonl").exists());

    let text = site.ask(&["doctor", "--store", "redb:data", "--input", "in.jsonl"])?;
    has(&text, &["PART", "plugin points", "Nothing failed", "→ "])?;
    let missing = site.run(&["doctor", "--input", "none.jsonl"], LIMIT)?;
    ensure!(missing.status.code() == Some(1));
    has(&missing.stdout, &["FAILURE", "none.jsonl"])?;
    has(&missing.stderr, &["1 of ", "checks failed"])
}

#[test]
fn what_waits_in_a_store_is_counted() -> Result<()> {
    let site = site(&[order("1", "o-1", 1_250), order("2", "o-2", -1)])?;
    let keep = ["run", "--input", "in.jsonl", "--store", "redb:data"];
    site.run(&keep, LIMIT)?.succeeded("run")?;
    let words = ["--store", "redb:data", "--input", "in.jsonl"];
    let told = doctor(&site, &words)?;
    told.is_all_good()?;
    told.says("store", "file", "good", &["semel.redb"])?;
    told.says("store", "outbox", "note", &["that wait: 1"])?;
    told.says("store", "dead letters", "note", &["1", "semel dead list"])?;
    told.says("store", "parked", "note", &["of `points`", ": 0"])?;

    let run = ["run", "--input", "-", "--store", "redb:data"];
    let mut host = site.start_with(&run, |command| {
        command.stdin(std::process::Stdio::piped());
    })?;
    let _open = host.process.stdin();
    host.wait_for_log("the store is open", LIMIT)?;
    let told = doctor(&site, &words)?;
    told.says("store", "lock", "warning", &["another process"])?;
    told.ends_with(0)
}

#[test]
fn plugins_and_configuration_are_judged() -> Result<()> {
    let site = site(&[])?;
    site.write("plugins/broken.wasm", "no plugin")?;
    site.write(
        "semel.toml",
        "[plugins.points]\nkey = \"id\"\nretention = \"1d\"\ndestinations = [\"nowhere\"]\n\
         [plugins.points.sql]\nselect = [\"accounts\"]\n\
         [plugins.pionts]\nretention = \"8d\"\n",
    )?;
    let told = doctor(&site, &["--source", "kafka://127.0.0.1:1"])?;
    told.ends_with(1)?;
    told.says(
        "plugins",
        "broken.wasm",
        "failure",
        &["not a valid", "plugin inspect"],
    )?;
    told.says("plugin points", "key", "warning", &["producer's resends"])?;
    told.says(
        "plugin points",
        "retention",
        "failure",
        &["forgets after 1d", "again for 7d", "allow-short-retention"],
    )?;
    told.says(
        "configuration",
        "[plugins.pionts]",
        "warning",
        &["no plugin"],
    )?;
    told.says(
        "configuration",
        "[plugins.points]",
        "failure",
        &["`nowhere`"],
    )?;
    told.says(
        "configuration",
        "[plugins.points.sql]",
        "failure",
        &["no database"],
    )?;
    told.says("source", "broker", "failure", &["can't be reached"])?;

    site.write("semel.toml", "[engine]\nbatches = 3\n")?;
    let told = doctor(&site, &[])?;
    told.ends_with(1)?;
    told.says(
        "configuration",
        "semel.toml",
        "failure",
        &["semel.toml:2:1", "`batches`"],
    )?;
    ensure!(told.reports.len() == 1);
    Ok(())
}

#[test]
fn an_http_source_is_judged_without_serving() -> Result<()> {
    let site = site(&[])?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let url = format!("http://{address}");
    let told = doctor(&site, &["--source", &url])?;
    told.says("source", "port", "warning", &["in use"])?;
    told.ends_with(0)?;
    drop(listener);
    let told = doctor(&site, &["--source", &url])?;
    told.says("source", "port", "good", &["is free"])?;
    let told = doctor(&site, &["--source", "http://0.0.0.0:1"])?;
    told.says("source", "settings", "failure", &["needs TLS"])?;
    told.ends_with(1)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafka_and_redis_are_looked_at() -> Result<()> {
    let (kafka, redis) = (Kafka::shared().await?, RedisServer::start_synced().await?);
    kafka.create_topic("doctor-orders", 3).await?;
    let month = [("retention.ms", "2592000000")];
    kafka.create_topic_with("doctor-month", 1, &month).await?;
    let site = site(&[])?;
    let configured = |topic: &str, destination: &str| {
        let to = format!("{}/{destination}", kafka.url());
        configure(&site, topic, &to, "")
    };
    configured("doctor-orders", "doctor-orders")?;
    let (store, source) = (redis.url(), kafka.url());
    let words = ["--store", &store, "--source", &source];
    let told = doctor(&site, &words)?;
    told.ends_with(0)?;
    let good = [
        ("store", "server"),
        ("store", "role"),
        ("store", "maxmemory-policy"),
        ("store", "appendonly"),
        ("store", "appendfsync"),
        ("store", "clock"),
        ("plugin points", "retention"),
    ];
    for (part, subject) in good {
        told.says(part, subject, "good", &[])?;
    }
    told.says("store", "outbox", "note", &["that wait: 0"])?;
    told.says(
        "source",
        "topic doctor-orders",
        "warning",
        &["partitions: 3", "one copy"],
    )?;
    told.says(
        "destinations",
        "points-granted",
        "note",
        &["/doctor-orders"],
    )?;
    ensure!(redis.ask("DBSIZE").await? == ":0", "something was written");

    configured("doctor-missing", "doctor-gone")?;
    let told = doctor(&site, &words)?;
    told.ends_with(1)?;
    told.says(
        "source",
        "topic doctor-missing",
        "failure",
        &["does not exist", "--create"],
    )?;
    told.says(
        "destinations",
        "topic doctor-gone",
        "failure",
        &["does not exist"],
    )?;
    told.says("store", "appendfsync", "good", &[])?;

    // The broker keeps messages for longer than a host assumes.
    configured("doctor-month", "doctor-orders")?;
    let told = doctor(&site, &words)?;
    told.ends_with(1)?;
    told.says(
        "plugin points",
        "retention",
        "failure",
        &["after 7d", "again for 30d"],
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_that_forgets_or_hangs_or_is_gone_fails_alone() -> Result<()> {
    let options = ["--maxmemory-policy", "allkeys-lru", "--appendonly", "no"];
    let mut server = RedisServer::start_with(&options).await?;
    let site = site(&[])?;
    let store = server.url();
    let words = ["--store", &store, "--input", "in.jsonl"];
    let told = doctor(&site, &words)?;
    told.ends_with(1)?;
    told.says(
        "store",
        "maxmemory-policy",
        "failure",
        &["allkeys-lru", "CONFIG SET"],
    )?;
    told.says("store", "appendonly", "warning", &["append-only"])?;
    told.says("store", "role", "good", &[])?;

    server.process()?.pause()?;
    let told = doctor(&site, &words)?;
    told.ends_with(1)?;
    told.says("store", "server", "failure", &[])?;
    told.says("source", "file", "good", &[])?;
    server.process()?.resume()?;

    server.kill();
    let told = doctor(&site, &words)?;
    told.ends_with(1)?;
    told.says(
        "store",
        "server",
        "failure",
        &["can't be reached", "check that a Redis server"],
    )?;
    told.says("source", "file", "good", &[])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn databases_are_looked_at_and_not_migrated() -> Result<()> {
    let flush = ["--innodb-flush-log-at-trx-commit=2"];
    let mut mariadb = MariadbServer::start_with(&flush).await?;
    let postgres = PostgresServer::shared().await?;
    let site = site(&[])?;
    let about = |store: &str| doctor(&site, &["--store", store, "--input", "in.jsonl"]);

    let url = mariadb.database()?;
    let told = about(&url)?;
    told.ends_with(0)?;
    let setting = "innodb_flush_log_at_trx_commit";
    told.says(
        "store",
        setting,
        "warning",
        &["is 2", "`1` keeps all of it"],
    )?;
    told.says("store", "isolation", "good", &[])?;
    told.says("store", "clock", "good", &[])?;
    told.says("store", "schema", "note", &["no tables"])?;
    let tables = "SELECT COUNT(*) FROM information_schema.tables WHERE table_name LIKE 'semel%'";
    ensure!(mariadb.sql(tables)? == "0", "tables were created");
    site.ask(&["store", "migrate", "--store", &url])?;
    let told = about(&url)?;
    told.says("store", "schema", "good", &[])?;
    told.says("store", "tables", "good", &["InnoDB"])?;
    told.says("store", "outbox", "note", &["that wait: 0"])?;

    mariadb.sql(
        "USE test0; CREATE TABLE stock (n INTEGER); CREATE TABLE audit (n INTEGER) ENGINE = MyISAM",
    )?;
    for (granted, level, says) in [
        ("update = [\"stock\"]", "good", "taken back"),
        ("update = [\"later\"]", "warning", "there is no table"),
        ("select = [\"audit\"]", "good", "to be queried"),
        ("insert = [\"audit\"]", "failure", "MyISAM"),
    ] {
        site.write("semel.toml", format!("[plugins.points.sql]\n{granted}\n"))?;
        let table = granted.split('"').nth(1).expect("it names one");
        about(&url)?.says("store", &format!("table {table}"), level, &[says])?;
    }
    site.write("semel.toml", "")?;

    let url = postgres.database()?;
    let told = about(&url)?;
    told.is_all_good()?;
    told.says("store", "synchronous_commit", "good", &[])?;
    told.says("store", "clock", "good", &[])?;
    told.says("store", "schema", "note", &["no tables"])?;
    let told = about(&format!("{url}?migrate=never"))?;
    told.ends_with(1)?;
    told.says("store", "schema", "failure", &["semel store migrate"])?;

    mariadb.process()?.pause()?;
    let told = about(&mariadb.url("test0"))?;
    told.ends_with(1)?;
    told.says("store", "server", "failure", &[])?;
    mariadb.process()?.resume()?;
    mariadb.kill();
    let told = about(&mariadb.url("test0"))?;
    told.ends_with(1)?;
    told.says("store", "server", "failure", &["can't be reached"])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rabbitmq_is_looked_at() -> Result<()> {
    let server = RabbitMq::shared().await?;
    server.declare_queue("doctor-orders").await?;
    let site = site(&[])?;
    let configured = |queue: &str, destination: &str| {
        let to = format!("{}/{destination}", server.url());
        configure(&site, queue, &to, "")
    };
    configured("doctor-orders", "%2F/doctor-orders")?;
    let source = server.url();
    let told = doctor(&site, &["--source", &source])?;
    told.ends_with(0)?;
    told.says("source", "broker", "good", &[])?;
    told.says("source", "queue doctor-orders", "good", &["ready: 0"])?;
    told.says(
        "source",
        "kinds of queues",
        "note",
        &["not checked", "rabbitmqctl"],
    )?;
    told.says("destinations", "queue doctor-orders", "good", &[])?;

    configured("doctor-missing", "%2F/doctor-exchange/key")?;
    let told = doctor(&site, &["--source", &source])?;
    told.ends_with(1)?;
    told.says(
        "source",
        "queue doctor-missing",
        "failure",
        &["does not exist", "declare=quorum"],
    )?;
    told.says(
        "destinations",
        "exchange doctor-exchange",
        "failure",
        &["does not exist"],
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rocketmq_is_looked_at() -> Result<()> {
    let server = RocketMq::shared().await?;
    server.create_topic("doctor-orders", 4).await?;
    let site = site(&[])?;
    let configured = |topic: &str, destination: &str| {
        let to = format!("{}/{destination}", server.url());
        configure(&site, topic, &to, "delivery = \"transactional\"\n")
    };
    configured("doctor-orders", "doctor-orders")?;
    let source = server.url();
    let told = doctor(&site, &["--source", &source])?;
    told.ends_with(0)?;
    told.says("source", "topic doctor-orders", "good", &["read from: 4"])?;
    told.says(
        "destinations",
        "topic doctor-orders",
        "good",
        &["written to: 4"],
    )?;
    ensure!(
        told.reports.iter().any(|report| report["found"]
            .as_str()
            .is_some_and(|text| text.starts_with("RocketMQ 5"))),
        "no version in {:#?}",
        told.reports
    );

    configured("doctor-missing", "doctor-gone")?;
    let told = doctor(&site, &["--source", &source])?;
    told.ends_with(1)?;
    told.says(
        "source",
        "topic doctor-missing",
        "failure",
        &["does not exist", "updateTopic"],
    )?;
    told.says(
        "destinations",
        "topic doctor-gone",
        "failure",
        &["does not exist"],
    )?;

    let told = doctor(&site, &["--source", "rocketmq://127.0.0.1:1"])?;
    told.ends_with(1)?;
    told.says("source", "broker", "failure", &["can't be reached"])
}

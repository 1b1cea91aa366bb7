//! HTTP from end to end: clients post to the real host, and one host posts to another, while
//! hosts die of SIGKILL. What took effect is compared with what was sent.
#![allow(clippy::unwrap_used, reason = "these are tests")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rand::SeedableRng;
use rand::rngs::StdRng;
use reqwest::{Client, Response};
use semel_tests::installation;
use semel_tests::lines::{Kill, LineCount, kill_points};
use semel_tests::servers::free_ports;
use semel_tests::site::{Running, Site};
use semel_tests::trial::{LIMIT, OUTPUT, Trial};
use serde_json::{Value, json};
use tokio::task::{JoinSet, block_in_place};

const STORE: [&str; 2] = ["--store", "redb:data"];

/// Clients that post at the same time.
const CLIENTS: usize = 32;

/// How long a request may take.
const REQUEST: Duration = Duration::from_secs(10);

/// How long a host may take to end when it is told to.
const END: Duration = Duration::from_secs(30);

/// A host that is posted to, at an address that outlives it.
struct Address {
    url: String,
    client: Client,
}

impl Address {
    fn free() -> Result<Self> {
        Ok(Self {
            url: format!("http://127.0.0.1:{}", free_ports(&[0])?),
            client: Client::builder().no_proxy().timeout(REQUEST).build()?,
        })
    }

    /// Starts a host there that serves at once, or soon.
    fn start(&self, site: &Site, more: &[&str]) -> Result<Running> {
        site.start(&[&["run", "--source", &self.url], &STORE[..], more].concat())
    }

    async fn ready(&self) -> Result<()> {
        let deadline = Instant::now() + LIMIT;
        let url = format!("{}/readyz", self.url);
        loop {
            if let Ok(response) = self.client.get(&url).send().await
                && response.status() == 200
            {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "no host is ready at {url}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn post(&self, key: &str, body: &str) -> reqwest::Result<Response> {
        let request = self.client.post(format!("{}/topics/orders", self.url));
        let request = request.header("idempotency-key", format!("\"{key}\""));
        request.body(body.to_owned()).send().await
    }

    /// Posts an order again and again until it hears what became of it: whether it had taken
    /// effect before.
    async fn deliver(&self, key: &str, body: &str) -> Result<bool> {
        let deadline = Instant::now() + LIMIT;
        loop {
            match self.post(key, body).await {
                Ok(response) if response.status() == 204 => return Ok(is_replayed(&response)),
                Ok(response) if !matches!(response.status().as_u16(), 409 | 503) => {
                    bail!("{key}: {}: {}", response.status(), response.text().await?)
                }
                _ => {}
            }
            ensure!(Instant::now() < deadline, "{key} was never answered");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn is_replayed(response: &Response) -> bool {
    response.headers().contains_key("idempotency-replayed")
}

fn terminate(host: Running) -> Result<()> {
    host.process.terminate()?;
    host.wait(END)?.succeeded("run")?;
    Ok(())
}

async fn problem(response: Response, status: u16, kind: &str) -> Result<String> {
    let media_type = response.headers().get("content-type").cloned();
    let text = response.text().await?;
    let problem: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
    let found = (&problem["status"], &problem["type"]);
    let expected = (&json!(status), &json!(format!("urn:semel:problem:{kind}")));
    ensure!(found == expected, "{text}");
    ensure!(
        media_type.is_some_and(|it| it == "application/problem+json"),
        "{text}"
    );
    Ok(problem["detail"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_request_takes_effect_once_also_when_the_host_dies() -> Result<()> {
    let site = Site::with_plugins(&["points"])?;
    site.write("semel.toml", "[plugins.points]\nkey = \"id\"\n")?;
    let host = Address::free()?;
    let mut running = host.start(&site, &["--output", OUTPUT])?;
    host.ready().await?;
    let order = r#"{"order_id":"o-1","user":"ann","amount":25000}"#;
    ensure!(!host.deliver("k-1", order).await?, "it is the first");
    ensure!(host.deliver("k-1", order).await?, "it is the second");
    ensure!(running.process.kill()?, "the host was gone");
    ensure!(host.post("k-1", order).await.is_err(), "nobody listens");

    let running = host.start(&site, &["--output", OUTPUT])?;
    host.ready().await?;
    ensure!(host.deliver("k-1", order).await?, "it is the third");
    let other = order.replace("ann", "ben");
    problem(host.post("k-1", &other).await?, 422, "key-reused").await?;
    let absurd = order.replace("25000", "-1");
    let why = problem(host.post("k-2", &absurd).await?, 422, "dead-letter").await?;
    ensure!(why.contains("not between"), "{why}");
    let url = format!("{}/topics/orders", host.url);
    let keyless = host.client.post(url).body(order).send().await?;
    problem(keyless, 400, "key-missing").await?;
    terminate(running)?;

    let ask = |what: &[&str]| site.ask_json(&[what, &STORE, &["--json"]].concat());
    let state = ask(&["state", "list", "points"])?;
    ensure!(state.len() == 1 && state[0]["value"] == 250, "{state:?}");
    let dead = ask(&["dead", "list"])?;
    ensure!(dead.len() == 2, "{dead:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_are_killed_while_clients_post() -> Result<()> {
    let mut trial = Trial::new("redb:data", 6_000)?;
    trial
        .site
        .write("semel.toml", "[plugins.points]\nkey = \"id\"\n")?;
    let host = Arc::new(Address::free()?);
    let mut clients = JoinSet::new();
    let messages = Arc::new(std::mem::take(&mut trial.workload.messages));
    for number in 0..CLIENTS {
        let (host, messages) = (Arc::clone(&host), Arc::clone(&messages));
        clients.spawn(async move {
            let mut replayed = 0;
            for message in messages.iter().skip(number).step_by(CLIENTS) {
                // A resend bears another message id, but is the same order.
                let order: Value = serde_json::from_str(&message.body)?;
                let key = order["order_id"].as_str().context("an order has an id")?;
                replayed += usize::from(host.deliver(key, &message.body).await?);
            }
            anyhow::Ok(replayed)
        });
    }
    let start = |trial: &Trial| host.start(&trial.site, &["--output", OUTPUT]);
    let result = block_in_place(|| trial.kill(6, start));
    let result = async {
        result?;
        let running = start(&trial)?;
        let mut replayed = 0;
        while let Some(client) = clients.join_next().await {
            replayed += client??;
        }
        terminate(running)?;
        let ledger = &trial.workload.ledger;
        // Whoever was cut off by a kill was told at the next try.
        ensure!(
            replayed >= ledger.sent - ledger.orders(),
            "{replayed} of {} were known",
            ledger.sent
        );
        trial.check()
    }
    .await;
    trial.conclude(result)
}

/// Order by order, what the first host tallied must be what the second one did.
#[tokio::test(flavor = "multi_thread")]
async fn hosts_are_killed_while_one_posts_to_the_other() -> Result<()> {
    const ORDERS: usize = 3_000;
    const USERS: usize = 40;
    const KILLS: usize = 6;
    let sites = [Site::new()?, Site::new()?];
    for site in &sites {
        site.install(&installation::test_plugin("tally")?)?;
    }
    let [first, second] = &sites;
    let host = Address::free()?;
    let config = format!(
        r#"
        [plugins.tally]
        order-by = "json:/user"
        [destinations.tallied]
        url = "{}/topics/tallied"
        [destinations.tallied.http]
        allow-private = true
        timeout = "10s"
        "#,
        host.url
    );
    first.write("semel.toml", config)?;
    let config = "[plugins.tally]\ntopics = [\"tallied\"]\nkey = \"id\"\n";
    second.write("semel.toml", config)?;
    let lines = (0..ORDERS).map(|number| {
        let body = json!({
            "id": format!("o-{number}"),
            "user": format!("u-{}", number % USERS),
            "publish": ["now"],
            "publish_next": ["now"],
        });
        let line = json!({"topic": "orders", "body": body}).to_string() + "\n";
        // Some come twice.
        line.repeat(1 + usize::from(number % 5 == 0))
    });
    first.write("orders.jsonl", lines.collect::<String>())?;

    let send = || first.start(&[&["run", "--input", "orders.jsonl"], &STORE[..]].concat());
    let receive = || host.start(second, &["--output", OUTPUT]);
    let mut tallied = LineCount::new(second.path(OUTPUT));
    let mut receiver = receive()?;
    let mut sender = send()?;
    let points = kill_points(KILLS, ORDERS, &mut StdRng::from_rng(&mut rand::rng()));
    for (number, point) in points.into_iter().enumerate() {
        let kill = block_in_place(|| tallied.kill_at(point, Duration::ZERO, &mut receiver, LIMIT))?;
        ensure!(
            matches!(kill, Kill::Hit { lines } if lines < ORDERS),
            "the receiver was not killed at {point}: {kill:?}\n{}",
            receiver.stderr()
        );
        if number % 2 == 1 {
            // It has orders left that nobody takes.
            ensure!(
                sender.process.kill()?,
                "the sender ended:\n{}",
                sender.stderr()
            );
            sender = send()?;
        }
        receiver = receive()?;
    }
    block_in_place(|| sender.wait(LIMIT))?.succeeded("run")?;
    terminate(receiver)?;
    ensure!(tallied.now()? == ORDERS, "{} lines", tallied.now()?);

    let sent = histories(first)?;
    ensure!(sent.len() == USERS, "{} users", sent.len());
    ensure!(
        sent.values().map(Vec::len).sum::<usize>() == ORDERS,
        "{sent:?}"
    );
    ensure!(
        sent == histories(second)?,
        "the second host tallied otherwise"
    );
    for site in &sites {
        let dead = site.ask_json(&[&["dead", "list", "--json"], &STORE[..]].concat())?;
        ensure!(dead.is_empty(), "{dead:?}");
    }
    Ok(())
}

/// The orders of each user as `tally` has them.
fn histories(site: &Site) -> Result<BTreeMap<String, Vec<Value>>> {
    let list = ["state", "list", "tally", "--prefix", "history/", "--json"];
    let rows = site.ask_json(&[&list[..], &STORE].concat())?;
    let history = |row: &Value| {
        let user = row["key"].as_str().context("a state row has a key")?;
        let orders = row["value"].as_array().context("a history is a list")?;
        Ok((user.to_owned(), orders.clone()))
    };
    rows.iter().map(history).collect()
}

#[test]
fn what_can_not_be_served_is_refused_at_the_start() -> Result<()> {
    let site = Site::with_plugins(&["points"])?;
    let certificate = "[source]\nurl = \"http://127.0.0.1:1\"\n[source.http]\n";
    let lifetime = format!("{certificate}token-lifetime = \"8d\"\n");
    let shared = "[plugins.tally]\ntopics = [\"orders\"]\n";
    let output = ["--output", OUTPUT];
    for (source, config, what) in [
        ("http://0.0.0.0:8080", "", "needs TLS and a bearer token"),
        ("https://127.0.0.1:8080", "", "set `tls-certificate`"),
        (
            "http://127.0.0.1:1/orders",
            "",
            "nothing may follow the port",
        ),
        ("http://127.0.0.1:1", &lifetime, "forgets after 7d"),
        (
            "http://127.0.0.1:1",
            "[source]\nurl = \"rocketmq://h:1\"\n[source.http]\n",
            "[source.http] goes for",
        ),
        (
            "http://127.0.0.1:1",
            "[source]\nurl = \"http://h:1\"\ngroup-prefix = \"x\"\n",
            "HTTP has none",
        ),
        (
            "http://127.0.0.1:0",
            shared,
            "both handle the topic `orders`",
        ),
    ] {
        if config == shared {
            site.install(&installation::test_plugin("tally")?)?;
        }
        site.write("semel.toml", config)?;
        let arguments = [&["run", "--source", source], &STORE[..], &output].concat();
        let ended = site.run(&arguments, END)?;
        ensure!(
            ended.status.code() == Some(1) && ended.stderr.contains(what),
            "{source} {config}: {}\n{}",
            ended.status,
            ended.stderr
        );
    }
    Ok(())
}

#[test]
fn what_can_not_be_posted_to_is_refused_at_the_start() -> Result<()> {
    let site = Site::with_plugins(&["points"])?;
    let rocketmq = "url = \"rocketmq://h:1/t\"\n[destinations.d.http]\n";
    let nowhere = "url = \"https://h/\"\n[destinations.d.http]\non-response = \"answers\"\n";
    let itself = "url = \"https://h/\"\n[destinations.d.http]\non-response = \"d\"\n";
    let secret = "url = \"https://h/\"\n[destinations.d.http]\nheaders = { Host = \"s3cret\" }\n";
    for (destination, what) in [
        ("url = \"http://payments.example/\"\n", "not encrypted"),
        (
            "url = \"https://127.0.0.1/\"\n",
            "not on the public internet",
        ),
        ("url = \"ftp://h/\"\n", "neither a topic nor a server"),
        (rocketmq, "goes for `https://` URLs only"),
        (nowhere, "names no topic of a broker"),
        (itself, "names no topic of a broker"),
        (secret, "the host sets it itself"),
    ] {
        site.write("semel.toml", format!("[destinations.d]\n{destination}"))?;
        let source = format!("http://127.0.0.1:{}", free_ports(&[0])?);
        let ended = site.run(&[&["run", "--source", &source], &STORE[..]].concat(), END)?;
        ensure!(
            ended.status.code() == Some(1)
                && ended.stderr.contains(what)
                && ended.stderr.contains("[destinations.d")
                && !ended.stderr.contains("s3cret"),
            "{destination}: {}\n{}",
            ended.status,
            ended.stderr
        );
    }
    Ok(())
}

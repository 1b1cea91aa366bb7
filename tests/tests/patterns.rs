//! The patterns of docs/patterns.md on the real host: with duplicates, and with a SIGKILL and a
//! new start on the way. What is in the store at the end is what the examples' READMEs say.
#![allow(clippy::unwrap_used, reason = "these are tests")]

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use reqwest::Client;
use semel_tests::installation::repository;
use semel_tests::servers::free_ports;
use semel_tests::site::{Running, Site, json_lines};
use serde_json::{Value, json};

const STORE: &str = "redb:./data";

/// How long a run over a file, or a wait for a host, may take.
const LIMIT: Duration = Duration::from_secs(60);

/// How long a host may take to end when it is told to.
const END: Duration = Duration::from_secs(30);

/// How often something is looked at that is to change.
const POLL: Duration = Duration::from_millis(20);

/// A file of an example's data, as text.
fn data(example: &str, file: &str) -> Result<String> {
    let path = repository().join("examples").join(example).join(file);
    fs::read_to_string(&path).with_context(|| format!("can't read {}", path.display()))
}

/// What a plugin holds under a name.
fn held(site: &Site, plugin: &str, key: &str) -> Result<Value> {
    let rows = site.ask_json(&["state", "list", plugin, "--store", STORE, "--json"])?;
    let row = rows.iter().find(|row| row["key"] == key);
    let row = row.with_context(|| format!("no `{key}` in {rows:?}"))?;
    Ok(row["value"].clone())
}

/// The whole state, in order.
fn state(site: &Site, plugin: &str) -> Result<Vec<Value>> {
    let rows = site.ask_json(&["state", "list", plugin, "--store", STORE, "--json"])?;
    let pairs = rows
        .iter()
        .map(|row| json!([row["key"].clone(), row["value"].clone()]));
    Ok(pairs.collect())
}

fn dead(site: &Site) -> Result<Vec<Value>> {
    site.ask_json(&["dead", "list", "--store", STORE, "--json"])
}

/// The arguments of a run over a file.
fn over(input: &str) -> Vec<&str> {
    let files = ["run", "--input", input, "--output", "out.jsonl"];
    [&files[..], &["--store", STORE, "--summary", "json"]].concat()
}

/// A host that is posted to, at an address that outlives it.
struct Address {
    url: String,
    client: Client,
}

/// What a request got.
#[derive(Debug)]
struct Answer {
    status: u16,
    replayed: bool,
    body: Value,
}

impl Address {
    fn free() -> Result<Self> {
        Ok(Self {
            url: format!("http://127.0.0.1:{}", free_ports(&[0])?),
            client: Client::builder().no_proxy().timeout(END).build()?,
        })
    }

    /// Starts a host there, and waits until it serves.
    async fn start(&self, site: &Site, more: &[&str]) -> Result<Running> {
        let run = ["run", "--source", &self.url, "--store", STORE];
        let mut running = site.start(&[&run[..], more].concat())?;
        let deadline = Instant::now() + LIMIT;
        let url = format!("{}/readyz", self.url);
        loop {
            if let Ok(response) = self.client.get(&url).send().await
                && response.status() == 200
            {
                return Ok(running);
            }
            ensure!(
                running.process.ended()?.is_none() && Instant::now() < deadline,
                "no host is ready at {url}:\n{}",
                running.stderr()
            );
            tokio::time::sleep(POLL).await;
        }
    }

    async fn post(&self, path: &str, media_type: &str, body: String) -> Result<Answer> {
        let request = self.client.post(format!("{}/{path}", self.url));
        let request = request.header("content-type", media_type).body(body);
        let response = request.send().await?;
        let replayed = response.headers().contains_key("idempotency-replayed");
        let status = response.status().as_u16();
        let text = response.text().await?;
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        Ok(Answer {
            status,
            replayed,
            body,
        })
    }

    /// Posts the lines of a file in the input format, each until it is answered.
    async fn post_lines(&self, lines: &str) -> Result<Vec<Answer>> {
        let mut answers = Vec::new();
        for line in json_lines(lines)? {
            let topic = line["topic"].as_str().context("a line has a topic")?;
            let path = format!("topics/{topic}");
            let body = line["body"].to_string();
            let deadline = Instant::now() + LIMIT;
            let answer = loop {
                let answer = self.post(&path, "application/json", body.clone()).await?;
                // The host posts to itself as well: the same message may be on its way.
                if !matches!(answer.status, 409 | 503) {
                    break answer;
                }
                ensure!(Instant::now() < deadline, "{body}: {answer:?}");
                tokio::time::sleep(POLL).await;
            };
            answers.push(answer);
        }
        Ok(answers)
    }
}

fn terminate(host: Running) -> Result<()> {
    host.process.terminate()?;
    host.wait(END)?.succeeded("run")?;
    Ok(())
}

/// The saga's configuration, at another address.
fn saga_configuration(host: &Address) -> Result<String> {
    let text = data("saga", "semel.toml")?;
    Ok(text.replace("http://127.0.0.1:8080", &host.url))
}

/// Waits until an order has ended. Reads the store, so it takes a host that is not running.
fn ended(site: &Site, orders: &[&str]) -> Result<bool> {
    for id in orders {
        let order = held(site, "saga", &format!("order/{id}"))?;
        let status = order["status"].as_str().unwrap_or_default();
        if !matches!(status, "confirmed" | "cancelled") {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The saga ends as it should however often its host dies between the steps.
#[tokio::test(flavor = "multi_thread")]
async fn a_saga_survives_sigkill_between_its_steps() -> Result<()> {
    const ORDERS: [&str; 4] = ["o-1", "o-2", "o-3", "o-4"];
    let site = Site::with_plugins(&["saga"])?;
    let host = Address::free()?;
    site.write("semel.toml", saga_configuration(&host)?)?;
    let (supplies, orders) = (
        data("saga", "data/supplies.jsonl")?,
        data("saga", "data/orders.jsonl")?,
    );
    let mut running = host.start(&site, &[]).await?;
    host.post_lines(&supplies).await?;
    let answers = host.post_lines(&orders).await?;
    ensure!(answers.iter().all(|it| it.status == 204), "{answers:?}");
    ensure!(answers[3].replayed && answers[5].replayed, "{answers:?}");

    // Each start leads the orders on for a while, from wherever they were.
    let deadline = Instant::now() + LIMIT;
    let mut alive = Duration::from_millis(5);
    loop {
        ensure!(running.process.kill()?, "the host was gone");
        if ended(&site, &ORDERS)? {
            break;
        }
        ensure!(Instant::now() < deadline, "the orders never ended");
        running = host.start(&site, &[]).await?;
        tokio::time::sleep(alive).await;
        alive *= 2;
    }
    // Everything once more: duplicates, and nothing else.
    let before = state(&site, "saga")?;
    let running = host.start(&site, &[]).await?;
    let again = host.post_lines(&format!("{supplies}{orders}")).await?;
    ensure!(again.iter().all(|answer| answer.replayed), "{again:?}");
    terminate(running)?;
    ensure!(state(&site, "saga")? == before);

    for (key, expected) in [
        ("balance/ann", 6_000),
        ("balance/ben", 500),
        ("level/lamp", 1),
        ("level/chair", 6),
    ] {
        let found = held(&site, "saga", key)?;
        ensure!(found == expected, "{key} is {found}");
    }
    for (id, status) in ORDERS
        .into_iter()
        .zip(["confirmed", "cancelled", "cancelled", "confirmed"])
    {
        let order = held(&site, "saga", &format!("order/{id}"))?;
        ensure!(order["status"] == status, "{id} is {order}");
    }
    let letters = dead(&site)?;
    ensure!(letters.is_empty(), "{letters:?}");
    Ok(())
}

#[test]
fn try_confirm_cancel_come_to_the_same_accounts_after_a_kill() -> Result<()> {
    let site = Site::with_plugins(&["tcc"])?;
    for file in ["deposits.jsonl", "phases.jsonl"] {
        site.write(file, data("tcc", &format!("data/{file}"))?)?;
    }
    let deposits = site.run(&over("deposits.jsonl"), LIMIT)?;
    deposits.succeeded("run")?;
    let mut running = site.start(&over("phases.jsonl"))?;
    let deadline = Instant::now() + LIMIT;
    let answered = || Ok::<_, anyhow::Error>(site.read("out.jsonl")?.lines().count());
    while answered()? < 4 && running.process.ended()?.is_none() {
        ensure!(Instant::now() < deadline, "the host answered nothing");
        std::thread::sleep(Duration::from_millis(1));
    }
    // It may have ended just now, unless the confirmation of `t-5` overtook its try and waits.
    running.process.kill()?;
    let run = || site.run(&over("phases.jsonl"), LIMIT)?.succeeded("run");
    run()?;

    let before = state(&site, "tcc")?;
    let again = run()?.summary()?;
    ensure!(
        again["applied"] == 0 && again["duplicates"] == 13,
        "{again}"
    );
    ensure!(state(&site, "tcc")? == before);

    for (name, available, frozen) in [("ann", 6_000, 1_000), ("ben", 1_300, 0)] {
        let account = held(&site, "tcc", &format!("account/{name}"))?;
        let expected = json!({ "available": available, "frozen": frozen });
        ensure!(account == expected, "{name} has {account}");
    }
    for (tx, status) in [
        ("t-1", "confirmed"),
        ("t-2", "cancelled"),
        ("t-3", "cancelled"),
        ("t-4", "refused"),
        ("t-5", "confirmed"),
        ("t-6", "frozen"),
    ] {
        let found = held(&site, "tcc", &format!("tx/{tx}"))?;
        ensure!(found["status"] == status, "{tx} is {found}");
    }
    ensure!(dead(&site)?.is_empty());
    // Two deposits and ten phases, each answered once.
    let output = site.read("out.jsonl")?;
    ensure!(json_lines(&output)?.len() == 12, "{output}");
    Ok(())
}

/// A form that is posted again, also to a host that was killed in between, gets the same reply;
/// another form of the same user is told that there is one.
#[tokio::test(flavor = "multi_thread")]
async fn a_form_with_a_token_claims_a_coupon_once() -> Result<()> {
    let site = Site::with_plugins(&["coupon"])?;
    let secret = "0123456789abcdef0123456789abcdef";
    let configuration = data("coupon", "semel.toml")?.replace("${SEMEL_TOKEN_SECRET}", secret);
    site.write("semel.toml", configuration)?;
    let host = Address::free()?;
    let output = ["--output", "out.jsonl"];
    let mut running = host.start(&site, &output).await?;
    let token = async || -> Result<String> {
        let answer = host
            .post("tokens/coupon-claims", "text/plain", String::new())
            .await?;
        ensure!(answer.status == 201, "{answer:?}");
        let token = answer.body["token"].as_str().context("a token")?;
        Ok(token.to_owned())
    };
    let claim = async |coupon: &str, token: &str| {
        let form = format!("coupon={coupon}&user=ann&_token={token}");
        let media_type = "application/x-www-form-urlencoded";
        host.post("topics/coupon-claims", media_type, form).await
    };
    let page = token().await?;
    let first = claim("SPRING", &page).await?;
    ensure!(
        first.status == 200 && first.body == json!({ "result": "granted", "number": 1 }),
        "{first:?}"
    );
    ensure!(running.process.kill()?, "the host was gone");
    let running = host.start(&site, &output).await?;
    let second = claim("SPRING", &page).await?;
    ensure!(second.replayed && second.body == first.body, "{second:?}");
    let changed = claim("SUMMER", &page).await?;
    ensure!(changed.status == 422, "{changed:?}");
    let other = claim("SPRING", &token().await?).await?;
    ensure!(
        !other.replayed && other.body["result"] == "already-claimed",
        "{other:?}"
    );
    terminate(running)?;
    ensure!(held(&site, "coupon", "issued/SPRING")? == 1);
    ensure!(state(&site, "coupon")?.len() == 2);
    ensure!(json_lines(&site.read("out.jsonl")?)?.len() == 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_replies_the_same_to_an_event_that_is_posted_again() -> Result<()> {
    let site = Site::with_plugins(&["webhook"])?;
    let host = Address::free()?;
    let output = ["--output", "out.jsonl"];
    let mut running = host.start(&site, &output).await?;
    let events = data("webhook", "data/events.jsonl")? + &data("webhook", "data/late.jsonl")?;
    let first = host.post_lines(&events).await?;
    ensure!(running.process.kill()?, "the host was gone");
    let running = host.start(&site, &output).await?;
    let second = host.post_lines(&events).await?;
    terminate(running)?;

    let results = |answers: &[Answer]| -> Vec<Value> {
        let result = |answer: &Answer| answer.body["result"].clone();
        answers[..5].iter().map(result).collect()
    };
    let expected = ["recorded", "ignored", "recorded", "recorded", "known"];
    ensure!(results(&first) == expected, "{first:?}");
    ensure!(results(&second) == expected, "{second:?}");
    ensure!(!first[0].replayed && first[2].replayed, "{first:?}");
    ensure!(second[..5].iter().all(|it| it.replayed), "{second:?}");
    // Another amount for a payment that is known.
    ensure!(first[5].status == 422 && second[5].status == 422);
    let letters = dead(&site)?;
    ensure!(letters.len() == 1, "{letters:?}");
    let payment = held(&site, "webhook", "payment/pay_2")?;
    ensure!(payment["amount"] == 900 && payment["event"] == "evt_3");
    let published = json_lines(&site.read("out.jsonl")?)?;
    ensure!(published.len() == 2, "{published:?}");
    Ok(())
}

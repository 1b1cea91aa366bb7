//! The example `bank` on the real host.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use anyhow::Result;
use semel_core::crash::CrashPoint;
use semel_tests::installation::{self, repository};
use semel_tests::passage::{CRASH_AT, Passage};
use semel_tests::site::Site;
use serde_json::json;

use crate::Database;

super::on_each_database!(
    the_example_comes_to_what_its_readme_says,
    killed_among_statements_every_transfer_is_booked_once,
    a_message_that_always_misses_ends_as_a_dead_letter,
);

const LIMIT: Duration = Duration::from_secs(120);

const GRANTS: &str = "[plugins.bank.sql]\nselect = [\"accounts\"]\nupdate = [\"accounts\"]\n\
                      insert = [\"transfers\"]\n";

/// The example's tables, and a site with its plugin and its grants.
fn set_up(database: &Database, more: &str) -> Result<Site> {
    let example = repository().join("examples/bank");
    let schema = std::fs::read_to_string(example.join("schema.sql"))?;
    let statements = schema.lines().filter(|line| !line.starts_with("--"));
    database.sql(&statements.collect::<Vec<_>>().join(" "));
    let site = Site::with_plugins(&["bank"])?;
    let store = format!("store = \"{}\"\n", database.url);
    site.write("semel.toml", store + more)?;
    let data = std::fs::read(example.join("data/transfers.jsonl"))?;
    site.write("transfers.jsonl", data)?;
    Ok(site)
}

const RUN: [&str; 7] = [
    "run",
    "--input",
    "transfers.jsonl",
    "--output",
    "booked.jsonl",
    "--summary",
    "json",
];

const ACCOUNTS: &str = "SELECT id, balance FROM accounts ORDER BY id";

async fn the_example_comes_to_what_its_readme_says(database: Database) {
    let site = set_up(&database, GRANTS).unwrap();
    let ended = site.run(&RUN, LIMIT).unwrap().succeeded("run").unwrap();
    let summary = ended.summary().unwrap();
    assert_eq!(summary["applied"], 3, "{summary}");
    assert_eq!(summary["duplicates"], 2, "{summary}");
    assert_eq!(summary["dead"], 3, "{summary}");
    assert_eq!(database.sql(ACCOUNTS), "ann|500\nbob|300\neve|700");
    assert_eq!(database.sql("SELECT COUNT(*) FROM transfers"), "3");
    assert_eq!(site.read("booked.jsonl").unwrap().lines().count(), 3);
}

/// Transfers between few accounts, so that they meet, each of them twice.
fn transfers(number: usize) -> String {
    let names = ["ann", "bob", "eve"];
    let transfer = |i: usize| {
        let (from, to) = (names[i % 3], names[(i + 1 + i / 3 % 2) % 3]);
        let body =
            json!({ "transfer_id": format!("t-{i}"), "from": from, "to": to, "amount": 1 + i % 7 });
        json!({ "topic": "transfers", "body": body }).to_string()
    };
    let order = (0..number).chain((0..number).rev());
    order.map(|i| transfer(i) + "\n").collect()
}

async fn killed_among_statements_every_transfer_is_booked_once(database: Database) {
    const NUMBER: usize = 400;
    let site = set_up(&database, GRANTS).unwrap();
    database.sql("UPDATE accounts SET balance = 1000000");
    site.write("transfers.jsonl", transfers(NUMBER)).unwrap();
    // Another program changes the same rows all the time.
    let over = Arc::new(AtomicBool::new(false));
    let mut program = database.client("UPDATE accounts SET version = version + 1");
    let program = std::thread::spawn({
        let over = Arc::clone(&over);
        move || {
            let mut changes = 0;
            while !over.load(Relaxed) {
                // Where it and a commit wait for each other, the server picks one to fail.
                changes += usize::from(program.output().unwrap().status.success());
                std::thread::sleep(Duration::from_millis(50));
            }
            changes
        }
    });
    let points = [
        CrashPoint::StatementsBefore,
        CrashPoint::StatementsAfter,
        CrashPoint::CommitWritten,
        CrashPoint::CommitAfter,
    ];
    for (hit, point) in [1_u64, 9, 40]
        .iter()
        .flat_map(|hit| points.map(|point| (*hit, point)))
    {
        let passage = Passage { point, hit }.to_string();
        let host = installation::semel_under_test().unwrap();
        let running = site.start_program(&host, &RUN, |command| {
            command.env(CRASH_AT, &passage);
        });
        let running = running.unwrap();
        let ended = running.wait(LIMIT).unwrap();
        // Near the end there may be too little left to come so far.
        assert!(
            ended.status.code().is_none() || ended.status.success(),
            "{passage}: {}",
            ended.stderr
        );
    }
    let ended = site.run(&RUN, LIMIT).unwrap().succeeded("run").unwrap();
    let dead = site.ask_json(&["dead", "list", "--json"]).unwrap();
    assert!(
        dead.is_empty(),
        "{} letters: {:?}",
        dead.len(),
        dead.first()
    );
    ended.summary().unwrap();
    over.store(true, Relaxed);
    assert!(program.join().unwrap() > 10);
    let booked = "SELECT COUNT(*), COUNT(DISTINCT id) FROM transfers";
    assert_eq!(database.sql(booked), format!("{NUMBER}|{NUMBER}"));
    assert_eq!(database.sql("SELECT SUM(balance) FROM accounts"), "3000000");
    // Each account has what the list of transfers says.
    let flaws = "SELECT COUNT(*) FROM accounts a WHERE balance <> 1000000 \
                 + (SELECT COALESCE(SUM(amount), 0) FROM transfers WHERE payee = a.id) \
                 - (SELECT COALESCE(SUM(amount), 0) FROM transfers WHERE payer = a.id)";
    assert_eq!(database.sql(flaws), "0");
}

/// A row that was booked without Semel: the unique index refuses it, and nothing is paid.
async fn a_message_that_always_misses_ends_as_a_dead_letter(database: Database) {
    let retry = "[plugins.bank.retry]\nmax-attempts = 2\nfirst-delay = \"10ms\"\n";
    let site = set_up(&database, &format!("{GRANTS}{retry}")).unwrap();
    database.sql("INSERT INTO transfers (id, payer, payee, amount) VALUES ('t-6', 'x', 'y', 1)");
    database.sql("ALTER TABLE accounts DROP COLUMN version");
    let ended = site.run(&RUN, LIMIT).unwrap().succeeded("run").unwrap();
    let summary = ended.summary().unwrap();
    assert_eq!(
        (&summary["applied"], &summary["parked"]),
        (&json!(0), &json!(0)),
        "{summary}"
    );
    let dead = site.ask_json(&["dead", "list", "--json"]).unwrap();
    let reasons: Vec<_> = dead
        .iter()
        .map(|letter| letter["reason"].to_string())
        .collect();
    assert!(
        reasons.iter().any(|reason| reason.contains("version")),
        "{reasons:?}"
    );
    database.sql("ALTER TABLE accounts ADD COLUMN version BIGINT NOT NULL DEFAULT 1");
    site.ask(&["dead", "replay", "--all", "--yes"]).unwrap();
    let ended = site.run(&RUN, LIMIT).unwrap().succeeded("run").unwrap();
    let summary = ended.summary().unwrap();
    assert_eq!(summary["applied"], 2, "{summary}");
    assert_eq!(database.sql(ACCOUNTS), "ann|800\nbob|300\neve|400");
    let dead = site.ask_json(&["dead", "list", "--json"]).unwrap();
    let twice = dead.iter().find(|letter| letter["key"] == "t-6").unwrap();
    assert!(
        twice["reason"]
            .to_string()
            .to_lowercase()
            .contains("duplicate"),
        "{twice}"
    );
}

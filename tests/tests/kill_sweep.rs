//! A part of the kill sweep, small enough for every run of the tests: `make sweep` does the
//! whole.
#![allow(clippy::unwrap_used, reason = "these are tests")]

use std::process::Command;
use std::sync::Arc;

use anyhow::{Result, ensure};
use rand::SeedableRng;
use rand::rngs::StdRng;
use semel_core::crash::CrashPoint;
use semel_tests::installation;
use semel_tests::sweep::{
    Campaign, Configuration, Fault, Harm, Kind, Report, Row, Surroundings, Verdict,
};

/// Trials at a time.
const JOBS: usize = 4;

/// The part of the trials that may end before they are struck: batches differ from run to run.
const MISSES: f64 = 0.25;

fn campaign(configuration: &str) -> Result<Campaign> {
    Ok(Campaign {
        configuration: configuration.parse()?,
        surroundings: Arc::new(Surroundings::default()),
        seed: rand::random::<u32>().into(),
        jobs: JOBS,
        tamper: false,
    })
}

/// Records once, then strikes, and demands that nothing is wrong.
async fn sweep(campaign: Campaign, kills: usize, double_kills: usize, pauses: usize) -> Result<()> {
    let mut report = Report::default();
    let mut flawed = Vec::new();
    let mut random = StdRng::seed_from_u64(campaign.seed);
    let (recording, _) = campaign.record(&mut report).await?;
    let mut faults = recording.kills(kills, &mut random);
    faults.extend(recording.double_kills(double_kills, &mut random));
    faults.extend(recording.pauses(pauses, &mut random));
    let tell = |trial: &_, verdict: &Verdict| {
        report.add(trial, verdict);
        if !verdict.flaws.is_empty() {
            flawed.push(format!("{:?}: {:#?}", trial, verdict.flaws));
        }
    };
    campaign.run(faults, tell).await?;
    campaign.surroundings.close().await;
    ensure!(
        flawed.is_empty(),
        "{}\n{}",
        report.text(),
        flawed.join("\n")
    );
    let Row { trials, struck, .. } = report.total(&[Kind::Kill, Kind::DoubleKill, Kind::Pause]);
    ensure!(
        struck as f64 >= trials as f64 * (1.0 - MISSES),
        "only {struck} of {trials} trials were struck:\n{}",
        report.text()
    );
    Ok(())
}

#[tokio::test]
async fn killed_at_every_crash_point_on_redb_with_a_file() -> Result<()> {
    sweep(campaign("redb/file")?, 44, 12, 0).await
}

#[tokio::test]
async fn killed_at_every_crash_point_on_redis_with_a_file() -> Result<()> {
    sweep(campaign("redis/file")?, 42, 12, 8).await
}

#[tokio::test]
async fn killed_at_some_crash_points_on_redis_with_rocketmq() -> Result<()> {
    sweep(campaign("redis/rocketmq")?, 6, 2, 0).await
}

#[tokio::test]
async fn killed_at_some_crash_points_on_postgresql_with_rabbitmq() -> Result<()> {
    sweep(campaign("postgres/rabbitmq")?, 6, 2, 0).await
}

#[tokio::test]
async fn killed_at_some_crash_points_on_mysql_with_kafka() -> Result<()> {
    sweep(campaign("mysql/kafka")?, 6, 2, 0).await
}

/// What is lost or doubled must show: here the books are falsified.
#[tokio::test]
async fn a_flaw_is_found() -> Result<()> {
    let campaign = Campaign {
        tamper: true,
        ..campaign("redb/file")?
    };
    let mut verdicts = Vec::new();
    let tell = |_: &_, verdict: &Verdict| verdicts.push(verdict.clone());
    campaign.run(vec![Fault::None], tell).await?;
    let wrong = verdicts[0]
        .flaws
        .iter()
        .filter(|flaw| flaw.harm == Harm::Wrong);
    ensure!(
        wrong.count() > 0,
        "the audit found nothing: {:?}",
        verdicts[0]
    );
    Ok(())
}

#[test]
fn the_build_under_test_lists_its_crash_points() -> Result<()> {
    let output = Command::new(installation::semel_under_test()?)
        .arg("--list-crash-points")
        .output()?;
    let listed = String::from_utf8(output.stdout)?;
    let names: Vec<&str> = CrashPoint::ALL.iter().map(|point| point.name()).collect();
    ensure!(listed.lines().eq(names), "it lists:\n{listed}");
    Ok(())
}

/// Where a point is an exception everywhere, nothing would notice that nobody passes it.
#[test]
fn each_crash_point_is_passed_on_some_configuration() {
    let never = |point| {
        let mut all = Configuration::ALL.iter();
        all.all(|configuration| configuration.never_passes().contains(point))
    };
    let dead: Vec<&str> = CrashPoint::ALL
        .iter()
        .filter(|p| never(p))
        .map(|p| p.name())
        .collect();
    assert!(dead.is_empty(), "{dead:?}");
}

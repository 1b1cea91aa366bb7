//! `make sweep`: the real host dies at every crash point, on every configuration, is started
//! again, and must come to what the books say.
#![forbid(unsafe_code)]
#![recursion_limit = "512"] // the RocketMQ client's futures nest deeply

mod amounts;
mod document;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use rand::SeedableRng;
use rand::rngs::StdRng;
use semel_tests::sweep::{
    Campaign, Configuration, Fault, Kind, Report, Route, Surroundings, Trial, Verdict,
};
use tokio::runtime::Runtime;

use amounts::Amounts;

/// How many flaws of a trial are printed.
const SHOWN: usize = 12;

/// Kills the host at every crash point, pauses it, loses replies, kills its servers, and checks
/// that every message took effect exactly once
#[derive(Debug, Parser)]
#[command(name = "sweep")]
struct Options {
    /// Makes the orders and chooses the faults [default: a random one, which is printed]
    #[arg(long)]
    seed: Option<u64>,

    /// Only this configuration, such as `redb/file`; may be given again
    #[arg(long, value_name = "CONFIGURATION")]
    only: Vec<Configuration>,

    /// Only this fault, such as `kill commit.after:3`, once on each configuration
    #[arg(long)]
    fault: Option<Fault>,

    /// How much of a whole sweep to do
    #[arg(long, value_name = "N", default_value_t = 100)]
    percent: usize,

    /// Trials at a time; they wait most of the time
    #[arg(long, value_name = "N", default_value_t = 4)]
    jobs: usize,

    /// Falsify the books by one order, to see that the verdict can fail
    #[arg(long)]
    tamper: bool,

    /// With --fault: leave the directories behind
    #[arg(long, requires = "fault")]
    keep: bool,

    /// Write the matrix to this file
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
}

fn main() -> Result<ExitCode> {
    let runtime = Runtime::new().context("can't start threads")?;
    let ended = runtime.block_on(sweep());
    // A client whose server is gone may never be done.
    runtime.shutdown_background();
    Ok(ended)
}

async fn sweep() -> ExitCode {
    let options = Options::parse();
    let seed = options.seed.unwrap_or_else(|| rand::random::<u32>().into());
    let started = Instant::now();
    let mut sweep = Sweep {
        seed,
        report: Report::default(),
        flawed: 0,
        bar: ProgressBar::hidden(),
        options,
    };
    let ran = sweep.run().await;
    println!("{}", sweep.report.text());
    if let Err(error) = ran {
        eprintln!("error: {error:#} (--seed {seed})");
        return ExitCode::FAILURE;
    }
    let took = started.elapsed();
    if let Some(file) = &sweep.options.write {
        let document = document::write(&sweep.report, seed, took);
        if let Err(error) = std::fs::write(file, document) {
            eprintln!("error: can't write {}: {error}", file.display());
            return ExitCode::FAILURE;
        }
    }
    let kills = sweep.report.total(&[Kind::Kill, Kind::DoubleKill]).strikes;
    let double = sweep.report.total(&[Kind::DoubleKill]).struck;
    println!(
        "{kills} kills, {double} of trials with two, in {:.0} s",
        took.as_secs_f64()
    );
    if sweep.flawed == 0 {
        println!("PASSED: nothing lost, nothing doubled (--seed {seed})");
        ExitCode::SUCCESS
    } else {
        println!("FAILED: {} trials have flaws (--seed {seed})", sweep.flawed);
        ExitCode::FAILURE
    }
}

struct Sweep {
    options: Options,
    seed: u64,
    report: Report,
    /// Trials with flaws.
    flawed: usize,
    bar: ProgressBar,
}

impl Sweep {
    async fn run(&mut self) -> Result<()> {
        let configurations = match self.options.only.as_slice() {
            [] => Configuration::ALL.to_vec(),
            only => only.to_vec(),
        };
        let shared = Arc::new(Surroundings::default());
        for configuration in configurations {
            let campaign = self.campaign(configuration, &shared);
            match self.options.fault.clone() {
                Some(fault) => self.one(campaign, fault).await?,
                None => self.all(campaign).await?,
            }
        }
        shared.close().await;
        Ok(())
    }

    fn campaign(&self, configuration: Configuration, on: &Arc<Surroundings>) -> Campaign {
        Campaign {
            configuration,
            surroundings: Arc::clone(on),
            seed: self.seed,
            jobs: match configuration.route {
                Route::File | Route::Http => self.options.jobs,
                // Hosts wait for the broker most of the time.
                _ => 2 * self.options.jobs,
            },
            tamper: self.options.tamper,
        }
    }

    /// One fault, on servers of its own where it concerns those.
    async fn one(&mut self, mut campaign: Campaign, fault: Fault) -> Result<()> {
        if matches!(fault, Fault::LoseStoreReply(_) | Fault::LoseBrokerReply(_)) {
            campaign.surroundings = Arc::new(Surroundings::with_proxies());
        }
        let trial = Trial {
            keep: self.options.keep,
            ..campaign.trial(fault)
        };
        let surroundings = Arc::clone(&campaign.surroundings);
        let running = trial.clone();
        let ran = tokio::task::spawn_blocking(move || running.run(&surroundings)).await?;
        self.tell(&trial, &ran?);
        Ok(())
    }

    /// All kinds of faults on a configuration.
    async fn all(&mut self, campaign: Campaign) -> Result<()> {
        let configuration = campaign.configuration;
        let amounts = Amounts::of(configuration).percent(self.options.percent);
        self.bar = bar(&configuration.to_string(), amounts.total());
        let mut random = StdRng::seed_from_u64(self.seed);
        let (recording, _) = campaign.record(&mut self.report).await?;
        let mut faults = recording.kills(amounts.kills, &mut random);
        faults.extend(recording.double_kills(amounts.double_kills, &mut random));
        faults.extend(recording.pauses(amounts.pauses, &mut random));
        self.try_all(&campaign, faults).await?;
        self.lose_replies(configuration, amounts, &mut random)
            .await?;
        let alone = Arc::new(Surroundings::default());
        let mut campaign = self.campaign(configuration, &alone);
        campaign.jobs = 1;
        let mut faults = vec![Fault::KillStore(3); amounts.stores];
        faults.extend(vec![Fault::KillBroker(2); amounts.brokers]);
        self.try_all(&campaign, faults).await?;
        alone.close().await;
        self.bar.finish_and_clear();
        Ok(())
    }

    /// One trial after another, since a lost reply is counted from a trial's start.
    async fn lose_replies(
        &mut self,
        configuration: Configuration,
        amounts: Amounts,
        random: &mut StdRng,
    ) -> Result<()> {
        if amounts.store_replies + amounts.broker_replies == 0 {
            return Ok(());
        }
        let surroundings = Arc::new(Surroundings::with_proxies());
        let mut campaign = self.campaign(configuration, &surroundings);
        campaign.jobs = 1;
        let (_, verdict) = campaign.record(&mut self.report).await?;
        let (store, broker) = verdict.requests;
        let mut faults = Vec::new();
        faults.extend(spread(amounts.store_replies, store, random).map(Fault::LoseStoreReply));
        faults.extend(spread(amounts.broker_replies, broker, random).map(Fault::LoseBrokerReply));
        self.try_all(&campaign, faults).await?;
        surroundings.close().await;
        Ok(())
    }

    async fn try_all(&mut self, campaign: &Campaign, faults: Vec<Fault>) -> Result<()> {
        campaign
            .run(faults, |trial, verdict| self.tell(trial, verdict))
            .await
    }

    fn tell(&mut self, trial: &Trial, verdict: &Verdict) {
        self.bar.inc(1);
        self.report.add(trial, verdict);
        if let Some(kept) = &verdict.kept {
            println!("everything is in {}", kept.display());
        }
        if verdict.flaws.is_empty() {
            return;
        }
        self.flawed += 1;
        let (configuration, fault) = (trial.configuration, &trial.fault);
        self.bar.suspend(|| {
            println!("{configuration}: {fault}");
            for flaw in verdict.flaws.iter().take(SHOWN) {
                println!("  {flaw}");
            }
            let more = verdict.flaws.len().saturating_sub(SHOWN);
            if more > 0 {
                println!("  and {more} more");
            }
            println!(
                "  again: sweep --only {configuration} --fault '{fault}' --seed {}",
                trial.seed
            );
        });
    }
}

/// Random requests, each in a part of all of its own.
fn spread(amount: usize, requests: u64, random: &mut StdRng) -> impl Iterator<Item = u64> {
    use rand::Rng;
    let amount = amount as u64;
    let part = (requests / amount.max(1)).max(1);
    (0..amount).map(move |at| at * part + random.random_range(1..=part))
}

fn bar(name: &str, total: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg:16} {bar:32} {pos} of {len} trials, {elapsed}");
    let style = style.expect("the template is well-formed");
    ProgressBar::new(total as u64)
        .with_style(style)
        .with_message(name.to_owned())
}

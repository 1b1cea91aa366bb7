//! What there is to say of a cluster and its topics. They are only read.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use futures::future::join_all;
use semel_core::Finding;
use semel_rocketmq_client::{ClientResult, Inspector, RocketMqClient, TopicShare};
use tokio::time::timeout;

use super::errors::describe;
use crate::survey::{Survey, TopicRole, TopicUse};

/// How long one request may take.
const REQUEST: Duration = Duration::from_secs(3);

/// How long starting, or letting go, may take.
const EXCHANGE: Duration = Duration::from_secs(5);

/// The oldest major version of a broker that was tried.
const OLDEST: u32 = 5;

/// Looks at the cluster of these name servers, separated by `;`, and at topics of it.
pub async fn examine_rocketmq(
    client: &RocketMqClient,
    name_server: &str,
    topics: &[TopicUse],
) -> Survey {
    let inspector = match bounded(client.inspector(name_server, REQUEST)).await {
        Ok(inspector) => inspector,
        Err(reason) => return Survey::unreachable(reason),
    };
    let survey = look(&*inspector, topics).await;
    // Whatever it still waits for, nothing rests on it.
    let _ = timeout(EXCHANGE, inspector.shutdown()).await;
    survey.unwrap_or_else(Survey::unreachable)
}

async fn bounded<T>(request: impl Future<Output = ClientResult<T>>) -> Result<T, String> {
    match timeout(EXCHANGE, request).await {
        Ok(answer) => answer.map_err(|error| describe(&error)),
        Err(_) => Err("no answer".to_owned()),
    }
}

/// An error is of the name server: no topic can be looked up.
async fn look(inspector: &dyn Inspector, topics: &[TopicUse]) -> Result<Survey, String> {
    let mut survey = Survey::default();
    let mut masters: BTreeMap<String, Broker> = BTreeMap::new();
    for used in topics {
        let subject = format!("topic {}", used.topic);
        let Some(shares) = bounded(inspector.topic(&used.topic)).await? else {
            let create = format!("create it with `mqadmin updateTopic -t {}`", used.topic);
            let missing = Finding::failure(subject, "it does not exist");
            survey.findings.push(missing.advise(create));
            continue;
        };
        survey.findings.push(queues(&subject, &shares, used.role));
        for share in shares {
            let Some(master) = &share.master else {
                let lost = format!("the broker `{}` of it has no master", share.broker);
                let lost = Finding::failure(subject.clone(), lost);
                survey.findings.push(lost.advise("start it"));
                continue;
            };
            let broker = masters.entry(master.clone()).or_default();
            broker.add(share, used);
        }
    }
    let looks = masters.into_iter().map(|(address, broker)| async move {
        let settings = bounded(inspector.settings(&address)).await;
        let status = match settings {
            Ok(_) => bounded(inspector.status(&address)).await,
            Err(_) => Ok(HashMap::new()),
        };
        (address, broker, settings, status.unwrap_or_default())
    });
    for (address, broker, settings, status) in join_all(looks).await {
        match settings {
            Ok(settings) => broker.judge(&settings, &status, &mut survey),
            Err(reason) => survey.findings.push(broker.unreachable(&address, &reason)),
        }
    }
    let untold = Finding::unchecked("clock", "RocketMQ does not tell its time");
    survey.findings.push(untold);
    Ok(survey)
}

/// A broker's master, and what it is needed for.
#[derive(Default)]
struct Broker {
    name: String,
    copies: usize,
    transactions: bool,
    consumed: Vec<String>,
}

impl Broker {
    fn add(&mut self, share: TopicShare, used: &TopicUse) {
        self.name = share.broker;
        self.copies = share.copies;
        self.transactions |= used.role == TopicRole::PublishedInTransactions;
        if used.role == TopicRole::Consumed {
            self.consumed.push(used.topic.clone());
        }
    }

    fn subject(&self) -> String {
        format!("broker {}", self.name)
    }

    fn unreachable(&self, address: &str, reason: &str) -> Finding {
        let found = format!("{address} can't be reached: {reason}");
        Finding::failure(self.subject(), found).advise(
            "check that it runs, and that its `brokerIP1` is an address that can be reached from here",
        )
    }

    fn judge(
        &self,
        settings: &HashMap<String, String>,
        status: &HashMap<String, String>,
        survey: &mut Survey,
    ) {
        let value = |name: &str| settings.get(name).map_or("", String::as_str);
        survey.findings.push(version(&self.subject(), status));
        let flush = value("flushDiskType");
        survey.findings.push(match (flush, value("brokerRole")) {
            ("SYNC_FLUSH", _) => {
                let found = "its `flushDiskType` is SYNC_FLUSH: what it confirms is on its disk";
                Finding::good(self.subject(), found)
            }
            (_, "SYNC_MASTER") if self.copies > 1 => Finding::good(
                self.subject(),
                "its `brokerRole` is SYNC_MASTER: what it confirms is on a second machine",
            ),
            _ => Finding::warning(
                self.subject(),
                format!("its `flushDiskType` is {flush}, and no replica confirms: what it confirmed last is lost when its machine crashes"),
            )
            .advise("set `flushDiskType = SYNC_FLUSH`, or `brokerRole = SYNC_MASTER` with a replica"),
        });
        if self.transactions && value("rejectTransactionMessage") == "true" {
            survey.findings.push(
                Finding::failure(
                    self.subject(),
                    "its `rejectTransactionMessage` is true, and a destination has `delivery = \"transactional\"`",
                )
                .advise("set it to false, or leave `delivery` out"),
            );
        }
        if let Ok(hours) = value("fileReservedTime").parse::<u64>() {
            let kept = Duration::from_secs(hours.saturating_mul(3_600));
            for topic in &self.consumed {
                let longest = survey.kept.entry(topic.clone()).or_default();
                *longest = kept.max(*longest);
            }
        }
    }
}

fn version(subject: &str, status: &HashMap<String, String>) -> Finding {
    // Such as `V5_5_0`.
    let Some(version) = status.get("brokerVersionDesc") else {
        return Finding::unchecked(subject, "it does not tell its version");
    };
    let number = version.trim_start_matches('V').replace('_', ".");
    let major = number
        .split('.')
        .next()
        .and_then(|major| major.parse().ok());
    match major {
        Some(major) if OLDEST <= major => Finding::good(subject, format!("RocketMQ {number}")),
        _ => Finding::warning(
            subject,
            format!("its version is {number}, and Semel was tried with RocketMQ {OLDEST}"),
        )
        .advise("take a newer one"),
    }
}

/// Whether there are queues for what the topic is used for.
fn queues(subject: &str, shares: &[TopicShare], role: TopicRole) -> Finding {
    let (what, count): (_, u32) = match role {
        TopicRole::Consumed => ("read from", shares.iter().map(|share| share.readable).sum()),
        TopicRole::Published | TopicRole::PublishedInTransactions => (
            "written to",
            shares.iter().map(|share| share.writable).sum(),
        ),
    };
    match count {
        0 => Finding::failure(subject, format!("no queue of it can be {what}"))
            .advise("see to its queues and permissions with `mqadmin updateTopic`"),
        _ => Finding::good(
            subject,
            format!(
                "queues that can be {what}: {count}, on brokers: {}",
                shares.len()
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use semel_core::Level;

    #[test]
    fn versions_are_read() {
        let level = |status: &[(&str, &str)]| {
            let pairs = status.iter();
            let status = pairs.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            version("broker a", &status.collect()).level
        };
        assert_eq!(level(&[("brokerVersionDesc", "V5_5_0")]), Level::Good);
        assert_eq!(level(&[("brokerVersionDesc", "V4_9_4")]), Level::Warning);
        assert_eq!(level(&[]), Level::Note);
    }

    #[test]
    fn what_a_broker_confirms_may_be_lost() {
        let judged = |settings: &[(&str, &str)]| {
            let pairs = settings.iter();
            let settings = pairs.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            let broker = Broker {
                copies: 2,
                transactions: true,
                consumed: vec!["t".to_owned()],
                ..Broker::default()
            };
            let mut survey = Survey::default();
            broker.judge(&settings.collect(), &HashMap::new(), &mut survey);
            let worst = survey.findings.iter().map(|finding| finding.level).max();
            (worst.unwrap_or(Level::Good), survey.kept.get("t").copied())
        };
        let hour = Duration::from_secs(3_600);
        let sync = ("flushDiskType", "SYNC_FLUSH");
        assert_eq!(
            judged(&[sync, ("fileReservedTime", "48")]),
            (Level::Note, Some(48 * hour))
        );
        let master = [
            ("flushDiskType", "ASYNC_FLUSH"),
            ("brokerRole", "SYNC_MASTER"),
        ];
        assert_eq!(judged(&master), (Level::Note, None));
        assert_eq!(judged(&master[..1]).0, Level::Warning);
        assert_eq!(
            judged(&[sync, ("rejectTransactionMessage", "true")]).0,
            Level::Failure
        );
    }
}

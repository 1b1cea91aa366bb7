//! What orders must come to, reckoned outside of the system, and the comparison with what was
//! found in it.

use std::collections::{BTreeMap, HashMap, HashSet};

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::Value;

/// What the example `points` must make of a workload.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// Messages, duplicates included.
    pub sent: usize,
    balances: BTreeMap<String, i64>,
    orders: HashMap<String, (String, i64)>,
}

/// What was found in the system.
#[derive(Clone, Debug, Default)]
pub struct Found {
    balances: BTreeMap<String, i64>,
    published: Vec<Granted>,
    dead: usize,
}

/// A message to `points-granted`.
#[derive(Clone, Debug)]
struct Granted {
    id: String,
    body: GrantedBody,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
struct GrantedBody {
    order_id: String,
    user: String,
    points: i64,
    balance: i64,
}

/// One line of a [`Ledger::compare`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What was counted.
    pub name: &'static str,
    /// What it must be.
    pub expected: i64,
    /// What it is.
    pub found: i64,
    /// An example of what is wrong.
    pub example: Option<String>,
}

impl Check {
    /// A count that must be as expected.
    pub fn count(name: &'static str, expected: usize, found: usize) -> Self {
        Self {
            name,
            expected: as_i64(expected),
            found: as_i64(found),
            example: None,
        }
    }

    /// Things that must not be there, with the first of them.
    fn none_of(name: &'static str, wrong: &[String]) -> Self {
        Self {
            example: wrong.first().cloned(),
            ..Self::count(name, 0, wrong.len())
        }
    }

    /// Whether it is as it must be.
    pub fn holds(&self) -> bool {
        self.expected == self.found
    }
}

impl Ledger {
    /// Adds an order that must count once.
    pub fn add_order(&mut self, order: &str, user: &str, points: i64) {
        *self.balances.entry(user.to_owned()).or_default() += points;
        let before = self
            .orders
            .insert(order.to_owned(), (user.to_owned(), points));
        assert!(before.is_none(), "the order {order} was added twice");
    }

    /// Falsifies one user's balance by a point, to see a comparison fail.
    pub fn tamper(&mut self) {
        if let Some(balance) = self.balances.values_mut().next() {
            *balance += 1;
        }
    }

    /// Orders that must count.
    pub fn orders(&self) -> usize {
        self.orders.len()
    }

    /// Compares everything. `lines_exactly_once` also demands that no outgoing message was
    /// written twice; brokers may have copies under the same id.
    pub fn compare(&self, found: &Found, lines_exactly_once: bool) -> Vec<Check> {
        let mut checks = vec![
            Check {
                name: "points of all users together",
                expected: self.balances.values().sum(),
                found: found.balances.values().sum(),
                example: None,
            },
            Check::none_of("users with a wrong balance", &self.wrong_balances(found)),
        ];
        let ids: HashSet<&str> = found.published.iter().map(|m| m.id.as_str()).collect();
        checks.push(Check::count(
            "outgoing message ids",
            self.orders(),
            ids.len(),
        ));
        if lines_exactly_once {
            let lines = found.published.len();
            checks.push(Check::count("outgoing messages", self.orders(), lines));
        }
        checks.extend([
            Check::none_of("orders without their message", &self.missing(found)),
            Check::none_of("wrong outgoing messages", &self.wrong_messages(found)),
            Check::none_of("balances out of sequence", &found.out_of_sequence()),
            Check::count("dead letters", 0, found.dead),
        ]);
        checks
    }

    fn wrong_balances(&self, found: &Found) -> Vec<String> {
        let users: HashSet<&String> = self.balances.keys().chain(found.balances.keys()).collect();
        let mut wrong = Vec::new();
        for user in users {
            let (expected, is) = (self.balances.get(user), found.balances.get(user));
            if expected != is {
                wrong.push(format!("{user} has {is:?}, must have {expected:?}"));
            }
        }
        wrong.sort();
        wrong
    }

    fn missing(&self, found: &Found) -> Vec<String> {
        let published = found.published.iter();
        let published: HashSet<&String> = published.map(|m| &m.body.order_id).collect();
        let mut missing: Vec<String> = self
            .orders
            .keys()
            .filter(|order| !published.contains(order))
            .cloned()
            .collect();
        missing.sort();
        missing
    }

    /// Messages that no order asks for, and ids or orders with several contents.
    fn wrong_messages(&self, found: &Found) -> Vec<String> {
        let mut by_id: HashMap<&str, &GrantedBody> = HashMap::new();
        let mut by_order: HashMap<&str, &str> = HashMap::new();
        let mut wrong = Vec::new();
        for Granted { id, body } in &found.published {
            let order = &body.order_id;
            match self.orders.get(order) {
                Some((user, points)) if (user, points) == (&body.user, &body.points) => {}
                expected => wrong.push(format!("{id} says {body:?}, ordered was {expected:?}")),
            }
            let first = *by_id.entry(id).or_insert(body);
            if first != body {
                wrong.push(format!("{id} has two contents: {first:?} and {body:?}"));
            }
            let first = *by_order.entry(order).or_insert(id);
            if first != id {
                wrong.push(format!("{order} has two messages: {first} and {id}"));
            }
        }
        wrong
    }
}

impl Found {
    /// From what `semel state list points --json` and `semel dead list --json` print, and from
    /// outgoing messages as `--output` writes them.
    pub fn read(state: &[Value], output: &[Value], dead: &[Value]) -> Result<Self> {
        let mut balances = BTreeMap::new();
        for row in state {
            let key = row["key"].as_str().context("a state row has a key")?;
            let Some(user) = key.strip_prefix("balance/") else {
                continue;
            };
            let balance = row["value"].as_i64();
            let balance = balance.with_context(|| format!("no balance is in {row}"))?;
            balances.insert(user.to_owned(), balance);
        }
        let granted = |line: &Value| {
            let id = line["id"]
                .as_str()
                .context("an outgoing message has an id")?;
            Ok(Granted {
                id: id.to_owned(),
                body: GrantedBody::deserialize(&line["body"])
                    .with_context(|| format!("no `points-granted` is in {line}"))?,
            })
        };
        Ok(Self {
            balances,
            published: output.iter().map(granted).collect::<Result<_>>()?,
            dead: dead.len(),
        })
    }

    /// Orders whose message was published.
    pub fn orders(&self) -> usize {
        let orders = self.published.iter().map(|message| &message.body.order_id);
        orders.collect::<HashSet<_>>().len()
    }

    /// Messages that were published, each as often as it is there.
    pub fn messages(&self) -> usize {
        self.published.len()
    }

    /// Whether the balances that the messages report are those of *some* order of handling:
    /// each one is a balance before it plus its points. A lost update, or a handler that read
    /// what was never true, shows here even where the sums come out right.
    fn out_of_sequence(&self) -> Vec<String> {
        let mut by_user: BTreeMap<&str, Vec<&GrantedBody>> = BTreeMap::new();
        let mut seen = HashSet::new();
        for message in &self.published {
            if seen.insert(&message.id) {
                by_user
                    .entry(&message.body.user)
                    .or_default()
                    .push(&message.body);
            }
        }
        let mut wrong = Vec::new();
        for (user, mut messages) in by_user {
            // Orders that brought nothing report a balance that another one reached.
            messages.sort_by_key(|message| (message.balance, message.points == 0));
            let mut balance = 0;
            for message in messages {
                if balance + message.points != message.balance {
                    wrong.push(format!("{user}: {message:?} does not follow {balance}"));
                }
                balance = message.balance;
            }
            if self.balances.get(user) != Some(&balance) {
                wrong.push(format!("{user}: the last message says {balance}"));
            }
        }
        wrong
    }
}

fn as_i64(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ledger() -> Ledger {
        let mut ledger = Ledger::default();
        ledger.add_order("o-1", "ann", 3);
        ledger.add_order("o-2", "ann", 0);
        ledger.add_order("o-3", "ann", 4);
        ledger
    }

    fn granted(id: &str, order: &str, points: i64, balance: i64) -> Value {
        json!({"id": id, "destination": "points-granted", "body":
            {"order_id": order, "user": "ann", "points": points, "balance": balance}})
    }

    /// The names of the checks that fail.
    fn failing(balance: i64, output: &[Value]) -> Vec<&'static str> {
        let state = [json!({"key": "balance/ann", "value": balance, "version": 1})];
        let found = Found::read(&state, output, &[]).unwrap();
        let checks = ledger().compare(&found, true);
        checks
            .iter()
            .filter(|check| !check.holds())
            .map(|check| check.name)
            .collect()
    }

    #[test]
    fn what_is_right_passes_in_any_order() {
        let messages = [
            granted("c", "o-3", 4, 4),
            granted("b", "o-2", 0, 4),
            granted("a", "o-1", 3, 7),
        ];
        assert!(failing(7, &messages).is_empty());
    }

    #[test]
    fn what_is_wrong_is_told_by_name() {
        let (a, b) = (granted("a", "o-1", 3, 3), granted("b", "o-2", 0, 3));
        let c = granted("c", "o-3", 4, 7);
        let all = [a.clone(), b.clone(), c.clone()];
        assert_eq!(
            failing(10, &all),
            [
                "points of all users together",
                "users with a wrong balance",
                "balances out of sequence"
            ]
        );
        let lost = failing(7, &[a.clone(), c.clone()]);
        assert!(lost.contains(&"orders without their message"), "{lost:?}");
        let doubled = failing(7, &[a.clone(), b.clone(), c.clone(), c.clone()]);
        assert_eq!(doubled, ["outgoing messages"]);
        let two_contents = failing(7, &[a.clone(), b.clone(), c, granted("c", "o-3", 4, 4)]);
        assert!(
            two_contents.contains(&"wrong outgoing messages"),
            "{two_contents:?}"
        );
        let lost_update = failing(7, &[a, b, granted("c", "o-3", 4, 4)]);
        assert!(
            lost_update.contains(&"balances out of sequence"),
            "{lost_update:?}"
        );
    }
}

//! The handler, without a host.

use semel::testing::{Harness, Outcome};
use serde_json::{Value, json};
use transfer::move_money;

fn transfer(id: &str, from: Option<&str>, to: &str, amount: u64) -> Value {
    json!({ "transfer_id": id, "from": from, "to": to, "amount": amount })
}

/// A host where ann holds 100 and ben 20.
fn host() -> Harness {
    Harness::new::<move_money>()
        .with_state("account/ann", &100)
        .with_state("account/ben", &20)
}

#[test]
fn both_accounts_change_in_one_step() {
    let mut host = host();
    assert!(
        host.deliver(&transfer("t-1", Some("ann"), "ben", 30))
            .is_applied()
    );
    assert!(
        host.deliver(&transfer("t-1", Some("ann"), "ben", 30))
            .is_duplicate()
    );
    assert_eq!(host.state("account/ann"), Some(70));
    assert_eq!(host.state("account/ben"), Some(50));

    assert_eq!(host.published().len(), 1);
    assert_eq!(host.published()[0].destination, "transfers-done");
    let done: Value = host.published()[0].json();
    assert_eq!(done, transfer("t-1", Some("ann"), "ben", 30));
}

#[test]
fn a_transfer_from_nobody_is_a_deposit() {
    let mut host = host();
    assert!(host.deliver(&transfer("t-1", None, "cleo", 5)).is_applied());
    let absent = json!({ "transfer_id": "t-2", "to": "cleo", "amount": 6 });
    assert!(host.deliver(&absent).is_applied());
    assert_eq!(host.state("account/cleo"), Some(11));
}

#[test]
fn what_cannot_be_is_rejected_and_changes_nothing() {
    let mut host = host().with_state("account/max", &u64::MAX);
    for (id, from, to, amount, why) in [
        (
            "t-1",
            Some("ann"),
            "ben",
            101,
            "holds 100, which is less than 101",
        ),
        ("t-2", Some("nobody"), "ben", 1, "`nobody` holds 0"),
        ("t-3", Some("ann"), "ann", 1, "can't pay itself"),
        ("t-4", Some("ann"), "ben", 0, "more than 0"),
        ("t-5", Some("ann"), "max", 1, "64 bits"),
    ] {
        let outcome = host.deliver(&transfer(id, from, to, amount));
        assert!(outcome.is_rejected(), "{outcome:?}");
        assert!(outcome.reason().unwrap().contains(why), "{outcome:?}");
    }
    let negative = json!({ "transfer_id": "t-6", "from": "ann", "to": "ben", "amount": -1 });
    assert!(host.deliver(&negative).is_rejected());

    assert_eq!(host.state("account/ann"), Some(100));
    assert_eq!(host.state("account/ben"), Some(20));
    assert!(host.published().is_empty());
}

#[test]
fn the_data_files_give_the_balances_that_the_readme_says() {
    let mut host = Harness::new::<move_money>();
    let mut outcomes = host.deliver_lines(include_str!("../data/deposits.jsonl"));
    outcomes.extend(host.deliver_lines(include_str!("../data/transfers.jsonl")));
    let count = |is: fn(&Outcome) -> bool| outcomes.iter().filter(|outcome| is(outcome)).count();
    assert_eq!(outcomes.len(), 10);
    assert_eq!(count(Outcome::is_applied), 5);
    assert_eq!(count(Outcome::is_duplicate), 3);
    assert_eq!(count(Outcome::is_rejected), 2);

    let held = ["ann", "ben", "cleo"].map(|owner| host.state::<u64>(&format!("account/{owner}")));
    assert_eq!(held, [Some(7000), Some(2500), Some(5500)]);
    assert_eq!(host.published().len(), 5);
}

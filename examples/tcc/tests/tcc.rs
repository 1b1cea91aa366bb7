//! The handler, without a host.

use semel::testing::{Harness, Outcome};
use serde_json::{Value, json};
use tcc::take_phase;

/// A host where ann has 100 available.
fn host() -> Harness {
    Harness::new::<take_phase>()
        .with_state("account/ann", &json!({ "available": 100, "frozen": 0 }))
}

fn attempt(tx: &str, amount: u64) -> Value {
    json!({ "phase": "try", "tx": tx, "account": "ann", "amount": amount })
}

fn confirm(tx: &str) -> Value {
    json!({ "phase": "confirm", "tx": tx })
}

fn cancel(tx: &str) -> Value {
    json!({ "phase": "cancel", "tx": tx })
}

fn account(host: &Harness, name: &str) -> (u64, u64) {
    let account: Value = host.state(&format!("account/{name}")).unwrap();
    let cents = |field: &str| account[field].as_u64().unwrap();
    (cents("available"), cents("frozen"))
}

fn result(outcome: &Outcome) -> String {
    let reply: Value = serde_json::from_slice(outcome.reply().unwrap()).unwrap();
    reply["result"].as_str().unwrap().to_owned()
}

#[test]
fn what_was_tried_is_frozen_then_spent_or_set_free() {
    let mut host = host();
    assert_eq!(result(&host.deliver(&attempt("t-1", 30))), "frozen");
    assert_eq!(result(&host.deliver(&attempt("t-2", 20))), "frozen");
    assert_eq!(account(&host, "ann"), (50, 50));
    assert_eq!(result(&host.deliver(&confirm("t-1"))), "confirmed");
    assert_eq!(account(&host, "ann"), (50, 20));
    assert_eq!(result(&host.deliver(&cancel("t-2"))), "cancelled");
    assert_eq!(account(&host, "ann"), (70, 0));
    assert_eq!(host.published().len(), 4);
}

#[test]
fn an_empty_cancel_is_recorded_and_holds_off_a_late_try() {
    let mut host = host();
    assert_eq!(result(&host.deliver(&cancel("t-1"))), "cancelled");
    let late = host.deliver(&attempt("t-1", 30));
    assert_eq!(result(&late), "refused");
    assert_eq!(account(&host, "ann"), (100, 0));
    let outcome = host.deliver(&confirm("t-1"));
    assert!(
        outcome.reason().unwrap().contains("cancelled"),
        "{outcome:?}"
    );
}

#[test]
fn too_much_is_refused_and_freezes_nothing() {
    let mut host = host();
    host.deliver(&attempt("t-1", 60));
    assert_eq!(result(&host.deliver(&attempt("t-2", 60))), "refused");
    assert_eq!(account(&host, "ann"), (40, 60));
    assert!(host.deliver(&confirm("t-2")).is_rejected());
    assert_eq!(result(&host.deliver(&cancel("t-2"))), "cancelled");
    assert_eq!(account(&host, "ann"), (40, 60));
}

#[test]
fn a_confirmation_waits_for_its_try() {
    let mut host = host();
    assert!(host.deliver(&confirm("t-1")).is_parked());
    host.deliver(&attempt("t-1", 30));
    assert!(host.retry_parked()[0].is_applied());
    assert_eq!(account(&host, "ann"), (70, 0));
    assert!(host.deliver(&cancel("t-1")).is_rejected());
}

#[test]
fn phases_that_come_again_are_harmless_with_and_without_their_records() {
    for end in [confirm("t-1"), cancel("t-1")] {
        let mut host = host();
        host.deliver(&attempt("t-1", 30));
        host.deliver(&end);
        assert!(host.deliver(&attempt("t-1", 30)).is_duplicate());
        assert!(host.deliver(&end).is_duplicate());
        // The records expired; the state did not.
        let state = ["account/ann", "tx/t-1"].map(|name| (name, host.state::<Value>(name)));
        let mut later = Harness::new::<take_phase>();
        for (name, value) in &state {
            later = later.with_state(*name, value);
        }
        assert!(later.deliver(&attempt("t-1", 30)).is_applied());
        assert!(later.deliver(&end).is_applied());
        assert_eq!(account(&later, "ann"), account(&host, "ann"));
    }
}

#[test]
fn the_data_files_give_the_accounts_that_the_readme_says() {
    let mut host = Harness::new::<take_phase>();
    host.deliver_lines(include_str!("../data/deposits.jsonl"));
    let outcomes = host.deliver_lines(include_str!("../data/phases.jsonl"));
    let count = |is: fn(&Outcome) -> bool| outcomes.iter().filter(|outcome| is(outcome)).count();
    assert_eq!(outcomes.len(), 13);
    assert_eq!(count(Outcome::is_applied), 9);
    assert_eq!(count(Outcome::is_duplicate), 3);
    assert_eq!(count(Outcome::is_parked), 1);
    assert!(host.retry_parked()[0].is_applied());
    assert_eq!(account(&host, "ann"), (6000, 1000));
    assert_eq!(account(&host, "ben"), (1300, 0));
    assert_eq!(host.published().len(), 12);
}

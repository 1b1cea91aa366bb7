//! The handler, without a host.

use semel::testing::{Harness, Outcome};
use serde_json::{Value, json};
use webhook::record_payment;

fn event(id: &str, kind: &str, payment: &str, amount: u64) -> Value {
    let payment = json!({ "id": payment, "order_id": "o-1", "amount": amount, "method": "card" });
    json!({ "id": id, "type": kind, "payment": payment })
}

fn result(outcome: &Outcome) -> String {
    let reply: Value = serde_json::from_slice(outcome.reply().unwrap()).unwrap();
    reply["result"].as_str().unwrap().to_owned()
}

#[test]
fn an_event_counts_once_and_gets_the_same_reply() {
    let mut host = Harness::new::<record_payment>();
    let succeeded = event("evt_1", "payment.succeeded", "pay_1", 900);
    let first = host.deliver(&succeeded);
    assert_eq!(result(&first), "recorded");
    let again = host.deliver(&succeeded);
    assert!(again.is_duplicate());
    assert_eq!(again.reply(), first.reply());
    assert_eq!(host.published().len(), 1);
}

#[test]
fn two_events_of_one_payment_are_one_payment() {
    let mut host = Harness::new::<record_payment>();
    host.deliver(&event("evt_1", "payment.succeeded", "pay_1", 900));
    let second = host.deliver(&event("evt_2", "payment.succeeded", "pay_1", 900));
    assert_eq!(result(&second), "known");
    let other = host.deliver(&event("evt_3", "payment.succeeded", "pay_1", 901));
    assert!(other.reason().unwrap().contains("`evt_1`"), "{other:?}");
    assert_eq!(host.published().len(), 1);
}

#[test]
fn an_event_that_changed_on_its_way_is_noticed() {
    let mut host = Harness::new::<record_payment>();
    host.deliver(&event("evt_1", "payment.succeeded", "pay_1", 900));
    assert!(
        host.deliver(&event("evt_1", "payment.succeeded", "pay_1", 1))
            .is_refused()
    );
}

#[test]
fn the_data_files_give_what_the_readme_says() {
    let mut host = Harness::new::<record_payment>();
    let mut outcomes = host.deliver_lines(include_str!("../data/events.jsonl"));
    outcomes.extend(host.deliver_lines(include_str!("../data/late.jsonl")));
    let count = |is: fn(&Outcome) -> bool| outcomes.iter().filter(|outcome| is(outcome)).count();
    assert_eq!(outcomes.len(), 6);
    assert_eq!(count(Outcome::is_applied), 4);
    assert_eq!(count(Outcome::is_duplicate), 1);
    assert_eq!(count(Outcome::is_rejected), 1);
    assert_eq!(host.state_names().count(), 2);
    assert_eq!(host.published().len(), 2);
}

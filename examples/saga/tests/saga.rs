//! The handler, without a host: what it publishes is handed back to it, as a broker would.

use saga::take_step;
use semel::testing::{Harness, Incoming, Outcome};
use serde_json::{Value, json};

fn step(topic: &str, body: &Value) -> Incoming {
    Incoming::json(body).topic(topic)
}

/// A host where ann holds 100, and there are two lamps.
fn host() -> Harness {
    Harness::new::<take_step>()
        .with_state("balance/ann", &100)
        .with_state("level/lamp", &2)
}

fn placed(id: &str, quantity: u64, amount: u64) -> Incoming {
    let order = json!({
        "step": "placed", "id": id, "user": "ann", "item": "lamp",
        "quantity": quantity, "amount": amount,
    });
    step("saga-orders", &order)
}

/// Delivers what was published until nothing more is.
fn settle(host: &mut Harness) {
    let mut next = 0;
    while let Some(sent) = host.published().get(next).cloned() {
        next += 1;
        let incoming = Incoming::new(sent.body).topic(sent.destination);
        let outcome = host.deliver_message(incoming);
        assert!(
            outcome.is_applied() || outcome.is_duplicate(),
            "{outcome:?}"
        );
    }
}

fn status(host: &Harness, id: &str) -> String {
    let order: Value = host.state(&format!("order/{id}")).unwrap();
    order["status"].as_str().unwrap().to_owned()
}

#[test]
fn an_order_is_paid_and_reserved() {
    let mut host = host();
    assert!(host.deliver_message(placed("o-1", 2, 60)).is_applied());
    settle(&mut host);
    assert_eq!(status(&host, "o-1"), "confirmed");
    assert_eq!(host.state("balance/ann"), Some(40));
    assert_eq!(host.state("level/lamp"), Some(0));
}

#[test]
fn an_order_that_is_not_paid_is_cancelled() {
    let mut host = host();
    host.deliver_message(placed("o-1", 1, 101));
    settle(&mut host);
    let order: Value = host.state("order/o-1").unwrap();
    assert_eq!(order["status"], "cancelled");
    assert_eq!(order["steps"], json!(["placed", "refused"]));
    assert_eq!(host.state("balance/ann"), Some(100));
    assert_eq!(host.state("level/lamp"), Some(2));
}

#[test]
fn an_order_without_goods_is_refunded_and_cancelled() {
    let mut host = host();
    host.deliver_message(placed("o-1", 3, 60));
    settle(&mut host);
    let order: Value = host.state("order/o-1").unwrap();
    assert_eq!(order["status"], "cancelled");
    let steps = json!(["placed", "paid", "missing", "refunded"]);
    assert_eq!(order["steps"], steps);
    assert_eq!(host.state("balance/ann"), Some(100));
    assert_eq!(host.state("level/lamp"), Some(2));
}

#[test]
fn early_steps_wait_and_contradictions_are_rejected() {
    let mut host = host();
    let answer = |step_name| step("saga-orders", &json!({ "step": step_name, "id": "o-1" }));
    assert!(host.deliver_message(answer("reserved")).is_parked());
    let refund = step("saga-payments", &json!({ "step": "refund", "id": "o-1" }));
    assert!(host.deliver_message(refund).is_parked());
    host.deliver_message(placed("o-1", 2, 60));
    assert!(host.deliver_message(answer("paid")).is_applied());
    let refused = json!({ "step": "refused", "id": "o-1", "reason": "no" });
    let outcome = host.deliver_message(step("saga-orders", &refused));
    assert!(
        outcome.reason().unwrap().contains("contradicts"),
        "{outcome:?}"
    );
    // The early `reserved` has its turn now, the refund still has not.
    let outcomes = host.retry_parked();
    assert!(
        outcomes[0].is_applied() && outcomes[1].is_parked(),
        "{outcomes:?}"
    );
    assert_eq!(status(&host, "o-1"), "confirmed");
}

#[test]
fn steps_that_come_again_after_their_records_expired_are_harmless() {
    let mut host = host();
    host.deliver_message(placed("o-1", 3, 60));
    settle(&mut host);
    let names: Vec<String> = host.state_names().map(str::to_owned).collect();
    let messages = host.published().to_vec();
    // A host with the same state and none of the records.
    let mut later = Harness::new::<take_step>();
    for name in &names {
        later = later.with_state(name, &host.state::<Value>(name).unwrap());
    }
    later.deliver_message(placed("o-1", 3, 60));
    for sent in messages {
        let incoming = Incoming::new(sent.body).topic(sent.destination);
        assert!(later.deliver_message(incoming).is_applied());
    }
    assert!(later.published().is_empty());
    for name in &names {
        assert_eq!(
            later.state::<Value>(name),
            host.state::<Value>(name),
            "{name}"
        );
    }
}

/// Numbers without a pattern, the same for the same seed.
fn draw(seed: &mut u64, below: usize) -> usize {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
    (*seed >> 33) as usize % below
}

#[test]
fn whatever_the_order_and_the_duplicates_no_money_and_no_goods_are_lost() {
    for seed in 0..200 {
        let mut random = seed;
        let mut host = Harness::new::<take_step>();
        let supplies = include_str!("../data/supplies.jsonl").lines();
        let orders = include_str!("../data/orders.jsonl").lines();
        let line = |line| Incoming::from_json_line(line).unwrap();
        host.deliver_lines(&supplies.collect::<Vec<_>>().join("\n"));
        let mut waiting: Vec<Incoming> = orders.map(line).collect();
        let mut taken = 0;
        while !waiting.is_empty() {
            let next = draw(&mut random, waiting.len());
            // One in three comes again later.
            let incoming = match draw(&mut random, 3) {
                0 => waiting[next].clone(),
                _ => waiting.swap_remove(next),
            };
            let outcome = host.deliver_message(incoming);
            assert!(
                outcome.is_applied() || outcome.is_duplicate(),
                "{outcome:?}"
            );
            let new = &host.published()[taken..];
            waiting.extend(
                new.iter()
                    .map(|sent| Incoming::new(sent.body.clone()).topic(&*sent.destination)),
            );
            taken += new.len();
        }
        let ends = ["o-1", "o-2", "o-3", "o-4"].map(|id| status(&host, id));
        let expected = ["confirmed", "cancelled", "cancelled", "confirmed"];
        assert_eq!(ends, expected, "seed {seed}");
        assert_eq!(host.state("balance/ann"), Some(6000), "seed {seed}");
        assert_eq!(host.state("balance/ben"), Some(500), "seed {seed}");
        assert_eq!(host.state("level/lamp"), Some(1), "seed {seed}");
        assert_eq!(host.state("level/chair"), Some(6), "seed {seed}");
    }
}

#[test]
fn an_order_of_nothing_is_rejected() {
    let mut host = host();
    assert!(host.deliver_message(placed("o-1", 0, 60)).is_rejected());
    let other: Outcome = host.deliver_message(step("saga-stock", &json!({ "id": "o-1" })));
    assert!(other.is_refused(), "{other:?}");
    assert!(host.published().is_empty());
}

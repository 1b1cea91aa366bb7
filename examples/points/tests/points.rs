//! The handler, without a host.

use points::grant_points;
use semel::testing::{Harness, Outcome};
use serde_json::{Value, json};

fn order(order_id: &str, user: &str, amount: i64) -> Value {
    json!({ "order_id": order_id, "user": user, "amount": amount })
}

#[test]
fn each_full_hundred_cents_is_a_point() {
    let mut host = Harness::new::<grant_points>();
    for (order_id, amount, balance) in [("o-1", 250, 2), ("o-2", 99, 2), ("o-3", 1000, 12)] {
        assert!(host.deliver(&order(order_id, "ann", amount)).is_applied());
        assert_eq!(host.state("balance/ann"), Some(balance));
    }
    let granted: Vec<Value> = host.published().iter().map(|sent| sent.json()).collect();
    let expected = json!({ "order_id": "o-3", "user": "ann", "points": 10, "balance": 12 });
    assert_eq!(granted[2], expected);
    assert!(
        host.published()
            .iter()
            .all(|sent| sent.destination == "points-granted")
    );
}

#[test]
fn an_order_sent_twice_counts_once() {
    let mut host = Harness::new::<grant_points>();
    assert!(host.deliver(&order("o-1", "ann", 500)).is_applied());
    assert!(host.deliver(&order("o-1", "ann", 500)).is_duplicate());
    assert_eq!(host.state("balance/ann"), Some(5));
    assert_eq!(host.published().len(), 1);
}

#[test]
fn an_order_number_used_for_two_orders_is_noticed() {
    let mut host = Harness::new::<grant_points>();
    assert!(host.deliver(&order("o-1", "ann", 500)).is_applied());
    assert!(host.deliver(&order("o-1", "ann", 900)).is_refused());
    assert_eq!(host.state("balance/ann"), Some(5));
}

#[test]
fn nonsense_is_rejected_and_changes_nothing() {
    let mut host = Harness::new::<grant_points>();
    for (order_id, amount, why) in [
        ("o-1", -1, "-1 cents"),
        ("o-2", i64::MAX, "not between 0 and 1000000000"),
    ] {
        let outcome = host.deliver(&order(order_id, "ann", amount));
        assert!(outcome.is_rejected(), "{outcome:?}");
        assert!(outcome.reason().unwrap().contains(why), "{outcome:?}");
    }
    let no_user = host.deliver(&json!({ "order_id": "o-3", "amount": 100 }));
    assert!(no_user.reason().unwrap().contains("missing field `user`"));
    assert_eq!(host.state_names().count(), 0);
    assert!(host.published().is_empty());
}

#[test]
fn a_balance_stays_within_64_bits() {
    let mut host = Harness::new::<grant_points>().with_state("balance/ann", &i64::MAX);
    assert!(host.deliver(&order("o-1", "ann", 100)).is_rejected());
    assert!(host.deliver(&order("o-2", "ann", 99)).is_applied());
}

#[test]
fn the_data_file_gives_the_balances_that_the_readme_says() {
    let mut host = Harness::new::<grant_points>();
    let outcomes = host.deliver_lines(include_str!("../data/orders.jsonl"));
    let count = |is: fn(&Outcome) -> bool| outcomes.iter().filter(|outcome| is(outcome)).count();
    assert_eq!(outcomes.len(), 12);
    assert_eq!(count(Outcome::is_applied), 7);
    assert_eq!(count(Outcome::is_duplicate), 3);
    assert_eq!(count(Outcome::is_rejected), 1);
    assert_eq!(count(Outcome::is_refused), 1);
    assert_eq!(host.state("balance/ann"), Some(29));
    assert_eq!(host.state("balance/ben"), Some(150));
    assert_eq!(host.state("balance/cleo"), Some(7));
    assert_eq!(host.published().len(), 7);
}

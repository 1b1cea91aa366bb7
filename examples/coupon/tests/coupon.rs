//! The handler, without a host.

use coupon::claim_coupon;
use semel::testing::{Harness, Incoming, Outcome};
use serde_json::{Value, json};

fn claim(id: &str, coupon: &str, user: &str) -> Incoming {
    Incoming::json(&json!({ "coupon": coupon, "user": user })).id(id)
}

fn reply(outcome: &Outcome) -> Value {
    serde_json::from_slice(outcome.reply().unwrap()).unwrap()
}

#[test]
fn a_user_gets_a_coupon_once_however_often_it_is_claimed() {
    let mut host = Harness::new::<claim_coupon>();
    let first = host.deliver_message(claim("c-1", "SPRING", "ann"));
    assert_eq!(reply(&first), json!({ "result": "granted", "number": 1 }));
    let again = host.deliver_message(claim("c-1", "SPRING", "ann"));
    assert!(again.is_duplicate());
    assert_eq!(reply(&again), reply(&first));
    let other = host.deliver_message(claim("c-2", "SPRING", "ann"));
    let expected = json!({ "result": "already-claimed", "number": 1 });
    assert_eq!(reply(&other), expected);
    assert!(
        host.deliver_message(claim("c-3", "SUMMER", "ann"))
            .is_applied()
    );
    assert_eq!(host.state("issued/SPRING"), Some(1));
    assert_eq!(host.published().len(), 2);
}

#[test]
fn no_more_are_granted_than_there_are() {
    let mut host = Harness::new::<claim_coupon>().with_config("supply", "2");
    let users = ["ann", "ben", "cleo"];
    let results = users.map(|user| {
        let outcome = host.deliver_message(claim(user, "SPRING", user));
        reply(&outcome)["result"].clone()
    });
    assert_eq!(results, ["granted", "granted", "sold-out"]);
}

#[test]
fn a_form_is_a_claim_too() {
    let mut host = Harness::new::<claim_coupon>();
    let form = Incoming::new("coupon=SPRING&user=ann+b%C3%A9a&_token=abc")
        .header("content-type", "application/x-www-form-urlencoded")
        .id("abc");
    assert_eq!(reply(&host.deliver_message(form))["result"], "granted");
    assert!(
        host.state_names()
            .any(|name| name == "claim/SPRING/ann béa")
    );
}

#[test]
fn names_that_would_collide_are_rejected() {
    let mut host = Harness::new::<claim_coupon>();
    assert!(host.deliver_message(claim("c-1", "a/b", "c")).is_rejected());
    assert!(host.deliver_message(claim("c-2", "a", "b/c")).is_rejected());
    assert!(host.deliver_message(claim("c-3", "", "c")).is_rejected());
    let form =
        Incoming::new("user=ann").header("content-type", "application/x-www-form-urlencoded");
    assert!(host.deliver_message(form).is_rejected());
    assert_eq!(host.state_names().count(), 0);
}

#[test]
fn the_data_file_gives_what_the_readme_says() {
    let mut host = Harness::new::<claim_coupon>();
    let outcomes = host.deliver_lines(include_str!("../data/claims.jsonl"));
    assert_eq!(outcomes.len(), 6);
    assert!(outcomes[2].is_duplicate() && outcomes[5].is_rejected());
    assert_eq!(host.state("issued/SPRING"), Some(2));
    assert_eq!(host.state("issued/SUMMER"), Some(1));
    assert_eq!(host.published().len(), 3);
}

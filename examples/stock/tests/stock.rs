//! The handler, without a host.

use semel::testing::{Harness, Outcome};
use serde_json::{Value, json};
use stock::set_level;

fn change(item: &str, version: u64, level: i64) -> Value {
    json!({ "item": item, "version": version, "level": level })
}

#[test]
fn the_newest_version_wins_in_whatever_order_they_come() {
    let mut host = Harness::new::<set_level>();
    assert!(host.deliver(&change("bolt", 2, 90)).is_applied());
    assert!(host.deliver(&change("bolt", 1, 100)).is_stale());
    assert!(host.deliver(&change("bolt", 2, 90)).is_duplicate());
    assert!(host.deliver(&change("nut", 1, 40)).is_applied());
    assert_eq!(host.state("level/bolt"), Some(90));
    assert_eq!(host.state("level/nut"), Some(40));
    assert_eq!(host.published().len(), 2);
}

#[test]
fn a_rejected_change_is_no_version() {
    let mut host = Harness::new::<set_level>();
    assert!(host.deliver(&change("bolt", 5, -1)).is_rejected());
    assert!(host.deliver(&change("bolt", 4, 10)).is_applied());
}

#[test]
fn the_data_file_gives_the_levels_that_the_readme_says() {
    let mut host = Harness::new::<set_level>();
    let outcomes = host.deliver_lines(include_str!("../data/changes.jsonl"));
    let count = |is: fn(&Outcome) -> bool| outcomes.iter().filter(|outcome| is(outcome)).count();
    assert_eq!(outcomes.len(), 11);
    assert_eq!(count(Outcome::is_applied), 6);
    assert_eq!(count(Outcome::is_stale), 2);
    assert_eq!(count(Outcome::is_duplicate), 1);
    assert_eq!(count(Outcome::is_rejected), 1);
    assert_eq!(count(Outcome::is_refused), 1);
    assert_eq!(host.state("level/bolt"), Some(60));
    assert_eq!(host.state("level/nut"), Some(35));
    assert_eq!(host.state("level/washer"), Some(500));
    assert_eq!(host.published().len(), 6);
}

//! The handler, without a host and without a database: queries are answered by the test.

use bank::book;
use semel::testing::Harness;
use semel::{OnMiss, SqlRows, SqlValue};
use serde_json::{Value, json};

fn transfer(id: &str, from: &str, amount: i64) -> Value {
    json!({ "transfer_id": id, "from": from, "to": "bob", "amount": amount })
}

/// A host on which only `ann` has an account, with 1,000.
fn host() -> Harness {
    Harness::new::<book>().with_rows(|text, parameters| {
        assert!(text.starts_with("SELECT balance, version FROM accounts"));
        let ann = vec![SqlValue::Integer(1_000), SqlValue::Integer(7)];
        let is_ann = parameters == [SqlValue::Text("ann".to_owned())];
        SqlRows {
            columns: vec!["balance".to_owned(), "version".to_owned()],
            rows: is_ann.then_some(ann).into_iter().collect(),
        }
    })
}

#[test]
fn a_transfer_is_booked_against_the_version_that_was_read() {
    let mut host = host();
    assert!(host.deliver(&transfer("t-1", "ann", 400)).is_applied());
    assert!(host.deliver(&transfer("t-1", "ann", 400)).is_duplicate());
    let [payer, payee, entry] = host.statements() else {
        panic!("{:?}", host.statements());
    };
    assert_eq!(payer.rows, Some(1));
    assert_eq!(payer.on_miss, OnMiss::RunAgain);
    assert_eq!(payer.parameters[2], SqlValue::Integer(7));
    assert_eq!(payee.on_miss, OnMiss::Reject);
    assert!(entry.text.starts_with("INSERT INTO transfers"));
    assert_eq!(host.published().len(), 1);
}

#[test]
fn what_can_t_be_booked_is_rejected() {
    let mut host = host();
    for refused in [
        transfer("t-1", "ann", 0),
        transfer("t-2", "ann", 1_001),
        transfer("t-3", "eve", 1),
    ] {
        assert!(host.deliver(&refused).is_rejected());
    }
    assert_eq!(host.statements(), []);
}

//! Each rule is needed: the protocol without it is refuted.

use semel_model::retention::RetentionRule;
use semel_model::transactional::TransactionalRule;
use semel_model::{Rule, refutations, refute};

#[test]
fn without_a_rule_an_invariant_fails() {
    for &rule in Rule::EACH {
        let (protocol, invariant) = refutations::of(rule);
        let refuted = refute(protocol, invariant);
        assert!(refuted.is_some(), "without {rule:?}, still: {invariant}");
    }
}

#[test]
fn without_a_rule_of_retention_a_message_is_handled_twice() {
    for &rule in RetentionRule::EACH {
        let (model, invariant) = refutations::of_retention(rule);
        assert!(refute(model, invariant).is_some(), "without {rule:?}");
    }
}

#[test]
fn without_a_rule_of_transactional_delivery_an_invariant_fails() {
    for &rule in TransactionalRule::EACH {
        let (model, invariant) = refutations::of_transactional(rule);
        let refuted = refute(model, invariant);
        assert!(refuted.is_some(), "without {rule:?}, still: {invariant}");
    }
}

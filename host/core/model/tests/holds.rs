//! The protocol, explored exhaustively within small budgets: every invariant holds, and what
//! is interesting is reached.

use semel_model::retention::EXPIRED;
use semel_model::scenarios::Scenario;
use semel_model::transactional::FENCED;
use semel_model::{Rules, always_ends, explore, scenarios};

#[test]
fn invariants_hold_whatever_goes_wrong() {
    hold_in(scenarios::small());
}

#[test]
#[ignore = "takes minutes and gigabytes"]
fn invariants_hold_in_larger_worlds() {
    hold_in(scenarios::large());
}

fn hold_in(scenarios: Vec<Scenario>) {
    for scenario in scenarios {
        let explored = explore(scenario.protocol);
        let name = scenario.name;
        assert!(
            explored.violated.is_empty(),
            "{name}: {:?}",
            explored.violated
        );
        for reached in scenario.reaches {
            assert!(
                explored.reached.contains(reached),
                "{name}: never {reached}"
            );
        }
    }
}

#[test]
fn invariants_hold_while_records_expire() {
    let explored = explore(scenarios::retention(Rules::ALL));
    assert!(explored.violated.is_empty(), "{:?}", explored.violated);
    assert!(explored.reached.contains(EXPIRED));
}

#[test]
fn invariants_hold_in_transactional_delivery() {
    for model in [
        scenarios::checked_back(Rules::ALL),
        scenarios::given_up(Rules::ALL),
    ] {
        let explored = explore(model);
        assert!(explored.violated.is_empty(), "{:?}", explored.violated);
        assert!(explored.reached.contains(FENCED));
    }
}

#[test]
fn every_execution_ends() {
    for scenario in scenarios::small() {
        if scenario.is_tiny {
            assert!(always_ends(&scenario.protocol), "{}", scenario.name);
        }
    }
    assert!(always_ends(&scenarios::checked_back(Rules::ALL)));
    assert!(always_ends(&scenarios::given_up(Rules::ALL)));
}

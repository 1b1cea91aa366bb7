//! Prints what the model checker finds: `model` for everything, `model --trace RULE` for what
//! happens without one rule, step by step.

use std::process::ExitCode;

use semel_model::retention::RetentionRule;
use semel_model::transactional::TransactionalRule;
use semel_model::{
    Explored, Refutation, Rule, Rules, explore, refutations, refute, scenarios, trace,
};
use stateright::Model;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match &arguments[..] {
        [] => {
            worlds();
            refutations();
            ExitCode::SUCCESS
        }
        [flag, name] if flag == "--trace" => show(name),
        _ => {
            eprintln!("usage: model [--trace RULE]");
            ExitCode::FAILURE
        }
    }
}

fn worlds() {
    println!("| scenario | states | longest path | seconds | violated |\n|---|---:|---:|---:|---|");
    let retention = scenarios::retention(Rules::ALL);
    row("retention: three hosts", &explore(retention));
    let checked_back = scenarios::checked_back(Rules::ALL);
    row("transactional: checked back", &explore(checked_back));
    let given_up = scenarios::given_up(Rules::ALL);
    row("transactional: given up by the broker", &explore(given_up));
    for scenario in scenarios::small() {
        row(scenario.name, &explore(scenario.protocol));
    }
}

fn row(name: &str, explored: &Explored) {
    let Explored { states, depth, .. } = explored;
    let seconds = explored.time.as_secs_f64();
    let violated: Vec<_> = explored.violated.iter().copied().collect();
    let violated = if violated.is_empty() {
        "nothing"
    } else {
        &violated.join(", ")
    };
    println!("| {name} | {states} | {depth} | {seconds:.1} | {violated} |");
}

fn refutations() {
    println!("\n| without | goes wrong | violated | steps |\n|---|---|---|---:|");
    for &rule in Rule::EACH {
        let (protocol, invariant) = refutations::of(rule);
        refuted(
            &format!("{rule:?}"),
            rule.harm(),
            invariant,
            refute(protocol, invariant),
        );
    }
    for &rule in RetentionRule::EACH {
        let (model, invariant) = refutations::of_retention(rule);
        refuted(
            &format!("{rule:?}"),
            rule.harm(),
            invariant,
            refute(model, invariant),
        );
    }
    for &rule in TransactionalRule::EACH {
        let (model, invariant) = refutations::of_transactional(rule);
        refuted(
            &format!("{rule:?}"),
            rule.harm(),
            invariant,
            refute(model, invariant),
        );
    }
}

fn refuted<M: Model>(name: &str, harm: &str, invariant: &str, found: Option<Refutation<M>>) {
    let steps = found.map_or("never".into(), |found| found.steps().to_string());
    println!("| `{name}` | {harm} | {invariant} | {steps} |");
}

fn show(name: &str) -> ExitCode {
    let rules = Rule::EACH.iter();
    let Some(&rule) = rules.clone().find(|rule| format!("{rule:?}") == name) else {
        eprintln!("no rule is called {name}; there are:");
        rules.for_each(|rule| eprintln!("  {rule:?}"));
        return ExitCode::FAILURE;
    };
    let (protocol, invariant) = refutations::of(rule);
    println!(
        "without {rule:?}: {}\nmessages: {:?}",
        rule.harm(),
        protocol.topic
    );
    let Some(found) = refute(protocol, invariant) else {
        return ExitCode::FAILURE;
    };
    for (state, action) in &found.path {
        match action {
            Some(action) => println!("  {}", trace::line(state, action)),
            None => println!("violated: {invariant}"),
        }
    }
    ExitCode::SUCCESS
}

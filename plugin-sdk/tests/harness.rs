//! The attribute, the context and the harness together, as a plugin's author uses them.
#![forbid(unsafe_code)]

use std::time::Duration;

use semel::testing::{Harness, Incoming, Outcome};
use semel::{Context, Json, Level, Message, Outgoing, Result};
use serde::{Deserialize, Serialize};
use serde_json::json;

#[derive(Deserialize, Serialize)]
struct Step {
    id: String,
    what: String,
}

fn step(id: &str, what: &str) -> Step {
    Step {
        id: id.into(),
        what: what.into(),
    }
}

#[semel::handler(
    topics = ["steps", "more-steps"],
    key = "json:/id",
    order_by = "json:/what",
    retention = "30d",
    name = "walker"
)]
fn walk(step: Step, ctx: &mut Context) -> Result<Json<u32>> {
    ctx.log().info(format_args!(
        "{}, attempt {}",
        step.what,
        ctx.message().attempt
    ));
    let walked: u32 = ctx.state().get("walked")?.unwrap_or(0);
    ctx.state().put("walked", &(walked + 1))?;
    ctx.state().add("count", 2)?;
    ctx.publish("walked", &step)?;
    match step.what.as_str() {
        "stumble" if ctx.message().attempt < 2 => {
            Err(semel::retry("stumbled").after(Duration::from_secs(5)))
        }
        "fall" => Err(semel::reject("fell")),
        "miscount" => {
            ctx.state().put("count", "many")?;
            ctx.state().add("count", 1)?;
            Ok(Json(0))
        }
        "misread" => {
            ctx.state().put_bytes("raw", &[0xff])?;
            ctx.state().get::<u32>("raw")?;
            Ok(Json(0))
        }
        "parse" => Ok(Json("x".parse()?)),
        "configured" => Ok(Json(
            ctx.config("reply").map_or(Ok(0), |reply| reply.parse())?,
        )),
        _ => Ok(Json(walked + 1)),
    }
}

#[test]
fn the_manifest_is_what_the_attribute_says() {
    let manifest: serde_json::Value =
        serde_json::from_str(<walk as semel::Handler>::MANIFEST).unwrap();
    let expected = json!({
        "semel": "0.1", "name": "walker", "plugin-version": env!("CARGO_PKG_VERSION"),
        "topics": ["steps", "more-steps"], "key": "json:/id", "order-by": "json:/what",
        "retention": "30d",
    });
    assert_eq!(manifest, expected);
}

#[test]
fn effects_count_once_per_key_and_the_reply_is_given_again() {
    let mut host = Harness::new::<walk>();
    let first = host.deliver(&step("1", "go"));
    assert_eq!(
        first,
        Outcome::Applied {
            reply: Some(b"1".to_vec())
        }
    );
    let again = host.deliver_message(Incoming::json(&step("1", "go")).topic("more-steps"));
    assert_eq!(
        again,
        Outcome::Duplicate {
            reply: Some(b"1".to_vec())
        }
    );
    assert!(host.deliver(&step("2", "go")).is_applied());

    assert_eq!(host.state::<u32>("walked"), Some(2));
    assert_eq!(host.state_bytes("count"), Some(b"4".as_slice()));
    assert_eq!(host.state_names().collect::<Vec<_>>(), ["count", "walked"]);
    assert_eq!(host.published().len(), 2);
    assert_ne!(host.published()[0].id, host.published()[1].id);
    assert_eq!(host.log()[0].text, "go, attempt 0");
    assert_eq!(host.log()[0].level, Level::Info);
}

#[test]
fn a_failed_run_leaves_nothing_but_its_log() {
    let mut host = Harness::new::<walk>();
    for (what, reason) in [
        ("fall", "fell"),
        ("miscount", "not a 64-bit decimal counter"),
        ("misread", "`raw` is not what the handler expects"),
    ] {
        let outcome = host.deliver(&step(what, what));
        assert!(outcome.is_rejected(), "{what}: {outcome:?}");
        assert!(outcome.reason().unwrap().contains(reason), "{outcome:?}");
        assert!(host.deliver(&step(what, what)).is_duplicate());
    }
    let outcome = host.deliver(&step("parse", "parse"));
    assert!(
        outcome.is_parked(),
        "an unknown error is a retry: {outcome:?}"
    );

    assert_eq!(host.state_names().count(), 0);
    assert_eq!(host.published(), []);
    assert_eq!(host.log().len(), 4);
}

#[test]
fn a_parked_message_comes_back_with_its_attempts_counted() {
    let mut host = Harness::new::<walk>();
    let parked = Outcome::Parked {
        reason: "stumbled".into(),
        after: Some(Duration::from_secs(5)),
    };
    assert_eq!(host.deliver(&step("1", "stumble")), parked);
    assert!(
        host.deliver(&step("1", "stumble")).is_duplicate(),
        "the parked one owns the key"
    );
    assert_eq!(host.retry_parked(), [parked]);
    assert!(host.retry_parked()[0].is_applied());
    assert_eq!(host.retry_parked(), []);
    assert_eq!(host.state::<u32>("walked"), Some(1));
    assert_eq!(host.log()[2].text, "stumble, attempt 2");
}

#[test]
fn what_is_no_message_of_the_handlers_never_gets_to_it() {
    let mut host = Harness::new::<walk>();
    assert!(host.deliver(&step("1", "go")).is_applied());
    let changed = host.deliver(&step("1", "run"));
    assert!(changed.is_refused() && changed.reason().unwrap().contains("another body"));
    assert!(
        host.deliver(&json!({ "what": "go" }))
            .reason()
            .unwrap()
            .contains("json:/id")
    );
    assert!(
        host.deliver(&json!({ "id": "2" }))
            .reason()
            .unwrap()
            .contains("json:/what")
    );
    let elsewhere = Incoming::json(&step("3", "go")).topic("elsewhere");
    assert!(host.deliver_message(elsewhere).is_refused());
    assert_eq!(host.log().len(), 1);

    let misshapen = host.deliver(&json!({ "id": "4", "what": 5, }));
    assert!(misshapen.is_rejected());
    let reason = misshapen.reason().unwrap();
    assert!(
        reason.contains("expected a string") && reason.contains(r#""id":"4""#),
        "{reason}"
    );
}

#[test]
fn configuration_grants_and_limits_are_the_tests_to_set() {
    let mut host = Harness::new::<walk>()
        .with_config("reply", "7")
        .with_state("walked", &41);
    assert_eq!(
        host.deliver(&step("1", "configured")).reply(),
        Some(b"7".as_slice())
    );
    assert_eq!(
        host.deliver(&step("2", "go")).reply(),
        Some(b"43".as_slice())
    );

    let mut host = Harness::new::<walk>().with_destinations(["elsewhere"]);
    let denied = host.deliver(&step("1", "go"));
    assert!(denied.is_parked() && denied.reason().unwrap().contains("`walked`"));

    let mut host = Harness::new::<walk>().with_max_effects(2);
    let limited = host.deliver(&step("1", "go"));
    assert!(limited.is_rejected(), "{limited:?}");
    assert!(limited.reason().unwrap().contains("limits"), "{limited:?}");
}

#[semel::handler(topics = ["raw"], key = "keys + header:tenant")]
fn raw(message: Message, ctx: &Context) -> Result<Vec<u8>, std::fmt::Error> {
    ctx.log().write(Level::Warn, message.key.escape_ascii());
    let once = ctx.random(100_000);
    assert_eq!(once.len(), 100_000);
    assert_ne!(once, ctx.random(100_000));
    let reminder = Outgoing::new("later", message.body)
        .key("k")
        .header("a", "1")
        .delay(Duration::from_millis(1500));
    match ctx.send(reminder) {
        Ok(id) => Ok([id, ctx.idempotency_key("pay")].concat().into_bytes()),
        Err(_) => Err(std::fmt::Error),
    }
}

#[test]
fn a_raw_message_and_a_full_outgoing_one() {
    let message = Incoming::new([0xff, 0]).key("k1").header("tenant", "t");
    let mut host = Harness::new::<raw>();
    let reply = host
        .deliver_message(message.clone())
        .reply()
        .unwrap()
        .to_vec();
    assert_eq!(host.log()[0].text, "2:k11:t");
    let sent = &host.published()[0];
    assert_eq!(sent.body, [0xff, 0]);
    assert_eq!(sent.key.as_deref(), Some(b"k".as_slice()));
    assert_eq!(sent.headers, [("a".to_owned(), "1".to_owned())]);
    assert_eq!(sent.delay, Some(Duration::from_millis(1500)));

    let mut elsewhere = Harness::new::<raw>();
    let there = elsewhere.deliver_message(message.clone().id("another"));
    assert_eq!(
        there.reply(),
        Some(reply.as_slice()),
        "ids depend on plugin and key alone"
    );

    let mut strict = Harness::new::<raw>().with_destinations::<String>([]);
    assert!(
        strict.deliver_message(message).is_parked(),
        "the handler's own error type converts"
    );
}

#[derive(Serialize, Deserialize)]
struct Revision {
    item: String,
    version: u64,
    level: u32,
}

#[semel::handler(
    topics = ["levels"],
    key = "json:/item + json:/version",
    version = "json:/version",
    entity = "json:/item",
    gap = "wait",
    first_version = 1
)]
fn track(level: Revision, ctx: &mut Context) -> Result {
    if level.level == 0 && ctx.message().attempt == 0 {
        return Err(semel::retry("really?"));
    }
    ctx.state().put(&level.item, &level.level)
}

#[test]
fn what_is_not_newer_is_stale_and_what_comes_early_waits() {
    let level = |version, level| Revision {
        item: "bolt".into(),
        version,
        level,
    };
    let mut host = Harness::new::<track>();
    assert_eq!(
        host.deliver(&level(2, 20)).reason(),
        Some("waits for version 1")
    );
    assert!(host.deliver(&level(2, 20)).is_duplicate());
    assert!(host.deliver(&level(1, 10)).is_applied());
    assert!(host.retry_parked()[0].is_applied());
    assert_eq!(host.state("bolt"), Some(20));
    assert!(host.deliver(&level(2, 21)).is_refused());

    // What waited long enough goes on, the lowest first; waiting is no attempt.
    assert!(host.deliver(&level(6, 0)).is_parked());
    assert!(host.deliver(&level(4, 40)).is_parked());
    let outcomes = host.retry_parked();
    assert!(outcomes[0].is_applied(), "{outcomes:?}");
    assert_eq!(outcomes[1].reason(), Some("really?"));
    assert!(host.retry_parked()[0].is_applied());
    assert_eq!(host.state("bolt"), Some(0));
    assert!(host.deliver(&level(5, 50)).is_stale());
    assert_eq!(host.state("bolt"), Some(0));

    let nameless = host.deliver(&json!({ "item": "bolt", "version": "v7", "level": 1 }));
    assert!(nameless.is_refused());
    assert!(
        nameless
            .reason()
            .unwrap()
            .contains("`v7` is no whole number")
    );
}

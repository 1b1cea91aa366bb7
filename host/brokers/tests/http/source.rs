//! What becomes of requests.

use std::time::Duration;

use semel_brokers::{HttpServer, HttpSubscription, InFlight};
use semel_core::memory::{StoreCall, StoreFault};
use semel_core::{Received, Source};

use crate::world::{World, client, get, problem, text, until};

fn replayed(response: &reqwest::Response) -> bool {
    response
        .headers()
        .get("idempotency-replayed")
        .is_some_and(|value| value == "true")
}

#[tokio::test]
async fn a_reply_is_the_handlers_and_is_replayed() {
    let world = World::new();
    let host = world.start().await;
    for (key, body, status, media_type, reply) in [
        (
            "a",
            "reply {\"id\":1}",
            200,
            Some("application/json"),
            "{\"id\":1}",
        ),
        (
            "b",
            "reply {broken",
            200,
            Some("application/octet-stream"),
            "{broken",
        ),
        ("c", "none", 204, None, ""),
    ] {
        for again in [false, true] {
            let response = host.order(key, body).await;
            assert_eq!(replayed(&response), again, "{key}");
            let found = response
                .headers()
                .get("content-type")
                .map(|it| it.to_str().unwrap());
            assert_eq!(found, media_type);
            assert_eq!(text(response, status).await, reply);
        }
    }
    assert_eq!(world.count().await, 3);
    host.stop().await;
}

#[tokio::test]
async fn a_key_is_the_same_with_and_without_quotes() {
    let world = World::new();
    let host = world.start().await;
    assert!(!replayed(&host.order("\"k 1\"", "none").await));
    assert!(!replayed(&host.order("k-2", "none").await));
    assert!(replayed(&host.order("\"k-2\"", "none").await));
    assert_eq!(world.count().await, 2);
    host.stop().await;
}

#[tokio::test]
async fn a_key_with_another_payload_is_refused() {
    let world = World::new();
    let host = world.start().await;
    text(host.order("k", "reply 1").await, 200).await;
    let detail = problem(host.order("k", "reply 2").await, 422, "key-reused").await;
    assert!(detail.contains("another payload"), "{detail}");
    assert!(replayed(&host.order("k", "reply 1").await));
    assert_eq!(world.count().await, 1);
    host.stop().await;
}

#[tokio::test]
async fn a_message_that_is_parked_is_accepted_and_its_reply_comes_later() {
    let world = World::new();
    let host = world.start().await;
    let accepted = text(host.order("k", "fail 1").await, 202).await;
    assert!(accepted.contains("\"status\":\"parked\""), "{accepted}");
    let mut response = host.order("k", "fail 1").await;
    for _ in 0..100 {
        if response.status() != 202 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        response = host.order("k", "fail 1").await;
    }
    assert!(replayed(&response));
    assert_eq!(text(response, 200).await, "1");
    assert_eq!(world.count().await, 1);
    host.stop().await;
}

#[tokio::test]
async fn a_message_that_is_given_up_is_refused_with_the_reason() {
    let world = World::new();
    let host = world.start().await;
    for _ in 0..2 {
        let detail = problem(
            host.order("k", "reject too-large").await,
            422,
            "dead-letter",
        )
        .await;
        assert!(
            detail.contains("too-large") || detail.contains("earlier"),
            "{detail}"
        );
    }
    host.stop().await;
}

#[tokio::test]
async fn what_can_not_be_handled_is_refused_at_once() {
    let world = World::new().with(|config| config.body_limit = 1000);
    let host = world.start().await;
    let missing = host.post("/topics/orders", "none").send().await.unwrap();
    assert!(
        problem(missing, 400, "key-missing")
            .await
            .contains("Idempotency-Key")
    );
    for key in ["", "\"open", "a b", &"x".repeat(256)] {
        problem(host.order(key, "none").await, 400, "key-invalid").await;
    }
    let twice = host
        .post("/topics/orders", "none")
        .header("idempotency-key", "a");
    let twice = twice.header("idempotency-key", "b").send().await.unwrap();
    problem(twice, 400, "key-invalid").await;
    let unknown = host.post("/topics/other", "none").send().await.unwrap();
    assert!(
        problem(unknown, 404, "unknown-topic")
            .await
            .contains("`other`")
    );
    problem(host.get("/nothing").await, 404, "not-found").await;
    problem(
        host.post("/topics/", "").send().await.unwrap(),
        404,
        "not-found",
    )
    .await;
    let get = host.get("/topics/orders").await;
    assert_eq!(get.headers()["allow"], "POST");
    problem(get, 405, "method-not-allowed").await;
    let post = host.post("/healthz", "").send().await.unwrap();
    assert_eq!(post.headers()["allow"], "GET, HEAD");
    problem(post, 405, "method-not-allowed").await;
    problem(host.order("k", &"x".repeat(1001)).await, 413, "too-large").await;
    assert_eq!(world.count().await, 0);
    text(
        host.order("k", &format!("reply {}", "x".repeat(994))).await,
        200,
    )
    .await;
    host.stop().await;
}

#[tokio::test]
async fn a_key_in_the_payload_needs_no_header() {
    let world = World::new().with_key("json:/order_id");
    let host = world.start().await;
    let post = async |body: &str| host.post("/topics/orders", body).send().await.unwrap();
    let order = r#"{"order_id":"o-1","do":"reply 1"}"#;
    assert_eq!(text(post(order).await, 200).await, "1");
    assert!(replayed(&post(order).await));
    // Whatever key the header bears, it is the same order.
    assert!(replayed(&host.order("other", order).await));
    let detail = problem(post(r#"{"do":"reply 1"}"#).await, 400, "no-business-key").await;
    assert!(detail.contains("json:/order_id"), "{detail}");
    problem(
        post(r#"{"order_id":"o-1","do":"none"}"#).await,
        422,
        "key-reused",
    )
    .await;
    assert_eq!(world.count().await, 1);
    host.stop().await;
}

#[tokio::test]
async fn the_key_can_be_taken_from_keys_or_header() {
    for key in ["keys", "header:idempotency-key", "json:/order_id + keys"] {
        let world = World::new().with_key(key);
        let host = world.start().await;
        let order = r#"{"order_id":"o-1","do":"reply 1"}"#;
        let missing = host.post("/topics/orders", order).send().await.unwrap();
        problem(missing, 400, "key-missing").await;
        text(host.order("k", order).await, 200).await;
        assert!(replayed(&host.order("k", order).await), "{key}");
        host.stop().await;
    }
}

#[tokio::test]
async fn a_handler_sees_headers_but_no_credentials() {
    let world = World::new();
    let host = world.start().await;
    let request = host.post("/topics/more%2Forders", "reply headers");
    let request = request
        .header("idempotency-key", "\"k\"")
        .header("X-Trace", "7");
    let request = request
        .header("cookie", "s3cret")
        .header("authorization", "s3cret");
    let seen = text(request.send().await.unwrap(), 200).await;
    assert!(
        seen.contains("idempotency-key=k\n") && seen.contains("x-trace=7\n"),
        "{seen}"
    );
    assert!(
        !seen.contains("s3cret") && !seen.contains("host="),
        "{seen}"
    );
    host.stop().await;
}

#[tokio::test]
async fn the_same_request_twice_at_a_time_conflicts() {
    let world = World::new();
    let host = world.start().await;
    let first = host.order("k", "wait");
    let second = async {
        world.until_waiting(1).await;
        let response = host.order("k", "wait").await;
        assert!(response.headers().contains_key("retry-after"));
        problem(response, 409, "in-flight").await;
        world.gate.add_permits(1);
    };
    let (first, ()) = tokio::join!(first, second);
    assert!(!replayed(&first));
    assert!(replayed(&host.order("k", "wait").await));
    assert_eq!(world.count().await, 1);
    host.stop().await;
}

#[tokio::test]
async fn the_same_request_twice_at_a_time_waits_if_so_configured() {
    let world = World::new().with(|config| config.in_flight = InFlight::Wait);
    let host = world.start().await;
    let release = async {
        world.until_waiting(1).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        world.gate.add_permits(1);
    };
    let requests = futures::future::join_all((0..8).map(|_| host.order("k", "wait it-out")));
    let (responses, ()) = tokio::join!(requests, release);
    assert_eq!(
        responses
            .iter()
            .filter(|response| !replayed(response))
            .count(),
        1
    );
    for response in responses {
        assert_eq!(text(response, 200).await, "it-out");
    }
    assert_eq!(world.count().await, 1);
    host.stop().await;
}

#[tokio::test]
async fn another_payload_under_a_key_in_flight_is_told_apart() {
    let world = World::new();
    let host = world.start().await;
    let first = host.order("k", "wait 1");
    let second = async {
        world.until_waiting(1).await;
        let release = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            world.gate.add_permits(1);
        };
        tokio::join!(host.order("k", "wait 2"), release).0
    };
    let (first, second) = tokio::join!(first, second);
    text(first, 200).await;
    problem(second, 422, "key-reused").await;
    host.stop().await;
}

#[tokio::test]
async fn many_at_a_time_take_effect_once_for_each_key() {
    let world = World::new().with(|config| config.in_flight = InFlight::Wait);
    let host = world.start().await;
    let requests = (0..200).map(|n| {
        let host = &host;
        async move {
            host.order(&format!("k-{}", n % 50), &format!("reply {}", n % 50))
                .await
        }
    });
    for response in futures::future::join_all(requests).await {
        assert_eq!(response.status(), 200);
    }
    assert_eq!(world.count().await, 50);
    host.stop().await;
}

#[tokio::test]
async fn a_reply_survives_the_host() {
    let world = World::new();
    let host = world.start().await;
    text(host.order("k", "reply 1").await, 200).await;
    host.stop().await;
    let host = world.start().await;
    let response = host.order("k", "reply 1").await;
    assert!(replayed(&response));
    assert_eq!(text(response, 200).await, "1");
    assert_eq!(world.count().await, 1);
    host.stop().await;
}

#[tokio::test]
async fn a_reply_that_is_late_can_be_fetched_under_the_same_key() {
    let world = World::new().with(|config| config.reply_timeout = Duration::from_millis(200));
    let host = world.start().await;
    let response = host.order("k", "wait late").await;
    assert!(response.headers().contains_key("retry-after"));
    let detail = problem(response, 503, "not-settled").await;
    assert!(detail.contains("same key"), "{detail}");
    // It is under way still, though nobody waits.
    problem(host.order("k", "wait late").await, 409, "in-flight").await;
    world.gate.add_permits(1);
    until("it is handled", || world.gate.available_permits() == 0).await;
    let mut response = host.order("k", "wait late").await;
    while response.status() == 409 {
        response = host.order("k", "wait late").await;
    }
    assert!(replayed(&response));
    assert_eq!(text(response, 200).await, "late");
    assert_eq!(world.count().await, 1);
    host.stop().await;
}

#[tokio::test]
async fn nothing_is_answered_before_the_commit() {
    let world = World::new().with(|config| config.reply_timeout = Duration::from_millis(300));
    let host = world.start().await;
    world.store.inject(|call| {
        let commits = matches!(call, StoreCall::Commit);
        commits.then_some(StoreFault::Lost)
    });
    problem(host.order("k", "reply 1").await, 503, "not-settled").await;
    world.store.heal();
    let mut response = host.order("k", "reply 1").await;
    while matches!(response.status().as_u16(), 409 | 503) {
        tokio::time::sleep(Duration::from_millis(20)).await;
        response = host.order("k", "reply 1").await;
    }
    assert_eq!(text(response, 200).await, "1");
    assert_eq!(world.count().await, 1);
    host.stop().await;
}

#[tokio::test]
async fn two_plugins_can_not_reply_to_one_request() {
    let world = World::new();
    let other = HttpSubscription {
        plugin: "audit".into(),
        topics: vec!["orders".into()],
        key: "id".parse().unwrap(),
        others: vec![],
    };
    let bound = HttpServer::bind(&world.config, &[world.subscription(), other.clone()]).await;
    let error = bound.unwrap_err().to_string();
    assert!(
        error.contains("`orders` and `audit` both handle the topic `orders`"),
        "{error}"
    );
    let own = HttpSubscription {
        topics: vec!["audited".into()],
        ..other
    };
    let both = HttpServer::bind(&world.config, &[world.subscription(), own])
        .await
        .unwrap();
    assert_eq!(both.into_sources().len(), 2);
}

#[tokio::test]
async fn a_header_that_can_never_be_there_is_refused() {
    let world = World::new().with_key("header:Idempotency-Key");
    let lane = HttpSubscription {
        others: vec!["header:X-Lane".parse().unwrap()],
        ..World::new().subscription()
    };
    for (subscription, name) in [(world.subscription(), "idempotency-key"), (lane, "x-lane")] {
        let bound = HttpServer::bind(&world.config, &[subscription]).await;
        let error = bound.unwrap_err().to_string();
        assert!(error.contains(&format!("write `header:{name}`")), "{error}");
    }
}

#[tokio::test]
async fn an_address_that_is_taken_is_refused() {
    let world = World::new();
    let first = world.serve().await;
    let url = format!("http://{}", first.address());
    let second = World::new().with(|config| config.url = url);
    let bound = HttpServer::bind(&second.config, &[second.subscription()]).await;
    let error = bound.unwrap_err().to_string();
    assert!(error.contains("can't listen at 127.0.0.1:"), "{error}");
}

/// Positions name dead letters, so those of two starts must not meet.
#[tokio::test]
async fn no_two_starts_share_a_position() {
    let mut positions = Vec::new();
    let mut world = World::new();
    for _ in 0..2 {
        let server = world.serve().await;
        let address = server.address();
        world.config.url = format!("http://{address}");
        let source = server.into_sources().remove(0);
        let posted = tokio::spawn(async move {
            let url = format!("http://{address}/topics/orders");
            let request = client().post(url).header("idempotency-key", "k");
            request.body("none").send().await.unwrap()
        });
        let position = loop {
            let Received::Batch(batch) = source.receive(9).await.unwrap() else {
                panic!("it ended");
            };
            if let Some(delivery) = batch.first() {
                break delivery.position.clone();
            }
        };
        positions.push(position);
        // Whoever still waits is told, and the address is free.
        source.close().await;
        problem(posted.await.unwrap(), 503, "shutting-down").await;
        assert!(get(format!("http://{address}/healthz")).await.is_err());
    }
    assert_eq!(positions[0].offset, positions[1].offset);
    assert_ne!(positions[0].partition, positions[1].partition);
}

#[tokio::test]
async fn the_last_of_the_sources_ends_the_server() {
    let world = World::new();
    let other = HttpSubscription {
        plugin: "audit".into(),
        topics: vec!["audited".into()],
        key: "id".parse().unwrap(),
        others: vec![],
    };
    let server = HttpServer::bind(&world.config, &[world.subscription(), other])
        .await
        .unwrap();
    let address = server.address();
    let sources = server.into_sources();
    let client = client();
    let post = async |topic| {
        let request = client.post(format!("http://{address}/topics/{topic}"));
        request.header("idempotency-key", "k").send().await
    };
    sources[0].close().await;
    sources[0].close().await;
    problem(post("orders").await.unwrap(), 503, "shutting-down").await;
    sources[1].close().await;
    assert!(post("audited").await.is_err());
}

#[tokio::test]
async fn it_is_ready_while_it_consumes() {
    let world = World::new();
    let server = world.serve().await;
    let ready = format!("http://{}/readyz", server.address());
    problem(get(&ready).await.unwrap(), 503, "not-ready").await;
    let source = server.into_sources().remove(0);
    source.receive(1).await.unwrap();
    text(get(&ready).await.unwrap(), 200).await;
    let host = world.start().await;
    until_ready(&host).await;
    text(host.get("/healthz").await, 200).await;
    host.stop().await;
}

async fn until_ready(host: &crate::world::Host) {
    for _ in 0..100 {
        if host.get("/readyz").await.status() == 200 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it is never ready");
}

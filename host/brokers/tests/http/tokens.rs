//! Who may post: bearer tokens, one-time tokens and web pages.

use std::time::Duration;

use serde_json::Value;

use crate::world::{Host, World, problem, text};

const BEARER: &str = "0123456789abcdef0123456789abcdef";
const OTHER_BEARER: &str = "fedcba9876543210fedcba9876543210";

async fn token(host: &Host, topic: &str) -> String {
    let request = host
        .post(&format!("/tokens/{topic}"), "")
        .bearer_auth(BEARER);
    let response = request.send().await.unwrap();
    assert_eq!(response.headers()["cache-control"], "no-store");
    let body: Value = serde_json::from_str(&text(response, 201).await).unwrap();
    assert!(body["expires_in"].as_u64().unwrap() > 0);
    body["token"].as_str().unwrap().to_owned()
}

async fn spend(host: &Host, token: &str, body: &str) -> reqwest::Response {
    let request = host
        .post("/topics/orders", body)
        .header("idempotency-token", token);
    request.send().await.unwrap()
}

#[tokio::test]
async fn a_one_time_token_is_good_for_one_message() {
    let world = World::new();
    let host = world.start().await;
    let token = token(&host, "orders").await;
    let first = spend(&host, &token, "reply 1").await;
    assert!(!first.headers().contains_key("idempotency-replayed"));
    assert_eq!(text(first, 200).await, "1");
    let again = spend(&host, &token, "reply 1").await;
    assert_eq!(again.headers()["idempotency-replayed"], "true");
    assert_eq!(text(again, 200).await, "1");
    problem(spend(&host, &token, "reply 2").await, 422, "key-reused").await;
    assert_eq!(world.count().await, 1);
    host.stop().await;
}

#[tokio::test]
async fn a_token_that_was_not_issued_here_is_refused() {
    let world = World::new();
    let host = world.start().await;
    let elsewhere = World::new().start().await;
    let more = "more%2Forders";
    for token in [
        "forged".to_owned(),
        token(&host, more).await,
        token(&elsewhere, "orders").await,
    ] {
        problem(spend(&host, &token, "none").await, 400, "token-invalid").await;
    }
    let unknown = host.post("/tokens/other", "").send().await.unwrap();
    problem(unknown, 404, "unknown-topic").await;
    let token = token(&host, "orders").await;
    let both = host
        .post("/topics/orders", "none")
        .header("idempotency-token", token);
    let both = both.header("idempotency-key", "k").send().await.unwrap();
    problem(both, 400, "bad-request").await;
    assert_eq!(world.count().await, 0);
    host.stop().await;
    elsewhere.stop().await;
}

#[tokio::test]
async fn hosts_that_share_a_secret_accept_each_others_tokens() {
    let world = World::new().with(|config| config.token_secret = Some("x".repeat(32)));
    let (host, other) = (world.start().await, world.start().await);
    let token = token(&host, "orders").await;
    text(spend(&other, &token, "reply 1").await, 200).await;
    let again = spend(&host, &token, "reply 1").await;
    assert_eq!(again.headers()["idempotency-replayed"], "true");
    assert_eq!(world.count().await, 1);
    host.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn a_token_expires() {
    let world = World::new().with(|config| config.token_lifetime = Duration::from_millis(1500));
    let host = world.start().await;
    let token = token(&host, "orders").await;
    text(spend(&host, &token, "reply 1").await, 200).await;
    tokio::time::sleep(Duration::from_millis(1600)).await;
    problem(spend(&host, &token, "reply 1").await, 410, "token-expired").await;
    host.stop().await;
}

#[tokio::test]
async fn a_form_of_a_web_page_is_taken_with_its_token_alone() {
    let world = World::new().with(|config| config.bearer_tokens = vec![BEARER.into()]);
    let host = world.start().await;
    let token = token(&host, "orders").await;
    let form = async |fields: &str| {
        let request = host.post("/topics/orders", fields);
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        request
            .header("origin", "https://shop.example")
            .send()
            .await
            .unwrap()
    };
    let fields = format!("none=1&_token={token}");
    for _ in 0..2 {
        text(form(&fields).await, 200).await;
    }
    assert_eq!(world.count().await, 1);
    problem(form("none=1").await, 401, "unauthorized").await;
    problem(form("none=1&_token=forged").await, 400, "token-invalid").await;
    host.stop().await;
}

#[tokio::test]
async fn without_a_bearer_token_nothing_is_taken_where_one_is_needed() {
    let bearers = vec![BEARER.to_owned(), OTHER_BEARER.to_owned()];
    let world = World::new().with(|config| config.bearer_tokens = bearers);
    let host = world.start().await;
    let post = async |path: &str, authorization: Option<&str>| {
        let mut request = host.post(path, "none").header("idempotency-key", "k");
        if let Some(value) = authorization {
            request = request.header("authorization", value);
        }
        request.send().await.unwrap()
    };
    for path in ["/topics/orders", "/topics/other", "/tokens/orders"] {
        for wrong in [None, Some("Bearer wrong"), Some("Basic eDp5")] {
            let response = post(path, wrong).await;
            assert_eq!(response.headers()["www-authenticate"], "Bearer");
            problem(response, 401, "unauthorized").await;
        }
    }
    for bearer in [BEARER, OTHER_BEARER] {
        text(
            post("/topics/orders", Some(&format!("Bearer {bearer}"))).await,
            204,
        )
        .await;
    }
    text(host.get("/healthz").await, 200).await;
    assert_eq!(world.count().await, 1);
    host.stop().await;
}

/// Any web page can make a browser post to this machine.
#[tokio::test]
async fn a_web_page_needs_a_token_even_on_loopback() {
    let world = World::new().with_key("json:/order_id");
    let host = world.start().await;
    let order = r#"{"order_id":"o-1","do":"reply 1"}"#;
    for path in ["/topics/orders", "/tokens/orders"] {
        let request = host
            .post(path, order)
            .header("origin", "https://evil.example");
        problem(request.send().await.unwrap(), 403, "cross-origin").await;
    }
    assert_eq!(world.count().await, 0);
    let token = token(&host, "orders").await;
    let request = host
        .post("/topics/orders", order)
        .header("origin", "https://shop.example");
    let request = request.header("idempotency-token", token);
    text(request.send().await.unwrap(), 200).await;
    host.stop().await;
}

//! Outgoing messages, posted to a real server.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use semel_brokers::{HttpDestination, HttpMethod, HttpSink, ResponseSink};
use semel_core::memory::{Fate, MemorySink};
use semel_core::{
    BusinessKey, Cause, Header, Lane, MessageId, OutboxLane, OutboxRow, Outgoing, PluginName,
    RecordId, RowId, Sink, SinkError,
};
use tokio::net::TcpListener;

use crate::world::{World, text, until};

/// What the server was sent.
#[derive(Clone, Debug)]
struct Seen {
    method: Method,
    path: String,
    headers: HeaderMap,
    body: Bytes,
}

/// What the server answers: a status, headers and a body, after a while.
#[derive(Clone)]
struct Reply(u16, Vec<(&'static str, String)>, String, Duration);

/// A server that answers as it is told, and then with 204.
#[derive(Clone)]
struct Server {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    replies: Arc<Mutex<VecDeque<Reply>>>,
    at_once: Arc<AtomicUsize>,
    most_at_once: Arc<AtomicUsize>,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            address: listener.local_addr().unwrap(),
            seen: Arc::default(),
            replies: Arc::default(),
            at_once: Arc::default(),
            most_at_once: Arc::default(),
        };
        let router = Router::new().fallback(answer).with_state(server.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        server
    }

    fn reply(&self, status: u16, body: &str) -> &Self {
        self.reply_with(Reply(status, vec![], body.into(), Duration::ZERO))
    }

    fn reply_with(&self, reply: Reply) -> &Self {
        self.replies.lock().unwrap().push_back(reply);
        self
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    fn bodies(&self) -> Vec<String> {
        let seen = self.seen();
        seen.iter()
            .map(|seen| String::from_utf8(seen.body.to_vec()).unwrap())
            .collect()
    }

    fn destination(&self) -> HttpDestination {
        let mut destination =
            HttpDestination::new("out", format!("http://{}/charges?a=b", self.address));
        destination.allow_private = true;
        destination
    }

    fn sink(&self) -> HttpSink {
        HttpSink::new(&self.destination(), None).unwrap()
    }
}

async fn answer(
    State(server): State<Server>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, HeaderMap, String) {
    let at_once = server.at_once.fetch_add(1, Relaxed) + 1;
    server.most_at_once.fetch_max(at_once, Relaxed);
    server.seen.lock().unwrap().push(Seen {
        method,
        path: uri.to_string(),
        headers,
        body,
    });
    let reply = server.replies.lock().unwrap().pop_front();
    let Reply(status, headers, body, delay) =
        reply.unwrap_or(Reply(204, vec![], String::new(), Duration::from_millis(5)));
    tokio::time::sleep(delay).await;
    server.at_once.fetch_sub(1, Relaxed);
    let headers = headers
        .into_iter()
        .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
    (
        StatusCode::from_u16(status).unwrap(),
        headers.collect(),
        body,
    )
}

fn row(number: u64, lane: Option<&str>) -> OutboxRow {
    let plugin = PluginName::new("p");
    let record = RecordId {
        plugin: plugin.clone(),
        key: BusinessKey::new(number.to_string()),
    };
    OutboxRow {
        id: RowId {
            version: number,
            ordinal: 0,
        },
        plugin: plugin.clone(),
        message_id: MessageId::derive(&record, 0),
        lane: lane.map(|lane| OutboxLane {
            plugin,
            lane: Lane::new(lane.to_owned()),
        }),
        due_ms: 0,
        outgoing: Outgoing {
            destination: "out".into(),
            key: Some(format!("key-{number}").into()),
            headers: vec![],
            body: number.to_string().into(),
            delay_ms: None,
        },
    }
}

fn header(name: &str, value: &str) -> Header {
    Header {
        name: name.into(),
        value: value.into(),
    }
}

async fn publish(sink: &HttpSink, row: &OutboxRow) -> Result<(), SinkError> {
    sink.publish(std::slice::from_ref(row)).await.remove(0)
}

async fn unavailable(sink: &HttpSink, row: &OutboxRow) -> String {
    match publish(sink, row).await {
        Err(SinkError::Unavailable(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_message_is_posted_with_its_id_key_and_headers() {
    let server = Server::start().await;
    let mut destination = server.destination();
    destination.method = HttpMethod::Put;
    destination.headers = vec![
        ("Authorization".into(), "Bearer s3cret".into()),
        ("X-Own".into(), "1".into()),
    ];
    let sink = HttpSink::new(&destination, None).unwrap();
    let mut row = row(1, None);
    row.outgoing.headers = vec![
        header("Content-Type", "application/json"),
        header("X-Trace", "7"),
        header("x-own", "not mine"),
        header("Authorization", "not mine"),
        header("Host", "not mine"),
        header("Idempotency-Key", "not mine"),
        header("Connection", "not mine"),
        header("no header", "x"),
        header("x-bad", "a\nb"),
    ];
    publish(&sink, &row).await.unwrap();
    let seen = server.seen().remove(0);
    assert_eq!(
        (seen.method, seen.path.as_str()),
        (Method::PUT, "/charges?a=b")
    );
    assert_eq!(seen.body, "1");
    for (name, value) in [
        ("idempotency-key", format!("\"{}\"", row.message_id)),
        ("semel-key", "\"key-1\"".into()),
        ("content-type", "application/json".into()),
        ("x-trace", "7".into()),
        ("x-own", "1".into()),
        ("authorization", "Bearer s3cret".into()),
        ("host", server.address.to_string()),
    ] {
        let values: Vec<_> = seen.headers.get_all(name).iter().collect();
        assert_eq!(values, [value.as_str()], "{name}");
    }
    assert!(!seen.headers.contains_key("x-bad"));
}

#[tokio::test]
async fn what_is_no_text_has_a_type_and_key_of_its_own() {
    let server = Server::start().await;
    let mut row = row(1, None);
    row.outgoing.key = Some("ä".into());
    publish(&server.sink(), &row).await.unwrap();
    row.outgoing.key = None;
    publish(&server.sink(), &row).await.unwrap();
    let seen = server.seen();
    assert_eq!(seen[0].headers["content-type"], "application/octet-stream");
    assert_eq!(seen[0].headers["semel-key"], ":w6Q=:");
    assert!(!seen[1].headers.contains_key("semel-key"));
}

#[tokio::test]
async fn the_answer_decides() {
    let server = Server::start().await;
    let sink = server.sink();
    for status in [200, 201, 204] {
        server.reply(status, "");
        publish(&sink, &row(1, None)).await.unwrap();
    }
    for status in [408, 409, 425, 429, 500, 503] {
        server.reply(status, "come  back\nlater");
        let reason = unavailable(&sink, &row(1, None)).await;
        assert!(
            reason.contains(&status.to_string()) && reason.contains("come back later"),
            "{reason}"
        );
    }
    for status in [400, 401, 404, 422] {
        server.reply(status, &format!("no {}", "x".repeat(500)));
        let Err(SinkError::Refused(reason)) = publish(&sink, &row(1, None)).await else {
            panic!("{status} is no refusal");
        };
        assert!(
            reason.starts_with(&status.to_string()) && reason.contains(": no xxx"),
            "{reason}"
        );
        assert!(reason.len() < 260, "{reason}");
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let (server, elsewhere) = (Server::start().await, Server::start().await);
    let location = format!("http://{}/", elsewhere.address);
    for status in [301, 302, 307, 308] {
        let headers = vec![("location", location.clone())];
        server.reply_with(Reply(status, headers, String::new(), Duration::ZERO));
        let Err(SinkError::Refused(reason)) = publish(&server.sink(), &row(1, None)).await else {
            panic!("{status} is no refusal");
        };
        assert!(reason.contains("redirects are not followed"), "{reason}");
    }
    assert!(elsewhere.seen().is_empty());
}

#[tokio::test]
async fn the_server_is_left_alone_for_as_long_as_it_asks() {
    let server = Server::start().await;
    let sink = server.sink();
    server.reply_with(Reply(
        503,
        vec![("retry-after", "1".into())],
        String::new(),
        Duration::ZERO,
    ));
    let reason = unavailable(&sink, &row(1, None)).await;
    assert!(reason.contains("Retry-After: 1 s"), "{reason}");
    let reason = unavailable(&sink, &row(1, None)).await;
    assert!(reason.contains("asks to wait"), "{reason}");
    assert_eq!(server.seen().len(), 1);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    publish(&sink, &row(1, None)).await.unwrap();
}

#[tokio::test]
async fn a_server_that_is_gone_or_slow_is_tried_again_later() {
    let server = Server::start().await;
    let mut destination = server.destination();
    destination.timeout = Duration::from_millis(200);
    let slow = HttpSink::new(&destination, None).unwrap();
    let late = Reply(200, vec![], String::new(), Duration::from_secs(5));
    server.reply_with(late);
    let reason = unavailable(&slow, &row(1, None)).await;
    assert!(reason.contains("timed out"), "{reason}");

    let gone = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    destination.url = format!("http://{gone}/");
    let sink = HttpSink::new(&destination, None).unwrap();
    // After the first, none is tried.
    let results = sink
        .publish(&[row(1, Some("a")), row(2, Some("b")), row(3, None)])
        .await;
    for result in &results {
        assert!(
            matches!(result, Err(SinkError::Unavailable(_))),
            "{results:?}"
        );
    }
}

#[tokio::test]
async fn a_name_that_leads_to_this_machine_is_not_connected_to() {
    let server = Server::start().await;
    let url = format!("http://localhost:{}/", server.address.port());
    let mut destination = HttpDestination::new("out", url);
    destination.allow_plain = true;
    let sink = HttpSink::new(&destination, None).unwrap();
    let reason = unavailable(&sink, &row(1, None)).await;
    assert!(
        reason.contains("`localhost` leads to") && reason.contains("allow-private"),
        "{reason}"
    );
    assert!(server.seen().is_empty());
    destination.allow_private = true;
    let sink = HttpSink::new(&destination, None).unwrap();
    publish(&sink, &row(1, None)).await.unwrap();
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn a_lane_goes_in_order_and_lanes_at_the_same_time() {
    let server = Server::start().await;
    let lanes: Vec<String> = (0..8).map(|lane| format!("lane-{lane}")).collect();
    let rows: Vec<_> = (0..80)
        .map(|n| row(n, Some(&lanes[n as usize % 8])))
        .collect();
    let results = server.sink().publish(&rows).await;
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    let bodies: Vec<u64> = server
        .bodies()
        .iter()
        .map(|body| body.parse().unwrap())
        .collect();
    for lane in 0..8 {
        let lane: Vec<_> = bodies.iter().filter(|number| *number % 8 == lane).collect();
        assert!(lane.is_sorted() && lane.len() == 10, "{lane:?}");
    }
    let most = server.most_at_once.load(Relaxed);
    assert!((2..=8).contains(&most), "{most} at once");
}

#[tokio::test]
async fn many_without_a_lane_are_bounded() {
    let server = Server::start().await;
    let rows: Vec<_> = (0..200).map(|n| row(n, None)).collect();
    let results = server.sink().publish(&rows).await;
    assert!(results.iter().all(Result::is_ok));
    let most = server.most_at_once.load(Relaxed);
    assert!((2..=32).contains(&most), "{most} at once");
}

#[tokio::test]
async fn what_fails_holds_its_lane_and_no_other() {
    let server = Server::start().await;
    server.reply(500, "");
    let sink = server.sink();
    let rows = [row(1, Some("a")), row(2, Some("a")), row(3, Some("a"))];
    let results = sink.publish(&rows).await;
    assert!(matches!(results[0], Err(SinkError::Unavailable(_))));
    assert!(matches!(
        results[1..],
        [Err(SinkError::Held), Err(SinkError::Held)]
    ));
    assert_eq!(server.bodies(), ["1"]);
    server.reply(400, "");
    let rows = [row(1, Some("a")), row(2, Some("a"))];
    let results = sink.publish(&rows).await;
    assert!(matches!(results[0], Err(SinkError::Refused(_))));
    assert!(matches!(results[1], Err(SinkError::Held)));
}

fn with_responses(server: &Server) -> (HttpSink, MemorySink) {
    let responses = MemorySink::new();
    let to = ResponseSink {
        destination: "answers".into(),
        sink: Arc::new(responses.clone()),
    };
    (
        HttpSink::new(&server.destination(), Some(to)).unwrap(),
        responses,
    )
}

#[tokio::test]
async fn an_answer_becomes_a_message_before_the_row_is_confirmed() {
    let server = Server::start().await;
    let (sink, responses) = with_responses(&server);
    let json = vec![("content-type", "application/json".to_owned())];
    server.reply_with(Reply(201, json, "{\"charge\":1}".into(), Duration::ZERO));
    server.reply(402, "no money");
    for number in [1, 2] {
        publish(&sink, &row(number, Some("l"))).await.unwrap();
    }
    let published = responses.published();
    let (taken, refused) = (&published[0], &published[1]);
    assert_eq!(
        taken.message_id,
        MessageId::response_to(&row(1, None).message_id)
    );
    assert_ne!(taken.message_id, refused.message_id);
    assert_eq!(taken.lane, row(1, Some("l")).lane);
    assert_eq!(&*taken.outgoing.destination, "answers");
    assert_eq!(taken.outgoing.key, Some("key-1".into()));
    assert_eq!(taken.outgoing.body, "{\"charge\":1}");
    assert_eq!(
        taken.outgoing.headers,
        [
            header("status", "201"),
            header("semel-response-to", row(1, None).message_id.as_str()),
            header("content-type", "application/json"),
        ]
    );
    assert_eq!(refused.outgoing.headers[0], header("status", "402"));
    assert_eq!(refused.outgoing.body, "no money");
}

#[tokio::test]
async fn an_answer_that_can_not_be_published_leaves_the_row() {
    let server = Server::start().await;
    let (sink, responses) = with_responses(&server);
    responses.decide(|_| Fate::Fail(SinkError::Unavailable("down".into())));
    let reason = unavailable(&sink, &row(1, None)).await;
    assert!(
        reason.contains("the response for `answers`") && reason.contains("down"),
        "{reason}"
    );
    responses.decide(|_| Fate::Confirm);
    publish(&sink, &row(1, None)).await.unwrap();
    let keys: Vec<_> = server
        .seen()
        .iter()
        .map(|it| it.headers["idempotency-key"].clone())
        .collect();
    assert_eq!(keys[0], keys[1]);
    assert_eq!(responses.published().len(), 1);
    // What may be taken later is no answer yet.
    server.reply(503, "");
    unavailable(&sink, &row(2, None)).await;
    assert_eq!(responses.published().len(), 1);
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_a_dead_letter() {
    let server = Server::start().await;
    let (sink, responses) = with_responses(&server);
    server.reply(200, &"x".repeat((1 << 20) + 1));
    let Err(SinkError::Refused(reason)) = publish(&sink, &row(1, None)).await else {
        panic!("it is no refusal");
    };
    assert!(reason.contains("more than 1048576 bytes"), "{reason}");
    assert!(responses.published().is_empty());
    server.reply(200, &"x".repeat(1 << 20));
    publish(&sink, &row(2, None)).await.unwrap();
}

/// From a request to a request: through engine, outbox and relay.
#[tokio::test]
async fn what_a_handler_publishes_arrives_under_one_id() {
    let server = Server::start().await;
    server.reply(503, "").reply(500, "");
    let world = World::new();
    let host = world.start_with(Some(Arc::new(server.sink()))).await;
    text(host.order("k", "publish charge").await, 200).await;
    text(host.order("k", "publish charge").await, 200).await;
    until("the message is taken", || server.seen().len() == 3).await;
    host.stop().await;
    let keys: Vec<_> = server
        .seen()
        .iter()
        .map(|it| it.headers["idempotency-key"].clone())
        .collect();
    assert_eq!(keys[0], keys[1]);
    assert_eq!(keys[0], keys[2]);
    assert_eq!(server.bodies(), ["charge"; 3]);
}

#[tokio::test]
async fn what_is_refused_is_a_dead_letter() {
    use semel_core::Admin;
    let server = Server::start().await;
    server.reply(422, "no such card");
    let world = World::new();
    let host = world.start_with(Some(Arc::new(server.sink()))).await;
    text(host.order("k", "publish charge").await, 200).await;
    text(host.order("l", "publish charge").await, 200).await;
    until("the other is taken", || server.seen().len() == 2).await;
    let plugin = PluginName::new(crate::world::PLUGIN);
    let mut letters = Vec::new();
    for _ in 0..200 {
        letters = world
            .store
            .list_dead(Some(&plugin), None, 10)
            .await
            .unwrap();
        if !letters.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].cause, Cause::Undeliverable);
    assert!(letters[0].reason.contains("422") && letters[0].reason.contains("no such card"));
    host.stop().await;
}

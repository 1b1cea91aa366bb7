//! What a server does with clients that are slow, many, or strangers.

use std::fs;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use reqwest::{Certificate, Client};
use semel_brokers::{HttpServer, HttpTls};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::world::{World, problem, text};

const SHORT: Duration = Duration::from_millis(300);
const PATIENCE: Duration = Duration::from_secs(10);

/// Sends bytes as they are, and gives all that comes until the server closes.
async fn exchange(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    let read = timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    read.expect("the server closes the connection").unwrap();
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn a_head_or_body_that_does_not_come_is_not_waited_for() {
    let world = World::new().with(|config| config.read_timeout = SHORT);
    let host = world.start().await;
    let start = Instant::now();
    exchange(host.address, b"").await;
    exchange(host.address, b"POST /topics/orders HTTP/1.1\r\nHost: h\r\n").await;
    let head = "POST /topics/orders HTTP/1.1\r\nHost: h\r\nIdempotency-Key: k\r\nContent-Length: 9\r\n\r\nnon";
    let answer = exchange(host.address, head.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(
        answer.contains("urn:semel:problem:request-timeout"),
        "{answer}"
    );
    assert!(start.elapsed() < PATIENCE);
    assert_eq!(world.count().await, 0);
    host.stop().await;
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let world = World::new();
    let host = world.start().await;
    let head = format!(
        "POST /topics/orders HTTP/1.1\r\nX: {}\r\n\r\n",
        "x".repeat(64 << 10)
    );
    let answer = exchange(host.address, head.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    host.stop().await;
}

#[tokio::test]
async fn a_body_of_no_announced_length_is_limited_too() {
    let world = World::new().with(|config| config.body_limit = 10);
    let host = world.start().await;
    let head = "POST /topics/orders HTTP/1.1\r\nHost: h\r\nIdempotency-Key: k\r\nTransfer-Encoding: chunked\r\n\r\n";
    let answer = exchange(
        host.address,
        format!("{head}b\r\nxxxxxxxxxxx\r\n").as_bytes(),
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    host.stop().await;
}

#[tokio::test]
async fn a_connection_is_used_again() {
    let world = World::new();
    let host = world.start().await;
    let mut stream = TcpStream::connect(host.address).await.unwrap();
    for _ in 0..2 {
        stream
            .write_all(b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n")
            .await
            .unwrap();
        let mut answer = [0; 1024];
        let read = timeout(PATIENCE, stream.read(&mut answer))
            .await
            .unwrap()
            .unwrap();
        assert!(answer[..read].starts_with(b"HTTP/1.1 200"));
    }
    host.stop().await;
}

#[tokio::test]
async fn more_than_may_wait_are_sent_away() {
    let world = World::new().with(|config| config.waiting = NonZeroUsize::MIN);
    let host = world.start().await;
    let first = host.order("a", "wait");
    let second = async {
        world.until_waiting(1).await;
        let response = host.order("b", "none").await;
        assert!(response.headers().contains_key("retry-after"));
        problem(response, 503, "busy").await;
        world.gate.add_permits(1);
    };
    let (first, ()) = tokio::join!(first, second);
    text(first, 200).await;
    text(host.order("b", "none").await, 204).await;
    host.stop().await;
}

#[tokio::test]
async fn more_connections_than_allowed_wait_for_room() {
    let world = World::new().with(|config| config.connections = NonZeroUsize::MIN);
    let host = world.start().await;
    let first = TcpStream::connect(host.address).await.unwrap();
    tokio::time::sleep(SHORT).await;
    let mut second = Box::pin(host.get("/healthz"));
    assert!(
        timeout(SHORT, &mut second).await.is_err(),
        "there is no room"
    );
    drop(first);
    text(timeout(PATIENCE, second).await.unwrap(), 200).await;
    host.stop().await;
}

/// A certificate for this machine in PEM files, and as a client trusts it.
fn certificate(directory: &std::path::Path) -> (HttpTls, Certificate) {
    let made =
        rcgen::generate_simple_self_signed(["localhost".into(), "127.0.0.1".into()]).unwrap();
    let files = HttpTls {
        certificate: directory.join("certificate.pem"),
        key: directory.join("key.pem"),
    };
    fs::write(&files.certificate, made.cert.pem()).unwrap();
    fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
    let trusted = Certificate::from_pem(made.cert.pem().as_bytes()).unwrap();
    (files, trusted)
}

#[tokio::test]
async fn requests_over_tls_are_answered_and_plain_ones_are_not() {
    let directory = tempfile::tempdir().unwrap();
    let (files, trusted) = certificate(directory.path());
    let world = World::new().with(|config| {
        // Any address of this machine: other machines may reach it, so it needs all there is.
        config.url = "https://0.0.0.0:0".into();
        config.tls = Some(files);
        config.bearer_tokens = vec!["0123456789abcdef".into()];
        config.read_timeout = SHORT;
    });
    let host = world.start().await;
    let client = Client::builder()
        .no_proxy()
        .tls_certs_only([trusted])
        .build()
        .unwrap();
    let url = format!("https://localhost:{}/topics/orders", host.address.port());
    let request = || {
        client
            .post(&url)
            .header("idempotency-key", "k")
            .body("reply 1")
    };
    let response = request()
        .bearer_auth("0123456789abcdef")
        .send()
        .await
        .unwrap();
    assert_eq!(text(response, 200).await, "1");
    problem(request().send().await.unwrap(), 401, "unauthorized").await;

    let local = SocketAddr::from(([127, 0, 0, 1], host.address.port()));
    let plain = exchange(local, b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n").await;
    assert!(!plain.contains("200"), "{plain}");
    // A handshake that does not begin is not waited for.
    exchange(local, b"").await;
    let strict = Client::builder()
        .no_proxy()
        .tls_certs_only([])
        .build()
        .unwrap();
    assert!(
        strict.post(&url).send().await.is_err(),
        "the certificate is checked"
    );
    host.stop().await;
}

#[tokio::test]
async fn certificates_that_can_not_be_used_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let (files, _) = certificate(directory.path());
    let (other, _) = certificate(tempfile::tempdir().unwrap().keep().as_path());
    let empty = directory.path().join("empty.pem");
    fs::write(&empty, "nothing").unwrap();
    let bind = async |certificate, key| {
        let world = World::new().with(|config| {
            config.url = "https://127.0.0.1:0".into();
            config.tls = Some(HttpTls { certificate, key });
        });
        let bound = HttpServer::bind(&world.config, &[world.subscription()]).await;
        bound.unwrap_err().to_string()
    };
    let HttpTls { certificate, key } = files;
    let missing = directory.path().join("missing.pem");
    for (shown, what) in [
        (
            bind(missing.clone(), key.clone()).await,
            "`tls-certificate`",
        ),
        (bind(certificate.clone(), missing).await, "`tls-key`"),
        (bind(empty.clone(), key).await, "no PEM section"),
        (bind(certificate.clone(), empty).await, "no PEM section"),
        (bind(certificate, other.key).await, "used together"),
    ] {
        assert!(shown.contains(what), "{shown}");
    }
}

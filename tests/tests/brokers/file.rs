//! JSON Lines.

use std::fs;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use semel_brokers::{FileError, FileName, FileSink, FileSource};
use semel_core::{Delivery, Header, OutboxRow, Payload, Received, Sink, Source};
use semel_tests::conformance::broker::{
    DESTINATION, Published, SinkFixture, SourceFixture, message, row, rows_in_lanes,
};
use serde_json::{Value, json};
use tempfile::TempDir;

struct Directory(TempDir);

impl Directory {
    fn new() -> Self {
        Self(TempDir::with_prefix("semel-file-").unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("lines.jsonl")
    }

    fn name(&self) -> FileName {
        FileName::from_argument(self.path())
    }
}

fn as_line(row: &OutboxRow) -> String {
    let outgoing = &row.outgoing;
    let mut headers: Vec<(&str, Vec<&str>)> = Vec::new();
    for Header { name, value } in &outgoing.headers {
        match headers.iter_mut().find(|(known, _)| known == name) {
            Some((_, values)) => values.push(value),
            None => headers.push((name, vec![value])),
        }
    }
    let headers: Vec<_> = headers
        .into_iter()
        .map(|(name, values)| format!("{}:{}", json!(name), json!(values)))
        .collect();
    format!(
        "{{\"topic\":{},\"id\":{},\"key\":{},\"headers\":{{{}}},\"body\":{}}}\n",
        json!(&*outgoing.destination),
        json!(row.message_id.as_str()),
        json!(
            outgoing
                .key
                .as_ref()
                .map(|key| str::from_utf8(key).unwrap())
        ),
        headers.join(","),
        json!({ "base64": STANDARD.encode(&outgoing.body) }),
    )
}

#[async_trait]
impl SourceFixture for Directory {
    async fn produce(&mut self, rows: &[OutboxRow]) -> Result<()> {
        fs::write(self.path(), rows.iter().map(as_line).collect::<String>())?;
        Ok(())
    }

    async fn open(&mut self) -> Result<Arc<dyn Source>> {
        Ok(Arc::new(open_one(&self.name())?))
    }

    fn remembers(&self) -> bool {
        false
    }
}

fn open_one(name: &FileName) -> Result<FileSource, FileError> {
    let (mut sources, _) = FileSource::open(name, vec![vec![DESTINATION.to_owned()]])?;
    Ok(sources.remove(0))
}

mod source {
    use super::*;
    semel_tests::source_conformance!(Directory::new());
}

#[async_trait]
impl SinkFixture for Directory {
    async fn open(&mut self) -> Result<Arc<dyn Sink>> {
        Ok(Arc::new(FileSink::open(&self.name())?))
    }

    async fn published(&mut self, _count: usize) -> Result<Vec<Published>> {
        let text = fs::read_to_string(self.path())?;
        Ok(text.lines().map(published).collect())
    }

    fn broken_destination(&self) -> Option<&'static str> {
        None
    }

    fn publishes_once(&self) -> bool {
        true
    }
}

/// Reads a line of output as a consumer would.
fn published(line: &str) -> Published {
    #[derive(serde::Deserialize)]
    struct Line<'a> {
        id: String,
        destination: String,
        key: Option<Value>,
        // Not a map of JSON: the order counts.
        #[serde(borrow)]
        headers: &'a serde_json::value::RawValue,
        #[serde(borrow)]
        body: &'a serde_json::value::RawValue,
    }

    let line: Line<'_> = serde_json::from_str(line).unwrap();
    assert_eq!(line.destination, DESTINATION);
    let decode = |value: &Value| {
        let encoded = value.as_object()?.get("base64")?.as_str()?;
        Some(Bytes::from(STANDARD.decode(encoded).unwrap()))
    };
    let body: Value = serde_json::from_str(line.body.get()).unwrap();
    Published {
        id: line.id,
        key: line.key.map(|key| match &key {
            Value::String(text) => Bytes::from(text.clone()),
            other => decode(other).unwrap(),
        }),
        headers: headers_of(line.headers.get()),
        body: decode(&body).unwrap_or_else(|| Bytes::copy_from_slice(line.body.get().as_bytes())),
    }
}

/// The headers of a JSON object in the order in which they are written.
fn headers_of(json: &str) -> Vec<Header> {
    // The input has the same form, and its reader keeps the order.
    let line = format!("{{\"topic\":\"t\",\"headers\":{json},\"body\":1}}\n");
    let (sources, _) =
        FileSource::stream(std::io::Cursor::new(line), vec![vec!["t".to_owned()]]).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let received = std::thread::spawn(move || runtime.block_on(sources[0].receive(1)))
        .join()
        .unwrap();
    let Ok(Received::Batch(batch)) = received else {
        panic!("no headers: {received:?}");
    };
    message(&batch[0]).headers.clone()
}

mod sink {
    use super::*;
    semel_tests::sink_conformance!(Directory::new());
}

async fn all(source: &dyn Source) -> Vec<Delivery> {
    let mut all = Vec::new();
    loop {
        match source.receive(1000).await.unwrap() {
            Received::End => return all,
            Received::Batch(batch) => all.extend(batch),
        }
    }
}

async fn read(content: impl AsRef<[u8]>) -> Vec<Delivery> {
    let directory = Directory::new();
    fs::write(directory.path(), content).unwrap();
    all(&open_one(&directory.name()).unwrap()).await
}

fn line(body: &str) -> String {
    format!("{{\"topic\":\"{DESTINATION}\",\"body\":{body}}}")
}

#[tokio::test]
async fn a_line_that_does_not_parse_is_reported_with_its_position() {
    let content = [
        line("1").into_bytes(),
        b"  { nonsense".to_vec(),
        b"{\"topic\":\"\xff\"}\r".to_vec(),
        Vec::new(),
        line("{\"base64\":\"!\"}").into_bytes(),
        line("2").into_bytes(),
    ]
    .join(&b'\n');
    let deliveries = read(content).await;
    let seen: Vec<_> = deliveries
        .iter()
        .map(|delivery| match &delivery.payload {
            Payload::Message(message) => (delivery.position.offset, message.body.clone()),
            Payload::Malformed { raw, .. } => (delivery.position.offset, raw.clone()),
        })
        .collect();
    let raw = |bytes: &'static [u8]| Bytes::from_static(bytes);
    assert_eq!(seen[0], (1, raw(b"1")));
    assert_eq!(seen[1], (2, raw(b"  { nonsense")));
    assert_eq!(seen[2], (3, raw(b"{\"topic\":\"\xff\"}")));
    assert_eq!(seen[3].0, 5);
    assert_eq!(seen[4], (6, raw(b"2")));
    let reasons: Vec<_> = deliveries
        .iter()
        .filter_map(|delivery| match &delivery.payload {
            Payload::Malformed { reason, .. } => Some(reason.as_str()),
            Payload::Message(_) => None,
        })
        .collect();
    assert!(
        reasons[0].starts_with("line 2, column 5: "),
        "{}",
        reasons[0]
    );
    assert_eq!(reasons[1], "line 3, column 11: not UTF-8");
    assert!(
        reasons[2].starts_with("line 5: `body.base64`"),
        "{}",
        reasons[2]
    );
}

#[tokio::test]
async fn line_ends_byte_order_marks_and_blank_lines_do_not_matter() {
    for content in [
        format!("{}\n{}\n", line("1"), line("2")),
        format!("{}\r\n{}\r\n", line("1"), line("2")),
        format!("\u{feff}{}\n{}", line("1"), line("2")),
        format!("\n  \n\t\r\n{}\n\n{}\n\n", line("1"), line("2")),
    ] {
        let deliveries = read(&content).await;
        let bodies: Vec<_> = deliveries.iter().map(|d| &message(d).body).collect();
        assert_eq!(bodies, ["1", "2"], "{content:?}");
    }
    assert!(read("").await.is_empty());
}

#[tokio::test]
async fn an_id_is_made_of_the_canonical_path_and_the_line() {
    let directory = Directory::new();
    fs::write(directory.path(), format!("\n{}\n", line("1"))).unwrap();
    let roundabout = directory.0.path().join(".").join("lines.jsonl");
    let path = directory.path().canonicalize().unwrap();
    for name in [directory.path(), roundabout] {
        let source = open_one(&FileName::from_argument(name)).unwrap();
        let deliveries = all(&source).await;
        assert_eq!(
            message(&deliveries[0]).id,
            format!("file:{}:2", path.display())
        );
        let partition = deliveries[0].position.partition.to_string();
        assert_eq!(partition, format!("file:{}", path.display()));
    }
}

#[tokio::test]
async fn two_streams_never_share_an_id() {
    let mut ids = Vec::new();
    for _ in 0..2 {
        let input = std::io::Cursor::new(line("1"));
        let (sources, progress) =
            FileSource::stream(input, vec![vec![DESTINATION.to_owned()]]).unwrap();
        ids.push(message(&all(&sources[0]).await[0]).id.clone());
        assert_eq!(progress.bytes_total(), None);
    }
    assert_ne!(ids[0], ids[1]);
    assert!(
        ids[0].starts_with("stdin:") && ids[0].ends_with(":1"),
        "{}",
        ids[0]
    );
}

#[tokio::test]
async fn a_line_above_the_limit_is_malformed_and_the_next_is_read() {
    let long = "x".repeat(17 << 20);
    let content = format!(
        "{}\n{}\n{}\n",
        line("1"),
        line(&format!("\"{long}\"")),
        line("2")
    );
    let deliveries = read(&content).await;
    assert_eq!(deliveries.len(), 3);
    let Payload::Malformed { reason, raw } = &deliveries[1].payload else {
        panic!("the long line was read");
    };
    assert!(
        reason.starts_with("line 2: longer than 16777216 bytes"),
        "{reason}"
    );
    assert_eq!(raw.len(), 1 << 20);
    assert_eq!(message(&deliveries[2]).body, "2");

    let body = format!("\"{}\"", "x".repeat(15 << 20));
    let deliveries = read(line(&body)).await;
    assert_eq!(message(&deliveries[0]).body.len(), body.len());
}

#[tokio::test]
async fn each_subscriber_has_its_topics_and_the_first_what_is_malformed() {
    let line = |topic: &str| format!("{{\"topic\":\"{topic}\",\"body\":1}}\n");
    let content = [
        line("a"),
        line("b"),
        line("c"),
        "oops\n".to_owned(),
        line("a"),
    ]
    .concat();
    let topics = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let subscriptions = vec![topics(&["a"]), topics(&["b", "a"]), topics(&["x"])];
    let input = std::io::Cursor::new(content.clone());
    let (sources, progress) = FileSource::stream(input, subscriptions).unwrap();
    let mut offsets = Vec::new();
    for source in &sources {
        let deliveries = all(source).await;
        offsets.push(
            deliveries
                .iter()
                .map(|d| d.position.offset)
                .collect::<Vec<_>>(),
        );
    }
    assert_eq!(offsets, [vec![1, 4, 5], vec![1, 2, 5], vec![]]);
    assert_eq!(progress.lines(), 5);
    assert_eq!(progress.unrouted(), 1);
    assert_eq!(progress.malformed(), 1);
    assert_eq!(progress.bytes_read(), content.len() as u64);
}

#[tokio::test]
async fn a_subscriber_that_leaves_does_not_stop_the_others() {
    let content: String = rows_in_lanes(50_000, 3).iter().map(as_line).collect();
    let topics = vec![DESTINATION.to_owned()];
    let input = std::io::Cursor::new(content);
    let (mut sources, _) = FileSource::stream(input, vec![topics.clone(), topics]).unwrap();
    let leaver = sources.remove(0);
    leaver.receive(10).await.unwrap();
    leaver.close().await;
    assert_eq!(all(&sources[0]).await.len(), 50_000);
}

/// A reader that pauses for ever after its first lines, like a terminal.
struct Pausing(Option<Vec<u8>>);

impl Read for Pausing {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self.0.take() {
            Some(bytes) => {
                buffer[..bytes.len()].copy_from_slice(&bytes);
                Ok(bytes.len())
            }
            None => loop {
                std::thread::park();
            },
        }
    }
}

#[tokio::test]
async fn lines_of_a_stream_that_pauses_are_handed_over_at_once() {
    let bytes = format!("{}\n{}\n{{\"to", line("1"), line("2")).into_bytes();
    let topics = vec![vec![DESTINATION.to_owned()]];
    let (sources, _) = FileSource::stream(Pausing(Some(bytes)), topics).unwrap();
    let started = Instant::now();
    let Received::Batch(batch) = sources[0].receive(10).await.unwrap() else {
        panic!("it ended");
    };
    assert_eq!(batch.len(), 2);
    let Received::Batch(batch) = sources[0].receive(10).await.unwrap() else {
        panic!("it ended");
    };
    assert!(batch.is_empty());
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[test]
fn an_input_that_cannot_be_read_is_an_error_that_names_it() {
    let error = open_one(&FileName::from_argument("/no/such/file"))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("`/no/such/file`") && error.contains("No such file"),
        "{error}"
    );
    let directory = TempDir::new().unwrap();
    let error = open_one(&FileName::from_argument(directory.path()))
        .unwrap_err()
        .to_string();
    assert!(error.contains("directory"), "{error}");
}

#[tokio::test]
async fn half_a_million_lines_take_seconds() {
    let body = r#"{"order_id":"o-12345","user":"user-77","amount":1234}"#;
    let one = format!("{{\"topic\":\"{DESTINATION}\",\"id\":\"m-12345\",\"body\":{body}}}\n");
    let count = 500_000;
    let directory = Directory::new();
    fs::write(directory.path(), one.repeat(count)).unwrap();
    let source = open_one(&directory.name()).unwrap();
    let started = Instant::now();
    let mut seen = 0;
    while let Received::Batch(batch) = source.receive(1024).await.unwrap() {
        seen += batch.len();
    }
    assert_eq!(seen, count);
    let rate = count as f64 / started.elapsed().as_secs_f64();
    println!("read {rate:.0} lines/s");
    assert!(rate > 50_000.0, "{rate:.0} lines/s");
}

async fn publish(sink: &FileSink, rows: &[OutboxRow]) {
    for result in sink.publish(rows).await {
        result.unwrap();
    }
}

#[tokio::test]
async fn a_torn_last_line_is_mended_and_published_again() {
    let directory = Directory::new();
    let rows = rows_in_lanes(5, 1);
    let sink = FileSink::open(&directory.name()).unwrap();
    publish(&sink, &rows).await;
    drop(sink);
    let whole = fs::read(directory.path()).unwrap();
    for cut in [1, 10, 60] {
        fs::write(directory.path(), &whole[..whole.len() - cut]).unwrap();
        let sink = FileSink::open(&directory.name()).unwrap();
        publish(&sink, &rows).await;
        drop(sink);
        assert_eq!(fs::read(directory.path()).unwrap(), whole, "cut by {cut}");
    }
}

#[tokio::test]
async fn what_others_wrote_into_the_file_stays() {
    let directory = Directory::new();
    fs::write(directory.path(), "a line of someone's own\n").unwrap();
    let sink = FileSink::open(&directory.name()).unwrap();
    publish(&sink, &[row(0, None)]).await;
    let text = fs::read_to_string(directory.path()).unwrap();
    assert!(
        text.starts_with("a line of someone's own\n{\"id\":"),
        "{text}"
    );
    assert_eq!(text.lines().count(), 2);
}

#[tokio::test]
async fn one_file_has_one_writer() {
    let directory = Directory::new();
    let first = FileSink::open(&directory.name()).unwrap();
    let error = FileSink::open(&directory.name()).unwrap_err();
    assert!(matches!(error, FileError::Locked { .. }), "{error}");
    assert!(error.to_string().contains("another process"), "{error}");
    drop(first);
    FileSink::open(&directory.name()).unwrap();
}

#[tokio::test]
async fn an_output_that_cannot_be_written_is_an_error_that_names_it() {
    let error = FileSink::open(&FileName::from_argument("/no/such/dir/out")).unwrap_err();
    assert!(error.to_string().contains("`/no/such/dir/out`"), "{error}");

    // The device that is always full.
    let sink = FileSink::open(&FileName::from_argument("/dev/full")).unwrap();
    let results = sink.publish(&rows_in_lanes(2, 1)).await;
    assert!(results.iter().all(Result::is_err));
    let error = results[0].clone().unwrap_err().to_string();
    assert!(error.contains("No space left"), "{error}");
}

#[tokio::test]
async fn output_with_a_topic_in_place_of_its_destination_is_input() {
    let directory = Directory::new();
    let mut rows = rows_in_lanes(3, 1);
    rows[1].outgoing.body = Bytes::from_static(b"\xff\0");
    let sink = FileSink::open(&directory.name()).unwrap();
    publish(&sink, &rows).await;
    drop(sink);
    let text = fs::read_to_string(directory.path()).unwrap();
    let mut input = fs::File::create(directory.0.path().join("input")).unwrap();
    write!(input, "{}", text.replace("\"destination\":", "\"topic\":")).unwrap();
    let name = FileName::from_argument(directory.0.path().join("input"));
    let deliveries = all(&open_one(&name).unwrap()).await;
    for (delivery, row) in deliveries.iter().zip(&rows) {
        assert_eq!(message(delivery).id, row.message_id.as_str());
        assert_eq!(message(delivery).body, row.outgoing.body);
    }
    assert_eq!(deliveries.len(), rows.len());
}

//! How long a run in a fresh instance takes:
//! `cargo run --release -p semel-sandbox --example fresh -- [FILE.wasm] [RUNS] [BODY]`.
//! Without a file it runs a guest that does nothing, and reads and writes nothing.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use semel_core::{
    BusinessKey, Grants, Message, PluginName, RecordId, RunContext, Runner, Seen, Snapshot,
    StateKey, StoreError,
};
use semel_sandbox::{Overrides, Sandbox, SandboxConfig};

/// The least that is a plugin.
const MINIMAL: &str = r#"(module
    (memory (export "memory") 17)
    (global $heap (mut i32) (i32.const 1048576))
    (@custom "semel:manifest" "{\"name\":\"minimal\",\"topics\":[\"orders\"]}")
    (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
        (global.get $heap)
        (global.set $heap (i32.add
            (global.get $heap) (i32.and (i32.add (local.get 3) (i32.const 7)) (i32.const -8)))))
    (func (export "handle")
        (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i64 i32) (result i32)
        (i32.const 1024)))"#;

/// A store where every key has the value `0`.
#[derive(Debug)]
struct Zeros;

#[async_trait]
impl Snapshot for Zeros {
    fn peek(&self, _: &StateKey) -> Option<Seen> {
        Some(Seen {
            value: Some(Bytes::from_static(b"0")),
            base: 1,
            staged: Vec::new(),
        })
    }

    async fn get(&self, key: &StateKey) -> Result<Seen, StoreError> {
        Ok(self.peek(key).expect("it is always at hand"))
    }
}

fn main() {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init();
    let mut arguments = std::env::args().skip(1);
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = arguments.next().map(PathBuf::from).unwrap_or_else(|| {
        let path = directory.path().join("minimal.wasm");
        let bytes = wat::parse_str(MINIMAL).expect("it is well-formed");
        std::fs::write(&path, bytes).expect("the directory can be written to");
        path
    });
    let runs: u32 = arguments
        .next()
        .map_or(200_000, |runs| runs.parse().expect("a number"));
    let body = arguments
        .next()
        .unwrap_or_else(|| r#"{"order_id":"o-17","user":"u-4711","amount":12345}"#.into());

    let sandbox = Sandbox::new(SandboxConfig::default()).expect("a sandbox");
    let started = Instant::now();
    let plugin = sandbox.load(&path, &Overrides::new());
    let plugin = plugin.unwrap_or_else(|error| panic!("{error}"));
    println!("loaded in {:?}", started.elapsed());

    let grants = Arc::new(Grants {
        namespace: plugin.name().into(),
        ..Grants::default()
    });
    let message = Arc::new(Message {
        id: "m-1".into(),
        topic: "orders".into(),
        keys: Vec::new(),
        headers: Vec::new(),
        body: body.into(),
        timestamp_ms: 1_700_000_000_000,
    });
    let record = RecordId {
        plugin: PluginName::new(plugin.name()),
        key: BusinessKey::new("o-17"),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build();
    runtime.expect("a runtime").block_on(async {
        let one = || {
            let (record, message) = (record.clone(), Arc::clone(&message));
            let context = RunContext::new(record, message, 0, Arc::clone(&grants), Arc::new(Zeros));
            plugin.runner.run(context)
        };
        println!("answer: {:?}", one().await.answer);
        for _ in 0..runs / 10 {
            one().await;
        }
        let mut times = Vec::with_capacity(runs as usize);
        let started = Instant::now();
        for _ in 0..runs {
            let before = Instant::now();
            one().await;
            times.push(before.elapsed());
        }
        let mean = started.elapsed() / runs;
        times.sort();
        let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
        let show = |time: Duration| format!("{:.2} µs", time.as_nanos() as f64 / 1_000.0);
        println!(
            "{runs} runs: mean {}, p50 {}, p99 {}",
            show(mean),
            show(at(0.5)),
            show(at(0.99))
        );
    });
}

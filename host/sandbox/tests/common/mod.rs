//! Guests in WebAssembly text, and what they run against.
#![allow(dead_code, reason = "each test binary uses a part")]

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use semel_core::{
    BusinessKey, Effects, Failure, Finished, Grants, Message, PluginName, RecordId, RunContext,
    Runner, Seen, Snapshot, StateKey, StoreError,
};
use semel_sandbox::{LoadedPlugin, Overrides, RunLimits, Sandbox, SandboxConfig};
use tempfile::TempDir;
use tokio::sync::Notify;

/// The parameters of `handle` by name.
pub const HANDLE: &str = r#"(func (export "handle")
    (param $id i32) (param $id_len i32) (param $key i32) (param $key_len i32)
    (param $topic i32) (param $topic_len i32) (param $headers i32) (param $headers_len i32)
    (param $body i32) (param $body_len i32) (param $time i64) (param $attempt i32)
    (result i32)"#;

/// What `handle` gives for "done, no reply": zeros.
pub const DONE: &str = "(i32.const 1024)";

pub const IMPORT_GET: &str =
    r#"(import "semel:plugin/state@0.1.0" "get" (func $get (param i32 i32 i32)))"#;
pub const IMPORT_PUT: &str =
    r#"(import "semel:plugin/state@0.1.0" "put" (func $put (param i32 i32 i32 i32 i32)))"#;
pub const IMPORT_LOG: &str =
    r#"(import "semel:plugin/log@0.1.0" "write" (func $log (param i32 i32 i32)))"#;
pub const IMPORT_RANDOM: &str =
    r#"(import "semel:plugin/context@0.1.0" "random" (func $random (param i32 i32)))"#;

/// A core module without a `component-type` section. Bytes 0 to 1023 are the guest's,
/// 1024 to 2047 stay zero, the heap begins at 65536 and never frees.
pub fn guest(name: &str, imports: &str, items: &str, body: &str) -> Vec<u8> {
    let text = format!(
        r#"(module
            {imports}
            (memory (export "memory") 2)
            (global $heap (mut i32) (i32.const 65536))
            (@custom "semel:manifest" "{{\"semel\":\"0.1\",\"name\":\"{name}\",\"topics\":[\"t\"]}}")
            (func $alloc (export "cabi_realloc")
                (param i32 i32) (param $align i32) (param $size i32) (result i32)
                (local $at i32)
                (local.set $at (i32.and
                    (i32.add (global.get $heap) (i32.sub (local.get $align) (i32.const 1)))
                    (i32.sub (i32.const 0) (local.get $align))))
                (global.set $heap (i32.add (local.get $at) (local.get $size)))
                (if (i32.gt_u (global.get $heap) (i32.mul (memory.size) (i32.const 65536)))
                    (then (drop (memory.grow
                        (i32.add (i32.const 1) (i32.shr_u (local.get $size) (i32.const 16)))))))
                (local.get $at))
            {items}
            {HANDLE}
                (local $i i32) (local $j i32)
                {body})
        )"#
    );
    wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// A guest that does nothing.
pub fn minimal(name: &str) -> Vec<u8> {
    guest(name, "", "", DONE)
}

/// The body of a guest that replies with `ptr` and `len`.
pub fn reply(ptr: &str, len: &str) -> String {
    format!(
        "(i32.store8 (i32.const 520) (i32.const 1))
         (i32.store (i32.const 524) {ptr})
         (i32.store (i32.const 528) {len})
         (i32.const 512)"
    )
}

/// A directory for plugins, and a sandbox.
pub struct House {
    pub dir: TempDir,
    pub sandbox: Sandbox,
}

impl House {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut SandboxConfig)) -> Self {
        let mut config = SandboxConfig {
            slots: 128,
            ..SandboxConfig::default()
        };
        change(&mut config);
        Self {
            dir: tempfile::tempdir().unwrap(),
            sandbox: Sandbox::new(config).unwrap(),
        }
    }

    pub fn limited(change: impl FnOnce(&mut RunLimits)) -> Self {
        Self::with(|config| change(&mut config.limits))
    }

    pub fn write(&self, file: &str, bytes: &[u8]) -> PathBuf {
        let path = self.dir.path().join(file);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    pub fn load(&self, file: &str, bytes: &[u8]) -> LoadedPlugin {
        let path = self.write(file, bytes);
        self.sandbox
            .load(&path, &Overrides::new())
            .unwrap_or_else(|error| panic!("{error}"))
    }

    pub fn refusal(&self, file: &str, bytes: &[u8]) -> String {
        let path = self.write(file, bytes);
        self.sandbox
            .load(&path, &Overrides::new())
            .unwrap_err()
            .to_string()
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }
}

/// State that is at hand, or only after a wait.
#[derive(Debug, Default)]
pub struct TestSnapshot {
    pub values: HashMap<String, Bytes>,
    pub wait: Option<Arc<Gate>>,
    pub fails: bool,
}

/// Holds back reads until it is opened.
#[derive(Debug, Default)]
pub struct Gate {
    pub waiting: AtomicUsize,
    pub open: Notify,
}

#[async_trait]
impl Snapshot for TestSnapshot {
    fn peek(&self, key: &StateKey) -> Option<Seen> {
        let at_hand = self.wait.is_none() && !self.fails;
        at_hand.then(|| Seen {
            value: self.values.get(&*key.name).cloned(),
            base: 1,
            staged: Vec::new(),
        })
    }

    async fn get(&self, key: &StateKey) -> Result<Seen, StoreError> {
        if self.fails {
            return Err(StoreError::Unavailable {
                reason: "gone".into(),
                source: None,
            });
        }
        if let Some(gate) = &self.wait {
            let opened = gate.open.notified();
            gate.waiting.fetch_add(1, Ordering::SeqCst);
            opened.await;
        }
        Ok(Seen {
            value: self.values.get(&*key.name).cloned(),
            base: 1,
            staged: Vec::new(),
        })
    }
}

pub fn message(body: &[u8]) -> Message {
    Message {
        id: "m-1".into(),
        topic: "t".into(),
        keys: vec![],
        headers: vec![],
        body: Bytes::copy_from_slice(body),
        timestamp_ms: 1_700_000_000_123,
    }
}

pub fn context(plugin: &str, key: &str, message: Message, snapshot: TestSnapshot) -> RunContext {
    let record = RecordId {
        plugin: PluginName::new(plugin),
        key: BusinessKey::new(key.to_owned()),
    };
    let grants = Grants {
        namespace: plugin.into(),
        ..Grants::default()
    };
    RunContext::new(
        record,
        Arc::new(message),
        0,
        Arc::new(grants),
        Arc::new(snapshot),
    )
}

pub async fn run(plugin: &LoadedPlugin, key: &str, body: &[u8]) -> Finished {
    let context = context(plugin.name(), key, message(body), TestSnapshot::default());
    plugin.runner.run(context).await
}

/// What a run that went well asks for.
pub async fn effects(plugin: &LoadedPlugin, key: &str, body: &[u8]) -> Effects {
    let finished = run(plugin, key, body).await;
    let reply = finished
        .answer
        .unwrap_or_else(|failure| panic!("{failure:?}"));
    finished.context.into_parts(reply).1
}

/// Reason and detail of a run that ends in a trap.
pub async fn trap(plugin: &LoadedPlugin) -> (String, String) {
    match run(plugin, "k", b"").await.answer {
        Err(Failure::Trap { reason, detail }) => (reason, detail.unwrap_or_default()),
        other => panic!("{other:?}"),
    }
}

//! The handlers: each as a WebAssembly plugin and as native code that does the same.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use futures::FutureExt;
use semel_core::memory::NativeRunner;
use semel_core::{EffectError, Failure, KeyExpression, Outgoing, PluginName, RunContext, Runner};
use semel_sandbox::{LoadedPlugin, Overrides, Sandbox, SandboxConfig};
use serde::{Deserialize, Serialize};

/// A guest that answers "done, no reply" and does nothing else. Its heap never frees, which a
/// fresh instance for each message makes right.
const MINIMAL: &str = r#"(module
    (memory (export "memory") 1)
    (global $heap (mut i32) (i32.const 1024))
    (@custom "semel:manifest" "{\"semel\":\"0.1\",\"name\":\"minimal\",\"topics\":[\"orders\"]}")
    (func (export "cabi_realloc")
        (param $old i32) (param $old_size i32) (param $align i32) (param $size i32) (result i32)
        (local $at i32)
        (local.set $at (i32.and
            (i32.add (global.get $heap) (i32.sub (local.get $align) (i32.const 1)))
            (i32.sub (i32.const 0) (local.get $align))))
        (global.set $heap (i32.add (local.get $at) (local.get $size)))
        (local.get $at))
    (func (export "handle")
        (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i64 i32) (result i32)
        (i32.const 0)))"#;

/// A handler, twice.
#[derive(Clone)]
pub struct Handler {
    /// The plugin's name.
    pub name: PluginName,
    /// Where the business key stands.
    pub key: KeyExpression,
    /// Messages that it publishes for each that it handles.
    pub publishes: usize,
    wasm: Arc<dyn Runner>,
    native: Arc<dyn Runner>,
}

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// In the sandbox, in a fresh instance for each message.
    Wasm,
    /// Compiled into the host: what the sandbox costs is the difference.
    Native,
}

/// All handlers.
pub struct Handlers {
    /// Does nothing.
    pub minimal: Handler,
    /// `examples/points`: parse JSON, add to a balance, publish one event.
    pub points: Handler,
}

impl Handler {
    /// The one of this kind.
    pub fn runner(&self, kind: Kind) -> Arc<dyn Runner> {
        Arc::clone(match kind {
            Kind::Wasm => &self.wasm,
            Kind::Native => &self.native,
        })
    }

    fn new(plugin: &LoadedPlugin, native: Arc<dyn Runner>, publishes: usize) -> Self {
        let key = plugin.manifest.key.clone();
        Self {
            name: PluginName::new(plugin.name()),
            key: key.unwrap_or_else(KeyExpression::id),
            publishes,
            wasm: Arc::clone(&plugin.runner) as _,
            native,
        }
    }
}

impl Handlers {
    /// Loads the plugins. `scratch` is an empty directory.
    pub fn load(points: &Path, scratch: &Path) -> Result<Self> {
        let sandbox = Sandbox::new(SandboxConfig::default())?;
        let minimal = scratch.join("minimal.wasm");
        std::fs::write(&minimal, wat::parse_str(MINIMAL)?)?;
        let minimal = sandbox.load(&minimal, &Overrides::new())?;
        let points = sandbox
            .load(points, &Overrides::new())
            .context("run `make plugins` first, or name the file with --plugin")?;
        let nothing = NativeRunner::new(|_: &mut RunContext| async { Ok(None) }.boxed());
        let grant = NativeRunner::new(|context: &mut RunContext| grant_points(context).boxed());
        Ok(Self {
            minimal: Handler::new(&minimal, Arc::new(nothing), 0),
            points: Handler::new(&points, Arc::new(grant), 1),
        })
    }
}

#[derive(Deserialize)]
struct Order {
    order_id: String,
    user: String,
    amount: i64,
}

#[derive(Serialize)]
struct Granted<'o> {
    order_id: &'o str,
    user: &'o str,
    points: i64,
    balance: i64,
}

/// What `examples/points` does, step by step.
async fn grant_points(context: &mut RunContext) -> Result<Option<Bytes>, Failure> {
    let order: Order = serde_json::from_slice(&context.message().body).map_err(reject)?;
    if !(0..=1_000_000_000).contains(&order.amount) {
        return Err(reject("the amount is out of range"));
    }
    let points = order.amount / 100;
    let name = format!("balance/{}", order.user);
    let stored = context.get(&name).await.map_err(|_| Failure::Aborted)?;
    let before: i64 = match stored {
        Some(json) => serde_json::from_slice(&json).map_err(reject)?,
        None => 0,
    };
    let balance = before
        .checked_add(points)
        .ok_or_else(|| reject("the balance overflows"))?;
    let json = serde_json::to_vec(&balance).map_err(reject)?;
    context.put(&name, json.into()).map_err(refused)?;
    let granted = Granted {
        order_id: &order.order_id,
        user: &order.user,
        points,
        balance,
    };
    let body = serde_json::to_vec(&granted).map_err(reject)?;
    let published = context.publish(Outgoing {
        destination: "points-granted".into(),
        key: None,
        headers: Vec::new(),
        body: body.into(),
        delay_ms: None,
    });
    published.map_err(refused)?;
    Ok(None)
}

fn reject(reason: impl ToString) -> Failure {
    Failure::Reject {
        reason: reason.to_string(),
    }
}

fn refused(error: EffectError) -> Failure {
    reject(error)
}

//! From a file to a plugin that is ready to run.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use semel_core::{
    BusinessKey, Grants, Manifest, Message, PluginName, RecordId, RunContext, Seen, Snapshot,
    StateKey, StoreError,
};
use wasmtime::component::Component;

use crate::error::{LoadError, Refusal, chain};
use crate::module::{FileKind, Outline};
use crate::run::Plugin;
use crate::{Overrides, RunLimits, Sandbox, encode, engine, imports, manifest, wasi};

/// A plugin and what is known of it.
#[derive(Debug)]
pub struct LoadedPlugin {
    /// The file.
    pub path: PathBuf,
    /// What the plugin says of itself, with everything that overrides it. It is valid.
    pub manifest: Manifest,
    /// The BLAKE3 hash of the file.
    pub hash: blake3::Hash,
    /// The file's size in bytes.
    pub size: usize,
    /// Component or core module.
    pub kind: FileKind,
    /// Imported interfaces, or modules if it is a core module.
    pub imports: Vec<String>,
    /// Exports.
    pub exports: Vec<String>,
    /// Runs it.
    pub runner: Arc<Plugin>,
}

impl LoadedPlugin {
    /// The name that its manifest gives it.
    pub fn name(&self) -> &str {
        // The manifest is validated, so there is one.
        self.manifest.name.as_deref().unwrap_or_default()
    }
}

/// What can be said of a file without running it.
#[derive(Debug)]
pub struct Inspected {
    /// The BLAKE3 hash of the file.
    pub hash: blake3::Hash,
    /// The file's size in bytes.
    pub size: usize,
    /// Component or core module, if it is WebAssembly at all.
    pub kind: Option<FileKind>,
    /// Imported interfaces, or modules if it is a core module.
    pub imports: Vec<String>,
    /// Exports.
    pub exports: Vec<String>,
    /// The manifest as it would hold, or as it stands in the file if it can't be used.
    pub manifest: Option<Manifest>,
    /// Why it would be refused as a plugin, as far as that shows without compiling it.
    pub refusal: Option<LoadError>,
}

/// Looks into a file, also where it would be refused.
pub fn inspect(path: &Path, overrides: &Overrides) -> Result<Inspected, LoadError> {
    let bytes = fs::read(path).map_err(|error| LoadError::new(path, error.into()))?;
    let (outline, fault) = Outline::read(&bytes);
    let effective = manifest::effective(path, &outline, overrides);
    let (manifest, unusable) = match effective {
        Ok(manifest) => (Some(manifest), None),
        Err(reason) => (manifest::embedded(&outline).ok().flatten(), Some(reason)),
    };
    let refusal = fault
        .or_else(|| imports::check(&outline.imports).err())
        .or(unusable)
        .or_else(|| validated(&bytes, &outline).err());
    Ok(Inspected {
        hash: blake3::hash(&bytes),
        size: bytes.len(),
        kind: outline.kind,
        imports: outline.imports,
        exports: outline.exports,
        manifest,
        refusal: refusal.map(|reason| LoadError::new(path, reason)),
    })
}

impl Sandbox {
    /// Loads one plugin: checks it, compiles it or takes it from the cache, and starts it
    /// once to see that it does. Takes up to some seconds for a big file, so call it where
    /// that may block.
    pub fn load(&self, path: &Path, overrides: &Overrides) -> Result<LoadedPlugin, LoadError> {
        self.load_file(path, overrides)
            .map_err(|reason| LoadError::new(path, reason))
    }

    /// Loads every `*.wasm` in a directory, in the order of their names. One that can't be
    /// used takes nothing from the others; so does a second one of the same name.
    pub fn load_dir(
        &self,
        dir: &Path,
        overrides: &Overrides,
    ) -> (Vec<LoadedPlugin>, Vec<LoadError>) {
        let (mut loaded, mut refused): (Vec<LoadedPlugin>, _) = (Vec::new(), Vec::new());
        let paths = match wasm_files(dir) {
            Ok(paths) => paths,
            Err(error) => return (loaded, vec![LoadError::new(dir, error.into())]),
        };
        let mut names: HashMap<String, PathBuf> = HashMap::new();
        for path in paths {
            let plugin = match self.load(&path, overrides) {
                Ok(plugin) => plugin,
                Err(error) => {
                    refused.push(error);
                    continue;
                }
            };
            let name = plugin.name().to_owned();
            match names.get(&name) {
                Some(first) => {
                    let first = first.clone();
                    refused.push(LoadError::new(&path, Refusal::SameName { name, first }));
                }
                None => {
                    names.insert(name, path);
                    loaded.push(plugin);
                }
            }
        }
        (loaded, refused)
    }

    fn load_file(&self, path: &Path, overrides: &Overrides) -> Result<LoadedPlugin, Refusal> {
        let bytes = fs::read(path)?;
        let hash = blake3::hash(&bytes);
        let (outline, fault) = Outline::read(&bytes);
        if let Some(fault) = fault {
            return Err(fault);
        }
        let kind = outline
            .kind
            .ok_or_else(|| Refusal::Invalid("it is empty".into()))?;
        imports::check(&outline.imports)?;
        let manifest = manifest::effective(path, &outline, overrides)?;
        let component = self.compile(&bytes, &hash, &outline)?;
        let name = manifest.name.as_deref().unwrap_or_default();
        let limits = overrides.get(name).and_then(|over| over.limits);
        let limits = limits.unwrap_or(self.config.limits);
        let slots = engine::slots_per_run(&component, outline.core_instances);
        let runner = self.prepare(name, &component, limits, slots)?;
        Ok(LoadedPlugin {
            path: path.to_owned(),
            hash,
            size: bytes.len(),
            kind,
            imports: outline.imports,
            exports: outline.exports,
            runner: Arc::new(runner),
            manifest,
        })
    }

    fn compile(
        &self,
        bytes: &[u8],
        hash: &blake3::Hash,
        outline: &Outline,
    ) -> Result<Component, Refusal> {
        if let Some(component) = self.cache.as_ref().and_then(|c| c.get(&self.engine, hash)) {
            return Ok(component);
        }
        let encoded = validated(bytes, outline)?;
        let component = Component::new(&self.engine, &encoded)
            .map_err(|error| Refusal::Compile(chain(&error)))?;
        if let Some(cache) = &self.cache {
            cache.put(hash, &component);
        }
        Ok(component)
    }

    fn prepare(
        &self,
        name: &str,
        component: &Component,
        limits: RunLimits,
        slots: u32,
    ) -> Result<Plugin, Refusal> {
        let contract = |error: wasmtime::Error| Refusal::Contract(chain(&error));
        let mut linker = self.linker.clone();
        wasi::link_inert(&mut linker, component).map_err(contract)?;
        let instance = linker.instantiate_pre(component).map_err(contract)?;
        let handle = component
            .get_export_index(None, "handle")
            .ok_or_else(|| Refusal::Contract("it exports no function `handle`".into()))?;
        let plugin = Plugin {
            name: name.into(),
            instance,
            handle,
            limits,
            slots: Arc::clone(&self.slots),
            slots_per_run: slots.clamp(1, self.config.slots),
        };
        self.block_on(plugin.try_start(start_context(name)))
            .map_err(Refusal::Start)?;
        Ok(plugin)
    }
}

/// The component that a file is or holds, if every instruction of it is valid.
fn validated<'b>(bytes: &'b [u8], outline: &Outline) -> Result<Cow<'b, [u8]>, Refusal> {
    let encoded = encode::component(bytes, outline)?;
    wasmparser::Validator::new_with_features(wasmparser::WasmFeatures::all())
        .validate_all(&encoded)
        .map_err(|error| Refusal::Invalid(error.to_string()))?;
    Ok(encoded)
}

fn wasm_files(dir: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "wasm")
        {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// What an instance sees that is started only to see whether it does.
fn start_context(name: &str) -> RunContext {
    let record = RecordId {
        plugin: PluginName::new(name),
        key: BusinessKey::new("start"),
    };
    let message = Message {
        id: String::new(),
        topic: "".into(),
        keys: Vec::new(),
        headers: Vec::new(),
        body: Bytes::new(),
        timestamp_ms: 0,
    };
    RunContext::new(
        record,
        Arc::new(message),
        0,
        Arc::new(Grants::default()),
        Arc::new(Empty),
    )
}

/// A store without anything in it.
#[derive(Debug)]
struct Empty;

#[async_trait]
impl Snapshot for Empty {
    fn peek(&self, _: &StateKey) -> Option<Seen> {
        Some(Seen {
            value: None,
            base: 0,
            staged: Vec::new(),
        })
    }

    async fn get(&self, key: &StateKey) -> Result<Seen, StoreError> {
        Ok(self.peek(key).expect("an empty store is at hand"))
    }
}

//! Compiled plugins, kept between starts.
//!
//! Compiled code is machine code: whoever can write it, or make the host read another file
//! for it, runs code in the host. So the directory belongs to the host alone, and every file
//! in it bears a keyed hash of what it is for and what is in it. A file that does not verify
//! is compiled anew.

mod deserialize;
mod directory;

use std::fs;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};

use tracing::{debug, warn};
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::error::SandboxError;
use directory::write_privately;

const TAG_BYTES: usize = blake3::OUT_LEN;

/// A directory of compiled plugins for one engine.
#[derive(Debug)]
pub(crate) struct Cache {
    dir: PathBuf,
    key: [u8; blake3::KEY_LEN],
    compatibility: blake3::Hash,
}

impl Cache {
    /// Opens the directory, creating it if need be.
    pub(crate) fn open(dir: &Path, engine: &Engine) -> Result<Self, SandboxError> {
        let key = directory::prepare(dir).map_err(|reason| SandboxError::Cache {
            dir: dir.to_owned(),
            reason,
        })?;
        let mut hasher = Fingerprint(blake3::Hasher::new());
        engine.precompile_compatibility_hash().hash(&mut hasher);
        // Core modules are made components by this version's encoder.
        env!("CARGO_PKG_VERSION").hash(&mut hasher);
        Ok(Self {
            dir: dir.to_owned(),
            key,
            compatibility: hasher.0.finalize(),
        })
    }

    /// The compiled form of the file with this hash, if it is here and verifies.
    pub(crate) fn get(&self, engine: &Engine, wasm: &blake3::Hash) -> Option<Component> {
        let path = self.path(wasm);
        let bytes = fs::read(&path).ok()?;
        let verified = bytes
            .split_at_checked(TAG_BYTES)
            .filter(|(tag, code)| self.tag(wasm, code).as_bytes() == *tag);
        let Some((_, code)) = verified else {
            warn!(file = %path.display(), "a compiled plugin does not verify, so it is compiled anew");
            return None;
        };
        match deserialize::component(engine, code) {
            Ok(component) => Some(component),
            Err(reason) => {
                warn!(file = %path.display(), %reason, "a compiled plugin can't be used, so it is compiled anew");
                None
            }
        }
    }

    /// Keeps a compiled plugin. Failing to is no more than slow at the next start.
    pub(crate) fn put(&self, wasm: &blake3::Hash, component: &Component) {
        let path = self.path(wasm);
        let written = component
            .serialize()
            .map_err(|error| error.to_string())
            .and_then(|code| {
                let mut bytes = self.tag(wasm, &code).as_bytes().to_vec();
                bytes.extend_from_slice(&code);
                write_privately(&path, &bytes).map_err(|error| error.to_string())
            });
        match written {
            Ok(()) => debug!(file = %path.display(), "kept a compiled plugin"),
            Err(reason) => {
                warn!(file = %path.display(), reason, "can't keep a compiled plugin");
            }
        }
    }

    fn path(&self, wasm: &blake3::Hash) -> PathBuf {
        let (wasm, engine) = (wasm.to_hex(), self.compatibility.to_hex());
        self.dir
            .join(format!("{}-{}.cwasm", &wasm[..32], &engine[..16]))
    }

    /// `blake3::Hash` compares in constant time; lengths are fixed but for the last part.
    fn tag(&self, wasm: &blake3::Hash, code: &[u8]) -> blake3::Hash {
        blake3::Hasher::new_keyed(&self.key)
            .update(self.compatibility.as_bytes())
            .update(wasm.as_bytes())
            .update(code)
            .finalize()
    }
}

/// A standard hasher whose result is a BLAKE3 hash.
struct Fingerprint(blake3::Hasher);

impl Hasher for Fingerprint {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        let hash = self.0.finalize();
        u64::from_le_bytes(
            hash.as_bytes()[..8]
                .try_into()
                .expect("a hash has 32 bytes"),
        )
    }
}

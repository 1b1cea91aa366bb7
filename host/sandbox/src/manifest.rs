//! Where a plugin's manifest comes from: the file's custom section, the sidecar file over
//! that, the operator's configuration over both.

use std::path::{Path, PathBuf};

use semel_core::Manifest;

use crate::Overrides;
use crate::error::Refusal;
use crate::module::Outline;

/// The manifest as the file has it, if it has one.
pub(crate) fn embedded(outline: &Outline) -> Result<Option<Manifest>, Refusal> {
    // A section that was appended to a finished component stands outside of what the
    // tool chain put into it, and so goes before that.
    let Some(outermost) = outline.manifests.iter().map(|(depth, _)| *depth).min() else {
        return Ok(None);
    };
    let mut found: Vec<Manifest> = Vec::new();
    for (_, section) in outline
        .manifests
        .iter()
        .filter(|(depth, _)| *depth == outermost)
    {
        // A linker joins the sections of several object files into one.
        for manifest in serde_json::Deserializer::from_slice(section).into_iter() {
            let manifest = manifest.map_err(|error| Refusal::BadSection(error.to_string()))?;
            if !found.contains(&manifest) {
                found.push(manifest);
            }
        }
    }
    match found.len() {
        0 | 1 => Ok(found.pop()),
        several => Err(Refusal::ManyManifests(several)),
    }
}

/// The manifest that holds for the plugin at `path`.
pub(crate) fn effective(
    path: &Path,
    outline: &Outline,
    overrides: &Overrides,
) -> Result<Manifest, Refusal> {
    let sidecar = sidecar(path);
    let own = match (embedded(outline)?, read_sidecar(&sidecar)?) {
        (None, None) => return Err(Refusal::NoManifest { sidecar }),
        (Some(own), None) => own,
        (own, Some(over)) => own.unwrap_or_default().overridden_by(&over),
    };
    let over = own.name.as_ref().and_then(|name| overrides.get(name));
    let manifest = match over {
        Some(over) => own.overridden_by(&over.manifest),
        None => own,
    };
    manifest.validate()?;
    Ok(manifest)
}

fn sidecar(path: &Path) -> PathBuf {
    path.with_extension("toml")
}

fn read_sidecar(file: &Path) -> Result<Option<Manifest>, Refusal> {
    let refuse = |reason: String| Refusal::Sidecar {
        file: file.to_owned(),
        reason,
    };
    match std::fs::read_to_string(file) {
        Ok(text) => match toml::from_str(&text) {
            Ok(manifest) => Ok(Some(manifest)),
            Err(error) => Err(refuse(error.to_string().trim_end().to_owned())),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(refuse(error.to_string())),
    }
}

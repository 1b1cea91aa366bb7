//! Turns a core module into a component.

use std::borrow::Cow;

use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER,
};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::{Resolve, SourceMap};

use crate::error::Refusal;
use crate::imports::PREVIEW1;
use crate::module::{FileKind, Outline};

/// The contract, as guests compile it in.
const WIT: [(&str, &str); 7] = [
    ("context.wit", include_str!("../../../wit/context.wit")),
    ("handler.wit", include_str!("../../../wit/handler.wit")),
    ("log.wit", include_str!("../../../wit/log.wit")),
    ("outbox.wit", include_str!("../../../wit/outbox.wit")),
    ("sql.wit", include_str!("../../../wit/sql.wit")),
    ("state.wit", include_str!("../../../wit/state.wit")),
    ("types.wit", include_str!("../../../wit/types.wit")),
];

/// The component that a file is or makes: a core module gets the contract's types where its
/// tool chain left them out, and the adapter where it imports WASI preview 1.
pub(crate) fn component<'b>(bytes: &'b [u8], outline: &Outline) -> Result<Cow<'b, [u8]>, Refusal> {
    if outline.kind == Some(FileKind::Component) {
        return Ok(Cow::Borrowed(bytes));
    }
    encode(bytes, outline)
        .map(Cow::Owned)
        .map_err(|error| Refusal::Encode(format!("{error:#}")))
}

fn encode(bytes: &[u8], outline: &Outline) -> anyhow::Result<Vec<u8>> {
    let mut module = Cow::Borrowed(bytes);
    if !outline.has_component_type {
        embed_contract(module.to_mut())?;
    }
    let mut encoder = ComponentEncoder::default().validate(true).module(&module)?;
    if outline.imports.iter().any(|import| import == PREVIEW1) {
        encoder = encoder.adapter(
            WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME,
            WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER,
        )?;
    }
    encoder.encode()
}

fn embed_contract(module: &mut Vec<u8>) -> anyhow::Result<()> {
    let mut sources = SourceMap::new();
    for (name, text) in WIT {
        sources.push_str(name, text);
    }
    let mut resolve = Resolve::default();
    let group = sources
        .parse()
        .map_err(|(_, error)| anyhow::anyhow!("{error}"))?;
    let package = resolve.push_group(group)?;
    let world = resolve.select_world(&[package], Some("handler"))?;
    embed_component_metadata(module, &resolve, world, StringEncoding::UTF8)?;
    Ok(())
}

//! Which imports a plugin may have.

use crate::error::Refusal;

/// The import module of WASI preview 1, which core modules of C and Go have.
pub(crate) const PREVIEW1: &str = "wasi_snapshot_preview1";

const CONTRACT: [&str; 6] = ["types", "state", "outbox", "sql", "context", "log"];
const STAND_INS: [&str; 6] = ["io", "cli", "clocks", "random", "filesystem", "sockets"];

const DESIGN: &str = "A handler must not touch the world: ask for effects through `state` and \
                      `outbox` instead, which happen once";
const REBUILD: &str =
    "Build it with an SDK, or against the `wit` directory, of this host's version";

/// Checks the imports of a component or a core module by name. Their types are checked when
/// it is linked.
pub(crate) fn check(imports: &[String]) -> Result<(), Refusal> {
    imports.iter().try_for_each(|import| check_one(import))
}

fn check_one(import: &str) -> Result<(), Refusal> {
    let refuse = |why, advice| {
        Err(Refusal::Import {
            import: import.to_owned(),
            why,
            advice,
        })
    };
    if import == PREVIEW1 {
        return Ok(());
    }
    let (path, version) = import.split_once('@').unwrap_or((import, ""));
    let (package, interface) = path.split_once('/').unwrap_or((path, ""));
    match package.split_once(':') {
        Some(("semel", "plugin")) if !(version == "0.1" || version.starts_with("0.1.")) => {
            refuse("this host speaks version 0.1 of the contract", REBUILD)
        }
        Some(("semel", "plugin")) if CONTRACT.contains(&interface) => Ok(()),
        Some(("semel", _)) => refuse("no such interface is in this host's contract", REBUILD),
        Some(("wasi", "http")) => refuse("plugins have no network", DESIGN),
        Some(("wasi", name)) if STAND_INS.contains(&name) && version.starts_with("0.2.") => Ok(()),
        Some(("wasi", name)) if STAND_INS.contains(&name) => refuse(
            "this host has WASI 0.2",
            "Build it for `wasm32-wasip2`, or with a tool chain for WASI 0.2",
        ),
        Some(("wasi", _)) => refuse("this host has no stand-in for it", DESIGN),
        _ if import == "env" => refuse(
            "a symbol is missing that the linker took for an import",
            "Link what it needs statically; `wasm-tools print` shows which symbols they are",
        ),
        _ => refuse("this host does not offer it", DESIGN),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_contract_and_the_stand_ins_are_let_in() {
        for import in [
            "semel:plugin/state@0.1.0",
            "semel:plugin/sql@0.1.0",
            "semel:plugin/log@0.1.7",
            "wasi:io/streams@0.2.0",
            "wasi:sockets/tcp@0.2.12",
            "wasi_snapshot_preview1",
        ] {
            assert!(check_one(import).is_ok(), "{import}");
        }
    }

    #[test]
    fn anything_else_is_refused_by_name() {
        for import in [
            "semel:plugin/state@0.2.0",
            "semel:plugin/clock@0.1.0",
            "wasi:http/outgoing-handler@0.2.0",
            "wasi:keyvalue/store@0.2.0",
            "wasi:cli/environment@0.3.0",
            "env",
            "acme:shop/cart",
            "",
        ] {
            let refused = check_one(import).unwrap_err().to_string();
            assert!(
                refused.starts_with(&format!("imports `{import}`: ")),
                "{refused}"
            );
        }
    }
}

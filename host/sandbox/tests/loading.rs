//! What is let in, and what is refused with which words.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use common::*;
use semel_core::Manifest;
use semel_sandbox::{
    FileKind, Overrides, PluginOverride, RunLimits, Sandbox, SandboxConfig, inspect,
};

/// A component that exports nothing of use and imports an instance by this name.
fn component_importing(name: &str) -> Vec<u8> {
    wat::parse_str(format!(r#"(component (import "{name}" (instance)))"#)).unwrap()
}

#[test]
fn foreign_imports_are_refused_by_name() {
    let house = House::new();
    let refused = house.refusal("h.wasm", &component_importing("wasi:http/types@0.2.3"));
    assert!(
        refused.contains("h.wasm: imports `wasi:http/types@0.2.3`"),
        "{refused}"
    );
    assert!(refused.contains("no network"), "{refused}");
    let env = guest("p", r#"(import "env" "malloc" (func))"#, "", DONE);
    let refused = house.refusal("e.wasm", &env);
    assert!(refused.contains("imports `env`"), "{refused}");
    let newer = guest(
        "p",
        r#"(import "semel:plugin/state@0.9.0" "get" (func))"#,
        "",
        DONE,
    );
    assert!(house.refusal("n.wasm", &newer).contains("version 0.1"));
    let unknown = guest(
        "p",
        r#"(import "semel:plugin/state@0.1.0" "swap" (func))"#,
        "",
        DONE,
    );
    let refused = house.refusal("u.wasm", &unknown);
    assert!(refused.contains("swap"), "{refused}");
}

#[test]
fn a_trap_at_start_is_refused() {
    let house = House::new();
    let traps = guest("p", "", "(func $s (unreachable)) (start $s)", DONE);
    let refused = house.refusal("s.wasm", &traps);
    assert!(
        refused.contains("does not start: the handler panicked"),
        "{refused}"
    );
    let house = House::limited(|limits| limits.fuel = 1_000_000);
    let loops = guest("p", "", "(func $s (loop (br 0))) (start $s)", DONE);
    let refused = house.refusal("l.wasm", &loops);
    assert!(
        refused.contains("does not start: the handler used up its fuel"),
        "{refused}"
    );
}

#[test]
fn a_missing_or_wrong_handle_is_refused() {
    let house = House::new();
    let text = |export: &str| {
        wat::parse_str(format!(
            r#"(module (memory (export "memory") 1)
                (@custom "semel:manifest" "{{\"name\":\"p\",\"topics\":[\"t\"]}}")
                (func (export "{export}") (param i32) (result i32) (i32.const 0)))"#
        ))
        .unwrap()
    };
    for (file, export) in [("none.wasm", "other"), ("wrong.wasm", "handle")] {
        let refused = house.refusal(file, &text(export));
        assert!(
            refused.contains("handle") && refused.contains(file),
            "{refused}"
        );
    }
    let empty = wat::parse_str(
        r#"(component (@custom "semel:manifest" "{\"name\":\"p\",\"topics\":[\"t\"]}"))"#,
    );
    let refused = house.refusal("empty.wasm", &empty.unwrap());
    assert!(
        refused.contains("exports no function `handle`"),
        "{refused}"
    );
}

#[test]
fn a_manifest_is_found_wherever_it_is() {
    let house = House::new();
    let bare = wat::parse_str("(module)").unwrap();
    let refused = house.refusal("bare.wasm", &bare);
    assert!(
        refused.contains("has no manifest") && refused.contains("bare.toml"),
        "{refused}"
    );

    // In a core module inside of a component, and over it one that was appended.
    let nested = |outer: &str| {
        wat::parse_str(format!(
            r#"(component
                (core module (@custom "semel:manifest" "{{\"name\":\"in\",\"topics\":[\"t\"]}}"))
                (component (core module))
                {outer})"#
        ))
        .unwrap()
    };
    let path = house.write("nested.wasm", &nested(""));
    let inspected = inspect(&path, &Overrides::new()).unwrap();
    assert_eq!(inspected.manifest.unwrap().name.unwrap(), "in");
    let outer = r#"(@custom "semel:manifest" "{\"name\":\"out\",\"topics\":[\"t\"]}")"#;
    let path = house.write("nested.wasm", &nested(outer));
    let inspected = inspect(&path, &Overrides::new()).unwrap();
    assert_eq!(inspected.manifest.unwrap().name.unwrap(), "out");
    assert_eq!(inspected.kind, Some(FileKind::Component));

    let two =
        wat::parse_str(r#"(module (@custom "semel:manifest" "{\"name\":\"a\"}{\"name\":\"b\"}"))"#);
    assert!(
        house
            .refusal("two.wasm", &two.unwrap())
            .contains("2 manifests")
    );
    let broken = wat::parse_str(r#"(module (@custom "semel:manifest" "{\"nme\":\"a\"}"))"#);
    assert!(
        house
            .refusal("broken.wasm", &broken.unwrap())
            .contains("unknown field `nme`")
    );
}

#[test]
fn a_sidecar_and_the_operator_override_the_manifest() {
    let house = House::new();
    fs::write(
        house.path().join("p.toml"),
        "topics = [\"u\"]\norder-by = \"header:a\"\n",
    )
    .unwrap();
    let plugin = house.load("p.wasm", &minimal("p"));
    assert_eq!(plugin.name(), "p");
    assert_eq!(plugin.manifest.topics.clone().unwrap(), ["u"]);
    let over = PluginOverride {
        manifest: Manifest {
            topics: Some(vec!["v".into()]),
            ..Manifest::default()
        },
        limits: Some(RunLimits {
            fuel: 1,
            ..RunLimits::default()
        }),
    };
    let overrides = Overrides::from([("p".into(), over)]);
    let inspected = inspect(&plugin.path, &overrides).unwrap();
    let manifest = inspected.manifest.unwrap();
    assert_eq!(manifest.topics.unwrap(), ["v"]);
    assert_eq!(manifest.order_by.unwrap().to_string(), "header:a");

    fs::write(house.path().join("p.toml"), "topics = [\"u\"]\nlane = 3\n").unwrap();
    let refused = house.refusal("p.wasm", &minimal("p"));
    assert!(
        refused.contains("p.toml") && refused.contains("line 2, column 1"),
        "{refused}"
    );
    assert!(refused.contains("lane"), "{refused}");
}

#[test]
fn a_directory_loads_what_can_be_used() {
    let house = House::new();
    house.write("c.wasm", &minimal("same"));
    house.write("a.wasm", &minimal("first"));
    house.write("b.wasm", &minimal("same"));
    house.write("d.wasm", b"\0asm garbage");
    house.write("e.wasm", b"");
    house.write("f.txt", b"not a plugin");
    let (loaded, refused) = house.sandbox.load_dir(house.path(), &Overrides::new());
    let names: Vec<_> = loaded.iter().map(|plugin| plugin.name()).collect();
    assert_eq!(names, ["first", "same"]);
    let refused: Vec<_> = refused.iter().map(ToString::to_string).collect();
    assert!(
        refused[0].contains("c.wasm: has the name `same`, which "),
        "{refused:?}"
    );
    assert!(refused[0].contains("b.wasm has already"), "{refused:?}");
    assert!(
        refused[1].contains("d.wasm: is not a valid WebAssembly file"),
        "{refused:?}"
    );
    assert!(refused[2].contains("e.wasm: "), "{refused:?}");
    let (_, refused) = house
        .sandbox
        .load_dir(&house.path().join("no"), &Overrides::new());
    assert!(
        refused[0].to_string().contains("can't be read"),
        "{refused:?}"
    );
}

#[test]
fn damage_is_refused_and_never_a_crash() {
    let house = House::limited(|limits| limits.fuel = 1_000_000);
    let imports = format!("{IMPORT_GET} {IMPORT_PUT} {IMPORT_LOG}");
    let whole = guest("p", &imports, "(table 4 funcref)", DONE);
    let path = house.write("p.wasm", &whole);
    for end in (0..whole.len()).step_by(7) {
        fs::write(&path, &whole[..end]).unwrap();
        // A cut between sections may leave a file that is valid, but no plugin.
        assert!(
            house.sandbox.load(&path, &Overrides::new()).is_err(),
            "{end}"
        );
        inspect(&path, &Overrides::new()).unwrap();
    }
    // A fixed sequence, so that a failure can be repeated.
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as usize
    };
    for _ in 0..400 {
        let mut flipped = whole.clone();
        for _ in 0..=next() % 3 {
            let bit = next() % (flipped.len() * 8);
            flipped[bit / 8] ^= 1 << (bit % 8);
        }
        fs::write(&path, &flipped).unwrap();
        drop(house.sandbox.load(&path, &Overrides::new()));
        inspect(&path, &Overrides::new()).unwrap();
    }
    house.load("p.wasm", &whole);
}

#[tokio::test]
async fn compiled_plugins_are_kept_and_authenticated() {
    let house = House::new();
    let path = house.write("p.wasm", &minimal("p"));
    let dir = house.path().join("cache");
    let open = || {
        Sandbox::new(SandboxConfig {
            slots: 4,
            cache_dir: Some(dir.clone()),
            ..SandboxConfig::default()
        })
    };
    let entries = || {
        let names = fs::read_dir(&dir)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        let (mut compiled, other): (Vec<_>, Vec<_>) =
            names.partition(|path| path.extension().is_some_and(|e| e == "cwasm"));
        assert_eq!(other.len(), 1, "{other:?}");
        compiled.sort();
        compiled
    };
    let load = || open().unwrap().load(&path, &Overrides::new()).unwrap();
    load();
    let [entry] = &entries()[..] else { panic!() };
    let mode = |path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(entry), mode(&dir)), (0o600, 0o700));
    let intact = fs::read(entry).unwrap();
    let modified = || fs::metadata(entry).unwrap().modified().unwrap();

    // A hit writes nothing.
    let before = modified();
    assert!(run(&load(), "k", b"").await.answer.is_ok());
    assert_eq!(modified(), before);

    // Whatever is wrong with it, it is made anew.
    let mut flipped = intact.clone();
    flipped[intact.len() / 2] ^= 1;
    for damaged in [
        &flipped[..],
        &intact[..100],
        &intact[..10],
        b"",
        &[0; 5_000],
    ] {
        fs::write(entry, damaged).unwrap();
        assert!(run(&load(), "k", b"").await.answer.is_ok());
        assert_eq!(fs::read(entry).unwrap().len(), intact.len());
        assert_ne!(fs::read(entry).unwrap(), damaged);
    }

    // Another plugin's file under this one's name does not verify.
    let other = house.write("q.wasm", &minimal("q"));
    open().unwrap().load(&other, &Overrides::new()).unwrap();
    let entries = entries();
    let foreign = entries.iter().find(|path| *path != entry).unwrap();
    fs::copy(foreign, entry).unwrap();
    assert_eq!(load().name(), "p");
    assert_ne!(fs::read(entry).unwrap(), fs::read(foreign).unwrap());

    // A directory that others may write to is no place for machine code.
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o770)).unwrap();
    let refused = open().unwrap_err().to_string();
    assert!(refused.contains("others may write"), "{refused}");
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(dir.join("key"), b"short").unwrap();
    assert!(open().unwrap_err().to_string().contains("damaged"));
}

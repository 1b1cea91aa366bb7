//! The stand-ins for WASI 0.2, imported as components do.

mod common;

use std::path::Path;

use common::*;
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// A part of WASI 0.2, as the real packages have it.
fn wit(version: &str) -> String {
    format!(
        "package semel:test;

        world handler {{
            include semel:plugin/handler@0.1.0;
            import wasi:cli/environment@{version};
            import wasi:cli/stdout@{version};
            import wasi:clocks/monotonic-clock@{version};
            import wasi:filesystem/preopens@{version};
            import wasi:filesystem/types@{version};
            import wasi:io/poll@{version};
            import wasi:io/streams@{version};
            import wasi:random/insecure-seed@{version};
            import wasi:sockets/instance-network@{version};
            import wasi:sockets/ip-name-lookup@{version};
        }}

        package wasi:io@{version} {{
            interface error {{ resource error {{ to-debug-string: func() -> string; }} }}
            interface poll {{
                resource pollable {{ ready: func() -> bool; block: func(); }}
                poll: func(in: list<borrow<pollable>>) -> list<u32>;
            }}
            interface streams {{
                use error.{{error}};
                use poll.{{pollable}};
                variant stream-error {{ last-operation-failed(error), closed }}
                resource input-stream {{
                    read: func(len: u64) -> result<list<u8>, stream-error>;
                    subscribe: func() -> pollable;
                }}
                resource output-stream {{
                    check-write: func() -> result<u64, stream-error>;
                    write: func(contents: list<u8>) -> result<_, stream-error>;
                    subscribe: func() -> pollable;
                }}
            }}
        }}
        package wasi:cli@{version} {{
            interface environment {{
                get-environment: func() -> list<tuple<string, string>>;
                initial-cwd: func() -> option<string>;
            }}
            interface stdout {{
                use wasi:io/streams@{version}.{{output-stream}};
                get-stdout: func() -> output-stream;
            }}
        }}
        package wasi:clocks@{version} {{
            interface monotonic-clock {{
                use wasi:io/poll@{version}.{{pollable}};
                type instant = u64;
                type duration = u64;
                now: func() -> instant;
                subscribe-duration: func(when: duration) -> pollable;
            }}
        }}
        package wasi:random@{version} {{
            interface insecure-seed {{ insecure-seed: func() -> tuple<u64, u64>; }}
        }}
        package wasi:filesystem@{version} {{
            interface types {{
                use wasi:io/streams@{version}.{{input-stream, error}};
                enum error-code {{ access, would-block, not-permitted }}
                resource descriptor {{
                    read-via-stream: func(offset: u64) -> result<input-stream, error-code>;
                }}
                filesystem-error-code: func(err: borrow<error>) -> option<error-code>;
            }}
            interface preopens {{
                use types.{{descriptor}};
                get-directories: func() -> list<tuple<descriptor, string>>;
            }}
        }}
        package wasi:sockets@{version} {{
            interface network {{
                resource network;
                enum error-code {{ unknown, access-denied }}
            }}
            interface instance-network {{
                use network.{{network}};
                instance-network: func() -> network;
            }}
            interface ip-name-lookup {{
                use network.{{network, error-code}};
                resource resolve-address-stream;
                resolve-addresses: func(network: borrow<network>, name: string)
                    -> result<resolve-address-stream, error-code>;
            }}
        }}"
    )
}

/// Makes a core module a component of the world above.
fn component(version: &str, module: Vec<u8>) -> Vec<u8> {
    let contract = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../wit");
    let mut resolve = Resolve::default();
    resolve.push_dir(&contract).unwrap();
    let package = resolve.push_str("test.wit", &wit(version)).unwrap();
    let world = resolve.select_world(&[package], Some("handler")).unwrap();
    let mut module = module;
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    let mut encoder = ComponentEncoder::default()
        .validate(true)
        .module(&module)
        .unwrap();
    encoder.encode().unwrap()
}

/// Replies with what a few calls gave: a byte each.
fn curious(version: &str) -> Vec<u8> {
    let import = |interface: &str, name: &str, id: &str, ty: &str| {
        format!(r#"(import "wasi:{interface}@{version}" "{name}" (func ${id} {ty}))"#)
    };
    let imports = [
        import(
            "cli/environment",
            "get-environment",
            "environment",
            "(param i32)",
        ),
        import("cli/environment", "initial-cwd", "cwd", "(param i32)"),
        import(
            "filesystem/preopens",
            "get-directories",
            "directories",
            "(param i32)",
        ),
        import(
            "sockets/instance-network",
            "instance-network",
            "network",
            "(result i32)",
        ),
        import(
            "sockets/ip-name-lookup",
            "resolve-addresses",
            "resolve",
            "(param i32 i32 i32 i32)",
        ),
        import("clocks/monotonic-clock", "now", "now", "(result i64)"),
        import(
            "clocks/monotonic-clock",
            "subscribe-duration",
            "subscribe",
            "(param i64) (result i32)",
        ),
        import("io/poll", "poll", "poll", "(param i32 i32 i32)"),
        import("cli/stdout", "get-stdout", "stdout", "(result i32)"),
        import(
            "io/streams",
            "[method]output-stream.subscribe",
            "writable",
            "(param i32) (result i32)",
        ),
        import(
            "io/streams",
            "[method]output-stream.write",
            "write",
            "(param i32 i32 i32 i32)",
        ),
    ];
    let body = format!(
        r#"(call $environment (i32.const 800))
        (i32.store8 (i32.const 0) (i32.load (i32.const 804)))
        (call $cwd (i32.const 800))
        (i32.store8 (i32.const 1) (i32.load8_u (i32.const 800)))
        (call $directories (i32.const 800))
        (i32.store8 (i32.const 2) (i32.load (i32.const 804)))
        ;; resolve-addresses: an error, access-denied
        (call $resolve (call $network) (i32.const 64) (i32.const 9) (i32.const 800))
        (i32.store8 (i32.const 3) (i32.load8_u (i32.const 800)))
        (i32.store8 (i32.const 4) (i32.load8_u (i32.const 804)))
        ;; poll of one pollable an hour away, and one two hours away: the first alone is ready
        (local.set $i (i32.const 600))
        (i64.store (i32.const 640) (call $now))
        (i32.store (i32.const 600) (call $subscribe (i64.const 3600000000000)))
        (i32.store (i32.const 604) (call $subscribe (i64.const 7200000000000)))
        (call $poll (i32.const 600) (i32.const 2) (i32.const 800))
        (i32.store8 (i32.const 5) (i32.load (i32.const 804)))
        (i32.store8 (i32.const 6) (i32.load (i32.load (i32.const 800))))
        (i32.store8 (i32.const 7) (i64.ge_u
            (i64.sub (call $now) (i64.load (i32.const 640))) (i64.const 3600000000000)))
        ;; stdout can be written to at once
        (local.set $j (call $stdout))
        (i32.store (i32.const 600) (call $writable (local.get $j)))
        (call $poll (i32.const 600) (i32.const 1) (i32.const 800))
        (i32.store8 (i32.const 8) (i32.load (i32.const 804)))
        (call $write (local.get $j) (i32.const 64) (i32.const 9) (i32.const 800))
        (i32.store8 (i32.const 9) (i32.load8_u (i32.const 800)))
        {}"#,
        reply("(i32.const 0)", "(i32.const 10)")
    );
    let data = r#"(data (i32.const 64) "localhost")"#;
    component(version, guest("curious", &imports.concat(), data, &body))
}

#[tokio::test]
async fn every_0_2_links_and_touches_nothing() {
    let house = House::new();
    for version in ["0.2.0", "0.2.3", "0.2.6", "0.2.9", "0.2.12"] {
        let plugin = house.load("curious.wasm", &curious(version));
        let import = format!("wasi:sockets/instance-network@{version}");
        assert!(plugin.imports.contains(&import), "{:?}", plugin.imports);
        let reply = effects(&plugin, "k", b"").await.reply.unwrap();
        assert_eq!(reply[..], [0, 0, 0, 1, 1, 1, 0, 1, 1, 0], "{version}");
    }
}

#[tokio::test]
async fn a_wait_for_nothing_is_a_trap() {
    let house = House::new();
    let import = r#"(import "wasi:io/poll@0.2.0" "poll" (func $poll (param i32 i32 i32)))"#;
    let body = format!("(call $poll (i32.const 0) (i32.const 0) (i32.const 800)) {DONE}");
    let waits = component("0.2.0", guest("p", import, "", &body));
    let (reason, _) = trap(&house.load("p.wasm", &waits)).await;
    assert!(reason.contains("poll of an empty list"), "{reason}");
}

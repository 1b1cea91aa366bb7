//! What runs share: nothing. What they depend on: the message and what they read.

mod common;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use common::*;
use semel_core::{Failure, Runner};
use semel_sandbox::{Allocation, SandboxConfig, Workers};

#[tokio::test]
async fn a_core_module_without_types_runs() {
    let house = House::new();
    let echo = guest(
        "echo",
        "",
        "",
        &reply("(local.get $body)", "(local.get $body_len)"),
    );
    let plugin = house.load("echo.wasm", &echo);
    let effects = effects(&plugin, "k", b"hello").await;
    assert_eq!(effects.reply.unwrap(), "hello");
}

#[tokio::test]
async fn the_message_arrives_as_it_is() {
    let house = House::new();
    let body = format!(
        "(i32.store (i32.const 0) (local.get $id_len))
         (i32.store (i32.const 4) (local.get $key_len))
         (i32.store (i32.const 8) (local.get $topic_len))
         (i32.store (i32.const 12) (local.get $headers_len))
         (i64.store (i32.const 16) (local.get $time))
         (i32.store (i32.const 24) (i32.load8_u (local.get $key)))
         (i32.store (i32.const 28) (i32.load (i32.add (local.get $headers) (i32.const 4))))
         {}",
        reply("(i32.const 0)", "(i32.const 32)")
    );
    let plugin = house.load("p.wasm", &guest("p", "", "", &body));
    let mut message = message(b"");
    message.headers = vec![
        semel_core::Header {
            name: "seven_7".into(),
            value: "v".into(),
        };
        3
    ];
    let finished = plugin
        .runner
        .run(context("p", "key", message, TestSnapshot::default()))
        .await;
    let reply = finished.answer.unwrap().unwrap();
    let word = |at: usize| u32::from_le_bytes(reply[at..at + 4].try_into().unwrap());
    assert_eq!([word(0), word(4), word(8), word(12)], [3, 3, 1, 3]);
    assert_eq!(
        u64::from_le_bytes(reply[16..24].try_into().unwrap()),
        1_700_000_000_123
    );
    assert_eq!([word(24), word(28)], [u32::from(b'k'), 7]);
}

#[tokio::test]
async fn failures_come_through() {
    let house = House::new();
    let reject = r#"
        (i32.store8 (i32.const 512) (i32.const 1))
        (i32.store8 (i32.const 520) (i32.const 1))
        (i32.store (i32.const 528) (i32.const 0)) (i32.store (i32.const 532) (i32.const 4))
        (i32.const 512)"#;
    let data = r#"(data (i32.const 0) "no!!")"#;
    let plugin = house.load("p.wasm", &guest("p", "", data, reject));
    let expected = Failure::Reject {
        reason: "no!!".into(),
    };
    assert_eq!(run(&plugin, "k", b"").await.answer, Err(expected));

    let retry = r#"
        (i32.store8 (i32.const 512) (i32.const 1))
        (i32.store (i32.const 528) (i32.const 0)) (i32.store (i32.const 532) (i32.const 3))
        (i32.store8 (i32.const 536) (i32.const 1)) (i64.store (i32.const 544) (i64.const 77))
        (i32.const 512)"#;
    let plugin = house.load("p.wasm", &guest("p", "", data, retry));
    let expected = Failure::Retry {
        reason: "no!".into(),
        after_ms: Some(77),
    };
    assert_eq!(run(&plugin, "k", b"").await.answer, Err(expected));
}

/// Random bytes of the contract and of WASI, both clocks before and after a long sleep, by
/// way of the preview 1 adapter.
fn looks_around(name: &str) -> Vec<u8> {
    let imports = format!(
        r#"{IMPORT_RANDOM}
        (import "wasi_snapshot_preview1" "random_get" (func $wasi_random (param i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "clock_time_get"
            (func $clock (param i32 i64 i32) (result i32)))
        (import "wasi_snapshot_preview1" "poll_oneoff"
            (func $poll (param i32 i32 i32 i32) (result i32)))"#
    );
    let body = format!(
        "(call $random (i32.const 16) (i32.const 768))
         (i64.store (i32.const 0) (i64.load (i32.load (i32.const 768))))
         (drop (call $wasi_random (i32.const 8) (i32.const 16)))
         (drop (call $clock (i32.const 0) (i64.const 0) (i32.const 24)))
         (drop (call $clock (i32.const 1) (i64.const 0) (i32.const 32)))
         ;; A subscription: tag clock at 136, id monotonic at 144, timeout at 152.
         (i32.store8 (i32.const 136) (i32.const 0))
         (i32.store (i32.const 144) (i32.const 1))
         (i64.store (i32.const 152) (i64.const 3600000000000))
         (drop (call $poll (i32.const 128) (i32.const 256) (i32.const 1) (i32.const 320)))
         (drop (call $clock (i32.const 0) (i64.const 0) (i32.const 40)))
         (drop (call $clock (i32.const 1) (i64.const 0) (i32.const 48)))
         {}",
        reply("(i32.const 0)", "(i32.const 56)")
    );
    guest(name, &imports, "", &body)
}

#[tokio::test]
async fn a_run_depends_on_its_message_alone() {
    let house = House::new();
    let plugin = house.load("p.wasm", &looks_around("p"));
    let other = house.load("q.wasm", &looks_around("q"));
    let first = effects(&plugin, "k", b"x").await.reply.unwrap();
    let number = |at: usize| u64::from_le_bytes(first[at..at + 8].try_into().unwrap());
    let message_ns = 1_700_000_000_123_000_000;
    let hour_ns = 3_600_000_000_000;
    assert_eq!([number(24), number(40)], [message_ns, message_ns + hour_ns]);
    assert!(number(32) > 0 && number(48) >= number(32) + hour_ns);
    for _ in 0..3 {
        assert_eq!(effects(&plugin, "k", b"x").await.reply.unwrap(), first);
    }
    let random = |reply: &[u8]| reply[..24].to_vec();
    let by_key = effects(&plugin, "l", b"x").await.reply.unwrap();
    let by_plugin = effects(&other, "k", b"x").await.reply.unwrap();
    assert_ne!(random(&first), random(&by_key));
    assert_ne!(random(&first), random(&by_plugin));
    // In another process, on another day, with memory from elsewhere.
    let again = House::with(|config| config.allocation = Allocation::OnDemand);
    let plugin = again.load("p.wasm", &looks_around("p"));
    assert_eq!(effects(&plugin, "k", b"x").await.reply.unwrap(), first);
}

#[tokio::test]
async fn a_guest_panic_is_in_the_detail() {
    let house = House::new();
    let imports = r#"(import "wasi_snapshot_preview1" "fd_write"
        (func $write (param i32 i32 i32 i32) (result i32)))"#;
    let items = r#"(data (i32.const 16) "thread main panicked at handler.rs:7\0aoops\0a")
                   (func $_ZN4core9panicking5panic17h0123456789abcdefE (unreachable))"#;
    let body = "(i32.store (i32.const 0) (i32.const 16)) (i32.store (i32.const 4) (i32.const 42))
        (drop (call $write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 8)))
        (call $_ZN4core9panicking5panic17h0123456789abcdefE) (i32.const 1024)";
    let plugin = house.load("p.wasm", &guest("p", imports, items, body));
    let (reason, detail) = trap(&plugin).await;
    assert_eq!(reason, "the handler panicked: oops");
    assert!(
        detail.starts_with("thread main panicked at handler.rs:7\noops"),
        "{detail}"
    );
    assert!(detail.contains("core::panicking::panic"), "{detail}");
}

#[tokio::test]
async fn an_exit_ends_the_run() {
    let house = House::new();
    let imports = r#"(import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))"#;
    let plugin = house.load(
        "p.wasm",
        &guest(
            "p",
            imports,
            "",
            "(call $exit (i32.const 3)) (i32.const 1024)",
        ),
    );
    let (reason, _) = trap(&plugin).await;
    assert!(reason.contains("exit status"), "{reason}");
}

/// Looks for a secret in all memory that it can get, then leaves it everywhere.
fn leaver(name: &str) -> Vec<u8> {
    // Words in bytes 2048 to 65535, and in 40 pages that are grown.
    let each = |what: &str| {
        format!(
            "(local.set $i (i32.const 2048))
             (loop $next
                {what}
                (local.set $i (i32.add (local.get $i) (i32.const 8)))
                (br_if $next (i32.lt_u (local.get $i) (i32.const 65536))))
             (local.set $i (i32.const 131072))
             (loop $next
                {what}
                (local.set $i (i32.add (local.get $i) (i32.const 64)))
                (br_if $next (i32.lt_u (local.get $i) (i32.const 2752512))))"
        )
    };
    let look = each("(if (i32.wrap_i64 (i64.load (local.get $i))) (then (unreachable)))");
    let leave = each("(i64.store (local.get $i) (i64.const 0x5ec2e7))");
    let body = format!(
        "(drop (memory.grow (i32.const 40)))
         (if (global.get $left) (then (unreachable)))
         {look} {leave}
         (global.set $left (i32.const 1))
         (local.set $i (i32.const 0))
         (loop $next
            (if (ref.is_null (table.get $secret (local.get $i))) (then) (else (unreachable)))
            (table.set $secret (local.get $i) (ref.func $alloc))
            (local.set $i (i32.add (local.get $i) (i32.const 1)))
            (br_if $next (i32.lt_u (local.get $i) (i32.const 1000))))
         {DONE}"
    );
    let items = "(global $left (mut i32) (i32.const 0)) (table $secret 1000 funcref)";
    guest(name, "", items, &body)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_run_sees_what_another_left() {
    let pooled = House::with(|config| config.keep_resident_bytes = 1 << 20);
    let kept = House::with(|config| config.keep_resident_bytes = 8 << 20);
    let mapped = House::with(|config| config.allocation = Allocation::OnDemand);
    for house in [pooled, kept, mapped] {
        let plugins: Vec<_> = ["a", "b", "c"]
            .map(|name| Arc::new(house.load(&format!("{name}.wasm"), &leaver(name))))
            .into();
        let mut runs = tokio::task::JoinSet::new();
        for round in 0..200 {
            let plugin = Arc::clone(&plugins[round % 3]);
            runs.spawn(async move { run(&plugin, "k", b"").await.answer });
        }
        while let Some(answer) = runs.join_next().await {
            assert_eq!(answer.unwrap(), Ok(None));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_wait_for_the_store_side_by_side() {
    let house = House::new();
    let body = format!(
        "(call $get (i32.const 0) (i32.const 1) (i32.const 768)) {}",
        reply("(i32.load (i32.const 772))", "(i32.load (i32.const 776))")
    );
    let items = r#"(data (i32.const 0) "a")"#;
    let plugin = Arc::new(house.load("p.wasm", &guest("p", IMPORT_GET, items, &body)));
    let gate = Arc::new(Gate::default());
    let workers = Workers::start(2).unwrap();
    let runs: Vec<_> = (0..64)
        .map(|number| {
            let snapshot = TestSnapshot {
                values: [("a".to_owned(), format!("value {number}").into())].into(),
                wait: Some(Arc::clone(&gate)),
                fails: false,
            };
            let plugin = Arc::clone(&plugin);
            workers.handle().spawn(async move {
                plugin
                    .runner
                    .run(context("p", "k", message(b""), snapshot))
                    .await
                    .answer
            })
        })
        .collect();
    while gate.waiting.load(Ordering::SeqCst) < 64 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    gate.open.notify_waiters();
    for (number, run) in runs.into_iter().enumerate() {
        assert_eq!(
            run.await.unwrap().unwrap().unwrap(),
            format!("value {number}")
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_runs_than_slots_wait_for_their_turn() {
    let house = House::with(|config| config.slots = 4);
    let body = format!("(call $get (i32.const 0) (i32.const 1) (i32.const 768)) {DONE}");
    let plugin = Arc::new(house.load("p.wasm", &guest("p", IMPORT_GET, "", &body)));
    let runs: Vec<_> = (0..64)
        .map(|_| {
            let plugin = Arc::clone(&plugin);
            tokio::spawn(async move { run(&plugin, "k", b"").await.answer })
        })
        .collect();
    for run in runs {
        assert_eq!(run.await.unwrap(), Ok(None));
    }
}

#[tokio::test]
async fn a_thousand_runs_leave_nothing_behind() {
    let house = House::with(|config: &mut SandboxConfig| config.slots = 16);
    let plugin = house.load("p.wasm", &leaver("p"));
    let resident = || {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
    };
    for _ in 0..100 {
        run(&plugin, "k", b"").await;
    }
    let before = resident();
    for _ in 0..1_000 {
        run(&plugin, "k", b"").await;
    }
    let grown = resident().saturating_sub(before);
    assert!(grown < 8 << 20, "{grown} bytes");
}

//! Each limit ends a run with a reason, and the plugin runs on after it.

mod common;

use std::time::{Duration, Instant};

use common::*;
use semel_core::Failure;

async fn after(house: &House, bytes: &[u8], expected: &str) {
    let neighbour = house.load("neighbour.wasm", &minimal("neighbour"));
    let plugin = house.load("hostile.wasm", bytes);
    for _ in 0..2 {
        let (reason, detail) = trap(&plugin).await;
        assert!(reason.contains(expected), "{reason}\n{detail}");
        assert!(run(&neighbour, "k", b"").await.answer.is_ok());
    }
}

#[tokio::test]
async fn an_endless_loop_uses_up_its_fuel() {
    let house = House::limited(|limits| limits.fuel = 1_000_000);
    let bytes = guest("p", "", "", "(loop $again (br $again)) (unreachable)");
    after(&house, &bytes, "used up its fuel of 1000000").await;
}

#[tokio::test]
async fn the_wall_clock_ends_what_fuel_does_not() {
    let house = House::limited(|limits| {
        limits.fuel = u64::MAX;
        limits.wall_clock = Duration::from_millis(200);
    });
    let bytes = guest("p", "", "", "(loop $again (br $again)) (unreachable)");
    let started = Instant::now();
    after(&house, &bytes, "took longer than 200ms").await;
    assert!(started.elapsed() < Duration::from_secs(4));
}

#[tokio::test]
async fn the_wall_clock_ends_a_read_that_hangs() {
    let house = House::limited(|limits| limits.wall_clock = Duration::from_millis(100));
    let body = format!("(call $get (i32.const 0) (i32.const 1) (i32.const 768)) {DONE}");
    let plugin = house.load("p.wasm", &guest("p", IMPORT_GET, "", &body));
    let hangs = TestSnapshot {
        wait: Some(Default::default()),
        ..TestSnapshot::default()
    };
    let finished = plugin.runner.run_with(hangs).await;
    let Err(Failure::Trap { reason, .. }) = finished.answer else {
        panic!("{:?}", finished.answer)
    };
    assert!(reason.contains("took longer than 100ms"), "{reason}");
    assert!(run(&plugin, "k", b"").await.answer.is_ok());
}

#[tokio::test]
async fn a_loop_does_not_starve_its_thread() {
    let house = House::limited(|limits| {
        limits.fuel = u64::MAX;
        limits.wall_clock = Duration::from_millis(500);
    });
    let bytes = guest("p", "", "", "(loop $again (br $again)) (unreachable)");
    let (looping, quick) = (
        house.load("p.wasm", &bytes),
        house.load("q.wasm", &minimal("q")),
    );
    let started = Instant::now();
    let looping = async {
        assert!(run(&looping, "k", b"").await.answer.is_err());
        started.elapsed()
    };
    let quick = async {
        for _ in 0..10 {
            assert!(run(&quick, "k", b"").await.answer.is_ok());
            tokio::task::yield_now().await;
        }
        started.elapsed()
    };
    // One thread: the quick ones get a turn at every tick.
    let (looping, quick) = tokio::join!(looping, quick);
    assert!(quick < looping, "{quick:?} {looping:?}");
}

#[tokio::test]
async fn memory_is_bounded() {
    let house = House::limited(|limits| limits.memory_bytes = 4 << 20);
    let body = "(loop $again (drop (memory.grow (i32.const 1))) (br $again)) (unreachable)";
    after(
        &house,
        &guest("p", "", "", body),
        "used more than 4194304 bytes of memory",
    )
    .await;
}

#[tokio::test]
async fn tables_are_bounded() {
    let house = House::limited(|limits| limits.table_elements = 1_000);
    let items = "(table $t 1 funcref)";
    let body = "(loop $again (drop (table.grow $t (ref.null func) (i32.const 100))) (br $again))
                (unreachable)";
    after(
        &house,
        &guest("p", "", items, body),
        "used more than 1000 table elements",
    )
    .await;
}

#[tokio::test]
async fn recursion_is_bounded() {
    let house = House::new();
    let items = "(func $deep (param i32) (result i32)
        (i32.add (call $deep (i32.add (local.get 0) (i32.const 1))) (i32.const 1)))";
    let body = "(call $deep (i32.const 0))";
    after(&house, &guest("p", "", items, body), "calls went too deep").await;
}

#[tokio::test]
async fn host_calls_are_bounded() {
    let house = House::limited(|limits| limits.host_calls = 1_000);
    let body = "(loop $again
        (call $get (i32.const 0) (i32.const 1) (i32.const 768)) (br $again)) (unreachable)";
    after(
        &house,
        &guest("p", IMPORT_GET, "", body),
        "called the host more than 1000 times",
    )
    .await;
}

#[tokio::test]
async fn what_a_call_hands_over_is_bounded() {
    let house = House::limited(|limits| limits.call_bytes = 1 << 20);
    let body = format!(
        "(drop (memory.grow (i32.const 64)))
         (call $put (i32.const 0) (i32.const 1) (i32.const 0) (i32.const 2097152) (i32.const 768))
         {DONE}"
    );
    after(
        &house,
        &guest("p", IMPORT_PUT, "", &body),
        "handed the host more than 1048576 bytes",
    )
    .await;
}

#[tokio::test]
async fn a_giant_reply_is_refused() {
    let house = House::new();
    let body = format!(
        "(drop (memory.grow (i32.const 128))) {}",
        reply("(i32.const 0)", "(i32.const 5000000)")
    );
    after(&house, &guest("p", "", "", &body), "returned 5000000 bytes").await;
    let body = format!(
        "(drop (memory.grow (i32.const 512))) {}",
        reply("(i32.const 0)", "(i32.const 33000000)")
    );
    after(
        &house,
        &guest("p", "", "", &body),
        "handed the host more than 16777216 bytes",
    )
    .await;
    let beyond = reply("(i32.const 0)", "(i32.const 0x7fffffff)");
    let plugin = house.load("beyond.wasm", &guest("beyond", "", "", &beyond));
    trap(&plugin).await;
}

#[tokio::test]
async fn random_bytes_are_bounded() {
    let house = House::new();
    let body = format!("(call $random (i32.const -1) (i32.const 512)) {DONE}");
    after(
        &house,
        &guest("p", IMPORT_RANDOM, "", &body),
        "random bytes at once",
    )
    .await;
}

#[tokio::test]
async fn effects_past_their_limit_are_refused_not_fatal() {
    let house = House::new();
    // Puts 64 KiB a hundred times; the 4 MiB of the default limits end that.
    let body = format!(
        "(loop $again
            (i32.store8 (i32.const 0) (i32.add (i32.const 33) (local.get $i)))
            (call $put (i32.const 0) (i32.const 1) (i32.const 0) (i32.const 65536) (i32.const 768))
            (local.set $j (i32.add (local.get $j) (i32.load8_u (i32.const 768))))
            (br_if $again (i32.lt_u
                (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 90))))
         (i32.store8 (i32.const 0) (local.get $j))
         {}",
        reply("(i32.const 0)", "(i32.const 1)")
    );
    let plugin = house.load("p.wasm", &guest("p", IMPORT_PUT, "", &body));
    let effects = effects(&plugin, "k", b"").await;
    assert_eq!(effects.writes.len(), 63);
    assert_eq!(effects.reply.unwrap()[..], [27]);
}

#[tokio::test]
async fn a_store_that_fails_aborts_the_run() {
    let house = House::new();
    let body = format!("(call $get (i32.const 0) (i32.const 1) (i32.const 768)) {DONE}");
    let plugin = house.load("p.wasm", &guest("p", IMPORT_GET, "", &body));
    let fails = TestSnapshot {
        fails: true,
        ..TestSnapshot::default()
    };
    let mut finished = plugin.runner.run_with(fails).await;
    assert_eq!(finished.answer, Err(Failure::Aborted));
    assert!(finished.context.take_fault().is_some());
}

/// Runs a plugin named `p` on a snapshot.
trait RunWith {
    async fn run_with(&self, snapshot: TestSnapshot) -> semel_core::Finished;
}

impl<R: semel_core::Runner> RunWith for R {
    async fn run_with(&self, snapshot: TestSnapshot) -> semel_core::Finished {
        self.run(context("p", "k", message(b""), snapshot)).await
    }
}

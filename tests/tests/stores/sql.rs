//! What holds for every database, on a URL of an empty one.

use semel_stores::SqlStore;
pub use semel_tests::servers::certificates::Certificates;

use super::*;

/// The tests of every database, on servers of one kind.
macro_rules! sql_tests {
    ($server:ident) => {
        /// An empty database on the server that the tests share.
        async fn url() -> (&'static $server, String) {
            let server = $server::shared().await.expect("a server");
            let url = server.database().expect("a database");
            (server, url)
        }

        store_conformance!(async || Kept {
            store: sql::open(&url().await.1).await,
            _keep: (),
        });

        #[tokio::test]
        async fn keys_are_bytes() {
            sql::keys_are_bytes(&url().await.1).await;
        }

        #[tokio::test]
        async fn too_long_is_an_error() {
            sql::too_long_is_an_error(&url().await.1).await;
        }

        #[tokio::test]
        async fn stores_with_another_prefix_share_nothing() {
            sql::prefixes_share_nothing(&url().await.1).await;
        }

        #[tokio::test]
        async fn tables_are_made_when_asked() {
            sql::tables_are_made_when_asked(&url().await.1).await;
        }

        #[tokio::test]
        async fn many_may_start_at_once() {
            sql::many_may_start_at_once(&url().await.1).await;
        }

        #[tokio::test]
        async fn many_records_expire() {
            sql::many_records_expire(&url().await.1).await;
        }

        #[tokio::test]
        async fn who_is_not_known_is_not_spoken_to() {
            let certificates = sql::Certificates::new().unwrap();
            let server = $server::start_with_tls(&certificates).await.unwrap();
            let encrypted = server.database().unwrap();
            let plain = url().await.1;
            sql::who_is_not_known_is_not_spoken_to(&encrypted, &plain, &certificates).await;
        }

        #[test]
        fn a_thread_without_io_can_ask() {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            let (_, url) = runtime.block_on(url());
            sql::a_thread_without_io_can_ask(&runtime, &url);
        }

        #[tokio::test]
        async fn all_is_there_after_the_server_was_killed() {
            let mut server = $server::start().await.unwrap();
            let urls = [server.database().unwrap(), server.database().unwrap()];
            let restart = async |server: &mut $server| server.restart().await.unwrap();
            sql::all_is_there_after_a_kill(urls, &mut server, $server::kill, restart).await;
        }
    };
}

pub async fn who_is_not_known_is_not_spoken_to(
    encrypted: &str,
    plain: &str,
    certificates: &Certificates,
) {
    let trusting = |certificates: &Certificates| {
        let ca = certificates.ca();
        format!("{encrypted}?tls=verify&ca={}", ca.display())
    };
    fill(&open(&trusting(certificates)).await).await;
    assert_filled(&open(&format!("{encrypted}?tls=require")).await).await;
    let stranger = Certificates::new().unwrap();
    for url in [trusting(&stranger), format!("{encrypted}?tls=verify")] {
        let error = refusal(&url).await;
        assert!(error.contains("certificate"), "{error}");
    }
    let renamed = trusting(certificates).replace("127.0.0.1", "localhost");
    let error = refusal(&renamed).await;
    assert!(error.contains("not valid for name"), "{error}");
    for tls in ["require", "verify"] {
        let error = refusal(&format!("{plain}?tls={tls}")).await;
        assert!(error.contains("can't be encrypted"), "{error}");
    }
}

/// The name of the database of a URL.
pub fn database(url: &str) -> &str {
    url.rsplit('/').next().unwrap()
}

pub async fn open(url: &str) -> Arc<dyn Admin> {
    Arc::new(SqlStore::open(url).await.expect("it opens"))
}

pub async fn refusal(url: &str) -> String {
    SqlStore::open(url).await.unwrap_err().to_string()
}

/// Keys that collations take for one, and those that text can't hold.
pub async fn keys_are_bytes(url: &str) {
    let store = open(url).await;
    let keys: [&[u8]; 8] = [b"A", b"a", b"a ", b"a\0", b"\0", b"", b"\xff\xfe", b"'\\"];
    for key in keys {
        apply(&store, &done(key).adding("n", 1)).await;
    }
    for key in keys {
        assert_eq!(commit_one(&store, &done(key)).await, Outcome::Duplicate);
    }
    assert_eq!(text(&store, "n").await.as_deref(), Some("8"));
}

pub async fn too_long_is_an_error(url: &str) {
    let store = open(url).await;
    let key = vec![b'k'; semel_core::MAX_KEY_BYTES + 1];
    let mut run = done(&key).adding("n", 1);
    run.bucket = check(&store, &run.record).await.bucket;
    let error = store.commit(&[run]).await.unwrap_err();
    assert!(!error.is_transient(), "{error}");
    let shown = error.to_string();
    assert!(shown.contains("a business key has 1025 bytes"), "{shown}");
    // Nothing of it is there, and its prefix is another key.
    assert_eq!(text(&store, "n").await, None);
    apply(&store, &done(&key[1..])).await;
    let name = "n".repeat(semel_core::MAX_KEY_BYTES + 1);
    let mut run = done("k").adding(&name, 1);
    run.bucket = check(&store, &run.record).await.bucket;
    let error = store.commit(&[run]).await.unwrap_err();
    assert!(error.to_string().contains("name has 1025 bytes"), "{error}");
}

pub async fn prefixes_share_nothing(url: &str) {
    let a = open(&format!("{url}?prefix=a")).await;
    let b = open(&format!("{url}?prefix=b_2&pool=2")).await;
    fill(&a).await;
    assert_eq!(check(&b, &record("done")).await.state, RecordState::Absent);
    fill(&b).await;
    assert_filled(&a).await;
}

pub async fn tables_are_made_when_asked(url: &str) {
    let never = format!("{url}?migrate=never");
    let error = refusal(&never).await;
    for says in ["it has no tables", "`migrate=never`", "semel store migrate"] {
        assert!(error.contains(says), "{error}");
    }
    assert_eq!(semel_stores::migrate(&never).await.unwrap(), 1);
    assert_eq!(semel_stores::migrate(&never).await.unwrap(), 0);
    let store = open(&never).await;
    fill(&store).await;
    assert_filled(&open(url).await).await;
}

pub async fn many_may_start_at_once(url: &str) {
    let opening = (0..6).map(|_| SqlStore::open(url));
    for opened in futures::future::join_all(opening).await {
        opened.expect("each opens");
    }
}

/// Two hosts that want the same rows, with an operator's transactions in their way.
pub async fn two_hosts_add_up(url: &str, interfere: impl Fn() -> std::process::Command) {
    let hosts = [open(url).await, open(url).await];
    apply(
        &hosts[0],
        &done("first").putting("n0", "0").putting("n1", "0"),
    )
    .await;
    let mut tasks = tokio::task::JoinSet::new();
    for (host, store) in hosts.iter().cloned().enumerate() {
        tasks.spawn(async move {
            for batch in 0..40 {
                let runs: Vec<_> = (0..16)
                    .map(|i| {
                        let key = format!("{host}-{batch}-{i}");
                        done(key).adding(&format!("n{}", (i + host) % 2), 1)
                    })
                    .collect();
                assert!(commit(&store, &runs).await.iter().all(applied));
            }
        });
    }
    // Each locks a value first and the store's own row then: commits do it the other way.
    let clients: Vec<_> = (0..6)
        .map(|_| interfere().spawn().expect("a client"))
        .collect();
    while let Some(ended) = tasks.join_next().await {
        ended.expect("every batch was applied");
    }
    for mut client in clients {
        // It may have been the one that was rolled back.
        client.wait().expect("it ends");
    }
    for name in ["n0", "n1"] {
        assert_eq!(text(&hosts[0], name).await.as_deref(), Some("640"));
    }
}

/// Whoever holds the lock of commits stands still: others wait, and not for ever.
pub async fn a_lock_that_is_kept_holds_up_commits_only(
    url: &str,
    mut holder: std::process::Command,
) {
    let store = open(url).await;
    let mut run = done("k").adding("n", 1);
    run.bucket = check(&store, &run.record).await.bucket;
    let mut holder = holder.spawn().expect("a client");
    tokio::time::sleep(Duration::from_millis(700)).await;
    let error = store.commit(std::slice::from_ref(&run)).await.err();
    assert!(error.is_none_or(|error| error.is_transient()));
    // Look-ups do not wait.
    let bound = Duration::from_secs(2);
    let read = tokio::time::timeout(bound, text(&store, "n")).await;
    assert!(read.is_ok());
    holder.wait().expect("it ends");
    assert!(applied(&commit_one(&store, &run).await));
    assert_eq!(text(&store, "n").await.as_deref(), Some("1"));
}

/// What was written is there after a kill, at rest and under load.
pub async fn all_is_there_after_a_kill<S>(
    [calm, loaded]: [String; 2],
    server: &mut S,
    kill: impl Fn(&mut S),
    restart: impl AsyncFn(&mut S),
) {
    let store = open(&calm).await;
    fill(&store).await;
    kill(server);
    assert_away(&store).await;
    restart(server).await;
    wait_for(&store).await;
    // The same handle goes on.
    assert_filled(&store).await;
    assert_filled(&open(&calm).await).await;
    killed_mid_load(&loaded, server, kill, restart).await;
}

/// Whatever was answered before the server was killed is there, and nothing is in part.
async fn killed_mid_load<S>(
    url: &str,
    server: &mut S,
    kill: impl Fn(&mut S),
    restart: impl AsyncFn(&mut S),
) {
    let store = open(url).await;
    let writer = tokio::spawn({
        let store = Arc::clone(&store);
        async move {
            for batch in 0_u64.. {
                let mut runs: Vec<_> = (0..32)
                    .map(|i| done(format!("{batch}-{i}")).adding("n", 1))
                    .collect();
                let bucket = match store.check(&[query(&runs[0])]).await {
                    Ok(checked) => checked[0].bucket,
                    Err(_) => return (batch, runs),
                };
                runs.iter_mut().for_each(|run| run.bucket = bucket);
                match store.commit(&runs).await {
                    Ok(outcomes) => assert!(outcomes.iter().all(applied)),
                    Err(error) => {
                        assert!(error.is_transient(), "{error}");
                        return (batch, runs);
                    }
                }
            }
            unreachable!("it goes on until the server is killed")
        }
    });
    tokio::time::sleep(Duration::from_millis(700)).await;
    kill(server);
    let (batches, open_runs) = writer.await.expect("the writer ends");
    assert!(
        batches > 0,
        "nothing was written before the server was killed"
    );
    restart(server).await;
    wait_for(&store).await;
    let sum = |text: Option<String>| text.map_or(0, |text| text.parse::<u64>().unwrap());
    let found = sum(text(&store, "n").await);
    let sure = 32 * batches;
    assert!(found == sure || found == sure + 32, "{found} of {sure}");
    for batch in 0..batches {
        for i in [0, 31] {
            let record = record(format!("{batch}-{i}"));
            let state = check(&store, &record).await.state;
            assert!(matches!(state, RecordState::Done { .. }), "{record:?}");
        }
    }
    // The open outcome is settled by sending the same runs again.
    assert!(commit(&store, &open_runs).await.iter().all(applied));
    assert_eq!(sum(text(&store, "n").await), sure + 32);
}

fn query(run: &Run) -> semel_core::CheckQuery {
    semel_core::CheckQuery {
        record: run.record.clone(),
        lane: None,
    }
}

/// Expired records go in chunks, while others are written.
pub async fn many_records_expire(url: &str) {
    let store = open(url).await;
    for batch in 0..25 {
        let runs: Vec<_> = (0..100).map(|i| done(format!("{batch}-{i}"))).collect();
        assert!(commit(&store, &runs).await.iter().all(applied));
    }
    let audit = done("k").of_plugin("audit");
    apply(&store, &audit).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    let now_ms = check(&store, &record("k")).await.bucket;
    let far = now_ms + 10_000;
    let all = plugin();
    let expire = store.expire(&all, Duration::from_millis(1), far);
    let (expired, others) = tokio::join!(expire, async {
        for i in 0..20 {
            apply(&store, &done(format!("k{i}")).of_plugin("audit")).await;
        }
    });
    let () = others;
    assert_eq!(expired.unwrap(), 3, "three chunks of up to a thousand");
    assert_eq!(store.stats(&all).await.unwrap().done, 0);
    let audited = semel_core::PluginName::new("audit");
    assert_eq!(store.stats(&audited).await.unwrap().done, 21);
    apply(&store, &done("0-0")).await;
}

/// Handlers run on threads without a runtime's I/O.
pub fn a_thread_without_io_can_ask(runtime: &tokio::runtime::Runtime, url: &str) {
    let store = runtime.block_on(open(url));
    runtime.block_on(async { apply(&store, &done("k").putting("x", "1")).await });
    let asking = std::thread::spawn(move || {
        let values = futures::executor::block_on(store.read(&[state("x")]));
        assert_eq!(values.unwrap()[0].value.as_deref(), Some(&b"1"[..]));
        // A request that nobody waits for any more is dropped here, too.
        let keys = [state("x")];
        let mut request = store.read(&keys);
        let waker = futures::task::noop_waker();
        let mut context = std::task::Context::from_waker(&waker);
        let _ = request.as_mut().poll(&mut context);
        drop(request);
        let values = futures::executor::block_on(store.read(&[state("x")]));
        assert_eq!(values.unwrap().len(), 1);
    });
    asking.join().expect("it is answered");
}

//! What a server says of itself, and what that means for a store.

use semel_core::{Clock, Finding, PluginName, StoreError, SystemClock};

use super::client::Client;
use super::open::{Address, connect, store};
use crate::examine::{contents, unanswered};

/// The oldest version that this store is made for.
const OLDEST: u32 = 7;

/// What was found at an address, good or bad. Nothing is changed.
pub(super) async fn examine(url: &str, plugins: &[PluginName]) -> Vec<Finding> {
    let (client, address) = match connect(url).await {
        Ok(connected) => connected,
        Err(error) => return vec![Finding::failure("server", error.to_string())],
    };
    let mut findings = match survey(&client, &address).await {
        Ok(findings) => findings,
        Err(error) => return vec![unanswered("server", &error)],
    };
    findings.push(match clock(&client).await {
        Ok(finding) => finding,
        Err(error) => Finding::unchecked("clock", error),
    });
    match contents(&store(client, &address), plugins).await {
        Ok(contents) => findings.extend(contents),
        Err(error) => findings.push(unanswered("content", &error)),
    }
    findings
}

/// What the server's settings mean for a store.
pub(super) async fn survey(client: &Client, address: &Address) -> Result<Vec<Finding>, StoreError> {
    let info = Info(client.look_up(&redis::cmd("INFO")).await?);
    let mut findings = vec![info.version(), info.role(), info.eviction()];
    findings.extend(info.cluster());
    findings.extend(info.failed_writes());
    findings.push(info.append_only());
    if info.is_append_only() {
        findings.push(append_fsync(
            setting(client, "appendfsync").await.as_deref(),
        ));
    }
    let least = setting(client, "min-replicas-to-write").await;
    findings.push(info.replicas(address.replicas, least.as_deref()));
    Ok(findings)
}

/// A setting; none where this user may not ask.
async fn setting(client: &Client, name: &str) -> Option<String> {
    let mut ask = redis::cmd("CONFIG");
    ask.arg("GET").arg(name);
    let answer: Vec<String> = client.look_up(&ask).await.ok()?;
    answer.into_iter().nth(1)
}

async fn clock(client: &Client) -> Result<Finding, StoreError> {
    let before_ms = SystemClock.now_ms();
    let (seconds, micros): (u64, u64) = client.look_up(&redis::cmd("TIME")).await?;
    let theirs_ms = seconds * 1_000 + micros / 1_000;
    Ok(Finding::of_clock(
        theirs_ms,
        before_ms,
        SystemClock.now_ms(),
    ))
}

fn append_fsync(sync: Option<&str>) -> Finding {
    match sync {
        Some("always") => Finding::good("appendfsync", "its `appendfsync` is `always`"),
        Some(sync) => Finding::warning(
            "appendfsync",
            format!(
                "its `appendfsync` is `{sync}`, so that what it acknowledged last may be lost \
                 when its machine crashes"
            ),
        )
        .advise("`appendfsync always` keeps all of it"),
        None => Finding::unchecked("appendfsync", "this user may not ask with CONFIG GET"),
    }
}

/// The answer to INFO.
struct Info(String);

impl Info {
    fn field(&self, name: &str) -> Option<&str> {
        let mut lines = self.0.lines();
        let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        value.map(str::trim)
    }

    fn is_append_only(&self) -> bool {
        self.field("aof_enabled") == Some("1")
    }

    fn version(&self) -> Finding {
        let version = self.field("redis_version").unwrap_or("unknown");
        let major = version
            .split('.')
            .next()
            .and_then(|major| major.parse().ok());
        match major {
            Some(major) if OLDEST <= major => Finding::good("server", format!("Redis {version}")),
            _ => Finding::warning(
                "server",
                format!("its version is {version}, and this store is made for Redis {OLDEST}"),
            )
            .advise("take a newer one"),
        }
    }

    fn role(&self) -> Finding {
        match self.field("role") {
            Some("master") => Finding::good("role", "it is a master"),
            Some(role) => Finding::failure(
                "role",
                format!("it is a replica (its role is `{role}`), which takes no writes"),
            )
            .advise("give the URL of the master"),
            None => Finding::unchecked("role", "it does not tell"),
        }
    }

    /// A server that evicts keys forgets what was done, and what was asked to be published.
    fn eviction(&self) -> Finding {
        const SUBJECT: &str = "maxmemory-policy";
        match self.field("maxmemory_policy") {
            Some("noeviction") => Finding::good(
                SUBJECT,
                "its maxmemory-policy is `noeviction`: no record is dropped",
            ),
            Some(policy) => Finding::failure(
                SUBJECT,
                format!(
                    "its maxmemory-policy is `{policy}`, so it may drop records when memory runs \
                     short, and messages would take effect twice"
                ),
            )
            .advise(
                "type `redis-cli CONFIG SET maxmemory-policy noeviction`, and write \
                 `maxmemory-policy noeviction` into redis.conf",
            ),
            None => Finding::failure(SUBJECT, "it does not tell its maxmemory-policy")
                .advise("allow this user the command INFO"),
        }
    }

    fn append_only(&self) -> Finding {
        match self.is_append_only() {
            true => Finding::good("appendonly", "it keeps an append-only file"),
            false => Finding::warning(
                "appendonly",
                "it keeps no append-only file, so that what it acknowledged since its last \
                 snapshot is lost when it crashes",
            )
            .advise("`appendonly yes` and `appendfsync always` keep all of it"),
        }
    }

    fn cluster(&self) -> Option<Finding> {
        (self.field("cluster_enabled") == Some("1")).then(|| {
            Finding::warning(
                "cluster",
                "it is a node of a cluster, on which this store was not tried: it follows no \
                 redirection to another node",
            )
            .advise("use a server without `cluster-enabled`, with replicas")
        })
    }

    fn failed_writes(&self) -> Option<Finding> {
        let status = self.field("aof_last_write_status");
        status.filter(|status| *status != "ok").map(|_| {
            Finding::failure(
                "disk",
                "it can't write its append-only file, and takes no writes",
            )
            .advise("see to its disk and its log")
        })
    }

    /// `wait` is how many replicas each commit waits for.
    fn replicas(&self, wait: u32, least: Option<&str>) -> Finding {
        const SUBJECT: &str = "replicas";
        let there: u32 = self
            .field("connected_slaves")
            .and_then(|number| number.parse().ok())
            .unwrap_or(0);
        if there < wait {
            let found = format!(
                "it has {there} replicas, and `wait={wait}` in the URL lets no commit succeed \
                 before {wait} have it"
            );
            return Finding::warning(SUBJECT, found).advise("start the replicas");
        }
        let least = least.map_or(String::new(), |least| {
            format!("; its `min-replicas-to-write` is {least}")
        });
        match (there, wait) {
            (0, _) => Finding::note(SUBJECT, format!("none{least}")),
            (_, 0) => Finding::warning(
                SUBJECT,
                format!(
                    "it has {there}, which may lack what it acknowledged last when one takes \
                     over{least}"
                ),
            )
            .advise("add `?wait=1` to the URL: a commit then waits for a replica"),
            _ => Finding::good(
                SUBJECT,
                format!("{there}, and each commit waits for {wait}{least}"),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use semel_core::Level;

    fn info(fields: &str) -> Info {
        Info(fields.replace(' ', "\r\n"))
    }

    #[test]
    fn what_breaks_the_promise_is_a_failure() {
        let good = info("role:master maxmemory_policy:noeviction redis_version:7.2.1");
        for finding in [good.role(), good.eviction(), good.version()] {
            assert_eq!(finding.level, Level::Good, "{finding}");
        }
        let bad = info("role:slave maxmemory_policy:volatile-lru aof_last_write_status:err");
        assert_eq!(bad.role().level, Level::Failure);
        assert_eq!(bad.eviction().level, Level::Failure);
        assert_eq!(bad.failed_writes().map(|f| f.level), Some(Level::Failure));
        assert_eq!(info("").eviction().level, Level::Failure);
    }

    #[test]
    fn what_may_be_lost_is_a_warning() {
        assert_eq!(info("redis_version:6.2.0").version().level, Level::Warning);
        assert_eq!(info("aof_enabled:0").append_only().level, Level::Warning);
        assert_eq!(append_fsync(Some("everysec")).level, Level::Warning);
        assert_eq!(append_fsync(Some("always")).level, Level::Good);
        assert_eq!(append_fsync(None).level, Level::Note);
        assert!(info("cluster_enabled:1").cluster().is_some());
        let two = info("connected_slaves:2");
        assert_eq!(two.replicas(0, None).level, Level::Warning);
        assert_eq!(two.replicas(2, Some("1")).level, Level::Good);
        assert_eq!(two.replicas(3, None).level, Level::Warning);
        assert_eq!(
            info("connected_slaves:0").replicas(0, None).level,
            Level::Note
        );
    }
}

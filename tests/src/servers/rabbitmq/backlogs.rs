//! How many messages a queue has of which none is acknowledged. AMQP tells only how many of them
//! nobody holds.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::RabbitMq;
use crate::child::bound_command;

/// The administrator's tool. The one on the PATH becomes another user.
const TOOL: &str = "/usr/lib/rabbitmq/bin/rabbitmqctl";

/// How long it may take until the first report is there.
const FIRST: Duration = Duration::from_secs(10);

/// Has the broker write each quorum queue's count to a file, again and again. What the queue's own
/// leader says is true at that time, unlike the metrics that the tool and the plugins show.
const REPORT: &str = r#"
    spawn(fun() ->
        Count = fun(Queue) ->
            {resource, _, queue, Name} = amqqueue:get_name(Queue),
            Ask = fun rabbit_fifo:query_messages_total/1,
            case catch ra:leader_query(amqqueue:get_pid(Queue), Ask) of
                {ok, {_, Total}, _} -> io_lib:format("~ts ~b~n", [Name, Total]);
                _ -> []
            end
        end,
        Report = fun Report() ->
            ok = file:write_file("PATH.new", [Count(Queue) || Queue <- rabbit_amqqueue:list()]),
            ok = file:rename("PATH.new", "PATH"),
            timer:sleep(100),
            Report()
        end,
        Report()
    end)."#;

impl RabbitMq {
    /// Has [`backlog`](Self::backlog) answer, also after a restart.
    pub fn watch_backlogs(&mut self) -> Result<()> {
        self.watched = true;
        let path = self.report();
        let report = REPORT.replace("PATH", &path.display().to_string());
        let output = bound_command(Path::new(TOOL))
            .args(["--node", "semel@localhost", "eval", &report])
            .env("HOME", self.home.path())
            .env("ERL_EPMD_PORT", (self.port + 2).to_string())
            .env(
                "RABBITMQ_CONF_ENV_FILE",
                self.home.path().join("rabbitmq-env.conf"),
            )
            .current_dir(self.home.path())
            .output()
            .context("rabbitmqctl does not start")?;
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "rabbitmqctl eval: {error}");
        let deadline = Instant::now() + FIRST;
        while !path.exists() {
            ensure!(Instant::now() < deadline, "RabbitMQ reports no backlogs");
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// How many messages a queue had a moment ago, also those that a consumer holds.
    pub fn backlog(&self, queue: &str) -> Result<u64> {
        let report = fs::read_to_string(self.report()).context("RabbitMQ reports no backlogs")?;
        let mut queues = report.lines().filter_map(|line| line.split_once(' '));
        let (_, count) = queues
            .find(|(name, _)| *name == queue)
            .with_context(|| format!("RabbitMQ reports no backlog of {queue}"))?;
        Ok(count.parse()?)
    }

    /// Nothing is known while it is down.
    pub(super) fn forget_backlogs(&self) {
        // It is not there unless it was asked for.
        let _ = fs::remove_file(self.report());
    }

    fn report(&self) -> PathBuf {
        self.home.path().join("backlogs")
    }
}

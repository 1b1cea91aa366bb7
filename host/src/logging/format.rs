use std::fmt;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// `TIME LEVEL PLUGIN: MESSAGE name=value …`. Where an event bears a field `plugin`, that
/// stands in the place of the module, which nobody but us knows.
pub struct ForPeople;

impl<S, N> FormatEvent<S, N> for ForPeople
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        let mut fields = Fields::default();
        event.record(&mut fields);

        let colours = out.has_ansi_escapes();
        let (dim, bold, plain) = if colours {
            ("\x1b[2m", "\x1b[1m", "\x1b[0m")
        } else {
            ("", "", "")
        };
        write!(out, "{dim}")?;
        SystemTime.format_time(&mut out)?;
        let colour = if colours {
            colour(metadata.level())
        } else {
            ""
        };
        write!(out, "{plain} {colour}{:>5}{plain} ", metadata.level())?;
        match &fields.plugin {
            Some(plugin) => write!(out, "{bold}{plugin}{plain}: ")?,
            None if metadata.target().starts_with("semel") => {}
            None => write!(out, "{dim}{}{plain}: ", metadata.target())?,
        }
        write!(out, "{}", fields.message.replace('\n', "\n    "))?;
        for (name, value) in &fields.others {
            write!(out, " {dim}{name}={plain}{value}")?;
        }
        writeln!(out)
    }
}

fn colour(level: &Level) -> &'static str {
    match *level {
        Level::ERROR => "\x1b[31m",
        Level::WARN => "\x1b[33m",
        Level::INFO => "\x1b[32m",
        Level::DEBUG => "\x1b[34m",
        Level::TRACE => "\x1b[35m",
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    plugin: Option<String>,
    others: Vec<(&'static str, String)>,
}

impl Fields {
    fn keep(&mut self, field: &Field, value: String) {
        match field.name() {
            "message" => self.message = value,
            "plugin" => self.plugin = Some(value),
            name => self.others.push((name, value.replace('\n', " "))),
        }
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.keep(field, value.to_owned());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let mut text = value.to_string();
        let mut source = value.source();
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        self.keep(field, text);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.keep(field, format!("{value:?}"));
    }
}

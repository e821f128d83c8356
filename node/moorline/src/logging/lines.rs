//! One line of JSON for each event: `ts`, `level`, `node`, `target`, `msg`, and what the event and its spans say.
//!
//! # Invariants
//!
//! - **A line is one object on one line**, whatever is in a value. Checked by this file's tests.
//! - What went wrong is `err`, whether the code calls it `error`, `problem` or `why`. Checked by this file's tests.

use std::fmt;

use serde_json::{Map, Value};
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{
        FmtContext, FormatEvent, FormatFields, FormattedFields,
        format::{JsonFields, Writer},
        time::{FormatTime, SystemTime},
    },
    registry::LookupSpan,
};

/// What spans say, kept as JSON.
pub(super) type Fields = JsonFields;

/// Makes lines.
#[derive(Debug)]
pub(super) struct Lines {
    pub(super) node: u64,
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = Map::new();
        let mut now = String::new();
        SystemTime.format_time(&mut Writer::new(&mut now))?;
        line.insert("ts".to_owned(), Value::from(now));
        let level = event.metadata().level().as_str();
        line.insert("level".to_owned(), Value::from(level));
        line.insert("node".to_owned(), Value::from(self.node));
        line.insert("target".to_owned(), Value::from(event.metadata().target()));
        for span in context.event_scope().into_iter().flat_map(|scope| scope.from_root()) {
            let extensions = span.extensions();
            let said = extensions.get::<FormattedFields<N>>();
            let said =
                said.and_then(|said| serde_json::from_str::<Map<String, Value>>(&said.fields).ok());
            line.extend(said.into_iter().flatten());
        }
        event.record(&mut Said(&mut line));
        let text = serde_json::to_string(&line).map_err(|_| fmt::Error)?;
        writeln!(writer, "{text}")
    }
}

/// What an event says.
struct Said<'a>(&'a mut Map<String, Value>);

/// Names that are the same in every line, whatever the code calls them.
fn name(field: &Field) -> &'static str {
    match field.name() {
        "message" => "msg",
        "error" | "problem" | "why" => "err",
        // What a line is about is never taken for what it says of itself.
        "level" => "of_level",
        "node" => "of_node",
        "ts" | "target" | "msg" => "said",
        other => other,
    }
}

impl Visit for Said<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(name(field).to_owned(), Value::from(format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(name(field).to_owned(), Value::from(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.insert(name(field).to_owned(), Value::from(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(name(field).to_owned(), Value::from(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.insert(name(field).to_owned(), Value::from(value));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.0.insert(name(field).to_owned(), Value::from(value));
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{self, Write},
        sync::{Arc, Mutex},
    };

    use tracing::{info, info_span, subscriber::with_default, warn};
    use tracing_subscriber::{fmt, layer::SubscriberExt};

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_is_one_object_with_the_same_names_everywhere() {
        let written = Written::default();
        let to = written.clone();
        let lines = fmt::layer().fmt_fields(Fields::new()).event_format(Lines { node: 3 });
        let lines = lines.with_writer(move || to.clone());
        with_default(tracing_subscriber::registry().with(lines), || {
            let error = io::Error::other("no\nspace \"left\"");
            info_span!("connection", conn = 7).in_scope(|| {
                warn!(%error, device = "pump-1", bytes = 5_u64, level = 9, "not\nwritten");
            });
            let device: Option<&str> = None;
            info!(device, node = 2, "again");
            warn!(why = "no quorum", "not done");
            warn!(problem = "no disk", "not done");
        });
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 4, "{text}");
        assert_eq!((&lines[2]["err"], &lines[3]["err"]), (&"no quorum".into(), &"no disk".into()));
        let line = &lines[0];
        assert!(line["ts"].as_str().unwrap().ends_with('Z'), "{line}");
        for (key, value) in [
            ("level", Value::from("WARN")),
            ("node", Value::from(3)),
            ("conn", Value::from(7)),
            ("device", Value::from("pump-1")),
            ("bytes", Value::from(5)),
            ("msg", Value::from("not\nwritten")),
            ("err", Value::from("no\nspace \"left\"")),
            ("of_level", Value::from(9)),
        ] {
            assert_eq!(line[key], value, "{key} of {line}");
        }
        assert!(lines[1].get("device").is_none() && lines[1]["of_node"] == 2, "{text}");
    }
}

//! From an event and the spans around it to one line, in one write.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Debug;
use std::io::Write;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use super::OURS;
use super::line::Line;

/// Writes every event that reaches it as a line on stderr.
pub(super) struct Lines(());

impl Lines {
    pub(super) fn to_stderr() -> Self {
        Self(())
    }

    /// Only events of these targets and levels.
    pub(super) fn with_targets<S: Subscriber + for<'a> LookupSpan<'a>>(self, targets: Targets) -> impl Layer<S> {
        self.with_filter(targets)
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Lines {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        context.span(id).expect("a new span is there").extensions_mut().insert(fields);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let span = context.span(id).expect("a span that records is there");
        if let Some(fields) = span.extensions_mut().get_mut::<Fields>() {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut all = Fields::default();
        for span in context.event_scope(event).into_iter().flat_map(|scope| scope.from_root()) {
            if let Some(fields) = span.extensions().get::<Fields>() {
                all.0.extend(fields.0.iter().map(|(name, value)| (name.clone(), value.clone())));
            }
        }
        event.record(&mut all);
        let meta = event.metadata();
        let message = all.0.remove("message").unwrap_or_default();
        let place = format!("{}:{}", meta.file().unwrap_or(meta.target()), meta.line().unwrap_or_default());
        let line = Line { level: level(meta), message, place, fields: all.0 }.encode();
        // one write under one lock: lines never mix. A log that cannot be written has nobody to be told to
        let _ = std::io::stderr().lock().write_all(&line);
    }
}

/// The server's word for the level. A library never speaks above info: its errors are ours to judge.
fn level(meta: &Metadata<'_>) -> &'static str {
    let crate_name = meta.target().split("::").next().unwrap_or_default();
    match *meta.level() {
        Level::ERROR if OURS.contains(&crate_name) => "error",
        Level::WARN if OURS.contains(&crate_name) => "warn",
        Level::ERROR | Level::WARN | Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

/// Fields by name, each a text.
#[derive(Default)]
struct Fields(BTreeMap<String, String>);

impl Fields {
    fn put(&mut self, field: &Field, value: String) {
        self.0.insert(field.name().to_owned(), value);
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.to_owned());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        let mut text = value.to_string();
        let mut cause = value.source();
        while let Some(source) = cause {
            text = format!("{text}: {source}");
            cause = source.source();
        }
        self.put(field, text);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.put(field, format!("{value:?}"));
    }
}

//! The log, as the server reads it from our stderr: one JSON object a line, every value a string.
//!
//! Three things are deadly or dear there. A value that is no string kills the Velero server (P-07, P-08). A line at level
//! error makes the backup PartiallyFailed (P-09), so only our own code may write one: what libraries call an error has
//! been handled, or is on its way to be one of ours. A line over 64 KiB is torn to pieces.

mod layer;
mod line;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use layer::Lines;

/// Crates whose lines say what they mean; all others are libraries.
const OURS: [&str; 4] = ["velero_plugin", "velero_plugin_for_vsphere", "api", "lifecycle"];

/// Starts the log at Velero's `level`, and makes a panic a line of it.
pub(super) fn start(level: Option<&str>) {
    let level = filter(level);
    let libraries = if level == LevelFilter::TRACE { LevelFilter::DEBUG } else { level.min(LevelFilter::WARN) };
    let targets = Targets::new().with_default(libraries).with_targets(OURS.map(|ours| (ours, level)));
    // a second start in one process finds the log of the first; that happens in tests alone
    let _ = tracing_subscriber::registry().with(Lines::to_stderr().with_targets(targets)).try_init();
    std::panic::set_hook(Box::new(tell_of_panic));
}

/// The words of the library that Velero logs with.
fn filter(level: Option<&str>) -> LevelFilter {
    match level.unwrap_or_default().to_ascii_lowercase().as_str() {
        "panic" | "fatal" | "error" => LevelFilter::ERROR,
        "warn" | "warning" => LevelFilter::WARN,
        "debug" => LevelFilter::DEBUG,
        "trace" => LevelFilter::TRACE,
        _ => LevelFilter::INFO,
    }
}

/// Rust's own text about a panic would be a debug line of the server, which nobody sees.
fn tell_of_panic(panic: &std::panic::PanicHookInfo<'_>) {
    let place = panic.location().map(|l| format!("{}:{}", l.file(), l.line())).unwrap_or_default();
    let what = panic.payload_as_str().unwrap_or("for a reason that is no text");
    tracing::error!(target: "velero_plugin::panic", logSource = %place, error = %what, "plugin panicked: {what}");
}

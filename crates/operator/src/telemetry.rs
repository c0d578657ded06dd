//! The log: text for people or JSON lines for programs, on standard output.

use std::str::FromStr;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::time::SystemTime;

use crate::Error;

/// How lines look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            other => Err(format!("`{other}` is not a log format: text or json")),
        }
    }
}

/// Starts the log. `level` is a word of the original (`panic fatal error warning info debug trace`) or a filter as
/// `RUST_LOG` has it; libraries below us speak from WARN on.
pub fn init(format: Format, level: &str) -> Result<(), Error> {
    let filter = EnvFilter::try_new(directives(level)).map_err(|e| Error::Telemetry(e.to_string()))?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_timer(SystemTime).with_ansi(false);
    let set = match format {
        Format::Text => log.try_init(),
        Format::Json => log.json().flatten_event(true).try_init(),
    };
    set.map_err(|e| Error::Telemetry(e.to_string()))
}

fn directives(level: &str) -> String {
    let word = match level.to_ascii_lowercase().as_str() {
        "panic" | "fatal" | "error" => "error",
        "warning" | "warn" => "warn",
        "info" => "info",
        "debug" => "debug",
        "trace" => "trace",
        _ => return level.to_owned(),
    };
    let below = if matches!(word, "error" | "trace") { word } else { "warn" };
    format!("{word},hyper={below},h2={below},tower={below},rustls={below},kube={below},aws={below}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing_subscriber::filter::LevelFilter;

    #[test]
    fn the_originals_words_for_levels_still_work() {
        let cases = [
            ("panic", LevelFilter::ERROR),
            ("fatal", LevelFilter::ERROR),
            ("error", LevelFilter::ERROR),
            ("warning", LevelFilter::WARN),
            ("warn", LevelFilter::WARN),
            ("info", LevelFilter::INFO),
            ("debug", LevelFilter::DEBUG),
            ("trace", LevelFilter::TRACE),
            ("Info", LevelFilter::INFO),
            ("WARNING", LevelFilter::WARN),
        ];
        for (word, level) in cases {
            let filter = EnvFilter::try_new(directives(word)).map(|filter| filter.max_level_hint());
            assert_eq!(filter.ok().flatten(), Some(level), "{word}");
        }
        assert_eq!(directives("vsphere=debug"), "vsphere=debug");
        assert!("xml".parse::<Format>().is_err());
    }
}

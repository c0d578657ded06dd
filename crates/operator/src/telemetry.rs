//! The log: text for people or JSON lines for programs, on standard output.

use std::str::FromStr;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
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
/// `RUST_LOG` has it, or empty for `info`; libraries below us speak from WARN on.
pub fn init(format: Format, level: &str) -> Result<(), Error> {
    let filter = filter(level).map_err(Error::Telemetry)?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_timer(SystemTime).with_ansi(false);
    let set = match format {
        Format::Text => log.try_init(),
        Format::Json => log.json().flatten_event(true).try_init(),
    };
    set.map_err(|e| Error::Telemetry(e.to_string()))
}

/// A level as a command line has it, checked: what [`init`] takes.
pub fn level(text: &str) -> Result<String, String> {
    filter(text).map(|_| text.trim().to_owned())
}

fn filter(level: &str) -> Result<EnvFilter, String> {
    EnvFilter::try_new(directives(level)?).map_err(|e| format!("`{level}` is not a filter for the log: {e}"))
}

/// A word that is no level would be the name of a part of the program, and everything else would be silent.
fn directives(level: &str) -> Result<String, String> {
    let level = level.trim();
    let word = match level.to_ascii_lowercase().as_str() {
        "panic" | "fatal" | "error" => "error",
        "warning" | "warn" => "warn",
        "" | "info" => "info",
        "debug" => "debug",
        "trace" => "trace",
        _ if level.contains(['=', ',', '[']) || level.parse::<LevelFilter>().is_ok() => return Ok(level.to_owned()),
        _ => {
            let words = "panic, fatal, error, warning, info, debug, trace or off";
            return Err(format!("`{level}` is not a level: {words}, or a filter such as `vsphere=debug`"));
        }
    };
    let below = if matches!(word, "error" | "trace") { word } else { "warn" };
    Ok(format!("{word},hyper={below},h2={below},tower={below},rustls={below},kube={below},aws={below}"))
}

#[cfg(test)]
mod tests {
    use super::*;

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
            ("", LevelFilter::INFO),
            (" ", LevelFilter::INFO),
            ("off", LevelFilter::OFF),
        ];
        for (word, level) in cases {
            let filter = filter(word).map(|filter| filter.max_level_hint());
            assert_eq!(filter, Ok(Some(level)), "{word}");
        }
        for filter in ["vsphere=debug", "info,vddk=debug", "[upload]=trace"] {
            assert_eq!((directives(filter).as_deref(), level(filter).as_deref()), (Ok(filter), Ok(filter)));
        }
        assert!("xml".parse::<Format>().is_err());
    }

    #[test]
    fn a_level_that_is_mistyped_is_refused_and_does_not_silence_the_log() {
        for word in ["inof", "verbose", "Warn1ng", "in fo"] {
            let said = level(word).err().unwrap_or_default();
            assert!(said.contains(&format!("`{word}`")) && said.contains("warning, info, debug"), "{word}: {said}");
        }
        for filter in ["vsphere=verbose", "info,vsphere=inof"] {
            assert!(level(filter).is_err_and(|said| said.contains(filter)), "{filter}");
        }
    }
}

//! What a user may set of the library's own configuration, beside what we set for it.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Levels of the library's log, by the documented name of the setting, with the highest of each.
const LOG_LEVELS: [(&str, u32); 2] = [("vixDiskLib.nfc.LogLevel", 4), ("vixDiskLib.transport.LogLevel", 6)];
/// Endings of settings whose values are whole numbers above 0: times in milliseconds, sizes and counts of buffers.
const NUMBERS: [&str; 3] = ["TimeoutMs", ".BufSizeIn64KB", ".BufCount"];
/// The setting that is ours: the folder goes with the helper.
const OURS: &str = "tmpDirectory";

/// Settings of the library by their names, such as `vixDiskLib.nfc.LogLevel`. They go before ours.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LibrarySettings(BTreeMap<String, String>);

/// A setting that the library would not understand, or must not have; it is left out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name} is `{value}`: {why}")]
pub struct BadLibrarySetting {
    name: String,
    value: String,
    why: Why,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Why {
    NoLevel { highest: u32 },
    NoNumber,
    NotOneLine,
    BadName,
    IsOurs,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoLevel { highest } => write!(f, "a level from 0 to {highest} belongs there"),
            Self::NoNumber => f.write_str("a whole number above 0 belongs there"),
            Self::NotOneLine => f.write_str("it has to be one line of text"),
            Self::BadName => f.write_str("no setting has such a name"),
            Self::IsOurs => f.write_str("the folder is a private one of each disk's process, which removes it"),
        }
    }
}

impl LibrarySettings {
    /// Takes what the library can be given, and says what is wrong with the rest. Names that are not known are given to it
    /// as they are: each release of the library has others.
    pub fn read(data: &BTreeMap<String, String>) -> (Self, Vec<BadLibrarySetting>) {
        let (mut taken, mut bad) = (BTreeMap::new(), Vec::new());
        for (name, value) in data {
            let value = value.trim();
            match problem(name, value) {
                None => drop(taken.insert(name.clone(), value.to_owned())),
                Some(why) => bad.push(BadLibrarySetting { name: name.clone(), value: shown(value), why }),
            }
        }
        (Self(taken), bad)
    }

    /// The lines of a configuration: `defaults`, each with the user's value where there is one, then the rest of the user's.
    pub fn over(&self, defaults: &[(&str, String)]) -> String {
        let of_user = |name: &str| self.0.get(name).cloned();
        let ours = defaults.iter().map(|(name, value)| (*name, of_user(name).unwrap_or_else(|| value.clone())));
        let is_ours = |name: &str| defaults.iter().any(|(ours, _)| *ours == name);
        let more = self.0.iter().filter(|(name, _)| !is_ours(name)).map(|(name, value)| (name.as_str(), value.clone()));
        ours.chain(more).map(|(name, value)| format!("{name}={value}\n")).collect()
    }
}

fn problem(name: &str, value: &str) -> Option<Why> {
    let is_named =
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    if !is_named {
        return Some(Why::BadName);
    }
    if name == OURS {
        return Some(Why::IsOurs);
    }
    if value.is_empty() || value.chars().any(char::is_control) {
        return Some(Why::NotOneLine);
    }
    let number = value.parse::<u32>().ok();
    if let Some((_, highest)) = LOG_LEVELS.iter().find(|(level, _)| *level == name) {
        return number.is_none_or(|n| n > *highest).then_some(Why::NoLevel { highest: *highest });
    }
    let is_number = NUMBERS.iter().any(|ending| name.ends_with(ending));
    (is_number && number.is_none_or(|n| n == 0)).then_some(Why::NoNumber)
}

/// A value as a message has it: the first of its characters, on one line.
fn shown(value: &str) -> String {
    let line: String = value.chars().map(|c| if c.is_control() { ' ' } else { c }).take(40).collect();
    if value.chars().count() > 40 { format!("{line}…") } else { line }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(data: &[(&str, &str)]) -> (LibrarySettings, Vec<String>) {
        let data = data.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let (settings, bad) = LibrarySettings::read(&data);
        (settings, bad.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn the_users_settings_go_before_ours_and_what_is_not_known_goes_along() {
        let (set, bad) = read(&[
            ("vixDiskLib.nfc.LogLevel", "4"),
            ("vixDiskLib.transport.LogLevel", " 6\n"),
            ("vixDiskLib.newer.Switch", "on"),
        ]);
        assert_eq!(bad, [""; 0]);
        let ours = [("tmpDirectory", "/t".to_owned()), ("vixDiskLib.nfc.LogLevel", "2".to_owned())];
        let want =
            "tmpDirectory=/t\nvixDiskLib.nfc.LogLevel=4\nvixDiskLib.newer.Switch=on\nvixDiskLib.transport.LogLevel=6\n";
        assert_eq!(set.over(&ours), want);
        assert_eq!(LibrarySettings::default().over(&ours), "tmpDirectory=/t\nvixDiskLib.nfc.LogLevel=2\n");
    }

    #[test]
    fn a_setting_that_the_library_would_not_understand_is_named_and_left_out() {
        let cases = [
            ("vixDiskLib.nfc.LogLevel", "5", "vixDiskLib.nfc.LogLevel is `5`: a level from 0 to 4"),
            ("vixDiskLib.transport.LogLevel", "verbose", "from 0 to 6"),
            ("vixDiskLib.nfc.ReadTimeoutMs", "1 min", "a whole number above 0"),
            ("vixDiskLib.nfcAio.Session.BufCount", "0", "a whole number above 0"),
            ("vixDiskLib.x", "one\ntmpDirectory=/etc", "is `one tmpDirectory=/etc`: it has to be one line"),
            ("vixDiskLib.x", " ", "one line"),
            ("tmpDirectory", "/tmp", "private"),
            ("a=b", "c", "no setting has such a name"),
        ];
        for (name, value, words) in cases {
            let (taken, bad) = read(&[(name, value), ("vixDiskLib.transport.LogLevel", "7"), ("fine", "1")]);
            assert!(bad.iter().any(|line| line.contains(words)), "{name}={value:?}: {bad:?}");
            assert_eq!(taken.over(&[]), "fine=1\n", "the others count: {name}");
        }
    }
}

//! The flags of Kubernetes' Go log, which the original's programs have beside their own: taken, so that old manifests
//! start, and without effect. They may stand anywhere in the command line, also before the sub-command.

use std::ffi::OsString;

/// Those that have a value, in the same word behind `=` or in the next one.
const WITH_VALUE: [&str; 7] =
    ["v", "vmodule", "log_dir", "log_file", "log_file_max_size", "log_backtrace_at", "stderrthreshold"];
/// Those that are on or off; a value can stand behind `=` only.
const SWITCHES: [&str; 6] =
    ["logtostderr", "alsologtostderr", "add_dir_header", "skip_headers", "skip_log_headers", "one_output"];

/// The words of a command line without these flags and their values.
pub fn without_klog_flags(words: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let (mut kept, mut words) = (Vec::new(), words.into_iter());
    while let Some(word) = words.next() {
        match word.to_str().map_or(Flag::Other, Flag::of) {
            Flag::Other => kept.push(word),
            Flag::Whole => {}
            Flag::ValueFollows => drop(words.next()),
        }
    }
    kept
}

/// What one word is.
enum Flag {
    /// None of these.
    Other,
    /// One of them, with its value or without need of one.
    Whole,
    /// One of them, whose value is the next word.
    ValueFollows,
}

impl Flag {
    fn of(word: &str) -> Self {
        let (name, has_value) = match word.split_once('=') {
            Some((name, _)) => (name, true),
            None => (word, false),
        };
        // the one with a short form: -v 4, -v=4, -v4
        let short = name.strip_prefix("-v").is_some_and(|level| level.bytes().all(|b| b.is_ascii_digit()));
        if short {
            return if has_value || name.len() > 2 { Self::Whole } else { Self::ValueFollows };
        }
        match name.strip_prefix("--") {
            Some(name) if SWITCHES.contains(&name) => Self::Whole,
            Some(name) if WITH_VALUE.contains(&name) && has_value => Self::Whole,
            Some(name) if WITH_VALUE.contains(&name) => Self::ValueFollows,
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_of_the_go_log_are_taken_wherever_they_stand_and_nothing_else_is() {
        let kept = |line: &str| {
            let words = without_klog_flags(line.split_whitespace().map(OsString::from));
            words.iter().map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
        };
        let cases = [
            ("datamgr server -v 4 --log-level debug", "datamgr server --log-level debug"),
            ("datamgr -v=4 server --logtostderr", "datamgr server"),
            ("datamgr --v 4 --logtostderr=true server -v9", "datamgr server"),
            ("datamgr server --vmodule=a=1,b=2 --log_dir /tmp -n backups", "datamgr server -n backups"),
            ("datamgr server --stderrthreshold ERROR --alsologtostderr", "datamgr server"),
            ("datamgr server --log-format json --version -V", "datamgr server --log-format json --version -V"),
            ("datamgr server --vcenter-port 443 -verbose", "datamgr server --vcenter-port 443 -verbose"),
            ("datamgr server -v", "datamgr server"),
        ];
        for (line, want) in cases {
            assert_eq!(kept(line), want, "{line}");
        }
    }
}

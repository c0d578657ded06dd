//! The command line. Up to Velero 1.14 it is ours, from 1.15 on the server's own: so nothing in it may ever be an error.

/// What we pick out of the command line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Flags {
    /// `--log-level`, as it was written.
    pub(super) log_level: Option<String>,
    /// `--features`, all of them.
    pub(super) features: Vec<String>,
    /// `--namespace` or `-n`.
    pub(super) namespace: Option<String>,
}

impl Flags {
    /// Reads what follows the name of the program: `--flag=value`, `--flag value`, again and again, in any company.
    pub(super) fn read(words: impl IntoIterator<Item = String>) -> Self {
        let words: Vec<String> = words.into_iter().collect();
        let mut flags = Self::default();
        for (at, word) in words.iter().enumerate() {
            let (name, value) = match word.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (word.as_str(), words.get(at + 1).map(String::as_str).filter(|next| !next.starts_with('-'))),
            };
            let Some(value) = value else { continue };
            match name {
                "--log-level" => flags.log_level = Some(value.to_owned()),
                "--features" => flags.features.extend(listed(value)),
                "--namespace" | "-n" => flags.namespace = Some(value.to_owned()),
                _ => {}
            }
        }
        flags
    }
}

fn listed(value: &str) -> impl Iterator<Item = String> {
    value.split(',').map(str::trim).filter(|f| !f.is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::Flags;

    fn read(line: &str) -> Flags {
        Flags::read(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn both_ways_of_velero_to_start_us_are_understood() {
        let old = read("--log-level debug --features EnableCSI,EnableX");
        assert_eq!((old.log_level.as_deref(), old.features.len()), (Some("debug"), 2));
        let new = read("--features=EnableCSI --uploader-type=kopia -n backups --client-qps=100 --log-level=warning");
        assert_eq!(new.features, ["EnableCSI"]);
        assert_eq!(new.log_level.as_deref(), Some("warning"));
        assert_eq!(new.namespace.as_deref(), Some("backups"));
    }

    #[test]
    fn no_command_line_keeps_us_from_starting() {
        let lines = ["", "=", "--", "-", "--log-level", "--features= ,", "-n", "--log-level --features", "a=b=c ==="];
        for line in lines {
            assert_eq!(read(line), Flags::default(), "{line}");
        }
        assert_eq!(read("--features=a --features b --log-level=x --log-level y").features, ["a", "b"]);
        assert_eq!(read("--log-level=x --log-level y").log_level.as_deref(), Some("y"));
    }
}

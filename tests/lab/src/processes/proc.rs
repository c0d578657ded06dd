//! Reads `/proc`: is the process with this pid still the one that was started?

use std::fs;

/// What `/proc/<pid>/stat` says of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stat {
    /// `R`, `S`, … ; `Z` and `X` have ended and only wait to be collected.
    pub(super) state: char,
    /// The session it belongs to: the pid of the session's leader.
    pub(super) session: i32,
    /// When it was started, in clock ticks since the machine was.
    pub(super) started_ticks: u64,
}

impl Stat {
    /// What there is about that pid; nothing when there is no such process.
    pub(super) fn of(pid: i32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// The second field is the program's name in brackets and may hold blanks and brackets itself.
    fn parse(text: &str) -> Option<Self> {
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        Some(Self {
            state: fields.first()?.chars().next()?,
            session: fields.get(3)?.parse().ok()?,
            started_ticks: fields.get(19)?.parse().ok()?,
        })
    }

    pub(super) fn has_ended(self) -> bool {
        matches!(self.state, 'Z' | 'X')
    }
}

/// All pids of the machine that this process may see.
pub(super) fn pids() -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// Changes whenever the machine starts, so that a record from before is never mistaken.
pub(super) fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test may stop at the first surprise
    use super::*;

    #[test]
    fn a_program_with_brackets_in_its_name_is_read_right() {
        let text = "42 (a) b (c) S 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 98765 1000 10";
        let stat = Stat::parse(text).unwrap();
        assert_eq!(stat, Stat { state: 'S', session: 42, started_ticks: 98765 });
    }
}

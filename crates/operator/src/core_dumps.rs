//! No core dump of a program that holds passwords and keys in its memory.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Bytes of a core dump. A dump into a file needs a page at least; one that is piped to a program (`kernel.core_pattern` with a
/// bar) heeds no limit but this very one, which Linux takes for "none" (core(5); `fs/coredump.c`).
const NONE: u64 = 1;

/// From now on neither this process nor any that it starts leaves a core dump. Where the machine allows none at all, that stays;
/// then one that is piped to a program is the machine's to forbid.
pub fn never() {
    let allowed = getrlimit(Resource::Core).maximum;
    if allowed.is_some_and(|most| most < NONE) {
        return;
    }
    let limit = Rlimit { current: Some(NONE), maximum: Some(NONE) };
    if let Err(error) = setrlimit(Resource::Core, limit) {
        tracing::warn!(%error, "core dumps of this process could not be switched off; one would hold passwords");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    #[test]
    fn a_program_that_crashes_writes_no_password_to_the_hosts_disk() {
        super::never();
        let limits = std::fs::read_to_string("/proc/thread-self/limits").unwrap();
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        let words: Vec<&str> = core.split_whitespace().collect();
        assert!(words[4..6].iter().all(|bytes| ["0", "1"].contains(bytes)), "{core}");
    }
}

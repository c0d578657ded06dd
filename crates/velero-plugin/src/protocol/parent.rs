//! Notices when the server that started us is gone, however it went.

use std::time::Duration;

use rustix::process::{Pid, getppid};

/// How long an orphan may live. The kernel's signal for this (`PR_SET_PDEATHSIG`) means the thread that started us, and
/// a Go program may end that one at any time.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The process that started us. To be asked before anyone learns that we run: later it may be gone unseen.
pub(super) fn now() -> Option<Pid> {
    getppid()
}

/// Returns once this process has another parent than that.
pub(super) async fn gone(parent: Option<Pid>) {
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    while getppid() == parent {
        ticks.tick().await;
    }
}

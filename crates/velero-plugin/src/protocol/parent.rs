//! Notices when the server that started us is gone, however it went.

use std::time::Duration;

use rustix::process::getppid;

/// How long an orphan may live. The kernel's signal for this (`PR_SET_PDEATHSIG`) means the thread that started us, and
/// a Go program may end that one at any time.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Returns once this process has another parent than it has now.
pub(super) async fn gone() {
    let parent = getppid();
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    while getppid() == parent {
        ticks.tick().await;
    }
}

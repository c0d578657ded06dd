//! Why a transfer stops early: the object asks for it, another node may have it now, or the process ends.

use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// The three reasons to stop early, as one token for the copy.
pub(crate) struct Interrupt {
    asked: CancellationToken,
    lease_lost: CancellationToken,
    shutdown: CancellationToken,
    /// Cancelled as soon as one of the three is.
    pub(crate) any: CancellationToken,
    /// The helpers that serve the transfer's disk: it has ended when they are gone.
    pub(crate) helpers: TaskTracker,
    _watching: DropGuard,
}

/// Which reason it was; the first that matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// The lease could not be renewed: nothing may be written any more.
    LeaseLost,
    /// The process ends: the next one resumes.
    Shutdown,
    /// The object asks for it.
    Asked,
}

impl Interrupt {
    pub(crate) fn new(asked: CancellationToken, lease_lost: CancellationToken, shutdown: CancellationToken) -> Self {
        let (any, watching) = (CancellationToken::new(), CancellationToken::new());
        let (first, second, third) = (asked.clone(), lease_lost.clone(), shutdown.clone());
        let (told, over) = (any.clone(), watching.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = first.cancelled() => told.cancel(),
                () = second.cancelled() => told.cancel(),
                () = third.cancelled() => told.cancel(),
                () = over.cancelled() => {}
            }
        });
        Self { asked, lease_lost, shutdown, any, helpers: TaskTracker::new(), _watching: watching.drop_guard() }
    }

    /// Why it should stop; `None` while it should not.
    pub(crate) fn why(&self) -> Option<Why> {
        if self.lease_lost.is_cancelled() {
            return Some(Why::LeaseLost);
        }
        if self.asked.is_cancelled() {
            return Some(Why::Asked);
        }
        self.shutdown.is_cancelled().then_some(Why::Shutdown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_lost_lease_outweighs_every_other_reason() {
        let (asked, lost, shutdown) = (CancellationToken::new(), CancellationToken::new(), CancellationToken::new());
        let interrupt = Interrupt::new(asked.clone(), lost.clone(), shutdown.clone());
        assert_eq!(interrupt.why(), None);
        shutdown.cancel();
        interrupt.any.cancelled().await;
        assert_eq!(interrupt.why(), Some(Why::Shutdown));
        asked.cancel();
        assert_eq!(interrupt.why(), Some(Why::Asked));
        lost.cancel();
        assert_eq!(interrupt.why(), Some(Why::LeaseLost));
    }
}

//! Locks that should be gone and may be there: the store did not answer when they were written or removed, or nobody waited for its
//! answer. They are removed in the background while this process lives; what it leaves is removed by name, or once it is stale.

use std::time::Duration;

use tracing::{info, warn};

use super::file::{self, STALE};
use crate::error::Error;
use crate::repository::Repository;
use crate::store;

/// Pause before another try. A request that was given up has arrived by then as a rule, since a lock is small; none is sure to: a put
/// may be on its way for minutes. A lock that arrives after the last try is removed by name, or once it is stale.
const PAUSE: Duration = Duration::from_secs(15);

/// Removes a lock that could not be removed, for this `cause`.
pub(super) fn removed_later(repository: Repository, id: [u8; 32], cause: &Error) {
    if may_pass(cause) {
        tokio::spawn(async move { remove(&repository, &id, 1).await });
    }
}

/// Removes a lock that could not be written, for this `cause`: it may be there all the same, or come yet. So it is removed twice.
pub(super) fn written_after_all(repository: Repository, id: [u8; 32], cause: &Error) {
    if may_pass(cause) {
        tokio::spawn(async move { remove(&repository, &id, 2).await });
    }
}

/// A lock that is being written. Where this is dropped before the store has answered, since who waits for the lock is stopped or has
/// waited long enough, the lock may be there all the same, or come yet, and nobody would know of it: so it is removed as after a failure.
pub(super) struct BeingWritten(Option<(Repository, [u8; 32])>);

impl BeingWritten {
    pub(super) fn new(repository: &Repository, id: [u8; 32]) -> Self {
        Self(Some((repository.clone(), id)))
    }

    /// The store has answered, whatever it said.
    pub(super) fn answered(mut self) {
        self.0 = None;
    }
}

impl Drop for BeingWritten {
    fn drop(&mut self) {
        let Some((repository, id)) = self.0.take() else { return };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move { remove(&repository, &id, 2).await });
    }
}

/// Whether the store was away, in contrast to one that answered *no*.
fn may_pass(cause: &Error) -> bool {
    let Error::Store { source, .. } = cause else { return false };
    matches!(source.kind(), store::ErrorKind::Unreachable | store::ErrorKind::Failed)
}

async fn remove(repository: &Repository, id: &[u8; 32], mut times: u32) {
    let stale = tokio::time::Instant::now() + Duration::try_from(STALE).unwrap_or_default();
    while times > 0 {
        tokio::time::sleep(PAUSE).await;
        match file::remove(repository, id).await {
            Ok(()) => times -= 1,
            Err(cause) if tokio::time::Instant::now() < stale => {
                info!(cause = cause.chain(), "a lock is still not removed");
            }
            Err(cause) => {
                warn!(cause = cause.chain(), "a lock stays behind; it is stale by now");
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use store::ErrorKind::{AccessDenied, BucketMissing, Failed, NotFound, Unreachable};

    #[test]
    fn a_store_that_says_no_is_not_asked_for_half_an_hour() {
        for (kind, want) in
            [(Unreachable, true), (Failed, true), (AccessDenied, false), (BucketMissing, false), (NotFound, false)]
        {
            let source = store::Error::new(kind, "delete", "locks/0", "a bucket", "on purpose");
            assert_eq!(may_pass(&Error::store("unlock the repository")(source)), want, "{kind:?}");
        }
        assert!(!may_pass(&Error::Cancelled));
    }
}

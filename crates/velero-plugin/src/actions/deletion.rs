//! A DeleteSnapshot that was written down, watched for as long as Velero waits for it. The duty is the driver's: whatever is not over by
//! then goes on, and so does what can be watched no more.

use api::{DeletePhase, DeleteSnapshot, Reason};
use lifecycle::Problem;

use super::patience::Patience;
use super::refused;
use super::waits::Waited;
use crate::protocol::kinds::ActionError;

/// Whether nothing follows any more; one that is gone was done, or somebody took it back.
pub(super) fn is_over(seen: Option<&DeleteSnapshot>) -> bool {
    seen.is_none_or(|delete| delete.phase().is_some_and(DeletePhase::is_terminal))
}

/// What Velero is told of DeleteSnapshot `name` after a wait until it [`is_over`]: only that it has failed.
///
/// # Errors
/// Why it has failed.
pub(super) fn told(
    name: &str,
    waited: Result<Waited<DeleteSnapshot>, ActionError>,
    patience: &Patience,
) -> Result<(), ActionError> {
    if let Ok(waited) = &waited {
        patience.learns(waited);
    }
    match waited {
        Ok(Waited::Settled(Some(seen))) if seen.phase() == Some(&DeletePhase::Failed) => {
            let why = seen.status.and_then(|status| status.message).unwrap_or_default();
            let cause = format!("delete {}: {why}", seen.spec.snapshot_id);
            Err(refused(&Problem::lasting(Reason::Internal, cause)))
        }
        Ok(Waited::Settled(_)) => Ok(()),
        Ok(Waited::TooLate) => {
            tracing::info!(delete = name, "it takes longer; the driver goes on with it");
            Ok(())
        }
        Err(error) => {
            tracing::info!(delete = name, error = error.message(), "not watched to its end; it goes on");
            Ok(())
        }
    }
}

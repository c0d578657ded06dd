//! Errors of the copy as what an object will say; those of vCenter and the repository are told by `connections`.

use api::Reason;
use lifecycle::Problem;

/// What a failed copy means to an object. `Cancelled` never gets here: the interrupt says why.
pub(crate) fn from_copy(act: &str, error: &data_path::Error) -> Problem {
    use data_path::Error as E;
    if let E::Repository { source, act: step } = error {
        return connections::from_repository(&format!("{act}: {step}"), source);
    }
    if let E::Unread { source, .. } = error {
        return connections::from_repository(&format!("{act}: {error}"), source);
    }
    let cause = format!("{act}: {}", Problem::chain(error));
    match error {
        E::TargetTooSmall { .. } => Problem::lasting(Reason::TargetTooSmall, cause),
        E::NotAsTracked { .. } => Problem::passing(Reason::TrackingUntrue, cause),
        E::SizeChanged { .. } | E::OtherBase { .. } => Problem::passing(Reason::DiskReadFailed, cause),
        E::Read { .. } | E::BlockStatus { .. } | E::NoExtents { .. } | E::Connect { .. } => {
            Problem::passing(Reason::DiskReadFailed, cause)
        }
        E::Write { .. } | E::TargetReadOnly => Problem::passing(Reason::DiskWriteFailed, cause),
        E::Flush { .. } | E::Close { .. } | E::Gone => Problem::passing(Reason::DiskFlushFailed, cause),
        E::Cancelled => Problem::passing(Reason::Canceled, cause),
        E::Repository { .. } | E::Unread { .. } => unreachable!("answered above"),
    }
}

//! Reads an Upload or Download as a [`Transfer`]. An unknown phase counts as *waiting*: it is no end.

use api::{Download, DownloadPhase, Time, Timestamp, Upload, UploadPhase};

use super::of_the_original::is_of_the_original;
use super::{State, Transfer};
use crate::age::SETTLING;
use crate::new_disk;

impl From<&Upload> for Transfer {
    fn from(upload: &Upload) -> Self {
        let status = upload.status.clone().unwrap_or_default();
        let due = due(status.next_retry_timestamp.as_ref());
        let state = match status.phase {
            None => waiting(upload.metadata.creation_timestamp.as_ref()),
            Some(UploadPhase::New | UploadPhase::Other(_)) => State::Waiting { from: due },
            Some(UploadPhase::InProgress) => State::Copying,
            Some(UploadPhase::UploadError) => State::Failed { retry_at: due },
            Some(UploadPhase::CleanupFailed) => State::Cleaning { retry_at: due },
            Some(UploadPhase::Canceling) => State::Cancelling { retry_at: due },
            Some(UploadPhase::Completed | UploadPhase::Canceled | UploadPhase::UploadFailedAfterRetry) => {
                State::Finished
            }
        };
        Self {
            state,
            cancel_requested: upload.spec.upload_cancel,
            deleting: upload.metadata.deletion_timestamp.is_some(),
            admitted: upload.spec.admitted.unwrap_or(true),
        }
    }
}

impl From<&Download> for Transfer {
    fn from(download: &Download) -> Self {
        let status = download.status.clone().unwrap_or_default();
        let due = due(status.next_retry_timestamp.as_ref());
        let state = match status.phase {
            _ if is_of_the_original(download) => State::Finished,
            None => waiting(download.metadata.creation_timestamp.as_ref()),
            Some(DownloadPhase::New | DownloadPhase::Other(_)) => State::Waiting { from: due },
            Some(DownloadPhase::InProgress) => State::Copying,
            Some(DownloadPhase::Retry) => State::Failed { retry_at: due },
            Some(DownloadPhase::Completed | DownloadPhase::Failed) => State::Finished,
        };
        Self {
            state,
            cancel_requested: false,
            deleting: download.metadata.deletion_timestamp.is_some(),
            // one that names no volume yet waits for the driver to make it one
            admitted: download.spec.admitted.unwrap_or(true) && new_disk::names_a_volume(download),
        }
    }
}

/// A missing time is long past: the object waits for nothing.
fn due(at: Option<&Time>) -> Timestamp {
    at.map_or(Timestamp::UNIX_EPOCH, |t| t.0)
}

fn waiting(created: Option<&Time>) -> State {
    let from = created.and_then(|t| t.0.checked_add(SETTLING).ok());
    State::Waiting { from: from.unwrap_or(Timestamp::UNIX_EPOCH) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::{UploadSpec, UploadStatus};

    #[test]
    fn an_upload_with_garbage_in_it_is_work_like_any_other() {
        let mut upload = Upload::new("upload-x", UploadSpec::default());
        assert_eq!(Transfer::from(&upload).state, State::Waiting { from: Timestamp::UNIX_EPOCH });
        upload.status = Some(UploadStatus { phase: Some(UploadPhase::from("Paused")), ..UploadStatus::default() });
        assert_eq!(Transfer::from(&upload).state, State::Waiting { from: Timestamp::UNIX_EPOCH });
        assert!(Transfer::from(&upload).admitted, "an object without the field is admitted");
    }
}

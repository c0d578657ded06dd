//! What it means for the end of a cancelled Upload that something it may have stored could not be removed.
//!
//! `Canceled` says that nothing is left behind. A store that is away may hold what was stored; one that refuses our keys does so as
//! well, where the Upload has written there before. A store that never was there, or in which the Upload never wrote, holds nothing.

use api::conditions::{self, INCREMENTAL, TRANSPORT};
use api::parameters::RepositoryFormat;
use api::{Reason, Upload, labels};

use crate::Problem;

/// What follows from a look or a removal that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leftover {
    /// Nothing of the Upload lies there.
    Nothing,
    /// Something may lie there: it is tried again.
    Stays,
    /// Something may lie there, and nobody can ever say where: it ends with a word about that.
    OutOfReach,
}

/// What may be left of a cancelled Upload where its parts in one format would lie. `in_use` is the format that is written now; `None`
/// where nobody can tell, which counts as this one.
pub fn leftover(
    upload: &Upload,
    problem: &Problem,
    format: RepositoryFormat,
    in_use: Option<RepositoryFormat>,
) -> Leftover {
    // keys for our folder alone do not reach the original's, and have never written there
    let is_in_use = in_use.is_none_or(|in_use| in_use == format);
    let theirs = format == RepositoryFormat::Legacy && has_begun(upload) && is_of_others(upload);
    let wrote = is_in_use && (was_copied(upload) || theirs);
    if problem.unanswered().is_some() {
        return stays(has_begun(upload)); // away for a while
    }
    match problem.reason {
        Reason::RepositoryUnknown | Reason::InvalidSpec if wrote => Leftover::OutOfReach,
        // the place itself is not there, or never was known
        Reason::BucketMissing | Reason::RepositoryMissing | Reason::RepositoryUnknown | Reason::InvalidSpec => {
            Leftover::Nothing
        }
        // it is there and refuses: our keys, its own key, what the repository's description says
        _ => stays(wrote),
    }
}

fn stays(does: bool) -> Leftover {
    if does { Leftover::Stays } else { Leftover::Nothing }
}

/// Whether a node has taken it.
fn has_begun(upload: &Upload) -> bool {
    upload.status.as_ref().is_some_and(|status| status.start_timestamp.is_some())
}

/// Whether a node of ours came as far as the disk, which it opens after the store, or was stopped before it said so
/// ([`cancelling`](super::upload::cancelling)).
fn was_copied(upload: &Upload) -> bool {
    upload.status.as_ref().is_some_and(|status| {
        let said = |type_| conditions::get(&status.conditions, type_).is_some();
        status.progress.total_bytes > 0 || said(TRANSPORT) || said(INCREMENTAL)
    })
}

/// Whether the driver did not make it: the original does not say how far it came.
fn is_of_others(upload: &Upload) -> bool {
    !upload.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(labels::SNAPSHOT_UID))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::transfer::upload as says;
    use api::{Progress, Time, Timestamp, UploadSpec, UploadStatus};

    fn upload() -> Upload {
        let mut upload = Upload::new("upload-s", UploadSpec::default());
        upload.metadata.labels = Some([(labels::SNAPSHOT_UID.to_owned(), "u-1".to_owned())].into());
        upload
    }

    fn begun(mut upload: Upload) -> Upload {
        upload.status.get_or_insert_default().start_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
        upload
    }

    fn copied(upload: Upload) -> Upload {
        let mut upload = begun(upload);
        upload.status.get_or_insert_default().progress = Progress { total_bytes: 1 << 30, ..Progress::default() };
        upload
    }

    fn cancelled_as(status: impl Fn(&UploadStatus) -> UploadStatus) -> Upload {
        let before = says::new(Timestamp::UNIX_EPOCH);
        Upload { status: Some(says::cancelling(&status(&before), Timestamp::UNIX_EPOCH)), ..upload() }
    }

    /// No word about the disk came: it is said every two seconds, and a small copy has ended by then.
    fn cut_off() -> Upload {
        cancelled_as(|new| says::started(new, "node-a", Timestamp::UNIX_EPOCH))
    }

    fn between_attempts() -> Upload {
        let problem = Problem::passing(Reason::StoreAccessDenied, "open the repository");
        let now = Timestamp::UNIX_EPOCH;
        cancelled_as(|new| {
            let running = says::started(new, "node-a", now);
            match says::attempt_failed(&running, &problem, crate::retry::UploadRetries::default(), now) {
                says::AfterFailure::TryAgain(failed) => failed,
                says::AfterFailure::GiveUp => unreachable!("the first failure is tried again"),
            }
        })
    }

    /// As the original leaves it: without a word of ours.
    fn cut_off_original() -> Upload {
        let cut_off = cancelled_as(|new| UploadStatus {
            phase: Some(api::UploadPhase::InProgress),
            start_timestamp: Some(Time(Timestamp::UNIX_EPOCH)),
            conditions: Vec::new(),
            ..new.clone()
        });
        originals(cut_off)
    }

    fn originals(mut upload: Upload) -> Upload {
        upload.metadata.labels = None;
        upload
    }

    #[test]
    fn canceled_is_said_only_where_nothing_can_be_left() {
        use Leftover::{Nothing, OutOfReach, Stays};
        use Reason::{
            BucketMissing, RepositoryInvalid, RepositoryMissing, RepositoryPasswordMissing, RepositoryPasswordWrong,
            RepositoryUnknown, StorageLocationMissing, StoreAccessDenied, StoreUnreachable,
        };
        use RepositoryFormat::{Legacy, Restic};
        let cases = [
            ("nobody took it, the store is away", upload(), StoreUnreachable, Restic, Restic, Nothing),
            ("a node took it, the store is away", begun(upload()), StoreUnreachable, Restic, Restic, Stays),
            ("in the other format as well", begun(upload()), StoreUnreachable, Legacy, Restic, Stays),
            ("its keys never opened the store", begun(upload()), StoreAccessDenied, Restic, Restic, Nothing),
            ("the same, with a failed attempt", between_attempts(), StoreAccessDenied, Restic, Restic, Nothing),
            ("its node died at once, its keys were changed", cut_off(), StoreAccessDenied, Restic, Restic, Stays),
            ("the same, and it was to be in the other format", cut_off(), StoreAccessDenied, Legacy, Restic, Nothing),
            ("its node died at once, the bucket is gone", cut_off(), BucketMissing, Restic, Restic, Nothing),
            ("the original was killed as it copied", cut_off_original(), StoreAccessDenied, Legacy, Legacy, Stays),
            ("it did not write in our format", cut_off_original(), StoreAccessDenied, Restic, Restic, Nothing),
            ("its keys were taken away in the middle", copied(upload()), StoreAccessDenied, Restic, Restic, Stays),
            ("the same in the original's layout", copied(upload()), StoreAccessDenied, Legacy, Legacy, Stays),
            ("keys for our folder alone", copied(upload()), StoreAccessDenied, Legacy, Restic, Nothing),
            (
                "no key, and nothing was written with one",
                copied(upload()),
                RepositoryPasswordMissing,
                Restic,
                Legacy,
                Nothing,
            ),
            ("its key was taken away", copied(upload()), RepositoryPasswordMissing, Restic, Restic, Stays),
            ("its key was changed", copied(upload()), RepositoryPasswordWrong, Restic, Restic, Stays),
            ("its description was changed", copied(upload()), RepositoryInvalid, Restic, Restic, Stays),
            ("its location was taken away", copied(upload()), StorageLocationMissing, Restic, Restic, Stays),
            ("its bucket was removed", copied(upload()), BucketMissing, Restic, Restic, Nothing),
            ("its repository was removed", copied(upload()), RepositoryMissing, Restic, Restic, Nothing),
            ("nobody knows its repository", copied(upload()), RepositoryUnknown, Restic, Restic, OutOfReach),
            ("nobody ever knew it", begun(upload()), RepositoryUnknown, Restic, Restic, Nothing),
            ("the original may have written", originals(begun(upload())), StoreAccessDenied, Legacy, Legacy, Stays),
            (
                "made by hand, keys for our folder",
                originals(begun(upload())),
                StoreAccessDenied,
                Legacy,
                Restic,
                Nothing,
            ),
            ("it writes in its layout only", originals(begun(upload())), StoreAccessDenied, Restic, Restic, Nothing),
            ("the original never began", originals(upload()), StoreAccessDenied, Legacy, Legacy, Nothing),
        ];
        for (situation, upload, reason, format, in_use, want) in cases {
            let problem = Problem::passing(reason, "open the repository");
            assert_eq!(leftover(&upload, &problem, format, Some(in_use)), want, "{situation}");
        }
        let denied = Problem::passing(StoreAccessDenied, "open the repository");
        assert_eq!(
            leftover(&copied(upload()), &denied, Legacy, None),
            Stays,
            "nobody can tell in which format it wrote"
        );
    }
}

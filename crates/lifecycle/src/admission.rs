//! Decides which Uploads may start where many read from one datastore: `uploads-per-datastore`.
//!
//! The driver makes an Upload with `admitted: false` where the setting is in force, and lets it start when there is room.
//! Whoever waits longest goes first. A failed attempt gives its room back and asks again for the next one. Restores are
//! never held back.

use std::collections::HashMap;
use std::num::NonZeroU32;

use api::{Timestamp, Upload, UploadPhase};

/// How many Uploads may read from one datastore at a time; `None` is any number.
pub type Budget = Option<NonZeroU32>;

/// The setting cannot be followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("uploads-per-datastore is `{text}`, which is no whole number above 0")]
pub struct NoBudget {
    text: String,
}

/// Reads the setting; without one there is no budget.
///
/// # Errors
/// When it is no whole number above 0.
pub fn budget(text: Option<&str>) -> Result<Budget, NoBudget> {
    text.map(|text| text.parse().map_err(|_| NoBudget { text: text.to_owned() })).transpose()
}

/// What is to be written to an Upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It may start.
    Admit,
    /// It waits; the text says for what, and stays the same while it waits for the same.
    HoldBack(String),
    /// Its attempt failed: its room is somebody else's until it asks again.
    TakeBack,
}

/// Decides about all Uploads of an installation at once; those that nothing is to be written to are left out.
///
/// `granted` tells of an Upload that it was admitted a moment ago, though it does not show that yet.
pub fn verdicts(
    uploads: &[impl AsRef<Upload>],
    budget: Budget,
    granted: impl Fn(&Upload) -> bool,
    now: Timestamp,
) -> Vec<(&Upload, Verdict)> {
    let uploads: Vec<&Upload> = uploads.iter().map(AsRef::as_ref).collect();
    let mut used: HashMap<&str, u32> = HashMap::new();
    let (mut asking, mut verdicts) = (Vec::new(), Vec::new());
    for &upload in &uploads {
        match (stands(upload, granted(upload), now), datastore(upload)) {
            (Stands::Asks, _) => asking.push(upload),
            (Stands::Reads, Some(datastore)) => *used.entry(datastore).or_default() += 1,
            (Stands::Failed, Some(_)) if budget.is_some() => verdicts.push((upload, Verdict::TakeBack)),
            (Stands::Reads | Stands::Failed | Stands::Rests, _) => {}
        }
    }
    asking.sort_by_key(|upload| (upload.metadata.creation_timestamp.as_ref().map(|t| t.0), &upload.metadata.name));
    for upload in asking {
        let (Some(datastore), Some(budget)) = (datastore(upload), budget) else {
            verdicts.push((upload, Verdict::Admit));
            continue;
        };
        let used = used.entry(datastore).or_default();
        if *used < budget.get() {
            *used += 1;
            verdicts.push((upload, Verdict::Admit));
        } else {
            let verb = if budget.get() == 1 { "upload reads" } else { "uploads read" };
            verdicts.push((upload, Verdict::HoldBack(format!("{budget} {verb} from datastore {datastore} already"))));
        }
    }
    verdicts
}

/// Where an Upload stands, as far as the room on its datastore goes.
enum Stands {
    /// It has ended, is about to, or is not due yet.
    Rests,
    /// It waits to be admitted.
    Asks,
    /// It reads, or may begin to at any moment.
    Reads,
    /// Its last attempt failed, and it is admitted.
    Failed,
}

fn stands(upload: &Upload, granted: bool, now: Timestamp) -> Stands {
    let ending = upload.spec.upload_cancel || upload.metadata.deletion_timestamp.is_some();
    let admitted = granted || upload.spec.admitted != Some(false);
    let due = upload.status.as_ref().and_then(|s| s.next_retry_timestamp.as_ref()).is_none_or(|at| at.0 <= now);
    match upload.phase() {
        Some(UploadPhase::InProgress) => Stands::Reads, // also while it is being cancelled
        _ if ending => Stands::Rests,
        None | Some(UploadPhase::New | UploadPhase::Other(_)) if admitted => Stands::Reads,
        None | Some(UploadPhase::New | UploadPhase::Other(_)) => Stands::Asks,
        // admitted for the attempt that is due: its phase stays until a node takes it
        Some(UploadPhase::UploadError) if granted || (admitted && due) => Stands::Reads,
        Some(UploadPhase::UploadError) if admitted => Stands::Failed,
        Some(UploadPhase::UploadError) if due => Stands::Asks,
        Some(_) => Stands::Rests,
    }
}

fn datastore(upload: &Upload) -> Option<&str> {
    upload.spec.datastore.as_deref().filter(|datastore| !datastore.is_empty())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use api::{Time, UploadSpec, UploadStatus};

    fn noon() -> Timestamp {
        "2026-01-02T12:00:00Z".parse().unwrap()
    }

    fn later() -> Time {
        Time("2026-01-02T12:30:00Z".parse().unwrap())
    }

    /// An Upload that was made at this second after nine.
    fn upload(name: &str, second: i64, datastore: Option<&str>, admitted: Option<bool>) -> Box<Upload> {
        let spec = UploadSpec { datastore: datastore.map(str::to_owned), admitted, ..UploadSpec::default() };
        let mut upload = Upload::new(name, spec);
        let nine: Timestamp = "2026-01-02T09:00:00Z".parse().unwrap();
        upload.metadata.creation_timestamp = Some(Time(nine + k8s_openapi::jiff::SignedDuration::from_secs(second)));
        upload.status = Some(UploadStatus { phase: Some(UploadPhase::New), ..UploadStatus::default() });
        Box::new(upload)
    }

    fn asks(name: &str, second: i64) -> Box<Upload> {
        upload(name, second, Some("datastore-1"), Some(false))
    }

    fn at(phase: UploadPhase, admitted: bool, next: Option<Time>) -> Box<Upload> {
        let mut upload = upload("first", 0, Some("datastore-1"), Some(admitted));
        upload.status =
            Some(UploadStatus { phase: Some(phase), next_retry_timestamp: next, ..UploadStatus::default() });
        upload
    }

    fn of(uploads: &[Box<Upload>], budget: u32) -> Vec<(String, Verdict)> {
        let all = verdicts(uploads, NonZeroU32::new(budget), |_| false, noon());
        all.into_iter().map(|(upload, verdict)| (upload.metadata.name.clone().unwrap(), verdict)).collect()
    }

    fn waits(count: u32) -> Verdict {
        let verb = if count == 1 { "upload reads" } else { "uploads read" };
        Verdict::HoldBack(format!("{count} {verb} from datastore datastore-1 already"))
    }

    #[test]
    fn who_waits_longest_goes_first_and_no_more_than_the_setting_says() {
        let uploads = [asks("c", 3), asks("a", 1), asks("b", 2)];
        let named = |all: [(&str, Verdict); 3]| all.map(|(name, verdict)| (name.to_owned(), verdict)).to_vec();
        assert_eq!(of(&uploads, 2), named([("a", Verdict::Admit), ("b", Verdict::Admit), ("c", waits(2))]));
        assert_eq!(of(&uploads, 1), named([("a", Verdict::Admit), ("b", waits(1)), ("c", waits(1))]));
        assert!(of(&uploads, 0).iter().all(|(_, verdict)| *verdict == Verdict::Admit), "the setting was taken away");
    }

    #[test]
    fn what_takes_room_from_another_upload_of_its_datastore() {
        let mut cancelled = at(UploadPhase::New, true, None);
        cancelled.spec.upload_cancel = true;
        let mut cancelled_while_it_reads = at(UploadPhase::InProgress, true, None);
        cancelled_while_it_reads.spec.upload_cancel = true;
        let cases = [
            ("it reads", at(UploadPhase::InProgress, true, None), true),
            ("it reads and is to stop", cancelled_while_it_reads, true),
            ("it may begin", at(UploadPhase::New, true, None), true),
            ("made before the setting", upload("first", 0, Some("datastore-1"), None), true),
            ("of another datastore", upload("first", 0, Some("datastore-2"), Some(true)), false),
            ("nobody knows its datastore", upload("first", 0, None, Some(true)), false),
            ("it is to stop before it began", cancelled, false),
            ("it has ended", at(UploadPhase::Completed, true, None), false),
            ("only its disk snapshot is left", at(UploadPhase::CleanupFailed, true, None), false),
            ("it failed", at(UploadPhase::UploadError, true, Some(later())), false),
            ("it failed and is not due", at(UploadPhase::UploadError, false, Some(later())), false),
            ("it failed and was admitted again", at(UploadPhase::UploadError, true, Some(Time(noon()))), true),
            ("it failed and asks again", at(UploadPhase::UploadError, false, Some(Time(noon()))), true),
        ];
        for (case, first, takes_room) in cases {
            let verdicts = of(&[first, asks("second", 9)], 1);
            let second = verdicts.iter().find(|(name, _)| name == "second").unwrap();
            assert_eq!(second.1, if takes_room { waits(1) } else { Verdict::Admit }, "{case}");
        }
    }

    #[test]
    fn an_attempt_that_failed_gives_its_room_back_where_there_is_a_budget() {
        let failed = || [at(UploadPhase::UploadError, true, Some(later()))];
        assert_eq!(of(&failed(), 1), [("first".to_owned(), Verdict::TakeBack)]);
        assert_eq!(of(&failed(), 0), []);
        let asks_again = [at(UploadPhase::UploadError, false, Some(Time(noon())))];
        assert_eq!(of(&asks_again, 1), [("first".to_owned(), Verdict::Admit)]);
        let admitted_again = [at(UploadPhase::UploadError, true, Some(Time(noon())))];
        assert_eq!(of(&admitted_again, 1), [], "it would never start if that was taken back at once");
    }

    #[test]
    fn an_upload_that_was_admitted_a_moment_ago_is_not_admitted_twice() {
        let uploads = [asks("first", 1), asks("second", 2)];
        let all = verdicts(&uploads, NonZeroU32::new(1), |u| u.metadata.name.as_deref() == Some("first"), noon());
        assert_eq!(all, [(&*uploads[1], waits(1))]);
    }

    #[test]
    fn a_setting_that_cannot_be_followed_is_named() {
        assert_eq!((budget(None), budget(Some("3"))), (Ok(None), Ok(NonZeroU32::new(3))));
        for text in ["0", "-1", "two", "1.5"] {
            assert!(budget(Some(text)).unwrap_err().to_string().contains(text), "{text}");
        }
    }
}

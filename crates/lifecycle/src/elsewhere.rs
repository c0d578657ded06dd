//! What an object says that lies in a namespace where nobody reads its kind. Snapshots and clones lie with their claims; the other kinds
//! are read in the Velero namespace alone.
//!
//! A condition, and the message where the kind has one; no phase, which would say that somebody has it.

use api::conditions::{self, READY, Status};
use api::{
    BackupRepositoryClaim, Condition, DeletePhase, DeleteSnapshot, DeleteSnapshotStatus, Download, DownloadPhase,
    DownloadStatus, Reason, RepositoryStatus, Timestamp, Upload, UploadPhase, UploadStatus,
};

use crate::Problem;

/// A kind that is read in the Velero namespace alone.
pub trait OfOnePlace {
    /// Its status.
    type Status: Clone + Default;
    /// The status it has.
    fn said(&self) -> Option<&Self::Status>;
    /// Whether somebody has answered it or said that it goes on or has ended: as the controllers of another installation would.
    fn is_answered(&self) -> bool;
    /// The conditions in a status.
    fn conditions(status: &mut Self::Status) -> &mut Vec<Condition>;
    /// The message in a status, where the kind has one.
    fn message(status: &mut Self::Status) -> Option<&mut Option<String>>;
}

macro_rules! of_one_place {
    ($kind:ident, $status:ident, $phase:ident) => {
        impl OfOnePlace for $kind {
            type Status = $status;

            fn said(&self) -> Option<&$status> {
                self.status.as_ref()
            }

            fn is_answered(&self) -> bool {
                let phase = self.status.as_ref().and_then(|status| status.phase.as_ref());
                phase.is_some_and(|phase| *phase != $phase::New)
            }

            fn conditions(status: &mut $status) -> &mut Vec<Condition> {
                &mut status.conditions
            }

            fn message(status: &mut $status) -> Option<&mut Option<String>> {
                Some(&mut status.message)
            }
        }
    };
}

of_one_place!(Upload, UploadStatus, UploadPhase);
of_one_place!(Download, DownloadStatus, DownloadPhase);
of_one_place!(DeleteSnapshot, DeleteSnapshotStatus, DeletePhase);

/// It has no phase and no message: it is answered with a name.
impl OfOnePlace for BackupRepositoryClaim {
    type Status = RepositoryStatus;

    fn said(&self) -> Option<&RepositoryStatus> {
        self.status.as_ref()
    }

    fn is_answered(&self) -> bool {
        self.backup_repository.as_deref().is_some_and(|name| !name.is_empty())
    }

    fn conditions(status: &mut RepositoryStatus) -> &mut Vec<Condition> {
        &mut status.conditions
    }

    fn message(_: &mut RepositoryStatus) -> Option<&mut Option<String>> {
        None
    }
}

/// Why nobody will look at an object of that kind.
pub fn problem(kind: &str, namespace: &str, velero_namespace: &str) -> Problem {
    let article = if kind.starts_with(['A', 'E', 'I', 'O', 'U']) { "an" } else { "a" };
    let cause =
        format!("it is in namespace {namespace}; {article} {kind} is read in namespace {velero_namespace} only");
    let fix = format!("Make it in namespace {velero_namespace} and delete this one.");
    Problem::lasting(Reason::WrongNamespace, cause).with_fix(Some(fix))
}

/// The status that says so; `None` where somebody works on the object all the same, or has: that status is theirs. The same again once it
/// was said.
pub fn status<K: OfOnePlace>(object: &K, problem: &Problem, now: Timestamp) -> Option<K::Status> {
    let mut status = object.said().cloned().unwrap_or_default();
    let ready = conditions::get(K::conditions(&mut status), READY);
    let is_anothers = ready.is_some_and(|ready| ready.reason != problem.reason.as_str());
    if is_anothers || object.is_answered() {
        return None;
    }
    let told = problem.message();
    conditions::set(K::conditions(&mut status), READY, Status::False, problem.reason, &told, now);
    if let Some(message) = K::message(&mut status) {
        *message = Some(told);
    }
    Some(status)
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::{DeleteSnapshotSpec, DownloadSpec, UploadSpec};

    fn noon() -> Timestamp {
        Timestamp::from_second(43_200).expect("a time")
    }

    fn astray(kind: &str) -> Problem {
        problem(kind, "shop", "velero")
    }

    /// What stands in the condition and in the message once it was said.
    fn told<K: OfOnePlace>(object: &K, kind: &str) -> Option<(Condition, Option<String>)> {
        let mut status = status(object, &astray(kind), noon())?;
        let ready = conditions::get(K::conditions(&mut status), READY).cloned()?;
        Some((ready, K::message(&mut status).cloned().flatten()))
    }

    #[test]
    fn whoever_looks_at_an_object_in_the_wrong_namespace_finds_why_nothing_happens() {
        let (upload, download) = (Upload::new("u", UploadSpec::default()), Download::new("d", DownloadSpec::default()));
        let delete = DeleteSnapshot::new("x", DeleteSnapshotSpec::default());
        let cases = [
            ("Upload", told(&upload, "Upload"), true),
            ("Download", told(&download, "Download"), true),
            ("DeleteSnapshot", told(&delete, "DeleteSnapshot"), true),
            ("BackupRepositoryClaim", told(&BackupRepositoryClaim::new("c"), "BackupRepositoryClaim"), false),
        ];
        for (kind, told, has_a_message) in cases {
            let Some((ready, message)) = told else { panic!("{kind} says nothing") };
            assert_eq!((ready.status.as_str(), ready.reason.as_str()), ("False", "WrongNamespace"), "{kind}");
            for word in ["shop", "velero", kind, "delete this one"] {
                assert!(ready.message.contains(word), "`{word}` is not in {}", ready.message);
            }
            assert_eq!(message, has_a_message.then_some(ready.message), "{kind}");
        }
    }

    #[test]
    fn an_object_in_the_wrong_namespace_is_told_once_and_gets_no_phase() {
        let mut upload = Upload::new("u", UploadSpec::default());
        upload.status = status(&upload, &astray("Upload"), noon());
        assert_eq!(upload.phase(), None);
        let again = Timestamp::from_second(86_400).expect("a time");
        assert_eq!(status(&upload, &astray("Upload"), again), upload.status, "nothing is to be written");
    }

    #[test]
    fn what_others_have_said_of_an_object_is_not_written_over() {
        let with = |phase: &str| {
            let status = UploadStatus { phase: Some(UploadPhase::from(phase)), ..UploadStatus::default() };
            Upload { status: Some(status), ..Upload::new("u", UploadSpec::default()) }
        };
        assert!(status(&with("New"), &astray("Upload"), noon()).is_some(), "whoever made it has written that");
        for phase in ["InProgress", "Completed", "UploadError", "Paused"] {
            assert_eq!(status(&with(phase), &astray("Upload"), noon()), None, "{phase}");
        }
        let mut waits = with("New");
        let said = waits.status.get_or_insert_default();
        conditions::set(&mut said.conditions, READY, Status::False, Reason::Queued, "", noon());
        assert_eq!(status(&waits, &astray("Upload"), noon()), None, "a controller has met it");
        let mut claim = BackupRepositoryClaim::new("c");
        claim.backup_repository = Some("br-1".to_owned());
        assert_eq!(status(&claim, &astray("BackupRepositoryClaim"), noon()), None, "it is answered");
    }
}

//! What the status of a DeleteSnapshot says. The original's phases: `New` until it is done, then `Completed`.

use api::conditions::{self, BACKUP_FOUND, READY, Status};
use api::{DeletePhase, DeleteSnapshotStatus, Reason, Time, Timestamp, WITHOUT_BACKUP_REPOSITORY};

use super::Waits;
use crate::Problem;

/// Its Upload is being stopped.
pub fn waiting(before: &DeleteSnapshotStatus, waits: &Waits, now: Timestamp) -> DeleteSnapshotStatus {
    told_once(before, waits.reason, &waits.message, now)
}

/// The first attempt begins. Later ones leave the reason of the last in place: it is what people look for.
pub fn erasing(before: &DeleteSnapshotStatus, now: Timestamp) -> DeleteSnapshotStatus {
    let waited = [Reason::Canceling.as_str(), Reason::NotStopping.as_str()];
    let tried = conditions::get(&before.conditions, READY).is_some_and(|c| !waited.contains(&c.reason.as_str()));
    if tried {
        return before.clone();
    }
    working(before, Reason::Deleting, "deleting the disk snapshot and the restore point", now)
}

/// Its backup was found, as [`found_first`](super::found_first) says `place`; what is removed of it later was there. `generation` is that
/// of the request: one that somebody corrects means another backup.
pub fn found(
    before: &DeleteSnapshotStatus,
    place: &str,
    generation: Option<i64>,
    now: Timestamp,
) -> DeleteSnapshotStatus {
    let mut status = before.clone();
    conditions::set(&mut status.conditions, BACKUP_FOUND, Status::True, Reason::Deleting, place, now);
    for said in status.conditions.iter_mut().filter(|said| said.type_ == BACKUP_FOUND) {
        said.observed_generation = generation;
    }
    status
}

/// Where the last attempt has looked for the backup.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Looked {
    /// For the disk snapshot alone: local mode.
    #[default]
    InVsphere,
    /// For the disk snapshot, and in the bucket.
    InBucket {
        /// The BackupRepository, as spec.backupRepository names it.
        repository: String,
        /// The namespace whose repository was looked in, and whether there is one; `None`: in the original's layout alone.
        namespace: Option<(String, bool)>,
    },
}

impl Looked {
    /// What is said where nothing was found.
    fn in_vain(&self, originals_refused: bool) -> String {
        let Self::InBucket { repository, namespace } = self else {
            return "no such disk snapshot is there; spec.backupRepository is empty, so no bucket was looked at"
                .to_owned();
        };
        let ours = namespace.as_ref().map(|(namespace, is_there)| {
            let none = if *is_there { "" } else { " (there is none)" };
            format!("in the repository of namespace {namespace}{none}")
        });
        let theirs = (!originals_refused).then(|| "in the original's layout".to_owned());
        let places: Vec<String> = ours.into_iter().chain(theirs).collect();
        let through = match repository.as_str() {
            WITHOUT_BACKUP_REPOSITORY => "BackupStorageLocation default".to_owned(),
            name => format!("BackupRepository {name}"),
        };
        format!("nothing of a backup with that id is there: looked {}, {through}", places.join(" and "))
    }
}

/// What the last attempt has removed of a backup.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Removed {
    /// Its disk snapshot was there.
    pub disk_snapshot: bool,
    /// Its restore point, or what lay of it in the original's layout.
    pub point: bool,
    /// Nobody could look in the original's layout: our keys are for our folder alone.
    pub originals_refused: bool,
    /// Where it was looked for.
    pub looked: Looked,
}

/// Both are gone. The message is the original's; the condition says as well where the last attempt found nothing of the backup, and where it
/// looked: an id may be mistyped, the wrong repository named or none, or it may lie where our keys do not reach.
pub fn completed(before: &DeleteSnapshotStatus, removed: &Removed, now: Timestamp) -> DeleteSnapshotStatus {
    let message = "DeleteSnapshot Successfully processed.";
    let was_there = removed.disk_snapshot || removed.point;
    let mut told = if was_there { message.to_owned() } else { removed.looked.in_vain(removed.originals_refused) };
    if removed.originals_refused && !removed.point {
        told = format!("{}; {NOT_LOOKED_AT}", told.trim_end_matches('.'));
    }
    let mut status = ended(before, DeletePhase::Completed, message, now);
    conditions::set(&mut status.conditions, READY, Status::True, Reason::Completed, &told, now);
    status
}

const NOT_LOOKED_AT: &str =
    "no restore point was found, and our keys do not reach the original's folder: a backup in its layout would stay";

/// An attempt failed and is repeated.
pub fn not_yet(before: &DeleteSnapshotStatus, problem: &Problem, now: Timestamp) -> DeleteSnapshotStatus {
    told_once(before, problem.reason, &problem.message(), now)
}

/// `message` says why it is not done yet. The condition keeps its first words for as long as the reason stays, so that
/// one reason makes one event.
fn told_once(before: &DeleteSnapshotStatus, reason: Reason, message: &str, now: Timestamp) -> DeleteSnapshotStatus {
    let told = conditions::get(&before.conditions, READY).filter(|c| c.reason == reason.as_str());
    let words = told.map_or_else(|| message.to_owned(), |c| c.message.clone());
    let mut status = working(before, reason, &words, now);
    status.message = Some(message.to_owned());
    status
}

/// It cannot be done.
pub fn failed(before: &DeleteSnapshotStatus, problem: &Problem, now: Timestamp) -> DeleteSnapshotStatus {
    let mut status = ended(before, DeletePhase::Failed, &problem.message(), now);
    conditions::set(&mut status.conditions, READY, Status::False, problem.reason, &problem.message(), now);
    status
}

fn working(before: &DeleteSnapshotStatus, reason: Reason, message: &str, now: Timestamp) -> DeleteSnapshotStatus {
    let mut status = before.clone();
    status.phase.get_or_insert(DeletePhase::New);
    conditions::set(&mut status.conditions, READY, Status::False, reason, message, now);
    status
}

fn ended(before: &DeleteSnapshotStatus, phase: DeletePhase, message: &str, now: Timestamp) -> DeleteSnapshotStatus {
    DeleteSnapshotStatus {
        phase: Some(phase),
        message: Some(message.to_owned()),
        completion_timestamp: Some(Time(now)),
        conditions: before.conditions.clone(),
    }
}

//! Frees the space of what no restore point needs, while backups go on.
//!
//! A pack goes when nobody has needed it for the grace: no snapshot of anyone refers to a blob in it. Packs go whole;
//! nothing is packed again, and no restore point is removed. [`Repository::maintain`] does it in this order, and a kill
//! between any two steps leaves every restore point whole and the rest to the next run:
//!
//! 1. An exclusive lock: other programs and other runs keep away. Our transfers do not mind it.
//! 2. Index files, packs, snapshots and their trees are read: which packs are needed?
//! 3. **Mark**: an object under `maintenance/marked/` says which packs nobody needs, and since when.
//! 4. **Condemn** those marked for longer than the grace: an object under `maintenance/condemned/` names them. Writers
//!    do not refer to what it names.
//! 5. Snapshots and index files are listed **again**: what new ones need or list stays.
//! 6. New index files without the packs that go are stored and read back; then the old ones are removed.
//! 7. The packs are removed, then the marks and the word of step 4 are brought up to date.
//! 8. Checkpoints of transfers to which nobody has come back for the grace are removed, and what puts that were killed left in
//!    a folder.
//!
//! Steps 4 and 5 on this side, *store the snapshot file*, then *ask what is condemned and what is listed* on the writer's:
//! one of the two sees the other. That holds for any grace; the grace is for restores of points deleted meanwhile, and
//! for backups, which would have to send again what they had taken over. restic does not look below `maintenance/`.

mod id_set;
mod notes;
mod replace;
mod survey;
#[cfg(test)]
mod tests;
mod trees;

use std::collections::HashSet;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::disk_image::sweep_transfers;
use crate::error::Error;
use crate::lock::Lock;
use crate::pack;
use crate::repository::Repository;
use crate::store;
use crate::unpacked::Folder;
use notes::Marks;
pub(crate) use notes::condemned;
#[cfg(fuzzing)]
pub(crate) use notes::read as read_note;
use survey::Survey;

/// How long a pack must have been of no use before it goes; a shorter grace must be asked for.
pub const GRACE: Duration = Duration::from_secs(72 * 3600);

/// Objects removed at once.
const REMOVALS_AT_ONCE: usize = 8;

/// Packs removed between two looks at the lock and at whether to stop.
const BATCH: usize = 64;

/// How a maintenance run works.
#[derive(Debug, Clone)]
pub struct MaintenanceOptions {
    /// In whose name the lock is: the driver's, or the machine's.
    pub holder: String,
    /// How long a pack must have been of no use before it goes; [`GRACE`].
    pub grace: Duration,
    /// Allows a grace shorter than [`GRACE`]. Such a run waits until no transfer holds a lock.
    pub allow_short_grace: bool,
    /// How long such a run waits for transfers; 10 minutes.
    pub patience: Duration,
    /// Only says what would be marked and removed. Takes no lock, writes nothing.
    pub dry_run: bool,
}

impl Default for MaintenanceOptions {
    fn default() -> Self {
        Self {
            holder: "maintenance".to_owned(),
            grace: GRACE,
            allow_short_grace: false,
            patience: Duration::from_secs(600),
            dry_run: false,
        }
    }
}

impl MaintenanceOptions {
    fn has_short_grace(&self) -> bool {
        self.grace < GRACE
    }

    fn grace(&self) -> SignedDuration {
        SignedDuration::try_from(self.grace).unwrap_or(SignedDuration::MAX)
    }
}

/// What a maintenance run found and did, or would do. Sizes in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Snapshots that were read, other programs' included.
    pub snapshots: usize,
    /// Packs in the store before.
    pub packs: usize,
    /// Their size.
    pub bytes: u64,
    /// Packs of these that nobody needs, those that were removed included.
    pub packs_unused: usize,
    /// Their size.
    pub bytes_unused: u64,
    /// Packs that were removed; in a dry run, that would be.
    pub packs_removed: usize,
    /// Their size.
    pub bytes_removed: u64,
    /// Index files that others took the place of.
    pub index_files_replaced: usize,
    /// Transfers that were cut short and to which nobody has come back for the grace: their checkpoints were removed.
    pub transfers_swept: usize,
    /// When the next of the unused packs has been of no use for the grace; `None` when no unused pack is left.
    pub next_due: Option<Timestamp>,
}

/// One run.
struct Run<'a> {
    repository: &'a Repository,
    options: &'a MaintenanceOptions,
    now: Timestamp,
    cancel: &'a CancellationToken,
}

/// [`Repository::maintain`] at the time `now`.
pub(crate) async fn run(
    repository: &Repository,
    options: &MaintenanceOptions,
    now: Timestamp,
    cancel: &CancellationToken,
) -> Result<Report, Error> {
    if options.has_short_grace() && !options.allow_short_grace {
        let hours = GRACE.as_secs() / 3600;
        let cause = format!("a grace shorter than {hours} hours must be allowed explicitly (allow-short-grace)");
        return Err(Error::InvalidUse { cause });
    }
    let run = Run { repository, options, now, cancel };
    if options.dry_run {
        return run.plan().await.map(|plan| plan.report);
    }
    may_delete(repository).await?;
    let lock = Lock::take_exclusive(repository.clone(), &options.holder).await?;
    let done = run.with(&lock).await;
    let released = lock.release().await;
    let report = done?;
    released?;
    info!(
        unused = report.packs_unused,
        removed = report.packs_removed,
        bytes = report.bytes_removed,
        place = %repository.place(),
        "maintenance done"
    );
    Ok(report)
}

/// What shall be done, before anything is.
struct Plan {
    survey: Survey,
    marks: Marks,
    /// Packs marked for longer than the grace.
    due: HashSet<[u8; 32]>,
    report: Report,
}

impl Run<'_> {
    async fn with(&self, lock: &Lock) -> Result<Report, Error> {
        if self.options.has_short_grace() {
            tokio::select! {
                waited = lock.wait_for_transfers(self.options.patience) => waited?,
                () = self.cancel.cancelled() => return Err(Error::Cancelled),
            }
        }
        let mut plan = self.plan().await?;
        self.may_go_on(lock).await?;
        plan.marks.store(self.repository).await?;
        let going = if plan.due.is_empty() { HashSet::new() } else { self.remove(&mut plan, lock).await? };
        plan.marks.forget(&going);
        plan.marks.store(self.repository).await?;
        notes::withdraw(self.repository).await?;
        match sweep_transfers(self.repository, self.options.grace(), self.now).await {
            Ok(swept) => plan.report.transfers_swept = swept,
            Err(error) => tracing::warn!(error = error.chain(), "old checkpoints stay until the next run"),
        }
        match self.repository.inner.store.sweep().await {
            Ok(0) => {}
            Ok(files) => info!(files, "removed what killed writers left behind"),
            Err(error) => {
                let error = crate::error::chain(&error);
                tracing::warn!(error, "temporary files of killed writers stay until the next run");
            }
        }
        plan.report.next_due = plan.marks.next_due(self.options.grace());
        Ok(plan.report)
    }

    /// Reads everything, changes nothing.
    async fn plan(&self) -> Result<Plan, Error> {
        let earlier = Marks::load(self.repository).await?;
        let survey = Survey::take(self.repository, self.cancel).await?;
        let unused = survey.unused();
        let marks = earlier.renewed(unused.keys().copied(), self.now);
        let due = marks.due(self.options.grace(), self.now);
        let mut report = Report {
            snapshots: survey.snapshots(),
            packs: survey.present().len(),
            bytes: survey.present().values().sum(),
            packs_unused: unused.len(),
            bytes_unused: unused.values().sum(),
            ..Report::default()
        };
        count_removed(&mut report, &survey, &due);
        let mut left = marks.clone();
        left.forget(&due);
        report.next_due = left.next_due(self.options.grace());
        Ok(Plan { survey, marks, due, report })
    }

    /// Removes what is due and not needed after all; gives what went.
    async fn remove(&self, plan: &mut Plan, lock: &Lock) -> Result<HashSet<[u8; 32]>, Error> {
        notes::condemn(self.repository, &plan.due).await?;
        let needed = plan.survey.look_again(self.repository, &plan.due, self.cancel).await?;
        let going: HashSet<_> = plan.due.difference(&needed).copied().collect();
        count_removed(&mut plan.report, &plan.survey, &going);
        self.may_go_on(lock).await?;
        let old = plan.survey.index_files_with(&going);
        plan.report.index_files_replaced = old.len();
        let replaced = replace::store_without(self.repository, old, &going).await?;
        self.may_go_on(lock).await?;
        replaced.remove_old(self.repository).await?;
        let packs: Vec<_> = going.iter().filter(|id| plan.survey.present().contains_key(*id)).copied().collect();
        for batch in packs.chunks(BATCH) {
            self.may_go_on(lock).await?;
            remove_all(self.repository, batch.iter().map(pack::key)).await?;
        }
        Ok(going)
    }

    /// Asked before each step that removes something.
    async fn may_go_on(&self, lock: &Lock) -> Result<(), Error> {
        if self.cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        lock.still_held().await
    }
}

fn count_removed(report: &mut Report, survey: &Survey, going: &HashSet<[u8; 32]>) {
    let sizes: Vec<_> = going.iter().filter_map(|id| survey.present().get(id)).collect();
    report.packs_removed = sizes.len();
    report.bytes_removed = sizes.into_iter().sum();
}

/// Removes objects, a few at a time.
async fn remove_all(repository: &Repository, keys: impl Iterator<Item = String>) -> Result<(), Error> {
    let store = repository.inner.store.as_ref();
    let remove = |key: String| async move { store.delete(&key).await.map_err(Error::store(format!("remove {key}"))) };
    stream::iter(keys).map(remove).buffer_unordered(REMOVALS_AT_ONCE).try_collect().await
}

/// Asks by removing objects that never existed, one of each kind that a run removes.
async fn may_delete(repository: &Repository) -> Result<(), Error> {
    let mut nobody = [0; 32];
    crate::crypto::random(&mut nobody);
    let folders = [Folder::Locks, Folder::Index, Folder::Marked, Folder::Condemned].map(|folder| folder.key(&nobody));
    for key in folders.into_iter().chain([pack::key(&nobody)]) {
        let asked = repository.inner.store.delete(&key).await;
        asked.map_err(|cause| match cause.kind() {
            store::ErrorKind::AccessDenied => Error::store("free space: the store's key may not delete")(cause),
            _ => Error::store("free space")(cause),
        })?;
    }
    Ok(())
}

//! Decides which Uploads may start where many use one datastore or one ESXi host: `uploads-per-datastore` and
//! `uploads-per-host`.
//!
//! The driver makes an Upload with `admitted: false` where one of the settings is in force, and lets it start when there is
//! room wherever it reads from. Whoever waits longest goes first. A failed attempt gives its room back and asks again for
//! the next one. A restore that is being written takes room as an Upload does, and is never held back.

mod places;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::num::NonZeroU32;

use api::{Download, Reason, Timestamp, Upload, UploadPhase};

pub use places::{Host, Places, attached_to, is_written, read_disk, written_disk};
use places::{Place, of_download, of_upload};

/// How many transfers one place may have at a time; `None` is any number.
pub type Budget = Option<NonZeroU32>;

/// What the user has set. An Upload starts when every budget that concerns it has room.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Budgets {
    /// Of one datastore: `uploads-per-datastore`.
    pub datastore: Budget,
    /// Of one ESXi host: `uploads-per-host`.
    pub host: Budget,
}

impl Budgets {
    fn of(self, place: Place<'_>) -> Budget {
        match place {
            Place::Datastore(_) => self.datastore,
            Place::Host(_) => self.host,
        }
    }
}

/// A setting cannot be followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{setting} is `{text}`, which is no whole number above 0")]
pub struct NoBudget {
    setting: &'static str,
    text: String,
}

/// Reads a setting; without one there is no budget.
///
/// # Errors
/// When it is no whole number above 0.
pub fn budget(setting: &'static str, text: Option<&str>) -> Result<Budget, NoBudget> {
    text.map(|text| text.parse().map_err(|_| NoBudget { setting, text: text.to_owned() })).transpose()
}

/// When a new Upload may start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turn {
    /// At once: no budget concerns it.
    AtOnce,
    /// When the driver admits it.
    WhenAdmitted {
        /// The managed object id of its datastore, where that has a budget and is known.
        datastore: Option<String>,
    },
}

/// When a new Upload may start, `datastore` being that of its disk, where it is known. What is not known holds none up.
pub fn turn(budgets: Budgets, datastore: Option<String>) -> Turn {
    let datastore = datastore.filter(|_| budgets.datastore.is_some());
    match budgets.host.is_some() || datastore.is_some() {
        true => Turn::WhenAdmitted { datastore },
        false => Turn::AtOnce,
    }
}

/// What is to be written to an Upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It may start.
    Admit,
    /// It waits.
    HoldBack {
        /// What has no room: [`Reason::DatastoreBusy`] or [`Reason::HostBusy`].
        reason: Reason,
        /// For what it waits, in words; they stay the same while it waits for the same.
        why: String,
    },
    /// Its attempt failed: its room is somebody else's until it asks again.
    TakeBack,
}

/// Whether an Upload waits to be admitted: only then [`verdicts`] needs to know the places.
pub fn anyone_asks(uploads: &[impl AsRef<Upload>], granted: impl Fn(&Upload) -> bool, now: Timestamp) -> bool {
    let mut uploads = uploads.iter().map(AsRef::as_ref);
    uploads.any(|upload| matches!(stands(upload, granted(upload), now), Stands::Asks))
}

/// Decides about all Uploads of an installation at once; those that nothing is to be written to are left out.
///
/// `granted` tells of an Upload that it was admitted a moment ago, though it does not show that yet. A place that `places`
/// does not know has no budget.
pub fn verdicts<'u>(
    uploads: &'u [impl AsRef<Upload>],
    downloads: &[impl AsRef<Download>],
    budgets: Budgets,
    places: &Places,
    granted: impl Fn(&Upload) -> bool,
    now: Timestamp,
) -> Vec<(&'u Upload, Verdict)> {
    let mut used: HashMap<Place<'_>, Used> = HashMap::new();
    let (mut asking, mut verdicts) = (Vec::new(), Vec::new());
    for upload in uploads.iter().map(AsRef::as_ref) {
        match stands(upload, granted(upload), now) {
            Stands::Asks => asking.push(upload),
            Stands::Reads => of_upload(upload, places).for_each(|place| used.entry(place).or_default().uploads += 1),
            Stands::Failed if concerns(budgets, upload) => verdicts.push((upload, Verdict::TakeBack)),
            Stands::Failed | Stands::Rests => {}
        }
    }
    for download in downloads.iter().map(AsRef::as_ref).filter(|download| is_written(download)) {
        of_download(download, places).for_each(|place| used.entry(place).or_default().restores += 1);
    }
    asking.sort_by_key(|upload| (upload.metadata.creation_timestamp.as_ref().map(|t| t.0), &upload.metadata.name));
    for upload in asking {
        let room = |place: &Place<'_>| used.get(place).copied().unwrap_or_default();
        let is_full = |place: &Place<'_>| budgets.of(*place).is_some_and(|budget| room(place).all() >= budget.get());
        let full: Vec<_> = of_upload(upload, places).filter(is_full).collect();
        let verdict = match full.first() {
            Some(first) => {
                let why: Vec<_> = full.iter().map(|place| room(place).sentence(*place)).collect();
                Verdict::HoldBack { reason: first.reason(), why: why.join(", and ") }
            }
            None => {
                of_upload(upload, places).for_each(|place| used.entry(place).or_default().uploads += 1);
                Verdict::Admit
            }
        };
        verdicts.push((upload, verdict));
    }
    verdicts
}

/// Who uses a place.
#[derive(Debug, Clone, Copy, Default)]
struct Used {
    uploads: u32,
    restores: u32,
}

impl Used {
    fn all(self) -> u32 {
        self.uploads.saturating_add(self.restores)
    }

    fn sentence(self, place: Place<'_>) -> String {
        let uploads = match self.uploads {
            0 => None,
            1 => Some("1 upload reads from".to_owned()),
            many => Some(format!("{many} uploads read from")),
        };
        let restores = match self.restores {
            0 => None,
            1 => Some("1 restore writes to".to_owned()),
            many => Some(format!("{many} restores write to")),
        };
        let both: Vec<_> = uploads.into_iter().chain(restores).collect();
        format!("{} {place} already", both.join(" and "))
    }
}

/// Where an Upload stands, as far as room goes.
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

/// Whether an Upload is one of those that take turns. On which host it reads may have changed when it does the next time.
fn concerns(budgets: Budgets, upload: &Upload) -> bool {
    let of_datastore = budgets.datastore.is_some() && places::datastore(upload).is_some();
    of_datastore || (budgets.host.is_some() && upload.spec.admitted.is_some())
}

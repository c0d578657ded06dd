//! Decides which Uploads may start where many use one datastore or one ESXi host: `uploads-per-datastore` and
//! `uploads-per-host`.
//!
//! The driver makes an Upload with `admitted: false` where one of the settings is in force, and lets it start when there is
//! room wherever it reads from. Whoever waits longest goes first: an Upload that has room in one of its places and not in the
//! other keeps it, where nobody older waits in either, so that others do not overtake it for good. A failed attempt gives its
//! room back and asks again for the next one. A restore that is being written takes room of its datastore, and is never held
//! back; on hosts restores are not counted, because the volume that is written is attached to no node.
//!
//! What a waiting Upload says counts nobody: each transfer that begins or ends would write to all that wait.

mod places;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::num::NonZeroU32;

use api::{Download, Reason, Timestamp, Upload, UploadPhase};
use k8s_openapi::jiff::SignedDuration;

pub use places::{Host, Places, attached_to, is_written, read_disk, written_disk};
use places::{Place, of_download, of_upload};

/// Longest time that Uploads are held back because the driver, which has just started, does not know the hosts yet.
const HOSTS_WITHIN: SignedDuration = SignedDuration::from_secs(60);

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

/// Reads a setting; `None`, which bounds nothing, where it is no whole number above 0.
pub fn budget(text: &str) -> Budget {
    text.parse().ok()
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
        /// What has no room, or is not known: [`Reason::DatastoreBusy`] or [`Reason::HostBusy`].
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
/// does not know has no budget; while no host is known at all, whoever asks waits up to a minute for the first answer.
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
            Stands::Reads => of_upload(upload, places).for_each(|place| used.entry(place).or_default().transfers += 1),
            Stands::Failed if concerns(budgets, upload) => verdicts.push((upload, Verdict::TakeBack)),
            Stands::Failed | Stands::Rests => {}
        }
    }
    for download in downloads.iter().map(AsRef::as_ref).filter(|download| is_written(download)) {
        of_download(download, places).into_iter().for_each(|place| used.entry(place).or_default().transfers += 1);
    }
    let hosts_unknown_since = places.hosts_unknown_since.filter(|_| budgets.host.is_some());
    if hosts_unknown_since.is_some_and(|since| now.duration_since(since) < HOSTS_WITHIN) {
        verdicts.extend(asking.into_iter().map(|upload| (upload, hosts_are_unknown())));
        return verdicts;
    }
    asking.sort_by_key(|upload| (upload.metadata.creation_timestamp.as_ref().map(|t| t.0), &upload.metadata.name));
    let mut waited_for: HashSet<Place<'_>> = HashSet::new();
    for upload in asking {
        let of_it: Vec<_> =
            of_upload(upload, places).filter_map(|place| Some((place, budgets.of(place)?.get()))).collect();
        let full = of_it.iter().filter_map(|(place, budget)| Some((*place, used.get(place)?.full(*place, *budget)?)));
        let full: Vec<_> = full.collect();
        let Some((first, _)) = full.first() else {
            of_upload(upload, places).for_each(|place| used.entry(place).or_default().transfers += 1);
            verdicts.push((upload, Verdict::Admit));
            continue;
        };
        let why: Vec<_> = full.iter().map(|(_, why)| why.as_str()).collect();
        verdicts.push((upload, Verdict::HoldBack { reason: first.reason(), why: why.join(", and ") }));
        // one per place keeps room: if all did, places would stand idle for those that wait behind others
        if of_it.iter().fold(true, |is_next, (place, _)| waited_for.insert(*place) && is_next) {
            let has_room = of_it.iter().filter(|(place, _)| full.iter().all(|(taken, _)| taken != place));
            has_room.for_each(|(place, _)| used.entry(*place).or_default().is_kept = true);
        }
    }
    verdicts
}

fn hosts_are_unknown() -> Verdict {
    let why = "which hosts serve the disks is not known yet; it is waited for a minute at the longest".to_owned();
    Verdict::HoldBack { reason: Reason::HostBusy, why }
}

/// Who uses a place.
#[derive(Debug, Clone, Copy, Default)]
struct Used {
    /// Uploads and restores.
    transfers: u32,
    /// One more may not start: who waits longest for this place and another one goes first.
    is_kept: bool,
}

impl Used {
    /// Why one more has no room, if so.
    fn full(self, place: Place<'_>, budget: u32) -> Option<String> {
        if self.transfers >= budget {
            let (who, setting) = (place.who(), place.setting());
            return Some(format!("{place} has as many {who} as {setting} allows ({budget})"));
        }
        let has_no_other = self.is_kept && self.transfers.saturating_add(1) >= budget;
        has_no_other.then(|| format!("the room that {place} has is kept for an upload that waits longer"))
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

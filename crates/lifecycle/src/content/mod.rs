//! Which bytes of a disk snapshot a backup reads, and why: those that changed since an earlier restore point, else those
//! that are allocated, else all of them.
//!
//! Change tracking is believed only as long as nothing speaks against it: the disk below the id must be the same one, of the
//! same size, at the same place, and the server must still count in the same epoch (`vsphere.md` 5.5, 5.6). Whatever is
//! unknown speaks against it. A restore point is complete in any case: this decides only what has to be read for it.

use std::fmt;

use disk::ChangeId;
use jiff::{SignedDuration, Timestamp};

/// After so many backups that rested on tracking, all of the disk is read once.
pub const MOST_IN_A_ROW: u32 = 30;
/// After so long without a full read, all of the disk is read once.
pub const LONGEST_WITHOUT_FULL: SignedDuration = SignedDuration::from_hours(31 * 24);

/// A disk at one moment, as far as it decides whether changes can be counted from there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tracked {
    /// Bytes of the disk.
    pub size_bytes: u64,
    /// When the disk was made.
    pub create_time: Option<Timestamp>,
    /// Managed object id of its datastore.
    pub datastore: Option<String>,
    /// Its file in the datastore.
    pub file_path: Option<String>,
    /// What lies behind the file, where the datastore says.
    pub backing_object_id: Option<String>,
    /// The address of the vCenter that says so: a copy of the site may have the same ids.
    pub vcenter: Option<String>,
    /// The moment as change tracking counts; `None`: nothing was counted.
    pub change_id: Option<ChangeId>,
}

/// An earlier restore point of the same disk, the newest there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base {
    /// The disk as it was then.
    pub then: Tracked,
    /// Bytes of its chunks.
    pub chunk_size: u64,
    /// When the disk was last read without asking what changed; `None`: nobody knows.
    pub full_read: Option<Timestamp>,
    /// Restore points in a row that rested on change tracking, this one included.
    pub in_a_row: u32,
}

/// What is known when a backup begins.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The disk as the new snapshot holds it.
    pub now: &'a Tracked,
    /// What the new restore point could rest on.
    pub base: Option<&'a Base>,
    /// Bytes of the new restore point's chunks.
    pub chunk_size: u64,
    /// The trackings of this disk that a sample has shown to miss changes, each by its [`tracking`].
    pub doubted: &'a [String],
    /// The time.
    pub time: Timestamp,
}

/// Where a backup learns what to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// vCenter says what changed since this moment; the rest is taken over from the base.
    ChangedAreas {
        /// The moment of the base.
        since: ChangeId,
    },
    /// The disk's server says what is allocated; where it cannot, everything is read and zeroes are dropped.
    AllocatedAreas(Obstacle),
}

/// Why changed areas are of no use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Obstacle {
    /// Change tracking is off for the disk, or was when its snapshot was taken.
    NotTracked,
    /// It is the first restore point of the disk.
    NoBase,
    /// Tracking was off when the base was taken.
    BaseNotTracked,
    /// The tracking was found to miss changes, and is the same still.
    Doubted,
    /// The base is cut into other chunks.
    OtherChunks {
        /// Bytes of a chunk of the base.
        then: u64,
        /// Bytes of a chunk now.
        now: u64,
    },
    /// The disk has another size.
    Resized {
        /// Bytes of the base.
        then: u64,
        /// Bytes now.
        now: u64,
    },
    /// What the server says of the disk has changed: it was made anew, moved, or replaced.
    Replaced(&'static str),
    /// A change id is not as the server writes them.
    StrangeId(ChangeId),
    /// The server has begun to count anew.
    OtherEpoch,
    /// The server counts backwards: the disk was reverted.
    Backwards,
    /// So many backups in a row have rested on tracking.
    TooManyInARow(u32),
    /// The last full read was so long ago, or nobody knows when.
    FullReadDue(Option<Timestamp>),
    /// The base could not be read, for this reason.
    BaseUnreadable(String),
    /// The changes could not be had, for this reason.
    NotAnswered(String),
    /// A sample of what did not change was found changed in this very backup.
    Untrue,
    /// The layout that was chosen holds all of the disk each time.
    OriginalLayout,
}

/// What a restore point says of those that it rests on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ancestry {
    /// When the disk was last read without asking what changed.
    pub full_read: Option<Timestamp>,
    /// Restore points in a row that rest on tracking, this one included.
    pub in_a_row: u32,
}

/// What the new restore point says, when its content was found so.
pub fn ancestry(source: &Source, base: Option<&Base>, time: Timestamp) -> Ancestry {
    match (source, base) {
        (Source::ChangedAreas { .. }, Some(base)) => {
            Ancestry { full_read: base.full_read, in_a_row: base.in_a_row.saturating_add(1) }
        }
        _ => Ancestry { full_read: Some(time), in_a_row: 0 },
    }
}

/// The tracking that a change id belongs to, in a form without blanks; `None` for what is no change id.
pub fn tracking(id: &ChangeId) -> Option<String> {
    id.parts().map(|(tracking, _)| tracking.replace(' ', ""))
}

/// Decides what is read.
pub fn decide(facts: &Facts<'_>) -> Source {
    match since(facts) {
        Ok(since) => Source::ChangedAreas { since },
        Err(obstacle) => Source::AllocatedAreas(obstacle),
    }
}

fn since(facts: &Facts<'_>) -> Result<ChangeId, Obstacle> {
    let now = facts.now.change_id.as_ref().ok_or(Obstacle::NotTracked)?;
    // whatever lies between: another tracking begins with a clean slate
    if tracking(now).is_some_and(|tracking| facts.doubted.contains(&tracking)) {
        return Err(Obstacle::Doubted);
    }
    let base = facts.base.ok_or(Obstacle::NoBase)?;
    let then = base.then.change_id.as_ref().ok_or(Obstacle::BaseNotTracked)?;
    if base.chunk_size != facts.chunk_size {
        return Err(Obstacle::OtherChunks { then: base.chunk_size, now: facts.chunk_size });
    }
    is_same_disk(&base.then, facts.now)?;
    counts_on(then, now)?;
    if base.in_a_row >= MOST_IN_A_ROW {
        return Err(Obstacle::TooManyInARow(base.in_a_row));
    }
    let recent = |read: Timestamp| facts.time.duration_since(read) < LONGEST_WITHOUT_FULL;
    match base.full_read {
        Some(read) if recent(read) => Ok(then.clone()),
        read => Err(Obstacle::FullReadDue(read)),
    }
}

/// Whether it is the disk that it was. What one of the two does not know is not taken for equal.
fn is_same_disk(then: &Tracked, now: &Tracked) -> Result<(), Obstacle> {
    if then.size_bytes != now.size_bytes {
        return Err(Obstacle::Resized { then: then.size_bytes, now: now.size_bytes });
    }
    let known = |same: bool, known: bool, what| if same && known { Ok(()) } else { Err(Obstacle::Replaced(what)) };
    known(then.create_time == now.create_time, now.create_time.is_some(), "time of its making")?;
    known(then.vcenter == now.vcenter, now.vcenter.is_some(), "vCenter")?;
    known(then.datastore == now.datastore, now.datastore.is_some(), "datastore")?;
    let (file_then, file_now) = (then.file_path.as_deref().map(stem), now.file_path.as_deref().map(stem));
    known(file_then == file_now, file_now.is_some(), "file")?;
    // not every datastore has one
    known(then.backing_object_id == now.backing_object_id, true, "backing object")
}

/// A disk's file without the number that each snapshot of it adds: `a-000001.vmdk` is `a.vmdk` still.
fn stem(path: &str) -> &str {
    let name = path.strip_suffix(".vmdk").unwrap_or(path);
    match name.rsplit_once('-') {
        Some((stem, number)) if number.len() == 6 && number.bytes().all(|b| b.is_ascii_digit()) => stem,
        _ => name,
    }
}

/// Whether the server counts on from one moment to the other.
fn counts_on(then: &ChangeId, now: &ChangeId) -> Result<(), Obstacle> {
    let parts = |id: &ChangeId| match id.parts() {
        Some((uuid, epoch)) => Ok((uuid.to_owned(), epoch)),
        None => Err(Obstacle::StrangeId(id.clone())),
    };
    let ((then_uuid, then_epoch), (now_uuid, now_epoch)) = (parts(then)?, parts(now)?);
    match (then_uuid == now_uuid, now_epoch >= then_epoch) {
        (false, _) => Err(Obstacle::OtherEpoch),
        (true, false) => Err(Obstacle::Backwards),
        (true, true) => Ok(()),
    }
}

impl Source {
    /// Two words for a metric's labels: what was read, and why it was not less.
    pub fn words(&self) -> (&'static str, &'static str) {
        match self {
            Self::ChangedAreas { .. } => ("changed-areas", ""),
            Self::AllocatedAreas(why) => ("allocated-areas", why.word()),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ChangedAreas { .. } => f.write_str("changed areas"),
            Self::AllocatedAreas(why) => write!(f, "allocated areas: {why}"),
        }
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotTracked => f.write_str("changes of this disk are not tracked"),
            Self::NoBase => f.write_str("it is the first restore point of this disk"),
            Self::BaseNotTracked => f.write_str("changes were not tracked at the last restore point"),
            Self::Doubted => f.write_str("the tracking of this disk has missed changes before"),
            Self::OtherChunks { then, now } => {
                write!(f, "the last restore point has chunks of {then} bytes, not {now}")
            }
            Self::Resized { then, now } => write!(f, "the disk had {then} bytes and has {now}"),
            Self::Replaced(what) => write!(f, "the disk's {what} is another one, or not known"),
            Self::StrangeId(id) => write!(f, "change id `{}` is none", id.as_str()),
            Self::OtherEpoch => f.write_str("vCenter has begun to track anew"),
            Self::Backwards => f.write_str("the disk was reverted"),
            Self::TooManyInARow(count) => write!(f, "{count} restore points in a row rest on tracking"),
            Self::FullReadDue(Some(read)) => write!(f, "it was last read whole at {read}"),
            Self::FullReadDue(None) => f.write_str("nobody knows when it was last read whole"),
            Self::BaseUnreadable(why) => write!(f, "the last restore point cannot be read: {why}"),
            Self::NotAnswered(why) => write!(f, "vCenter did not say what changed: {why}"),
            Self::Untrue => f.write_str("a part that vCenter called unchanged has changed"),
            Self::OriginalLayout => f.write_str("the original's layout holds all of the disk each time"),
        }
    }
}

impl Obstacle {
    /// One word for it.
    fn word(&self) -> &'static str {
        match self {
            Self::NotTracked => "not-tracked",
            Self::NoBase => "no-base",
            Self::BaseNotTracked => "base-not-tracked",
            Self::Doubted => "doubted",
            Self::OtherChunks { .. } => "other-chunks",
            Self::Resized { .. } => "resized",
            Self::Replaced(_) => "replaced",
            Self::StrangeId(_) => "strange-id",
            Self::OtherEpoch => "other-epoch",
            Self::Backwards => "backwards",
            Self::TooManyInARow(_) => "too-many-in-a-row",
            Self::FullReadDue(_) => "full-read-due",
            Self::BaseUnreadable(_) => "base-unreadable",
            Self::NotAnswered(_) => "not-answered",
            Self::Untrue => "untrue",
            Self::OriginalLayout => "original-layout",
        }
    }
}

#[cfg(test)]
mod tests;

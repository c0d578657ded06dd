//! Names of the driver's steps, and a way to be killed right after one of them.
//!
//! With `BACKUP_DRIVER_DIE_AFTER=<step>` the process dies after that step ([`operator::dying`]).

/// A step after which the process may die in a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The BackupRepository is made, the claim does not name it yet.
    RepositoryMade,
    /// The restic repository is open (made, where there was none).
    RepositoryOpened,
    /// The disk snapshot exists.
    SnapshotTaken,
    /// The Upload exists.
    UploadMade,
    /// The Snapshot's status says so.
    SnapshotRecorded,
    /// The scratch claim exists.
    ScratchMade,
    /// The Download exists.
    DownloadMade,
    /// The volume is marked and kept.
    VolumeKept,
    /// The scratch claim is gone.
    ScratchDropped,
    /// The real claim exists.
    ClaimMade,
    /// The volume points at the real claim.
    VolumePointed,
    /// Claim and volume are bound.
    ClaimBound,
    /// The volume has its own reclaim policy back.
    VolumeSettled,
    /// Why a restore ends is noted.
    EndNoted,
    /// What it made is removed.
    Cleaned,
    /// The Upload was asked to stop.
    UploadCancelled,
    /// The disk snapshot is deleted.
    DiskSnapshotDeleted,
    /// The restore point is deleted.
    PointForgotten,
    /// The disk of a Download that names no volume is made.
    DiskMade,
}

impl Step {
    /// Every step, in the order of the work.
    pub const ALL: &'static [Self] = &[
        Self::RepositoryMade,
        Self::RepositoryOpened,
        Self::SnapshotTaken,
        Self::UploadMade,
        Self::SnapshotRecorded,
        Self::ScratchMade,
        Self::DownloadMade,
        Self::VolumeKept,
        Self::ScratchDropped,
        Self::ClaimMade,
        Self::VolumePointed,
        Self::ClaimBound,
        Self::VolumeSettled,
        Self::EndNoted,
        Self::Cleaned,
        Self::UploadCancelled,
        Self::DiskSnapshotDeleted,
        Self::PointForgotten,
        Self::DiskMade,
    ];

    /// The step's name, as `BACKUP_DRIVER_DIE_AFTER` takes it.
    pub fn name(self) -> String {
        format!("{self:?}")
    }

    /// The step is done. Dies here when told to.
    pub fn done(self) {
        tracing::debug!(step = self.name(), "step done");
        operator::dying::after("BACKUP_DRIVER_DIE_AFTER", &self.name());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A step that is in no scenario could leak what it made without anybody seeing it.
    #[test]
    fn the_driver_is_killed_after_every_step() {
        let scenarios = include_str!("../../../tests/e2e/tests/scenarios/alone/driver.rs");
        let missing: Vec<_> = Step::ALL.iter().filter(|step| !scenarios.contains(&format!("\"{step:?}\""))).collect();
        assert!(missing.is_empty(), "no scenario kills the driver after {missing:?}");
    }
}

//! Names of a transfer's steps. With `DATA_MANAGER_DIE_AFTER=<step>` the process dies after that step ([`operator::dying`]).

/// Makes the steps and the list of all of them from one text.
macro_rules! steps {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// A step after which the process may die in a test.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Step {
            $($(#[$doc])* $name,)*
        }

        #[cfg(test)]
        const ALL: &[Step] = &[$(Step::$name,)*];
    };
}

steps! {
    /// The Upload says that this node copies.
    UploadBegun,
    /// The repository is locked for the copy.
    UploadLocked,
    /// The disk snapshot is open.
    SnapshotOpened,
    /// The restore point is in the repository and was read back.
    PointWritten,
    /// The checkpoints of the copy are gone.
    CheckpointsForgotten,
    /// The lock of the copy is gone, and so is its helper.
    SnapshotClosed,
    /// The disk snapshot is deleted.
    DiskSnapshotDeleted,
    /// The Upload says what became of it.
    UploadTold,
    /// The Download says that this node writes.
    DownloadBegun,
    /// The repository is locked for the restore.
    DownloadLocked,
    /// The volume is open for writing.
    VolumeOpened,
    /// The Download has a checkpoint that names what is written.
    WritingNoted,
    /// All is written and flushed.
    VolumeWritten,
    /// The library has closed the volume.
    VolumeClosed,
    /// The lock of the restore is gone.
    RestoreUnlocked,
    /// The Download says what became of it.
    DownloadTold,
}

impl Step {
    /// The step is done. Dies here when told to.
    pub(crate) fn done(self) {
        let step = format!("{self:?}");
        tracing::debug!(step, "step done");
        operator::dying::after("DATA_MANAGER_DIE_AFTER", &step);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A step that is in no scenario could leak what it made, or lose what it wrote, without anybody seeing it.
    #[test]
    fn a_node_is_killed_after_every_step() {
        let scenarios = include_str!("../../../tests/e2e/tests/scenarios/alone/steps.rs");
        let missing: Vec<_> = ALL.iter().filter(|step| !scenarios.contains(&format!("\"{step:?}\""))).collect();
        assert!(missing.is_empty(), "no scenario kills a data-manager after {missing:?}");
    }
}

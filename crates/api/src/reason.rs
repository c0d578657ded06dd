//! Why an object waits, failed or ended: one list of words for conditions, events, metrics, logs and documents.

use std::fmt;

/// How much a reason matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// An ordinary step, or an end that was asked for.
    Step,
    /// A wait that ends by itself, as a rule.
    Wait,
    /// Something failed: a warning event, and a person may have to act.
    Trouble,
}

macro_rules! reasons {
    ($($weight:ident { $($name:ident: $meaning:literal, $cause:literal, $fix:literal;)+ })+) => {
        /// Why an object waits, failed or ended. The same word stands in conditions, events, metrics and logs.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason {
            $($(#[doc = $meaning] $name,)+)+
        }

        impl Reason {
            /// Every reason, in the order they are explained.
            pub const ALL: &'static [Self] = &[$($(Self::$name,)+)+];

            /// The word.
            pub fn as_str(self) -> &'static str {
                match self { $($(Self::$name => stringify!($name),)+)+ }
            }

            /// How much it matters.
            pub fn weight(self) -> Weight {
                match self { $($(Self::$name => Weight::$weight,)+)+ }
            }

            /// What it means, in one line.
            pub fn meaning(self) -> &'static str {
                match self { $($(Self::$name => $meaning,)+)+ }
            }

            /// What usually leads to it; empty for ordinary steps.
            pub fn cause(self) -> &'static str {
                match self { $($(Self::$name => $cause,)+)+ }
            }

            /// What helps; empty where nothing needs to be done.
            pub fn fix(self) -> &'static str {
                match self { $($(Self::$name => $fix,)+)+ }
            }
        }
    };
}

reasons! {
    Step {
        Queued: "Waiting for its turn.", "", "";
        Snapshotting: "The disk snapshot is being taken in vSphere.", "", "";
        Snapshotted: "The disk snapshot exists; the upload follows, unless local mode is on.", "", "";
        Uploading: "A node is copying the disk into the repository.", "", "";
        Uploaded: "The restore point is in the repository and was checked there.", "", "";
        Provisioning: "The empty volume is being made.", "", "";
        Downloading: "A node is writing the volume.", "", "";
        Binding: "The volume is written; it is being given to its claim.", "", "";
        Deleting: "The disk snapshot and the restore point are being deleted.", "", "";
        Completed: "Done.", "", "";
        Canceling: "It was asked to stop and is cleaning up.", "", "";
        Canceled: "It was asked to stop; nothing is left behind.", "", "";
        ChangedAreas: "Only what changed since an earlier restore point is read.", "", "";
        AllocatedAreas: "All that is allocated on the disk is read; the message says why.", "", "";
        DiskOpened: "A node has the disk open, or had; the message says by which transport its data moves.", "", "";
        SnapshotSwept: "A disk snapshot was deleted that no Snapshot and no Upload needed any more.", "", "";
    }
    Wait {
        WaitingForClaim: "Waiting for the claim that Velero is to create.",
            "The restore has not come to this claim yet, or a resource modifier dropped it.",
            "Look at the Velero restore; the wait ends with a failure after its deadline.";
        ClusterUnreachable: "The API server does not answer, or there is no login for it.",
            "It restarts, the network between it and this node is broken, or what a kubeconfig logs in with fails.",
            "Look at the API server; what waits for it goes on by itself.";
        RateLimited: "The transfer is as fast as the setting transfer-rate-limit allows on its node, and no faster.",
            "All transfers of a node share the limit of this time of day.",
            "Nothing, or raise the limit in the ConfigMap; it counts at once.";
        DatastoreBusy: "The datastore of this disk has as many uploads or restores as the setting uploads-per-datastore allows.",
            "Uploads of one datastore take turns while the setting is there; restores count and wait for nobody.",
            "Nothing, or raise or remove the setting in the ConfigMap; it counts within a minute.";
        HostBusy: "The ESXi host that serves this disk has as many uploads as the setting uploads-per-host allows, or is not known yet.",
            "Uploads of the disks that one host serves take turns while the setting is there.",
            "Nothing, or raise or remove the setting in the ConfigMap; it counts within a minute.";
        TakenOver: "Another node continues this transfer.",
            "The node that had it went away or lost touch with the API server.",
            "Nothing; look at that node if it repeats.";
    }
    Trouble {
        BackingOff: "The last attempt failed; the next one is due at nextRetryTimestamp.",
            "See the message of the last attempt.",
            "Fix what the message names; the next attempt comes by itself.";
        NotStopping: "The transfer was asked to stop and has not stopped.",
            "No data-manager runs, or the one that copies does not answer.",
            "See whether the data-managers run; it goes on by itself once one does.";
        TrackingUntrue: "vCenter called a part of the disk unchanged that has changed; all of it is read instead.",
            "Change tracking of the disk is broken, as after a crash of a host or by a bug of that build.",
            "Restore points that rest on it have the tag tracking=doubted: verify them. Switch tracking off and on for the disk.";
        UnsupportedKind: "Only a PersistentVolumeClaim can be backed up or restored.",
            "The object names another kind.",
            "Name a PersistentVolumeClaim of the same namespace, with an empty apiGroup.";
        InvalidSpec: "The request cannot be understood.",
            "A required field is missing or a value cannot be read.",
            "Correct the field that the message names and ask again.";
        WrongNamespace: "Objects of this kind are read in the Velero namespace only.",
            "It was made in another namespace.",
            "Make it in the Velero namespace.";
        ClaimNotFound: "There is no such claim.",
            "The claim was deleted, or its name is wrong.",
            "Check name and namespace.";
        ClaimNotBound: "The claim has no volume.",
            "It was never used, or its storage class waits for a first consumer.",
            "Start a pod that uses the claim, then ask again.";
        ClaimExists: "A claim of that name is already there and was not made by this restore.",
            "The namespace still holds the claim.",
            "Delete or rename it, or restore into another namespace.";
        BegunByOriginal: "A restore that the original asked for is ended: we do not write onto the disk of a claim that is there.",
            "It was not done when the original was replaced, or its request was copied.",
            "Restore again; delete the claim before if all it has is that restore, else restore into another namespace. To write this very disk all the same, make a Download without clonefromSnapshotReference.";
        ForeignDriver: "The volume does not belong to the vSphere CSI driver.",
            "It is of another CSI driver, or an in-tree volume that was not migrated to the vSphere CSI driver.",
            "Back it up by other means, such as Velero's file-system backup.";
        MigrationUnknown: "Which disk a volume of the old in-tree driver is cannot be told.",
            "The CSI driver has no record of its path among the cnsvspherevolumemigrations of the cluster, or several of different disks.",
            "See whether the CSI driver runs with migration switched on and what its syncer logs; take away the records that are wrong, then try again.";
        NoSharedDatastore: "There is no datastore that the hosts of all nodes have mounted.",
            "A disk without a storage class has to lie where every node can use it; NFS 4.1 does not count. Or no node names its virtual machine.",
            "Mount one on the hosts of all nodes, and see that the nodes have spec.providerID vsphere://UUID, as the vSphere cloud provider sets it.";
        NodesLeftOut: "A new disk was made without a look at these nodes.",
            "A disk without a storage class is made where the nodes reach it; of these nodes vCenter does not tell the host.",
            "See that they have spec.providerID vsphere://UUID, as the vSphere cloud provider sets it, and that their virtual machines run.";
        ClaimBindTimeout: "The new volume was not there in time.",
            "The CSI driver could not make it, or the storage class is missing or full.",
            "See the events of the scratch claim in the Velero namespace and the logs of the CSI driver.";
        ResourceBlocked: "The kind is on the list of resources that are refused in backups and restores.",
            "ConfigMap velero-vsphere-plugin-blocked-resources-list names it, or the default list where there is none.",
            "Exclude it (label velero.io/exclude-from-backup=true), or set its entry there to \"false\" (deploy/blocked-resources.yaml makes one).";
        SettingsInvalid: "A ConfigMap with settings cannot be used.",
            "It breaks the format, or there is more than one where one is expected.",
            "Correct what the message names.";
        StorageLocationMissing: "There is no such BackupStorageLocation.",
            "It was deleted, or the backup names another one.",
            "Check `velero backup-location get`; make the location with its old name again.";
        DriverSilent: "The driver did not act in time.",
            "backup-driver does not run, or is busy beyond the deadline.",
            "See whether the Deployment backup-driver runs, and its log.";
        RequestDeleted: "The object that asked for it was deleted before it had ended.",
            "Somebody deleted the Snapshot, CloneFromSnapshot or Upload, or its namespace.",
            "Back up or restore again. The Upload of a Snapshot that was deleted goes on; `vsphere-backup list` shows the backup that it makes.";
        StorageClassMissing: "The storage class of the claim does not exist here.",
            "The backup is of another cluster, or the class was removed.",
            "Create the class, or map it to another one.";
        TargetTooSmall: "The volume is smaller than the disk that is to be restored.",
            "The claim asks for less than the disk had.",
            "Ask for at least the size that the message names.";
        GuestCluster: "This is a guest cluster of a Supervisor, whose volumes are no disks of a vCenter in reach.",
            "Requests to a Supervisor are not supported yet, or the flavor of the cluster is taken for another one than it is.",
            "Back up the volumes on the Supervisor; where this is no guest cluster, set cluster_flavor in velero-vsphere-plugin-config.";
        OriginalRunning: "The original plugin's driver is active in this namespace.",
            "Its Deployment was not removed.",
            "Remove it; two drivers would both act on the same objects.";
        ClusterForbidden: "The API server does not let our account do that.",
            "A role or binding of the chart was changed or removed; or a ResourceQuota or a webhook of the cluster refuses the object.",
            "Apply the chart's roles and bindings again; where the message names a quota or a webhook, change that.";
        StatusRefused: "The API server refuses what the program has to say about this object.",
            "The definition of its kind is the original's, or that of another version: it lacks a word or a field.",
            "Apply the definitions of this version (deploy/crds, or the chart with crds.install=true); it is tried again by itself.";
        RepositoryUnknown: "There is no such BackupRepository.",
            "It was deleted, or the name is wrong.",
            "Check the name; a BackupRepositoryClaim makes a new one.";
        RepositoryInvalid: "The BackupRepository cannot be used as it is.",
            "A parameter is missing or its driver is another one.",
            "Correct what the message names.";
        RepositoryMissing: "There is no repository at that place in the bucket.",
            "Nothing was ever backed up there, or bucket or prefix changed.",
            "Check bucket and prefix.";
        RepositoryPasswordMissing: "There is no key for the repository.",
            "Neither Secret vsphere-backup-repository-key nor velero-repo-credentials holds repository-password.",
            "Create the Secret; without its key nobody can read the backups, so keep a copy elsewhere.";
        RepositoryPasswordWrong: "The key does not open the repository.",
            "The Secret was changed, or the repository was made by another cluster.",
            "Put the key back it was made with.";
        RepositoryPasswordDefault: "The repository is locked with Velero's well-known default key.",
            "velero-repo-credentials was never changed.",
            "Make a Secret vsphere-backup-repository-key with a key of your own before the first backup.";
        RepositoryLocked: "Somebody has the repository for themselves.",
            "A prune or check is running, or one died and left its lock.",
            "Wait; `restic unlock` removes locks of the dead.";
        RepositoryDamaged: "Something in the repository is not as it was written.",
            "Objects were deleted or changed in the bucket.",
            "Run `restic check`, and `restic repair` as it advises.";
        RestorePointMissing: "The repository has no such restore point.",
            "The backup never finished, was deleted, or the repository is another one.",
            "Check the list of restore points.";
        RestorePointDamaged: "The restore point cannot be read completely.",
            "Objects were deleted or changed in the bucket.",
            "Restore another one; run `restic check` on the repository.";
        OldBackupIncomplete: "A backup in the original's layout is not whole, so nothing of it is restored.",
            "A segment is missing, or is longer or shorter than it must be; the original would have restored zeroes.",
            "Bring back the object that the message names, or restore another backup.";
        BucketMissing: "The bucket does not exist.",
            "It was removed, or its name or region is wrong.",
            "Check bucket, region and URL.";
        StoreAccessDenied: "The object store refuses our keys.",
            "Wrong or outdated keys, or a policy without the needed actions.",
            "Check keys and policy; the message names the action.";
        StoreUnreachable: "The object store does not answer.",
            "Network, name or certificate trouble between the node and the store.",
            "Check s3Url, caCert and the network of the node.";
        StoreFailed: "The object store failed in the middle.",
            "It is overloaded or out of space.",
            "See the message and the store's own log.";
        VCenterSecretMissing: "There is no Secret with vCenter's address and credentials.",
            "It was not created, or the settings name another.",
            "Create velero-vsphere-config-secret in the Velero namespace.";
        VCenterSecretInvalid: "The Secret with vCenter's address cannot be read.",
            "A line of it breaks the grammar.",
            "Correct the line that the message names.";
        VCenterCertificateUntrusted: "vCenter's certificate is not trusted.",
            "It is signed by an authority that we do not know.",
            "Put ca-file or thumbprint into the Secret.";
        VCenterLoginRefused: "vCenter refuses user or password.",
            "The password was changed, or the account is locked. After three refusals we stop asking.",
            "Correct the Secret; a change is taken up by itself.";
        VCenterUnreachable: "vCenter does not answer.",
            "Network, name or port is wrong, or vCenter is down.",
            "Check address and network.";
        VCenterPermission: "The account lacks a privilege in vCenter.",
            "The role misses the privilege that the message names.",
            "Add the privilege to the role.";
        VCenterFailed: "vCenter answered with a fault.",
            "See the fault in the message.",
            "See the task in vCenter at that time.";
        DiskMissing: "vSphere does not know the disk.",
            "It was deleted, or the volume belongs to another vCenter.",
            "Check the volume handle of the PV.";
        DiskBusy: "vSphere does not allow it at this moment.",
            "Another task works on the disk, such as a migration.",
            "Let the task end; see the disk's tasks in vCenter.";
        SnapshotMissing: "vSphere does not know the disk snapshot any more.",
            "Somebody deleted it, or the disk went with it.",
            "Take a new backup.";
        VddkLibraryMissing: "VMware's disk library is not installed.",
            "It may not be shipped with this product.",
            "Give the chart `vddk.image`, `vddk.hostPath` or `vddk.existingClaim` with the library from VMware.";
        VddkLibraryBroken: "VMware's disk library cannot be loaded.",
            "It is of another architecture, too old, or incomplete.",
            "Install the version that the documents name.";
        VddkOpenFailed: "VMware's disk library cannot open the disk.",
            "See the code in the message.",
            "See the code's advice in the message.";
        VddkHung: "VMware's disk library stopped answering and was ended.",
            "The ESXi host or its port 902 does not answer.",
            "Check the network between node and ESXi hosts.";
        VddkCrashed: "VMware's disk library crashed.",
            "A fault in the library; only the transfer was affected.",
            "Update the library if it repeats.";
        DiskReadFailed: "The disk could not be read.",
            "A fault of the datastore or the connection at the place the message names.",
            "See the datastore's health.";
        DiskWriteFailed: "The volume could not be written.",
            "The datastore is full or faulty.",
            "Check the datastore's free space and health.";
        DiskFlushFailed: "The volume did not confirm that the data is on disk.",
            "A fault of the datastore or the connection.",
            "See the datastore's health and the network between node and ESXi hosts.";
        SnapshotDeleteFailed: "The data is stored, but the disk snapshot could not be deleted.",
            "Another task works on the disk, or vCenter does not answer.",
            "See the disk's tasks in vCenter; the deletion is repeated until it is done.";
        DefinitionsMissing: "The API server does not know objects of this kind.",
            "Definitions (CRDs) of the chart are not installed, or were deleted.",
            "Apply the definitions of this version (deploy/crds, or the chart with crds.install=true); `vsphere-backup doctor` names those that are missing.";
        Internal: "Something happened that should not happen.",
            "A fault of ours.",
            "Report it with the log around that time.";
    }
}

impl Reason {
    /// The reason of that word, if it is one of ours.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|reason| reason.as_str() == word)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_says_what_helps() {
        for reason in Reason::ALL {
            assert!(!reason.meaning().is_empty());
            assert_eq!(reason.cause().is_empty(), reason.weight() == Weight::Step, "{reason}");
            assert_eq!(reason.fix().is_empty(), reason.weight() == Weight::Step, "{reason}");
        }
        assert_eq!(Reason::from_word("BucketMissing"), Some(Reason::BucketMissing));
        assert_eq!(Reason::from_word("Weather"), None);
    }

    #[test]
    fn a_reason_is_a_word_the_api_server_takes() {
        for reason in Reason::ALL {
            let word = reason.as_str();
            assert!(word.len() <= 128 && word.chars().all(|c| c.is_ascii_alphanumeric()), "{word}");
        }
    }
}

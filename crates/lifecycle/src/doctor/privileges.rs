//! What our account needs in vCenter, privilege by privilege, and what it lacks on which object.
//!
//! The list is that of VMware's documents for first-class disks and for its disk library; with a role that has nothing else it
//! was not tried yet on a real vCenter.

use api::Reason;

use super::{Finding, Matter, Verdict};

/// On which objects a privilege is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum On {
    /// The root of the inventory.
    Root,
    /// Each datastore with disks of the cluster.
    Datastores,
    /// The virtual machine of each node.
    Machines,
}

/// A privilege that we need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Privilege {
    /// vCenter's id of it.
    pub id: &'static str,
    /// Where.
    pub on: On,
    /// What it is called where roles are edited.
    pub called: &'static str,
    /// What does not work without it.
    pub why: &'static str,
    /// How bad it is to lack it.
    pub lacking: Verdict,
}

const fn needed(id: &'static str, on: On, called: &'static str, why: &'static str) -> Privilege {
    Privilege { id, on, called, why, lacking: Verdict::Problem }
}

const fn useful(id: &'static str, on: On, called: &'static str, why: &'static str) -> Privilege {
    Privilege { id, on, called, why, lacking: Verdict::Warning }
}

const BACKUP: &str = "No backup: the disk library cannot read the disk.";
const RESTORE: &str = "No restore: the disk library cannot write the disk.";
const ACCESS: &str =
    "No backup and no restore: the disk library cannot announce its access, and says that the host is not licensed.";
const SNAPSHOT: &str = "VMware's documents ask for it where disks of running virtual machines are backed up.";
const TRACKING: &str =
    "`vsphere-backup tracking` cannot switch the virtual machines; backups then read all that is allocated.";

/// Every privilege that we need.
pub const NEEDED: [Privilege; 14] = [
    needed(
        "Datastore.FileManagement",
        On::Datastores,
        "Datastore > Low level file operations",
        "No backup: disk snapshots can neither be taken nor deleted.",
    ),
    needed("Datastore.AllocateSpace", On::Datastores, "Datastore > Allocate space", RESTORE),
    needed(
        "VirtualMachine.Provisioning.DiskRandomRead",
        On::Machines,
        "Virtual machine > Provisioning > Allow read-only disk access",
        BACKUP,
    ),
    needed(
        "VirtualMachine.Provisioning.GetVmFiles",
        On::Machines,
        "Virtual machine > Provisioning > Allow virtual machine download",
        BACKUP,
    ),
    needed(
        "VirtualMachine.Provisioning.DiskRandomAccess",
        On::Machines,
        "Virtual machine > Provisioning > Allow disk access",
        RESTORE,
    ),
    needed(
        "VirtualMachine.Provisioning.PutVmFiles",
        On::Machines,
        "Virtual machine > Provisioning > Allow virtual machine files upload",
        RESTORE,
    ),
    needed(
        "VirtualMachine.Config.DiskLease",
        On::Machines,
        "Virtual machine > Change configuration > Acquire disk lease",
        RESTORE,
    ),
    useful(
        "VirtualMachine.State.CreateSnapshot",
        On::Machines,
        "Virtual machine > Snapshot management > Create snapshot",
        SNAPSHOT,
    ),
    useful(
        "VirtualMachine.State.RemoveSnapshot",
        On::Machines,
        "Virtual machine > Snapshot management > Remove snapshot",
        SNAPSHOT,
    ),
    useful(
        "VirtualMachine.Config.ChangeTracking",
        On::Machines,
        "Virtual machine > Change configuration > Toggle disk change tracking",
        TRACKING,
    ),
    useful(
        "VirtualMachine.Config.Settings",
        On::Machines,
        "Virtual machine > Change configuration > Change Settings",
        TRACKING,
    ),
    needed("Global.DisableMethods", On::Root, "Global > Disable methods", ACCESS),
    needed("Global.EnableMethods", On::Root, "Global > Enable methods", ACCESS),
    needed("Global.Licenses", On::Root, "Global > Licenses", ACCESS),
];

/// The ids of what is needed on such objects.
pub fn on(place: On) -> Vec<&'static str> {
    NEEDED.iter().filter(|privilege| privilege.on == place).map(|privilege| privilege.id).collect()
}

/// An object, and what our account lacks on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// What kind of object it is.
    pub on: On,
    /// The object, for people: `datastore vsan-1 (datastore-56)`.
    pub object: String,
    /// Ids of the privileges that it lacks of [`on`].
    pub lacks: Vec<String>,
}

/// A finding for each privilege that is lacking on an object, and one for all others.
pub fn judge(user: &str, asked: &[Asked]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for Asked { on, object, lacks } in asked {
        for privilege in NEEDED.iter().filter(|p| p.on == *on && lacks.iter().any(|lacked| lacked == p.id)) {
            let Privilege { id, called, why, lacking, .. } = privilege;
            let seen = format!("account {user} lacks {id} on {object}");
            let fix = format!("Add \"{called}\" to the account's role, and give it the role on {object}.");
            let finding = match lacking {
                Verdict::Problem => Finding::problem(Matter::Privileges, seen, *why, fix),
                _ => Finding::warning(Matter::Privileges, seen, *why, fix),
            };
            findings.push(finding.because(Reason::VCenterPermission));
        }
    }
    let count: usize = asked.iter().map(|asked| self::on(asked.on).len() - asked.lacks.len()).sum();
    if count > 0 {
        let objects = asked.iter().filter(|asked| asked.lacks.is_empty()).count();
        let seen =
            format!("account {user} has {count} privileges that it needs; all that are needed on {objects} objects");
        findings.push(Finding::ok(Matter::Privileges, seen));
    }
    for (place, what) in [(On::Datastores, "datastore"), (On::Machines, "virtual machine of a node")] {
        if !asked.iter().any(|asked| asked.on == place) {
            let why = "Whether the account has what it needs there shows with the first backup.";
            let seen = format!("no {what} is known to ask about");
            findings.push(Finding::warning(Matter::Privileges, seen, why, "Run doctor again when there is one."));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_privilege_that_is_lacking_is_named_with_its_object_and_what_it_is_called() {
        let asked = |on, object: &str, lacks: &[&str]| Asked {
            on,
            object: object.to_owned(),
            lacks: lacks.iter().map(|id| (*id).to_owned()).collect(),
        };
        let all = [asked(On::Root, "the root", &[]), asked(On::Datastores, "ds", &[]), asked(On::Machines, "vm", &[])];
        assert!(judge("svc", &all).iter().all(|finding| finding.verdict == Verdict::Ok));

        let two = [
            asked(On::Root, "the root", &["Global.Licenses"]),
            asked(On::Datastores, "datastore a (datastore-1)", &["Datastore.FileManagement"]),
            asked(On::Datastores, "datastore b (datastore-2)", &[]),
            asked(On::Machines, "vm", &["VirtualMachine.Config.ChangeTracking"]),
        ];
        let told = judge("svc", &two);
        let with = |verdict| told.iter().filter(move |finding| finding.verdict == verdict);
        assert_eq!((with(Verdict::Problem).count(), with(Verdict::Warning).count()), (2, 1), "{told:?}");
        let snapshots =
            with(Verdict::Problem).find(|finding| finding.seen.contains("Datastore")).map(|f| (&f.seen, &f.fix));
        let Some((seen, fix)) = snapshots else { panic!("{told:?}") };
        assert_eq!(seen, "account svc lacks Datastore.FileManagement on datastore a (datastore-1)");
        assert!(fix.contains("Low level file operations") && fix.contains("datastore-1"), "{fix}");
    }

    #[test]
    fn objects_that_nobody_could_ask_about_are_no_good_news() {
        let told = judge("svc", &[Asked { on: On::Root, object: "the root".to_owned(), lacks: Vec::new() }]);
        assert_eq!(told.iter().filter(|finding| finding.verdict == Verdict::Warning).count(), 2, "{told:?}");
    }
}

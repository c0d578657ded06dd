//! Why something is left or refused, and what a person can do about it.

use std::fmt;

/// First-class disks cannot be attached to hardware older than `vmx-13`.
pub const OLDEST_HARDWARE: u32 = 13;

/// Why a virtual machine or a disk is not switched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// The cluster shows no nodes: nothing is known of what disks will be attached to.
    NoNodes,
    /// The node names no virtual machine.
    MachineUnnamed,
    /// vCenter knows no such virtual machine.
    MachineMissing,
    /// So many virtual machines have the node's id.
    MachinesAlike(usize),
    /// vCenter did not describe it.
    Unreadable(String),
    /// The virtual machine's hardware is of this version.
    HardwareTooOld(String),
    /// The virtual machine has snapshots.
    MachineHasSnapshots,
    /// So many virtual machines stand against all of it.
    MachinesForbid(usize),
    /// So many disks stand against all of it.
    DisksForbid(usize),
    /// The virtual machines have to go first.
    MachinesFirst,
    /// A virtual machine has the disk; tracking begins when it is attached anew.
    Attached,
    /// A virtual machine has the disk; its tracking cannot be ended now.
    AttachedKeeps,
    /// The disk has so many snapshots.
    HasSnapshots(usize),
    /// Several nodes may write to the disk at once.
    Shared,
    /// vCenter knows no such disk.
    DiskMissing,
    /// So many disks stay tracked, and could not be attached any more.
    TrackedDisksStay(usize),
}

impl Why {
    /// What a person can do; empty where nothing is to be done.
    pub fn fix(&self) -> &'static str {
        match self {
            Self::NoNodes => "check that the kubeconfig is that of the cluster, and that its account may list nodes",
            Self::MachineUnnamed => "let the vSphere cloud provider set the node's spec.providerID (vsphere://UUID)",
            Self::MachineMissing => {
                "remove the Node if its virtual machine is gone; else check that the vCenter Secret names its vCenter, and \
                 that the account may see the virtual machine (System.Read)"
            }
            Self::MachinesAlike(_) => "give copies of a virtual machine a BIOS UUID of their own",
            Self::Unreadable(_) => "mend what is named, then run again",
            Self::HardwareTooOld(_) => "upgrade the virtual machine's hardware version",
            Self::MachineHasSnapshots => "delete the virtual machine's snapshots",
            Self::MachinesForbid(_) => "mend the nodes that are refused",
            Self::DisksForbid(_) => "mend the disks that are refused",
            Self::MachinesFirst => {
                "run again once every virtual machine has it on and was stunned since: by a snapshot that is made and deleted, \
                 a migration, or a power cycle"
            }
            Self::Attached | Self::DiskMissing => "",
            Self::AttachedKeeps => "stop the pods that use it, then run again",
            Self::HasSnapshots(_) => {
                "let its backup end, or delete the snapshots of the disk (also VolumeSnapshots and backups in local mode)"
            }
            Self::Shared => "keep to full reads: vSphere does not track such disks, and must not be told to begin",
            Self::TrackedDisksStay(_) => "stop the pods that use them, then run again",
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoNodes => f.write_str("the cluster shows no nodes"),
            Self::MachineUnnamed => f.write_str("the node names no virtual machine of vSphere"),
            Self::MachineMissing => f.write_str("vCenter shows no virtual machine with the node's id"),
            Self::MachinesAlike(count) => write!(f, "{count} virtual machines have the node's id"),
            Self::Unreadable(why) => f.write_str(why),
            Self::HardwareTooOld(has) => {
                write!(f, "its hardware is {has}, and disks can be attached from vmx-{OLDEST_HARDWARE} on")
            }
            Self::MachineHasSnapshots => {
                f.write_str("it has snapshots, and tracking that begins with snapshots there gives wrong answers")
            }
            Self::MachinesForbid(count) => write!(f, "not while a node is refused ({count}): all are switched, or none"),
            Self::DisksForbid(count) => write!(
                f,
                "not while a disk is refused ({count}): tracking would begin on it by itself when it is attached"
            ),
            Self::MachinesFirst => f.write_str("the virtual machines of all nodes have to have it on first"),
            Self::Attached => f.write_str(
                "it is attached: tracking begins by itself when it is attached anew to a virtual machine that has it on",
            ),
            Self::AttachedKeeps => f.write_str("it is attached and keeps its tracking"),
            Self::HasSnapshots(count) => {
                write!(f, "it has snapshots ({count}), and tracking that begins with snapshots there gives wrong answers")
            }
            Self::Shared => f.write_str("several nodes may write to it at once"),
            Self::DiskMissing => f.write_str("vCenter knows no such disk"),
            Self::TrackedDisksStay(count) => {
                write!(f, "not while disks stay tracked ({count}): they could not be attached to it any more")
            }
        }
    }
}

//! Change tracking for a whole cluster: which virtual machines and disks are switched, which are left, and why.
//!
//! vSphere has one rule that makes the order matter (`docs/changed-areas.md`): a tracked disk cannot be attached to a virtual
//! machine whose changes are not tracked, so its pod does not start; and whatever is attached to one whose changes are tracked
//! becomes tracked, and stays so. Hence a cluster has tracking on all of its nodes or on none: the machines go first and all
//! together, disks only where every machine has it, and a machine loses it only when no disk has it any more.
//!
//! This module asks nobody and switches nothing: [`enable`] and [`disable`] make a [`Plan`] of facts, [`dangers`] says what is
//! wrong with the facts as they are.

mod why;

#[cfg(test)]
mod tests;

use disk::DiskId;

pub use why::{OLDEST_HARDWARE, Why};

/// What a node says of its virtual machine begins with this.
const PROVIDER: &str = "vsphere://";

/// A node and the virtual machine it runs in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// The node's name.
    pub name: String,
    /// Its virtual machine.
    pub machine: Machine,
}

/// What is known of a node's virtual machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Machine {
    /// vCenter described it.
    Known {
        /// Its hardware's version, such as `vmx-19`.
        hardware: String,
        /// Whether its configuration says that changes are tracked.
        tracking: bool,
        /// Whether it has snapshots of its own.
        snapshots: bool,
    },
    /// The node does not say which it is.
    Unnamed,
    /// vCenter knows none with the node's id, or does not show it to our account.
    Missing,
    /// vCenter knows so many with the node's id.
    Several(usize),
    /// vCenter did not describe it; why.
    Unreadable(String),
}

/// The disk of one of the cluster's volumes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// It.
    pub id: DiskId,
    /// Whether several nodes may write to it at once.
    pub shared: bool,
    /// What vCenter says of it.
    pub facts: Facts,
}

/// What is known of a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Facts {
    /// vCenter described it.
    Known {
        /// Whether a virtual machine has it.
        attached: bool,
        /// Whether its changes are tracked.
        tracking: bool,
        /// How many snapshots it has.
        snapshots: usize,
    },
    /// vCenter knows no such disk.
    Missing,
    /// vCenter did not describe it; why.
    Unreadable(String),
}

/// What becomes of one virtual machine or disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// It is as it should be.
    Already,
    /// To be switched.
    Switch,
    /// Left as it is now; no mistake of anybody's.
    Left(Why),
    /// Not touched: somebody has to change something first.
    Refused(Why),
}

/// What becomes of everything, in the order of the nodes and disks that it was made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Of each node's virtual machine.
    pub machines: Vec<Step>,
    /// Of each disk.
    pub disks: Vec<Step>,
    /// Why no virtual machine and no disk is switched, where something forbids all of it.
    pub refused: Option<Why>,
}

impl Plan {
    /// Whether anything is to be switched.
    pub fn has_work(&self) -> bool {
        self.machines.iter().chain(&self.disks).any(|step| *step == Step::Switch)
    }
}

impl Machine {
    /// Whether its changes are tracked for certain.
    pub fn is_tracked(&self) -> bool {
        matches!(self, Self::Known { tracking: true, .. })
    }

    /// Why tracking cannot be relied on, or begin, on it.
    pub fn objection(&self) -> Option<Why> {
        match self {
            Self::Unnamed => Some(Why::MachineUnnamed),
            Self::Missing => Some(Why::MachineMissing),
            Self::Several(count) => Some(Why::MachinesAlike(*count)),
            Self::Unreadable(why) => Some(Why::Unreadable(why.clone())),
            Self::Known { hardware, .. } if is_old(hardware) => Some(Why::HardwareTooOld(hardware.clone())),
            Self::Known { tracking: false, snapshots: true, .. } => Some(Why::MachineHasSnapshots),
            Self::Known { .. } => None,
        }
    }
}

impl Facts {
    fn may_be_tracked(&self) -> bool {
        matches!(self, Self::Known { tracking: true, .. } | Self::Unreadable(_))
    }
}

/// The id of the virtual machine that a node's `spec.providerID` names: `vsphere://<uuid>`.
pub fn machine_id(provider_id: &str) -> Option<String> {
    let id = provider_id.trim().strip_prefix(PROVIDER)?.to_ascii_lowercase();
    let is_uuid = id.len() == 36
        && id
            .char_indices()
            .all(|(at, c)| if matches!(at, 8 | 13 | 18 | 23) { c == '-' } else { c.is_ascii_hexdigit() });
    is_uuid.then_some(id)
}

/// What is to be done so that the changes of all disks are tracked.
///
/// Disks are switched only where every node's machine has tracking on. Before that the machines are, all of them: one that
/// cannot be refuses everything, and so does a disk on which tracking must not begin, because it would begin by itself when
/// that disk is attached to a switched machine.
pub fn enable(nodes: &[Node], disks: &[Disk]) -> Plan {
    let objections: Vec<_> = nodes.iter().map(|node| node.machine.objection()).collect();
    let wanted: Vec<_> = disks.iter().map(begin).collect();
    let all_tracked = !nodes.is_empty() && nodes.iter().all(|node| node.machine.is_tracked());
    let refused = match objections.iter().flatten().count() {
        _ if nodes.is_empty() => Some(Why::NoNodes),
        0 if all_tracked => None,
        0 => match wanted.iter().filter(|step| matches!(step, Step::Refused(_))).count() {
            0 => None,
            count => Some(Why::DisksForbid(count)),
        },
        count => Some(Why::MachinesForbid(count)),
    };
    let machines = nodes.iter().zip(objections).map(|(node, objection)| match (objection, &refused) {
        (Some(why), _) => Step::Refused(why),
        (None, _) if node.machine.is_tracked() => Step::Already,
        (None, Some(why)) => Step::Left(why.clone()),
        (None, None) => Step::Switch,
    });
    let disks = wanted.into_iter().map(|step| match (&step, &refused) {
        (Step::Switch, Some(why)) => Step::Left(why.clone()),
        (Step::Switch, None) if !all_tracked => Step::Left(Why::MachinesFirst),
        _ => step,
    });
    Plan { machines: machines.collect(), disks: disks.collect(), refused }
}

/// Whether tracking may begin on a disk now, whatever the machines.
pub fn begin(disk: &Disk) -> Step {
    match &disk.facts {
        Facts::Missing => Step::Left(Why::DiskMissing),
        Facts::Unreadable(why) => Step::Refused(Why::Unreadable(why.clone())),
        Facts::Known { tracking: true, .. } => Step::Already,
        Facts::Known { .. } if disk.shared => Step::Refused(Why::Shared),
        Facts::Known { snapshots, .. } if *snapshots > 0 => Step::Refused(Why::HasSnapshots(*snapshots)),
        Facts::Known { attached: true, .. } => Step::Left(Why::Attached),
        Facts::Known { .. } => Step::Switch,
    }
}

/// What is to be done so that no changes are tracked any more: the way back.
///
/// Disks go first. The machines follow, all of them, when no disk would be left that then could not be attached anywhere; an
/// attached disk keeps its tracking, and so they stay as long as there is one.
pub fn disable(nodes: &[Node], disks: &[Disk]) -> Plan {
    let steps: Vec<_> = disks.iter().map(end).collect();
    let kept = disks.iter().zip(&steps).filter(|(disk, step)| **step != Step::Switch && disk.facts.may_be_tracked());
    Plan { machines: machines_off(nodes, kept.count()), disks: steps, refused: None }
}

/// What [`disable`] says of the machines once the disks are done: with the facts as they are then, whatever was planned for them.
pub fn disable_machines(nodes: &[Node], disks: &[Disk]) -> Vec<Step> {
    machines_off(nodes, disks.iter().filter(|disk| disk.facts.may_be_tracked()).count())
}

/// `kept` disks stay tracked.
fn machines_off(nodes: &[Node], kept: usize) -> Vec<Step> {
    let unknown = nodes.iter().filter(|node| !matches!(node.machine, Machine::Known { .. })).count();
    let off = |node: &Node| match &node.machine {
        Machine::Known { tracking: false, .. } => Step::Already,
        Machine::Known { .. } if kept > 0 => Step::Left(Why::TrackedDisksStay(kept)),
        Machine::Known { .. } if unknown > 0 => Step::Left(Why::MachinesForbid(unknown)),
        Machine::Known { .. } => Step::Switch,
        machine => Step::Refused(machine.objection().unwrap_or(Why::MachineMissing)),
    };
    nodes.iter().map(off).collect()
}

fn end(disk: &Disk) -> Step {
    match &disk.facts {
        Facts::Missing => Step::Left(Why::DiskMissing),
        Facts::Unreadable(why) => Step::Refused(Why::Unreadable(why.clone())),
        Facts::Known { tracking: false, .. } => Step::Already,
        Facts::Known { attached: true, .. } => Step::Left(Why::AttachedKeeps),
        Facts::Known { .. } => Step::Switch,
    }
}

/// What is wrong with a cluster as it is, one sentence each: pods that will not start.
pub fn dangers(nodes: &[Node], disks: &[Disk]) -> Vec<String> {
    let without = nodes.iter().filter(|node| matches!(node.machine, Machine::Known { tracking: false, .. }));
    let without: Vec<&str> = without.map(|node| node.name.as_str()).collect();
    let tracked = disks.iter().filter(|disk| matches!(disk.facts, Facts::Known { tracking: true, .. })).count();
    let mut dangers = Vec::new();
    if !without.is_empty() && tracked > 0 {
        dangers.push(format!(
            "disks that are tracked ({tracked}) cannot be attached to {}: pods that use them do not start there",
            without.join(", ")
        ));
    }
    if !without.is_empty() && nodes.iter().any(|node| node.machine.is_tracked()) {
        dangers.push(format!(
            "some nodes track and others do not: a disk that is attached to one that does cannot be attached to {} any more",
            without.join(", ")
        ));
    }
    dangers
}

/// `vmx-9` is older than `vmx-13`. One that says something else is no version that we know, and none that counts as new.
fn is_old(hardware: &str) -> bool {
    let number = hardware.trim().strip_prefix("vmx-").and_then(|number| number.parse::<u32>().ok());
    number.is_none_or(|number| number < OLDEST_HARDWARE)
}

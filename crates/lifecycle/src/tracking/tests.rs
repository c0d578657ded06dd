//! What a user would lose: pods that do not start, and backups that are silently wrong.
#![allow(clippy::unwrap_used)]

use super::*;

fn machine(tracking: bool) -> Machine {
    Machine::Known { hardware: "vmx-19".to_owned(), tracking, snapshots: false }
}

fn nodes(machines: &[Machine]) -> Vec<Node> {
    let named = |(at, machine): (usize, &Machine)| Node { name: format!("node-{at}"), machine: machine.clone() };
    machines.iter().enumerate().map(named).collect()
}

fn disk(facts: Facts) -> Disk {
    Disk { id: "2b6d".parse().unwrap(), shared: false, facts }
}

fn known(attached: bool, tracking: bool, snapshots: usize) -> Disk {
    disk(Facts::Known { attached, tracking, snapshots })
}

const OFF: bool = false;
const ON: bool = true;

/// A disk that nobody uses and nobody tracks.
fn idle() -> Disk {
    known(false, OFF, 0)
}

#[test]
fn no_disk_is_switched_on_unless_every_node_could_attach_it() {
    let old = Machine::Known { hardware: "vmx-11".to_owned(), tracking: ON, snapshots: false };
    let odd = Machine::Known { hardware: "new".to_owned(), tracking: OFF, snapshots: false };
    let busy = Machine::Known { hardware: "vmx-13".to_owned(), tracking: OFF, snapshots: true };
    let cases = [
        ("no nodes", vec![], Some(Why::NoNodes)),
        ("one node off", vec![machine(ON), machine(OFF)], None),
        ("all off", vec![machine(OFF), machine(OFF)], None),
        ("a node without a name of its machine", vec![machine(ON), Machine::Unnamed], Some(Why::MachinesForbid(1))),
        ("a machine that is not found", vec![machine(OFF), Machine::Missing], Some(Why::MachinesForbid(1))),
        ("two machines of one id", vec![machine(ON), Machine::Several(2)], Some(Why::MachinesForbid(1))),
        ("not told", vec![machine(ON), Machine::Unreadable("no".into())], Some(Why::MachinesForbid(1))),
        ("old hardware, though on", vec![machine(ON), old.clone()], Some(Why::MachinesForbid(1))),
        ("hardware of no known kind", vec![odd], Some(Why::MachinesForbid(1))),
        ("a machine with snapshots", vec![machine(OFF), busy, old], Some(Why::MachinesForbid(2))),
    ];
    for (situation, machines, refused) in cases {
        let plan = enable(&nodes(&machines), &[idle()]);
        assert_eq!(plan.refused, refused, "{situation}");
        assert!(matches!(&plan.disks[..], [Step::Left(_)]), "{situation}: {plan:?}");
        if refused.is_some() {
            assert!(!plan.has_work(), "all or none: {situation}: {plan:?}");
        }
    }
    let plan = enable(&nodes(&[machine(ON), machine(ON)]), &[idle()]);
    assert_eq!((plan.disks, plan.machines), (vec![Step::Switch], vec![Step::Already; 2]));
}

#[test]
fn the_machines_go_first_and_all_of_them() {
    let plan = enable(&nodes(&[machine(OFF), machine(ON), machine(OFF)]), &[idle(), known(true, OFF, 0)]);
    assert_eq!(plan.machines, [Step::Switch, Step::Already, Step::Switch]);
    assert_eq!(plan.disks, [Step::Left(Why::MachinesFirst), Step::Left(Why::Attached)]);
}

#[test]
fn tracking_never_begins_where_its_answers_would_be_wrong() {
    let shared = Disk { shared: true, ..idle() };
    let untold = disk(Facts::Unreadable("no".to_owned()));
    let cases = [
        ("snapshots", known(false, OFF, 1), Step::Refused(Why::HasSnapshots(1))),
        ("attached, with snapshots", known(true, OFF, 2), Step::Refused(Why::HasSnapshots(2))),
        ("several machines write to it", shared, Step::Refused(Why::Shared)),
        ("vCenter does not say", untold, Step::Refused(Why::Unreadable("no".to_owned()))),
        ("attached", known(true, OFF, 0), Step::Left(Why::Attached)),
        ("gone", disk(Facts::Missing), Step::Left(Why::DiskMissing)),
        ("tracked, with the snapshot of a backup", known(true, ON, 1), Step::Already),
        ("idle", idle(), Step::Switch),
    ];
    for (situation, disk, want) in cases {
        let plan = enable(&nodes(&[machine(ON)]), &[disk.clone(), idle()]);
        assert_eq!(plan.disks, [want.clone(), Step::Switch], "{situation}");
        // a machine that is switched on would begin it by itself at the next attach
        let forbids = matches!(want, Step::Refused(_));
        let plan = enable(&nodes(&[machine(OFF), machine(ON)]), &[disk, idle()]);
        assert_eq!(plan.refused, forbids.then_some(Why::DisksForbid(1)), "{situation}");
        assert_eq!(plan.has_work(), !forbids, "{situation}: {plan:?}");
    }
}

#[test]
fn the_way_back_leaves_no_tracked_disk_without_a_machine() {
    let on = [machine(ON), machine(OFF)];
    let cases = [
        ("one that is attached", known(true, ON, 0), Step::Left(Why::AttachedKeeps), 1),
        (
            "one that vCenter does not describe",
            disk(Facts::Unreadable("no".to_owned())),
            Step::Refused(Why::Unreadable("no".to_owned())),
            1,
        ),
        ("one in a backup", known(false, ON, 1), Step::Switch, 0),
        ("one that was never tracked, attached", known(true, OFF, 0), Step::Already, 0),
        ("one that is gone", disk(Facts::Missing), Step::Left(Why::DiskMissing), 0),
    ];
    for (situation, disk, want, stays) in cases {
        let plan = disable(&nodes(&on), &[known(false, ON, 0), disk]);
        assert_eq!(plan.disks, [Step::Switch, want], "{situation}");
        let machines = if stays == 0 { Step::Switch } else { Step::Left(Why::TrackedDisksStay(stays)) };
        assert_eq!(plan.machines, [machines, Step::Already], "{situation}");
    }
    let plan = disable(&nodes(&[machine(ON), Machine::Missing]), &[known(false, ON, 0)]);
    assert_eq!(plan.machines, [Step::Left(Why::MachinesForbid(1)), Step::Refused(Why::MachineMissing)]);
    assert_eq!(plan.disks, [Step::Switch], "disks go all the same");
    assert!(!disable(&nodes(&[machine(OFF)]), &[idle()]).has_work());
    // one that could not be switched, or that a pod let go of meanwhile
    assert_eq!(disable_machines(&nodes(&on), &[known(false, ON, 0)])[0], Step::Left(Why::TrackedDisksStay(1)));
    assert_eq!(disable_machines(&nodes(&on), &[idle()])[0], Step::Switch);
}

#[test]
fn pods_that_will_not_start_are_told_of() {
    let cases = [
        ("nothing is tracked", vec![machine(OFF), machine(OFF)], idle(), vec![]),
        ("everything is", vec![machine(ON), machine(ON)], known(true, ON, 0), vec![]),
        (
            "a disk is, a node is not",
            vec![machine(OFF)],
            known(false, ON, 0),
            vec!["tracked (1) cannot be attached to node-0"],
        ),
        (
            "a switch that stopped half way",
            vec![machine(ON), machine(OFF)],
            idle(),
            vec!["cannot be attached to node-1"],
        ),
    ];
    for (situation, machines, disk, want) in cases {
        let told = dangers(&nodes(&machines), &[disk]);
        assert_eq!(told.len(), want.len(), "{situation}: {told:?}");
        assert!(told.iter().zip(want).all(|(told, want)| told.contains(want)), "{situation}: {told:?}");
    }
}

#[test]
fn a_node_names_its_machine_or_none() {
    let id = "42303F6C-0d4b-9b3c-3f2e-1a2b3c4d5e6f";
    assert_eq!(machine_id(&format!("vsphere://{id}")), Some(id.to_ascii_lowercase()));
    let strange = [
        "",
        id,
        "aws:///eu-1/i-0abc",
        "vsphere://",
        "vsphere://node-a",
        &format!("vsphere://{id}0"),
        "vsphere://42303f6c-0d4b-9b3c-3f2e_1a2b3c4d5e6f",
    ];
    for strange in strange {
        assert_eq!(machine_id(strange), None, "{strange}");
    }
}

//! Whether the nodes' tracking flags agree. What is wrong with one node is said by its `Machine::objection`, what is wrong with all of
//! them by [`dangers`].

use super::{Finding, Matter};
use crate::tracking::{Disk, Facts, Node, dangers};

/// Findings about nodes and disks.
pub fn judge(nodes: &[Node], disks: &[Disk]) -> Vec<Finding> {
    let mut findings: Vec<_> = dangers(nodes, disks)
        .into_iter()
        .map(|danger| {
            let why = "vSphere does not attach a tracked disk to a virtual machine that is not tracked: its pod does not start.";
            let fix = "Switch it on for all nodes (`vsphere-backup tracking enable`), or off for all (`tracking disable`).";
            Finding::problem(Matter::Tracking, danger, why, fix)
        })
        .collect();
    findings.extend(nodes.iter().filter_map(|node| {
        let why = node.machine.objection()?;
        let seen = format!("node {}: {why}", node.name);
        let matters = "Its disks cannot be tracked for certain, so backups read all that is allocated.";
        Some(Finding::warning(Matter::Tracking, seen, matters, why.fix()))
    }));
    let missing = disks.iter().filter(|disk| disk.facts == Facts::Missing).map(|disk| disk.id.to_string());
    findings.extend(missing.map(|disk| {
        let why = "The volume cannot be backed up.";
        let fix = "Check that the vCenter Secret names the vCenter of the volumes, and that nobody deleted the disk.";
        Finding::warning(Matter::Tracking, format!("vCenter knows no disk {disk}, which a volume names"), why, fix)
    }));
    if findings.is_empty() {
        let on = nodes.iter().filter(|node| node.machine.is_tracked()).count();
        let tracked = disks.iter().filter(|disk| matches!(disk.facts, Facts::Known { tracking: true, .. })).count();
        let seen =
            format!("change tracking is on for {on} of {} nodes and {tracked} of {} disks", nodes.len(), disks.len());
        findings.push(Finding::ok(Matter::Tracking, seen));
    }
    findings
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::super::Verdict;
    use super::*;
    use crate::tracking::Machine;

    #[test]
    fn nodes_that_do_not_agree_are_told_before_a_pod_does_not_start() {
        let node = |name: &str, machine| Node { name: name.to_owned(), machine };
        let known = |tracking| Machine::Known { hardware: "vmx-19".to_owned(), tracking, snapshots: false };
        let worst = |nodes: &[Node]| judge(nodes, &[]).iter().map(|finding| finding.verdict).max().unwrap();
        assert_eq!(worst(&[node("a", known(false)), node("b", known(false))]), Verdict::Ok);
        assert_eq!(worst(&[node("a", known(true)), node("b", known(true))]), Verdict::Ok);
        assert_eq!(worst(&[node("a", known(true)), node("b", known(false))]), Verdict::Problem);
        assert_eq!(worst(&[node("a", Machine::Unnamed)]), Verdict::Warning);
    }
}

//! The nodes that are to reach a new disk: it is made on a datastore that their hosts share. One whose host nobody can tell does not count,
//! and is named, since a pod on it may not reach the disk.

use std::collections::{BTreeMap, BTreeSet};

use api::Reason;
use k8s_openapi::api::core::v1::Node;

use crate::{Problem, tracking};

/// The nodes of a cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Nodes {
    /// The UUIDs of their virtual machines, by the names of the nodes.
    pub machines: BTreeMap<String, String>,
    /// Those that name none: no cloud provider has written it, or theirs is not vSphere's.
    pub nameless: BTreeSet<String>,
}

impl Nodes {
    /// As the API server lists them.
    pub fn of(nodes: &[Node]) -> Self {
        let mut of = Self::default();
        for node in nodes {
            let name = node.metadata.name.clone().unwrap_or_default();
            let provider = node.spec.as_ref().and_then(|spec| spec.provider_id.as_deref());
            match provider.and_then(tracking::machine_id) {
                Some(uuid) => drop(of.machines.insert(name, uuid)),
                None => drop(of.nameless.insert(name)),
            }
        }
        of
    }

    /// What is to be said where a disk is made for the nodes `placed`, those whose machines run at its vCenter; `None` where these are all.
    pub fn left_out(&self, placed: &BTreeSet<String>) -> Option<String> {
        let why = self.why_not(placed)?;
        Some(format!("a disk is made where the other nodes reach it, and pods on these may not: {why}"))
    }

    /// Why the nodes `placed`, on these hosts, have no datastore in common.
    pub fn nowhere(&self, act: &str, hosts: &[String], placed: &BTreeSet<String>) -> Problem {
        let all = self.machines.len() + self.nameless.len();
        let why = self.why_not(placed).map(|why| format!(" ({why})")).unwrap_or_default();
        let cause = match hosts.len() {
            0 => format!("{act}: none of {all} nodes has a virtual machine that runs{why}"),
            _ => format!("{act}: hosts {} share none{why}", hosts.join(", ")),
        };
        Problem::lasting(Reason::NoSharedDatastore, cause)
    }

    fn why_not(&self, placed: &BTreeSet<String>) -> Option<String> {
        let elsewhere: Vec<&str> =
            self.machines.keys().filter(|node| !placed.contains(*node)).map(String::as_str).collect();
        let nameless: Vec<&str> = self.nameless.iter().map(String::as_str).collect();
        let told = [
            ("no virtual machine is named in spec.providerID of", nameless),
            ("no host there runs the virtual machine of", elsewhere),
        ];
        let told = told.into_iter().filter(|(_, nodes)| !nodes.is_empty());
        let told: Vec<String> = told.map(|(why, nodes)| format!("{why} {}", nodes.join(", "))).collect();
        (!told.is_empty()).then(|| told.join("; "))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn node(name: &str, provider: Option<&str>) -> Node {
        serde_json::from_value(serde_json::json!({"metadata": {"name": name}, "spec": {"providerID": provider}}))
            .unwrap()
    }

    #[test]
    fn nodes_that_a_new_disk_may_be_out_of_reach_of_are_named() {
        let uuid = "vsphere://42303f6c-0d4b-9b3c-3f2e-1a2b3c4d5e6f";
        let all = Nodes::of(&[
            node("a", Some(uuid)),
            node("b", Some(uuid)),
            node("cloud", Some("aws:///eu-1/i-1")),
            node("young", None),
        ]);
        let whole = Nodes { nameless: BTreeSet::new(), ..all.clone() };
        let placed = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        let nameless = "no virtual machine is named in spec.providerID of cloud, young";
        let off = "no host there runs the virtual machine of b";
        assert_eq!(whole.left_out(&placed(&["a", "b"])), None);
        for (situation, nodes, placed, want) in [
            ("one is off", &whole, placed(&["a"]), off.to_owned()),
            ("two name no machine", &all, placed(&["a", "b"]), nameless.to_owned()),
            ("both", &all, placed(&["a"]), format!("{nameless}; {off}")),
        ] {
            let said = nodes.left_out(&placed).unwrap();
            assert!(said.ends_with(&want), "{situation}: {said}");
            let failed = nodes.nowhere("find a datastore", &["host-1".to_owned(), "host-2".to_owned()], &placed);
            assert_eq!(
                failed.cause,
                format!("find a datastore: hosts host-1, host-2 share none ({want})"),
                "{situation}"
            );
        }
        let failed = Nodes::of(&[node("young", None)]).nowhere("find a datastore", &[], &BTreeSet::new());
        let want = "find a datastore: none of 1 nodes has a virtual machine that runs (no virtual machine is named in \
                    spec.providerID of young)";
        assert_eq!((failed.reason, failed.cause.as_str()), (Reason::NoSharedDatastore, want));
    }
}

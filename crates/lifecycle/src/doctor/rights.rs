//! What our accounts must be allowed in the cluster, one by one, as the chart's roles give it, and what is missing.
//!
//! The list is read from the chart's own rendering: a right that a program begins to need is asked for from then on. The chart may be
//! installed with another Secret of vCenter than the rendering's, so for that one the settings are asked.

use std::collections::BTreeSet;
use std::fmt;

use api::{Reason, names};
use k8s_openapi::api::rbac::v1::PolicyRule;
use serde::Deserialize as _;
use serde_yaml_ng::{Deserializer, Value};

use super::{Finding, Matter};
use crate::vcenter::SecretPlace;

/// The roles, each with the account that has them.
const ROLES: [(&str, &str); 2] = [
    (names::DRIVER, include_str!("../../../../deploy/manifests/backup-driver-rbac.yaml")),
    (names::DATA_MANAGER, include_str!("../../../../deploy/manifests/data-manager-rbac.yaml")),
];

/// Where something must be allowed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Within {
    /// In all namespaces.
    All,
    /// In the Velero namespace.
    Velero,
    /// In the namespace of this name.
    Namespace(String),
}

impl fmt::Display for Within {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("in all namespaces"),
            Self::Velero => f.write_str("in Velero's namespace"),
            Self::Namespace(name) => write!(f, "in namespace {name}"),
        }
    }
}

/// One thing that an account must be allowed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Right {
    /// The service account, in the Velero namespace.
    pub account: &'static str,
    /// Where.
    pub within: Within,
    /// Such as `get`.
    pub verb: String,
    /// Such as `backupdriver.cnsdp.vmware.com`; empty for the core.
    pub group: String,
    /// Such as `snapshots`.
    pub resource: String,
    /// Such as `status`.
    pub subresource: Option<String>,
    /// The one object it is for.
    pub name: Option<String>,
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verb, self.resource)?;
        if let Some(subresource) = &self.subresource {
            write!(f, "/{subresource}")?;
        }
        if !self.group.is_empty() {
            write!(f, ".{}", self.group)?;
        }
        if let Some(name) = &self.name {
            write!(f, " {name}")?;
        }
        write!(f, " {}", self.within)
    }
}

/// Everything that our accounts must be allowed, where vCenter's credentials are in one of these Secrets.
pub fn needed(vcenter: &[SecretPlace]) -> Vec<Right> {
    let mut needed = BTreeSet::new();
    for (account, text) in ROLES {
        for document in Deserializer::from_str(text) {
            let document = Value::deserialize(document).expect("a manifest of ours is YAML");
            let kind = document["kind"].as_str().unwrap_or_default().to_owned();
            if kind != "Role" && kind != "ClusterRole" {
                continue;
            }
            let rules: Vec<PolicyRule> =
                serde_yaml_ng::from_value(document["rules"].clone()).expect("the rules of our roles are such");
            let within = if kind == "Role" { Within::Velero } else { Within::All };
            for right in rules.iter().flat_map(|rule| of_rule(account, &within, rule)) {
                match is_for_the_default_vcenter_secret(&right) {
                    true => needed.extend(vcenter.iter().map(|secret| {
                        let SecretPlace { namespace, name } = secret.clone();
                        let within = namespace.map_or(Within::Velero, Within::Namespace);
                        Right { within, name: Some(name), ..right.clone() }
                    })),
                    false => drop(needed.insert(right)),
                }
            }
        }
    }
    needed.into_iter().collect()
}

fn is_for_the_default_vcenter_secret(right: &Right) -> bool {
    right.group.is_empty() && right.resource == "secrets" && right.name.as_deref() == Some(names::VCENTER_SECRET)
}

fn of_rule(account: &'static str, within: &Within, rule: &PolicyRule) -> Vec<Right> {
    let mut rights = Vec::new();
    let names: Vec<Option<String>> = match &rule.resource_names {
        Some(names) => names.iter().cloned().map(Some).collect(),
        None => vec![None],
    };
    for group in rule.api_groups.iter().flatten() {
        for resource in rule.resources.iter().flatten() {
            let (resource, subresource) = match resource.split_once('/') {
                Some((resource, subresource)) => (resource.to_owned(), Some(subresource.to_owned())),
                None => (resource.clone(), None),
            };
            for verb in &rule.verbs {
                rights.extend(names.iter().map(|name| Right {
                    account,
                    within: within.clone(),
                    verb: verb.clone(),
                    group: group.clone(),
                    resource: resource.clone(),
                    subresource: subresource.clone(),
                    name: name.clone(),
                }));
            }
        }
    }
    rights
}

/// A finding for each right that is missing, and one for each account that has all. `allowed` belongs to `needed` one by one.
pub fn judge(needed: &[Right], allowed: &[bool]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (account, _) in ROLES {
        let of_account = || needed.iter().zip(allowed).filter(move |(right, _)| right.account == account);
        let missing: Vec<_> = of_account().filter(|(_, allowed)| !**allowed).map(|(right, _)| right).collect();
        if missing.is_empty() {
            let seen = format!("account {account} may do all {} things that it needs", of_account().count());
            findings.push(Finding::ok(Matter::Rights, seen));
        }
        findings.extend(missing.into_iter().map(|right| {
            let seen = format!("account {account} may not {right}");
            let why = "What needs it waits with that reason, or fails.";
            Finding::problem(Matter::Rights, seen, why, Reason::ClusterForbidden.fix())
                .because(Reason::ClusterForbidden)
        }));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;
    use crate::flavor::Flavor;
    use crate::vcenter::secrets;
    use std::collections::BTreeMap;

    fn needed_by_default() -> Vec<Right> {
        needed(&secrets(&BTreeMap::new(), &BTreeMap::new(), Flavor::Vanilla))
    }

    #[test]
    fn every_right_of_the_charts_roles_is_asked_for_by_itself() {
        let needed = needed_by_default();
        let told: Vec<_> = needed.iter().map(|right| format!("{}: {right}", right.account)).collect();
        for want in [
            "backup-driver: patch snapshots/status.backupdriver.cnsdp.vmware.com in all namespaces",
            "backup-driver: create uploads.datamover.cnsdp.vmware.com in Velero's namespace",
            "backup-driver: get secrets velero-vsphere-config-secret in Velero's namespace",
            "datamgr-for-vsphere-plugin: patch downloads.datamover.cnsdp.vmware.com in Velero's namespace",
            "datamgr-for-vsphere-plugin: get deployments.apps vsphere-csi-controller in all namespaces",
        ] {
            assert!(told.iter().any(|right| right == want), "{want} is not in\n{}", told.join("\n"));
        }
    }

    #[test]
    fn a_right_that_was_taken_away_is_named_with_its_account() {
        let needed = needed_by_default();
        let all = vec![true; needed.len()];
        assert!(judge(&needed, &all).iter().all(|finding| finding.verdict == Verdict::Ok));
        let cut: Vec<_> = needed.iter().map(|right| !(right.resource == "nodes" && right.verb == "list")).collect();
        let told = judge(&needed, &cut);
        let problems: Vec<_> = told.iter().filter(|finding| finding.verdict == Verdict::Problem).collect();
        assert_eq!(problems.len(), 1, "{told:?}");
        assert_eq!(problems[0].seen, "account backup-driver may not list nodes in all namespaces");
    }

    #[test]
    fn a_cluster_whose_vcenter_secret_is_another_one_is_asked_for_that_one_alone() {
        let of_csi = [
            "csi-vsphere-config in namespace vmware-system-csi",
            "vsphere-config-secret in namespace vmware-system-csi",
        ];
        let own = BTreeMap::from([("vsphere_secret_name".to_owned(), "mine".to_owned())]);
        let cases: [(&str, _, Flavor, &[&str]); 3] = [
            (
                "nothing is set",
                BTreeMap::new(),
                Flavor::Vanilla,
                &["velero-vsphere-config-secret in Velero's namespace"],
            ),
            ("another name", own.clone(), Flavor::Vanilla, &["mine in Velero's namespace"]),
            ("a Supervisor", own, Flavor::Supervisor, &of_csi),
        ];
        let others = ["vsphere-backup-repository-key", "velero-repo-credentials", "cloud-credentials"];
        for (situation, config, flavor, want) in cases {
            let needed = needed(&secrets(&config, &BTreeMap::new(), flavor));
            for account in [names::DRIVER, names::DATA_MANAGER] {
                for verb in ["get", "list", "watch"] {
                    let is_of = |right: &&Right| (right.account, right.resource.as_str()) == (account, "secrets");
                    let told = needed.iter().filter(is_of).filter(|right| right.verb == verb).map(ToString::to_string);
                    let mut told: Vec<_> =
                        told.filter(|told| !others.iter().any(|other| told.contains(other))).collect();
                    told.sort();
                    let want: Vec<_> = want.iter().map(|secret| format!("{verb} secrets {secret}")).collect();
                    assert_eq!(told, want, "{situation}: {account}");
                }
            }
        }
    }
}

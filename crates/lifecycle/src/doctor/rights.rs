//! What our accounts must be allowed in the cluster, one by one, as the chart's roles give it, and what is missing.
//!
//! The list is read from the chart's own rendering: a right that a program begins to need is asked for from then on. The chart may be
//! installed with another Secret of vCenter than the rendering's, so for that one the settings are asked.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use api::{Reason, names};
use k8s_openapi::api::rbac::v1::PolicyRule;
use serde::Deserialize as _;
use serde_yaml_ng::{Deserializer, Value};

use super::{Finding, Matter};

/// The roles, each with the account that has them.
const ROLES: [(&str, &str); 2] = [
    (names::DRIVER, include_str!("../../../../deploy/manifests/backup-driver-rbac.yaml")),
    (names::DATA_MANAGER, include_str!("../../../../deploy/manifests/data-manager-rbac.yaml")),
];

/// Where the CSI driver keeps its own Secret.
const CSI_NAMESPACE: &str = "vmware-system-csi";

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

/// A Secret with vCenter's credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VcenterSecret {
    /// Where it lies.
    pub within: Within,
    /// Its name.
    pub name: String,
}

/// Where vCenter's credentials are looked for, by what is set in the ConfigMaps [`names::CONFIG`] and [`names::FEATURES`]. The
/// CSI driver's own Secret has had two names, and the chart lets both be read. The programs look in the same places (`connections`).
pub fn vcenter_secrets(config: &BTreeMap<String, String>, features: &BTreeMap<String, String>) -> Vec<VcenterSecret> {
    // an empty value counts as absent
    let set = |map: &BTreeMap<String, String>, key| {
        map.get(key).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
    };
    if set(features, "decouple-vsphere-csi-driver").as_deref() == Some("false") {
        let within = || Within::Namespace(CSI_NAMESPACE.to_owned());
        return names::CSI_SECRETS.map(|name| VcenterSecret { within: within(), name: name.to_owned() }).to_vec();
    }
    let within = set(config, "vsphere_secret_namespace").map_or(Within::Velero, Within::Namespace);
    let name = set(config, "vsphere_secret_name").unwrap_or_else(|| names::VCENTER_SECRET.to_owned());
    vec![VcenterSecret { within, name }]
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
pub fn needed(vcenter: &[VcenterSecret]) -> Vec<Right> {
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
                        let VcenterSecret { within, name } = secret.clone();
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

    fn needed_by_default() -> Vec<Right> {
        needed(&vcenter_secrets(&BTreeMap::new(), &BTreeMap::new()))
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
        type Set = &'static [(&'static str, &'static str)];
        const NAMESPACE: &str = "vsphere_secret_namespace";
        const NAME: &str = "vsphere_secret_name";
        const DECOUPLED: &str = "decouple-vsphere-csi-driver";
        let default = "velero-vsphere-config-secret in Velero's namespace";
        let of_csi = [
            "csi-vsphere-config in namespace vmware-system-csi",
            "vsphere-config-secret in namespace vmware-system-csi",
        ];
        let cases: [(&str, Set, Set, &[&str]); 7] = [
            ("nothing is set", &[], &[], &[default]),
            ("empty words", &[(NAMESPACE, " "), (NAME, "")], &[], &[default]),
            ("another name", &[(NAME, "mine")], &[], &["mine in Velero's namespace"]),
            ("another namespace", &[(NAMESPACE, "vault")], &[], &["velero-vsphere-config-secret in namespace vault"]),
            ("both", &[(NAMESPACE, "vault"), (NAME, "mine")], &[], &["mine in namespace vault"]),
            ("the CSI driver's own", &[(NAME, "mine")], &[(DECOUPLED, "false")], &of_csi),
            ("not the CSI driver's", &[], &[(DECOUPLED, "true")], &[default]),
        ];
        let map = |set: Set| set.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let others = ["vsphere-backup-repository-key", "velero-repo-credentials", "cloud-credentials"];
        for (situation, config, features, want) in cases {
            let needed = needed(&vcenter_secrets(&map(config), &map(features)));
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

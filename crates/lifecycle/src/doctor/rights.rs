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
use crate::vcenter::{CSI_NAMESPACE, SecretPlace};

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
///
/// `switched_off` is the flag that makes vCenter's Secret the CSI driver's own, as it is written, where it does: the chart's default values
/// give no right to that one, so all of those that are missing for it are one finding.
pub fn judge(needed: &[Right], allowed: &[bool], switched_off: Option<&str>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let is_of_csi = |right: &Right| {
        right.resource == "secrets" && matches!(&right.within, Within::Namespace(name) if name == CSI_NAMESPACE)
    };
    let is_without_csi = needed.iter().zip(allowed).any(|(right, allowed)| !*allowed && is_of_csi(right));
    let switched_off = switched_off.filter(|_| is_without_csi);
    if let Some(value) = switched_off {
        findings.push(not_shared(value.trim()));
    }
    for (account, _) in ROLES {
        let of_account = || needed.iter().zip(allowed).filter(move |(right, _)| right.account == account);
        let missing: Vec<_> = of_account().filter(|(_, allowed)| !**allowed).map(|(right, _)| right).collect();
        if missing.is_empty() {
            let seen = format!("account {account} may do all {} things that it needs", of_account().count());
            findings.push(Finding::ok(Matter::Rights, seen));
        }
        let others = missing.into_iter().filter(|right| switched_off.is_none() || !is_of_csi(right));
        findings.extend(others.map(|right| {
            let seen = format!("account {account} may not {right}");
            let why = "What needs it waits with that reason, or fails.";
            Finding::problem(Matter::Rights, seen, why, Reason::ClusterForbidden.fix())
                .because(Reason::ClusterForbidden)
        }));
    }
    findings
}

/// The flag says that the CSI driver's Secret is to be used, and our accounts may not read it.
fn not_shared(value: &str) -> Finding {
    let flag = "decouple-vsphere-csi-driver";
    let seen = format!(
        "ConfigMap {}: {flag} is `{value}`, so vCenter's Secret is the CSI driver's own in {CSI_NAMESPACE}, which our accounts may not read",
        names::FEATURES
    );
    let why = "Without vCenter's credentials there is no backup and no restore.";
    let fix = format!(
        "Take {flag} out of that ConfigMap, and {} in Velero's namespace is used; or install the chart with \
         `vcenterSecret.namespace={CSI_NAMESPACE}`.",
        names::VCENTER_SECRET
    );
    Finding::problem(Matter::Rights, seen, why, fix).because(Reason::ClusterForbidden)
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
        assert!(judge(&needed, &all, None).iter().all(|finding| finding.verdict == Verdict::Ok));
        let cut: Vec<_> = needed.iter().map(|right| !(right.resource == "nodes" && right.verb == "list")).collect();
        let told = judge(&needed, &cut, None);
        let problems: Vec<_> = told.iter().filter(|finding| finding.verdict == Verdict::Problem).collect();
        assert_eq!(problems.len(), 1, "{told:?}");
        assert_eq!(problems[0].seen, "account backup-driver may not list nodes in all namespaces");
    }

    #[test]
    fn decoupling_that_was_switched_off_without_the_charts_value_is_one_finding() {
        let features = BTreeMap::from([("decouple-vsphere-csi-driver".to_owned(), "False".to_owned())]);
        let needed = needed(&secrets(&BTreeMap::new(), &features, Flavor::Vanilla));
        let of_csi = |right: &Right| right.within == Within::Namespace(CSI_NAMESPACE.to_owned());
        let missing = needed.iter().filter(|right| of_csi(right)).count();
        assert!(missing > 1, "{needed:?}");
        let problems = |cut: Vec<bool>, switched_off| {
            let told = judge(&needed, &cut, switched_off);
            told.into_iter().filter(|finding| finding.verdict == Verdict::Problem).collect::<Vec<_>>()
        };
        let without: Vec<_> = needed.iter().map(|right| !of_csi(right)).collect();
        let [told] = &problems(without.clone(), Some("False"))[..] else { panic!("one finding") };
        for words in [names::FEATURES, "decouple-vsphere-csi-driver is `False`", CSI_NAMESPACE] {
            assert!(told.seen.contains(words), "`{words}` in {}", told.seen);
        }
        assert!(told.fix.contains("vcenterSecret.namespace=vmware-system-csi"), "{}", told.fix);
        assert_eq!(problems(without, None).len(), missing, "a Supervisor has no such flag");
        let nothing = vec![true; needed.len()];
        assert_eq!(problems(nothing, Some("False")), Vec::new());
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

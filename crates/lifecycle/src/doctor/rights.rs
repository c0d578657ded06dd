//! What our accounts must be allowed in the cluster, one by one, as the chart's roles give it, and what is missing.
//!
//! The list is read from the chart's own rendering: a right that a program begins to need is asked for from then on.

use std::collections::BTreeSet;
use std::fmt;

use api::Reason;
use k8s_openapi::api::rbac::v1::PolicyRule;
use serde::Deserialize as _;
use serde_yaml_ng::{Deserializer, Value};

use super::{Finding, Matter};

/// The roles, each with the account that has them.
const ROLES: [(&str, &str); 2] = [
    (api::names::DRIVER, include_str!("../../../../deploy/manifests/backup-driver-rbac.yaml")),
    (api::names::DATA_MANAGER, include_str!("../../../../deploy/manifests/data-manager-rbac.yaml")),
];

/// One thing that an account must be allowed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Right {
    /// The service account, in the Velero namespace.
    pub account: &'static str,
    /// In the Velero namespace, else in all.
    pub in_velero: bool,
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
        f.write_str(if self.in_velero { " in Velero's namespace" } else { " in all namespaces" })
    }
}

/// Everything that our accounts must be allowed.
pub fn needed() -> Vec<Right> {
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
            for rule in &rules {
                needed.extend(of_rule(account, kind == "Role", rule));
            }
        }
    }
    needed.into_iter().collect()
}

fn of_rule(account: &'static str, in_velero: bool, rule: &PolicyRule) -> Vec<Right> {
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
                    in_velero,
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

    #[test]
    fn every_right_of_the_charts_roles_is_asked_for_by_itself() {
        let needed = needed();
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
        let needed = needed();
        let all = vec![true; needed.len()];
        assert!(judge(&needed, &all).iter().all(|finding| finding.verdict == Verdict::Ok));
        let cut: Vec<_> = needed.iter().map(|right| !(right.resource == "nodes" && right.verb == "list")).collect();
        let told = judge(&needed, &cut);
        let problems: Vec<_> = told.iter().filter(|finding| finding.verdict == Verdict::Problem).collect();
        assert_eq!(problems.len(), 1, "{told:?}");
        assert_eq!(problems[0].seen, "account backup-driver may not list nodes in all namespaces");
    }
}

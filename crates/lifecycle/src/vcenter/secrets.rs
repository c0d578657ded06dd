//! Where vCenter's credentials are looked for. The programs look there, and `doctor` asks whether they may.

use std::collections::BTreeMap;
use std::fmt;

use api::names;

use crate::flavor::Flavor;

/// Where the CSI driver keeps its own Secret.
pub const CSI_NAMESPACE: &str = "vmware-system-csi";

/// A Secret with vCenter's credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretPlace {
    /// Where it lies; `None` is Velero's own namespace.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
}

impl SecretPlace {
    /// Where it lies, Velero's own namespace being that.
    pub fn namespace<'p>(&'p self, velero_namespace: &'p str) -> &'p str {
        self.namespace.as_deref().unwrap_or(velero_namespace)
    }
}

impl fmt::Display for SecretPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{namespace}/{}", self.name),
            None => write!(f, "{} in Velero's namespace", self.name),
        }
    }
}

/// Where vCenter's credentials are looked for, best first, by what is set in the ConfigMaps [`names::CONFIG`] and
/// [`names::FEATURES`] and by the cluster's flavor. The CSI driver's own Secret has had two names. In a guest cluster there is none.
pub fn secrets(
    config: &BTreeMap<String, String>,
    features: &BTreeMap<String, String>,
    flavor: Flavor,
) -> Vec<SecretPlace> {
    // an empty value counts as absent
    let set = |map: &BTreeMap<String, String>, key| {
        map.get(key).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
    };
    let is_shared = match flavor {
        Flavor::Guest => return Vec::new(),
        Flavor::Supervisor => true,
        Flavor::Vanilla => set(features, "decouple-vsphere-csi-driver").as_deref() == Some("false"),
    };
    if is_shared {
        let place = |name: &str| SecretPlace { namespace: Some(CSI_NAMESPACE.to_owned()), name: name.to_owned() };
        return names::CSI_SECRETS.map(place).to_vec();
    }
    // the original's default was the literal `velero`
    let namespace = set(config, "vsphere_secret_namespace");
    let name = set(config, "vsphere_secret_name").unwrap_or_else(|| names::VCENTER_SECRET.to_owned());
    vec![SecretPlace { namespace, name }]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vcenters_secret_is_looked_for_where_settings_and_flavor_say() {
        type Set = &'static [(&'static str, &'static str)];
        const NAMESPACE: &str = "vsphere_secret_namespace";
        const NAME: &str = "vsphere_secret_name";
        const DECOUPLED: &str = "decouple-vsphere-csi-driver";
        let default = "velero-vsphere-config-secret in Velero's namespace";
        let of_csi = ["vmware-system-csi/vsphere-config-secret", "vmware-system-csi/csi-vsphere-config"];
        let cases: [(&str, Set, Set, Flavor, &[&str]); 9] = [
            ("nothing is set", &[], &[], Flavor::Vanilla, &[default]),
            ("empty words", &[(NAMESPACE, " "), (NAME, "")], &[], Flavor::Vanilla, &[default]),
            ("another name", &[(NAME, "mine")], &[], Flavor::Vanilla, &["mine in Velero's namespace"]),
            (
                "another namespace",
                &[(NAMESPACE, "vault")],
                &[],
                Flavor::Vanilla,
                &["vault/velero-vsphere-config-secret"],
            ),
            ("both", &[(NAMESPACE, "vault"), (NAME, "mine")], &[], Flavor::Vanilla, &["vault/mine"]),
            ("the CSI driver's own", &[(NAME, "mine")], &[(DECOUPLED, "false")], Flavor::Vanilla, &of_csi),
            ("not the CSI driver's", &[], &[(DECOUPLED, "true")], Flavor::Vanilla, &[default]),
            ("a Supervisor", &[(NAME, "mine")], &[(DECOUPLED, "true")], Flavor::Supervisor, &of_csi),
            ("a guest", &[(NAME, "mine")], &[], Flavor::Guest, &[]),
        ];
        let map = |set: Set| set.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        for (situation, config, features, flavor, want) in cases {
            let found = secrets(&map(config), &map(features), flavor);
            assert_eq!(found.iter().map(ToString::to_string).collect::<Vec<_>>(), want, "{situation}");
        }
    }
}

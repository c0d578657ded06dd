//! `BackupRepositoryClaim` and `BackupRepository`: where backups go. Their fields lie at the top level; there is no
//! spec.

use std::collections::BTreeMap;

use kube::core::ObjectMeta;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::resource::{BackupDriverV1alpha1, kind};
use crate::{Condition, labels, names, tolerant};

/// The only repository driver there is; another one is refused on use.
pub const REPOSITORY_DRIVER: &str = "s3repository.astrolabe.vmware-tanzu.com";

/// A request for a repository. Lives in the Velero namespace; the driver answers with a [`BackupRepository`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub struct BackupRepositoryClaim {
    /// Always the same text.
    #[serde(default)]
    #[schemars(skip)]
    pub api_version: BackupDriverV1alpha1,
    /// Name, namespace, labels.
    #[schemars(skip)]
    #[serde(deserialize_with = "crate::resource::metadata")]
    pub metadata: ObjectMeta,
    /// Always `s3repository.astrolabe.vmware-tanzu.com`.
    #[serde(default, deserialize_with = "tolerant::or_default")]
    pub repository_driver: String,
    /// Where the bucket is and how to reach it. The spelling is the original's and is read by others.
    #[serde(rename = "repopsitoryParameters", default, deserialize_with = "tolerant::or_default")]
    pub repository_parameters: BTreeMap<String, String>,
    /// One entry: the namespace whose claims are backed up here.
    #[serde(default, deserialize_with = "tolerant::optional", skip_serializing_if = "Option::is_none")]
    pub allowed_namespaces: Option<Vec<String>>,
    /// Name of the BackupRepository, filled in by the driver.
    #[serde(default, deserialize_with = "tolerant::optional", skip_serializing_if = "Option::is_none")]
    pub backup_repository: Option<String>,
    /// Secret with the keys of the bucket, in place of keys among the parameters.
    #[serde(default, deserialize_with = "tolerant::optional", skip_serializing_if = "Option::is_none")]
    pub credential_secret: Option<CredentialSecret>,
    /// What is wrong with it, if anything.
    #[serde(default, deserialize_with = "tolerant::optional", skip_serializing_if = "Option::is_none")]
    pub status: Option<RepositoryStatus>,
}

kind!(BackupRepositoryClaim, BackupDriverV1alpha1, "backuprepositoryclaims", NamespaceResourceScope);

impl BackupRepositoryClaim {
    /// A new one, without namespace and labels.
    pub fn new(name: &str) -> Self {
        Self {
            metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
            repository_driver: REPOSITORY_DRIVER.to_owned(),
            ..Self::default()
        }
    }
}

/// Where backups go. Cluster-scoped, made by the driver for a claim, and never changed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub struct BackupRepository {
    /// Always the same text.
    #[serde(default)]
    #[schemars(skip)]
    pub api_version: BackupDriverV1alpha1,
    /// Name and labels.
    #[schemars(skip)]
    #[serde(deserialize_with = "crate::resource::metadata")]
    pub metadata: ObjectMeta,
    /// Always `s3repository.astrolabe.vmware-tanzu.com`.
    #[serde(default, deserialize_with = "tolerant::or_default")]
    pub repository_driver: String,
    /// Where the bucket is and how to reach it. The spelling is the original's and is read by others.
    #[serde(rename = "repopsitoryParameters", default, deserialize_with = "tolerant::or_default")]
    pub repository_parameters: BTreeMap<String, String>,
    /// One entry: the namespace whose claims are backed up here.
    // never enforced, as with the original: where the backups are looked for, `namespaces` says
    #[serde(default, deserialize_with = "tolerant::or_default")]
    pub allowed_namespaces: Vec<String>,
    /// Name of the claim it was made for.
    #[serde(default, deserialize_with = "tolerant::or_default")]
    pub backup_repository_claim: String,
    /// Guest clusters: name of the Supervisor's BackupRepository.
    #[serde(default, deserialize_with = "tolerant::optional", skip_serializing_if = "Option::is_none")]
    pub svc_backup_repository_name: Option<String>,
    /// Secret with the keys of the bucket, in place of keys among the parameters.
    #[serde(default, deserialize_with = "tolerant::optional", skip_serializing_if = "Option::is_none")]
    pub credential_secret: Option<CredentialSecret>,
    /// What is wrong with it, if anything.
    #[serde(default, deserialize_with = "tolerant::optional", skip_serializing_if = "Option::is_none")]
    pub status: Option<RepositoryStatus>,
}

kind!(BackupRepository, BackupDriverV1alpha1, "backuprepositories", ClusterResourceScope);

impl BackupRepository {
    /// A new one, without labels.
    pub fn new(name: &str) -> Self {
        Self {
            metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
            repository_driver: REPOSITORY_DRIVER.to_owned(),
            ..Self::default()
        }
    }

    /// The namespaces whose backups are to be looked for here, each once: those that it allows, then those of [`labels::ALSO_FOR`]. What
    /// stands there and names no namespace is passed over.
    pub fn namespaces(&self) -> Vec<&str> {
        let noted = self.metadata.annotations.as_ref().and_then(|all| all.get(labels::ALSO_FOR));
        let noted = noted.into_iter().flat_map(|text| text.split(',')).map(str::trim);
        let allowed = self.allowed_namespaces.iter().map(String::as_str);
        let mut namespaces = Vec::new();
        for namespace in allowed.chain(noted.filter(|name| names::is_object_name(name))) {
            if !namespaces.contains(&namespace) {
                namespaces.push(namespace);
            }
        }
        namespaces
    }
}

/// A key of a Secret that holds an AWS shared-credentials file, as Velero's `cloud-credentials` does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CredentialSecret {
    /// Namespace of the Secret. Absent: the Velero namespace, the only one our accounts may read from as installed.
    #[serde(default, deserialize_with = "tolerant::optional", skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Name of the Secret.
    pub name: String,
    /// Key inside it.
    pub key: String,
}

/// What is wrong with a claim or repository, if anything.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RepositoryStatus {
    /// Whether it can be used, and why not.
    #[serde(default, deserialize_with = "tolerant::conditions", skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Option<Vec<Condition>>")]
    pub conditions: Vec<Condition>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backups_are_looked_for_where_they_were_made_whatever_somebody_wrote_beside() {
        type Case<'c> = (&'c str, &'c [&'c str], Option<&'c str>, &'c [&'c str]);
        let cases: [Case<'_>; 8] = [
            ("nothing was noted", &["shop"], None, &["shop"]),
            ("one that is not allowed", &["shop"], Some("bar"), &["shop", "bar"]),
            ("several, by hand, with blanks", &["shop"], Some(" bar, foo ,"), &["shop", "bar", "foo"]),
            ("one that is allowed, and one twice", &["shop", "bar"], Some("bar,foo,foo"), &["shop", "bar", "foo"]),
            ("nobody is allowed", &[], Some("bar"), &["bar"]),
            ("one of them is no name", &["shop"], Some("../x,a b,bar"), &["shop", "bar"]),
            ("it is in another form", &["shop"], Some(r#"["bar"]"#), &["shop"]),
            ("it is empty", &["shop"], Some(""), &["shop"]),
        ];
        for (situation, allowed, noted, want) in cases {
            let mut described = BackupRepository::new("br-1");
            described.allowed_namespaces = allowed.iter().map(|&name| name.to_owned()).collect();
            described.metadata.annotations = noted.map(|text| [(labels::ALSO_FOR.to_owned(), text.to_owned())].into());
            assert_eq!(described.namespaces(), want, "{situation}");
        }
    }
}

//! The user's ConfigMaps, read when needed. A missing map or key means the default, as with the original.

use std::collections::BTreeMap;

use api::names;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client};

use crate::Error;

/// What the user has set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    config: BTreeMap<String, String>,
    features: BTreeMap<String, String>,
}

impl Settings {
    /// Reads both ConfigMaps of the Velero namespace.
    pub async fn read(client: &Client, namespace: &str) -> Result<Self, Error> {
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
        Ok(Self { config: data(&maps, names::CONFIG).await?, features: data(&maps, names::FEATURES).await? })
    }

    /// Namespace of vCenter's Secret. Default: the Velero namespace (the original's was the literal `velero`).
    pub fn vcenter_secret_namespace<'s>(&'s self, velero_namespace: &'s str) -> &'s str {
        self.text("vsphere_secret_namespace").unwrap_or(velero_namespace)
    }

    /// Name of vCenter's Secret.
    pub fn vcenter_secret_name(&self) -> &str {
        self.text("vsphere_secret_name").unwrap_or(names::VCENTER_SECRET)
    }

    /// `upload-cr-retry-max` as it is written.
    pub fn upload_retry_max(&self) -> Option<&str> {
        self.text("upload-cr-retry-max")
    }

    /// Whether backups stay in vSphere: no repository, no upload.
    pub fn local_mode(&self) -> bool {
        matches!(self.features.get("local-mode").map(String::as_str), Some("1" | "t" | "T" | "true" | "TRUE" | "True"))
    }

    /// Any key of `velero-vsphere-plugin-config`; an empty value counts as absent.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.config.get(key).map(|v| v.trim()).filter(|v| !v.is_empty())
    }
}

async fn data(maps: &Api<ConfigMap>, name: &str) -> Result<BTreeMap<String, String>, Error> {
    let map = maps.get_opt(name).await.map_err(|e| Error::api(format!("read ConfigMap {name}"), e))?;
    Ok(map.and_then(|m| m.data).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_set_means_the_defaults() {
        let none = Settings::default();
        assert_eq!(none.vcenter_secret_namespace("backup"), "backup");
        assert_eq!(none.vcenter_secret_name(), "velero-vsphere-config-secret");
        assert_eq!((none.upload_retry_max(), none.local_mode()), (None, false));
    }
}

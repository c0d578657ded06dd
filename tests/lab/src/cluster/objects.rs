//! The objects that every lab's cluster has: our CRDs and manifests, namespaces, nodes, storage classes, Secrets.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::discovery::{ApiCapabilities, ApiResource, Scope, pinned_kind};
use kube::runtime::wait::{await_condition, conditions};
use kube::{Api, Client, ResourceExt as _};
use serde::Deserialize as _;
use serde_json::{Value, json};

use crate::facts::{Facts, VELERO_NAMESPACE};
use crate::wait::until;

/// Writes objects as their only owner; what it has written it may write again.
pub(crate) struct Applier {
    client: Client,
    kinds: HashMap<GroupVersionKind, (ApiResource, ApiCapabilities)>,
}

impl Applier {
    pub(crate) fn new(client: Client) -> Self {
        Self { client, kinds: HashMap::new() }
    }

    async fn kind(&mut self, gvk: GroupVersionKind) -> Result<(ApiResource, ApiCapabilities)> {
        if let Some(known) = self.kinds.get(&gvk) {
            return Ok(known.clone());
        }
        // a kind that was just established may be missing from the list of kinds for a moment
        let what = format!("kind {} is served", gvk.kind);
        let found = until(Duration::from_secs(20), &what, async || match pinned_kind(&self.client, &gvk).await {
            Ok(found) => Ok(Some(found)),
            Err(kube::Error::Discovery(_)) => Ok(None),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
            Err(error) => Err(error).with_context(|| format!("find kind {}", gvk.kind)),
        });
        let found = found.await?;
        self.kinds.insert(gvk, found.clone());
        Ok(found)
    }

    /// Applies one object, and its status where it has one.
    pub(crate) async fn apply(&mut self, object: &Value) -> Result<()> {
        let mut object: DynamicObject = serde_json::from_value(object.clone()).context("understand an object")?;
        let types = object.types.clone().context("an object has apiVersion and kind")?;
        let name = object.name_any();
        let (resource, capabilities) = self.kind(GroupVersionKind::try_from(types)?).await?;
        let api: Api<DynamicObject> = match (&capabilities.scope, object.namespace()) {
            (Scope::Cluster, _) => Api::all_with(self.client.clone(), &resource),
            (Scope::Namespaced, namespace) => {
                let namespace = namespace.unwrap_or_else(|| VELERO_NAMESPACE.to_owned());
                object.metadata.namespace = Some(namespace.clone());
                Api::namespaced_with(self.client.clone(), &namespace, &resource)
            }
        };
        let params = PatchParams::apply("lab").force();
        let what = || format!("apply {} {name}", resource.kind);
        api.patch(&name, &params, &Patch::Apply(&object)).await.with_context(what)?;
        if object.data.get("status").is_some() {
            api.patch_status(&name, &params, &Patch::Apply(&object)).await.with_context(what)?;
        }
        Ok(())
    }

    /// Applies CRDs and waits until the API server serves them.
    pub(crate) async fn crds(&mut self, crds: &[Value]) -> Result<()> {
        for crd in crds {
            self.apply(crd).await?;
        }
        let api: Api<CustomResourceDefinition> = Api::all(self.client.clone());
        for crd in crds {
            let name = crd["metadata"]["name"].as_str().context("a CRD has a name")?;
            let served = await_condition(api.clone(), name, conditions::is_crd_established());
            tokio::time::timeout(Duration::from_secs(20), served)
                .await
                .with_context(|| format!("wait 20 s until CRD {name} is served"))?
                .with_context(|| format!("watch CRD {name}"))?;
        }
        Ok(())
    }

    /// Applies what every lab has besides our manifests.
    pub(crate) async fn basics(&mut self, lab: &Path, facts: &Facts) -> Result<()> {
        let mut objects =
            vec![json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": VELERO_NAMESPACE}})];
        objects.extend(facts.nodes.iter().map(|node| self::node(node)));
        objects.push(class("vsphere", "Immediate"));
        objects.push(class("vsphere-wffc", "WaitForFirstConsumer"));
        objects.extend(secrets(lab, facts)?);
        for object in &objects {
            self.apply(object).await?;
        }
        Ok(())
    }
}

/// The objects in the YAML files of a folder, in the order of the files' names.
pub(crate) fn documents(folder: &Path) -> Result<Vec<Value>> {
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .with_context(|| format!("list {}", folder.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|e| e == "yaml"))
        .collect();
    files.sort();
    let mut objects = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
        for document in serde_yaml_ng::Deserializer::from_str(&text) {
            let object = Value::deserialize(document).with_context(|| format!("understand {}", file.display()))?;
            if !object.is_null() {
                objects.push(object);
            }
        }
    }
    Ok(objects)
}

fn node(name: &str) -> Value {
    let room = json!({"cpu": "4", "memory": "8Gi", "pods": "110"});
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux"}},
        "spec": {"taints": []}, // a pod may run here
        "status": {
            "capacity": room,
            "allocatable": room,
            "conditions": [{"type": "Ready", "status": "True", "reason": "LabSaysSo", "message": "no kubelet runs here"}],
        },
    })
}

fn class(name: &str, binding: &str) -> Value {
    json!({
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": name},
        "provisioner": "csi.vsphere.vmware.com",
        "reclaimPolicy": "Delete",
        "allowVolumeExpansion": true,
        "volumeBindingMode": binding,
    })
}

pub(super) fn secret(name: &str, key: &str, text: &str) -> Value {
    // written as data: `stringData` would not show that a key was taken away
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": VELERO_NAMESPACE},
        "type": "Opaque",
        "data": {key: k8s_openapi::ByteString(text.as_bytes().to_vec())},
    })
}

fn secrets(lab: &Path, facts: &Facts) -> Result<[Value; 3]> {
    Ok([
        secret("vsphere-backup-repository-key", "repository-password", &facts.restic_password),
        secret("velero-vsphere-config-secret", "csi-vsphere.conf", &csi_configuration(lab, facts)?),
        secret("cloud-credentials", "cloud", &facts.s3.user.credentials_file()),
    ])
}

/// The CSI driver's configuration. A thumbprint and not `ca-file`: no file of the lab can be seen from a Secret.
pub(crate) fn csi_configuration(lab: &Path, facts: &Facts) -> Result<String> {
    let thumbprint = lab.join("certificates/server.sha256");
    let thumbprint = std::fs::read_to_string(&thumbprint).with_context(|| format!("read {}", thumbprint.display()))?;
    Ok(format!(
        "[Global]\ncluster-id = \"lab\"\n\n[VirtualCenter \"127.0.0.1\"]\nuser = \"{}\"\npassword = \"{}\"\nport = \"{}\"\n\
         thumbprint = \"{}\"\n",
        facts.vcenter_user,
        facts.vcenter_password,
        facts.port("vcenter")?,
        thumbprint.trim(),
    ))
}

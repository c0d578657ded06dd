//! Which node has a claim's volume, and on which ESXi host a node runs: what cloud provider, CSI driver and vMotion do.

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::{Node, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::VolumeAttachment;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::json;

use crate::{Claim, World};

impl World {
    /// Every node gets the id of its virtual machine, as the vSphere cloud provider gives it.
    ///
    /// # Errors
    /// When a node names another one already.
    pub async fn nodes_name_their_machines(&self) -> Result<()> {
        let nodes: Api<Node> = Api::all(self.client());
        for machine in self.control().machines().await?.as_array().context("a list of machines")? {
            let text = |field: &str| machine[field].as_str().with_context(|| format!("{machine} has no {field}"));
            let named = Patch::Merge(json!({"spec": {"providerID": format!("vsphere://{}", text("uuid")?)}}));
            nodes.patch(text("name")?, &PatchParams::default(), &named).await?;
        }
        Ok(())
    }

    /// The ESXi host on which a node's virtual machine runs, by its name.
    ///
    /// # Errors
    /// When there is no such machine.
    pub async fn host_of(&self, node: &str) -> Result<String> {
        let machines = self.control().machines().await?;
        let machine = machines.as_array().and_then(|all| all.iter().find(|machine| machine["name"] == node));
        let host = machine.and_then(|machine| machine["host"].as_str());
        host.map(str::to_owned).with_context(|| format!("machine {node} in {machines}"))
    }

    /// Moves a node's virtual machine to an ESXi host, as vMotion does.
    ///
    /// # Errors
    /// When there is no such machine or host.
    pub async fn vmotion(&self, node: &str, host: &str) -> Result<()> {
        self.control().tell("/machines", &json!({"vm": node, "host": host})).await
    }
}

impl Claim {
    /// A pod on that node uses it, as the CSI driver and the cluster say it.
    ///
    /// # Errors
    /// When another node has it.
    pub async fn attach(&self, node: &str) -> Result<()> {
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(self.client(), &self.namespace);
        let volume = claims.get(&self.name).await?.spec.and_then(|spec| spec.volume_name).context("a bound claim")?;
        self.control().tell("/attach", &json!({"disk": self.disk, "vm": node})).await?;
        let attachment = serde_json::from_value(json!({
            "metadata": {"name": self.attachment()},
            "spec": {
                "attacher": "csi.vsphere.vmware.com",
                "nodeName": node,
                "source": {"persistentVolumeName": volume},
            },
        }))?;
        self.attachments().create(&PostParams::default(), &attachment).await?;
        let attached = Patch::Merge(json!({"status": {"attached": true}}));
        self.attachments().patch_status(&self.attachment(), &PatchParams::default(), &attached).await?;
        Ok(())
    }

    /// That pod has gone.
    ///
    /// # Errors
    /// When nobody has attached it.
    pub async fn detach(&self) -> Result<()> {
        self.attachments().delete(&self.attachment(), &DeleteParams::default()).await?;
        self.control().tell("/detach", &json!({"disk": self.disk})).await
    }

    fn attachment(&self) -> String {
        format!("csi-{}", self.disk)
    }

    fn attachments(&self) -> Api<VolumeAttachment> {
        Api::all(self.client())
    }
}

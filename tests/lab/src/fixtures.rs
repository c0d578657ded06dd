//! Objects that tests need again and again: a namespace, a claim with a pod that mounts it, waiting for an object.

use std::fmt::Debug;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use k8s_openapi::api::core::v1::{Namespace, PersistentVolumeClaim, Pod};
use kube::api::PostParams;
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::Lab;
use crate::wait::until;

/// How long a fixture may take to be there.
const DEADLINE: Duration = Duration::from_secs(60);

impl Lab {
    /// Makes a namespace whose name begins with `prefix` and that no other test has.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn create_namespace(&self, prefix: &str) -> Result<String> {
        let api: Api<Namespace> = Api::all(self.client().clone());
        let unique = uuid::Uuid::new_v4().simple().to_string();
        let name = format!("{prefix}-{}", &unique[..8]);
        let namespace = serde_json::from_value(json!({"metadata": {"name": name}}))?;
        api.create(&PostParams::default(), &namespace).await.with_context(|| format!("make namespace {name}"))?;
        Ok(name)
    }
}

/// A claim that is about to be made: 16 MiB of class `vsphere`, ReadWriteOnce, with a file system.
#[derive(Debug, Clone)]
pub struct NewClaim {
    namespace: String,
    name: String,
    class: String,
    mib: u64,
    volume_mode: String,
    node: Option<String>,
}

impl NewClaim {
    /// A claim of that name.
    pub fn new(namespace: &str, name: &str) -> Self {
        let (class, volume_mode) = ("vsphere".to_owned(), "Filesystem".to_owned());
        Self { namespace: namespace.to_owned(), name: name.to_owned(), class, mib: 16, volume_mode, node: None }
    }

    /// Its size in MiB.
    #[must_use]
    pub fn mib(mut self, mib: u64) -> Self {
        self.mib = mib;
        self
    }

    /// Its storage class.
    #[must_use]
    pub fn class(mut self, class: &str) -> Self {
        class.clone_into(&mut self.class);
        self
    }

    /// `Filesystem` or `Block`.
    #[must_use]
    pub fn volume_mode(mut self, mode: &str) -> Self {
        mode.clone_into(&mut self.volume_mode);
        self
    }

    /// Also makes a Pod on that node that mounts the claim. Nothing runs in it: a lab has no kubelet.
    #[must_use]
    pub fn mounted_on(mut self, node: &str) -> Self {
        self.node = Some(node.to_owned());
        self
    }

    /// Makes the claim (and the Pod) and waits until it is bound; returns its name.
    ///
    /// # Errors
    /// When the API server refuses it, or it is not bound in time.
    pub async fn create(self, client: &Client) -> Result<String> {
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), &self.namespace);
        // what the scheduler writes when a pod waits for its first volume
        let annotations = self.node.as_ref().map(|node| json!({"volume.kubernetes.io/selected-node": node}));
        let claim = serde_json::from_value(json!({
            "metadata": {"name": self.name, "annotations": annotations},
            "spec": {
                "storageClassName": self.class,
                "accessModes": ["ReadWriteOnce"],
                "volumeMode": self.volume_mode,
                "resources": {"requests": {"storage": format!("{}Mi", self.mib)}},
            },
        }))?;
        claims.create(&PostParams::default(), &claim).await.with_context(|| format!("make claim {}", self.name))?;
        if let Some(node) = &self.node {
            self.create_pod(client, node).await?;
        }
        let bound =
            |claim: &PersistentVolumeClaim| claim.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Bound");
        wait_for(&claims, &self.name, DEADLINE, "it is bound", bound).await?;
        Ok(self.name)
    }

    async fn create_pod(&self, client: &Client, node: &str) -> Result<()> {
        let at = if self.volume_mode == "Block" {
            json!({"volumeDevices": [{"name": "data", "devicePath": "/dev/data"}]})
        } else {
            json!({"volumeMounts": [{"name": "data", "mountPath": "/data"}]})
        };
        let mut container = json!({"name": "app", "image": "app"});
        container
            .as_object_mut()
            .context("a container is an object")?
            .extend(at.as_object().cloned().unwrap_or_default());
        let pod = serde_json::from_value(json!({
            "metadata": {"name": format!("{}-user", self.name)},
            "spec": {
                "nodeName": node,
                "containers": [container],
                "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": self.name}}],
            },
        }))?;
        let pods: Api<Pod> = Api::namespaced(client.clone(), &self.namespace);
        pods.create(&PostParams::default(), &pod)
            .await
            .with_context(|| format!("make a pod for claim {}", self.name))?;
        Ok(())
    }
}

/// Waits until an object is as it should be.
///
/// # Errors
/// When the deadline passes; the message has the object's status as it was last seen.
pub async fn wait_for<K>(
    api: &Api<K>,
    name: &str,
    deadline: Duration,
    what: &str,
    mut is_so: impl FnMut(&K) -> bool,
) -> Result<K>
where
    K: Resource + Clone + Debug + DeserializeOwned + Serialize,
{
    let mut last: Option<K> = None;
    let found = until(deadline, what, async || {
        last = api.get_opt(name).await.with_context(|| format!("read {name}"))?;
        Ok(last.clone().filter(|object| is_so(object)))
    });
    match found.await {
        Ok(object) => Ok(object),
        Err(error) => {
            let seen = serde_json::to_value(&last)?;
            let shown = if seen["status"].is_null() { &seen } else { &seen["status"] };
            bail!("{name}: {error:#}; it was last {}", serde_json::to_string_pretty(shown)?)
        }
    }
}

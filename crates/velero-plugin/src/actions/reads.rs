//! What the actions read from the API server. Writes nothing, decides nothing.
//!
//! A process serves one run of a backup or restore, so what the user has set, which pods mount claims and which repository
//! takes a namespace is read once per process: all claims of a run are treated alike, and a hundred claims do not read it a
//! hundred times.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use api::velero::{Backup, BackupStorageLocation, Restore};
use api::{labels, names};
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolume, PersistentVolumeClaim, Pod, Secret};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::ListParams;
use kube::{Api, Client};
use lifecycle::doctor::settings::{blocked_mistakes, mistakes};
use lifecycle::velero::blocked::Blocked;
use lifecycle::velero::parameters::DefaultCredentials;
use lifecycle::velero::policy::Policies;
use lifecycle::velero::{Settings, fs_backup};
use serde_json::Value;
use tokio::sync::{Mutex, OnceCell};

use super::patience::Patience;
use super::{failed, refused, repositories};
use crate::Host;
use crate::protocol::kinds::ActionError;

/// Velero's Secret with the keys of locations that name none.
const DEFAULT_SECRET: &str = "cloud-credentials";
/// How many volumes are remembered at most; a few kilobytes each.
const REMEMBERED: usize = 64;

/// The API server, as the actions ask it.
pub(super) struct Reads {
    host: Host,
    settings: OnceCell<Settings>,
    blocked: OnceCell<Blocked>,
    policies: OnceCell<Option<Policies>>,
    /// By namespace.
    claim_users: Mutex<HashMap<String, Arc<Vec<Pod>>>>,
    /// By storage location and namespace.
    pub(super) repositories: Mutex<HashMap<(String, String), String>>,
    /// With a driver that is asked for one.
    pub(super) patience: Patience,
    /// By name; each until its claim is backed up, which follows soon.
    volumes: std::sync::Mutex<HashMap<String, PersistentVolume>>,
}

impl Reads {
    pub(super) fn new(host: Host) -> Self {
        Self {
            host,
            settings: OnceCell::new(),
            blocked: OnceCell::new(),
            policies: OnceCell::new(),
            claim_users: Mutex::default(),
            repositories: Mutex::default(),
            patience: repositories::patience(),
            volumes: std::sync::Mutex::default(),
        }
    }

    /// Velero's namespace.
    pub(super) fn velero(&self) -> &str {
        &self.host.namespace
    }

    pub(super) async fn client(&self) -> Result<Client, ActionError> {
        Ok(self.host.cluster.client().await?)
    }

    async fn config_map(&self, name: &str) -> Result<Option<BTreeMap<String, String>>, ActionError> {
        let maps: Api<ConfigMap> = Api::namespaced(self.client().await?, self.velero());
        let found = maps.get_opt(name).await.map_err(failed(&format!("read ConfigMap {}/{name}", self.velero())))?;
        Ok(found.map(|map| map.data.unwrap_or_default()))
    }

    /// The user's settings.
    pub(super) async fn settings(&self) -> Result<Settings, ActionError> {
        let read = async {
            let config = self.config_map(names::CONFIG).await?.unwrap_or_default();
            let features = self.config_map(names::FEATURES).await?.unwrap_or_default();
            // once in each run, in its own log
            for mistake in mistakes(&config, &features) {
                if mistake.meant.is_some_and(Settings::is_read) {
                    tracing::warn!("{mistake}");
                }
            }
            Ok(Settings::read(&config, &features, &self.host.features))
        };
        self.settings.get_or_try_init(|| read).await.copied()
    }

    /// The list of blocked resources: the user's, or the default where there is no ConfigMap.
    pub(super) async fn blocked(&self) -> Result<&Blocked, ActionError> {
        let read = async {
            let data = self.config_map(names::BLOCKED_RESOURCES).await?;
            for mistake in data.as_ref().map(blocked_mistakes).unwrap_or_default() {
                tracing::warn!("{mistake}");
            }
            Ok(Blocked::read(data.as_ref()))
        };
        self.blocked.get_or_try_init(|| read).await
    }

    /// The volume policies that a backup names.
    pub(super) async fn policies(&self, backup: &Backup) -> Result<Option<&Policies>, ActionError> {
        let read = async {
            let Some(named) = &backup.spec.resource_policy else { return Ok(None) };
            let data = self.config_map(&named.name).await?;
            Policies::read(&named.name, data.as_ref()).map(Some).map_err(|problem| refused(&problem))
        };
        Ok(self.policies.get_or_try_init(|| read).await?.as_ref())
    }

    pub(super) async fn volume(&self, name: &str) -> Result<Option<PersistentVolume>, ActionError> {
        let volumes: Api<PersistentVolume> = Api::all(self.client().await?);
        volumes.get_opt(name).await.map_err(failed(&format!("read volume {name}")))
    }

    pub(super) async fn claim(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<PersistentVolumeClaim>, ActionError> {
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(self.client().await?, namespace);
        claims.get_opt(name).await.map_err(failed(&format!("read claim {namespace}/{name}")))
    }

    /// A volume of ours was handed over in this run; its claim follows, and needs it.
    pub(super) fn volume_is_backed_up(&self, volume: PersistentVolume) {
        if let Some(name) = volume.metadata.name.clone() {
            let mut volumes = self.volumes.lock().expect("no panic while it is held");
            if volumes.len() >= REMEMBERED {
                volumes.clear(); // of claims that do not follow
            }
            volumes.insert(name, volume);
        }
    }

    /// The volume of that name, once, if it was handed over in this run.
    pub(super) fn backed_up_volume(&self, name: &str) -> Option<PersistentVolume> {
        self.volumes.lock().expect("no panic while it is held").remove(name)
    }

    /// The pods of a namespace that mount claims, with as much of them as says which claims and how they are backed up.
    pub(super) async fn claim_users(&self, namespace: &str) -> Result<Arc<Vec<Pod>>, ActionError> {
        let mut known = self.claim_users.lock().await;
        if let Some(pods) = known.get(namespace) {
            return Ok(pods.clone());
        }
        let pods: Api<Pod> = Api::namespaced(self.client().await?, namespace);
        let listed = pods.list(&ListParams::default()).await;
        let listed = listed.map_err(failed(&format!("list the pods of namespace {namespace}")))?.items;
        let users = Arc::new(listed.into_iter().filter_map(fs_backup::mounts_claims).collect::<Vec<_>>());
        known.insert(namespace.to_owned(), users.clone());
        Ok(users)
    }

    /// ConfigMaps that map storage classes.
    pub(super) async fn class_mappings(&self) -> Result<Vec<ConfigMap>, ActionError> {
        let maps: Api<ConfigMap> = Api::namespaced(self.client().await?, self.velero());
        let marked = format!("{},{}=RestoreItemAction", labels::PLUGIN_CONFIG, labels::CHANGE_STORAGE_CLASS);
        let listed = maps.list(&ListParams::default().labels(&marked)).await;
        Ok(listed.map_err(failed("list the ConfigMaps that map storage classes"))?.items)
    }

    pub(super) async fn storage_classes(&self) -> Result<Vec<StorageClass>, ActionError> {
        let classes: Api<StorageClass> = Api::all(self.client().await?);
        Ok(classes.list(&ListParams::default()).await.map_err(failed("list storage classes"))?.items)
    }

    /// An object of Velero's as it is; `None` when there is none.
    pub(super) async fn velero_object<T: serde::de::DeserializeOwned>(
        &self,
        plural: &str,
        name: &str,
    ) -> Result<Option<T>, ActionError> {
        let client = self.client().await?;
        let act = format!("read {plural} {}/{name}", self.velero());
        let path = format!("/apis/velero.io/v1/namespaces/{}/{plural}/{name}", self.velero());
        let request = http::Request::get(path).body(Vec::new()).map_err(|e| ActionError::new(format!("{act}: {e}")))?;
        match client.request::<T>(request).await {
            Ok(object) => Ok(Some(object)),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
            Err(error) => Err(failed(&act)(error)),
        }
    }

    /// The storage location of that name, exactly (W-36).
    pub(super) async fn location(&self, name: &str) -> Result<Option<BackupStorageLocation>, ActionError> {
        if name.is_empty() {
            return Ok(None);
        }
        self.velero_object("backupstoragelocations", name).await
    }

    /// What stands for keys when a location names none.
    pub(super) async fn default_credentials(&self) -> Result<DefaultCredentials, ActionError> {
        let secrets: Api<Secret> = Api::namespaced(self.client().await?, self.velero());
        let act = format!("read Secret {}/{DEFAULT_SECRET}", self.velero());
        let found = secrets.get_opt(DEFAULT_SECRET).await.map_err(failed(&act))?;
        Ok(DefaultCredentials::of(found))
    }
}

/// Velero's Backup as it is handed over; what cannot be read counts as absent.
pub(super) fn backup(json: &Value) -> Result<Backup, ActionError> {
    serde_json::from_value(json.clone()).map_err(|e| ActionError::new(format!("read the Backup that Velero sent: {e}")))
}

/// Velero's Restore as it is handed over.
pub(super) fn restore(json: &Value) -> Result<Restore, ActionError> {
    serde_json::from_value(json.clone())
        .map_err(|e| ActionError::new(format!("read the Restore that Velero sent: {e}")))
}

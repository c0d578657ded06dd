//! Velero's volume policies: a list of conditions and actions in a ConfigMap that a backup names. The first entry whose
//! conditions all hold decides; without one the other rules do.
//!
//! Velero applies `skip` itself for an action of our name (trap P-17), but neither the other actions, nor any for the
//! action on volumes, so all of it is read here. Velero has checked the ConfigMap before it begins: what it lets
//! through must not fail here, so fields that are newer than we are end as conditions that never hold.

use std::collections::BTreeMap;

use api::Reason;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde::Deserialize;
use serde_yaml_ng::Value;

use crate::Problem;
use crate::clone::claims::bytes;

/// The one version there is.
const VERSION: &str = "v1";

/// What a policy says about a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Not backed up by anybody.
    Skip,
    /// Velero's file-system backup copies it.
    FsBackup,
    /// It is snapshotted.
    Snapshot,
    /// Another plugin looks after it.
    Custom,
    /// A word that is newer than we are.
    Other(String),
}

/// The policies of a backup.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Policies {
    policies: Vec<Policy>,
}

#[derive(Debug, Clone, PartialEq)]
struct Policy {
    conditions: Conditions,
    action: Action,
}

#[derive(Debug, Clone, Default, PartialEq)]
struct Conditions {
    /// Smallest and largest capacity in bytes; a missing largest is none.
    capacity: Option<(u64, Option<u64>)>,
    storage_class: Vec<String>,
    csi: Option<Csi>,
    nfs: Option<Nfs>,
    volume_types: Vec<String>,
    claim_labels: BTreeMap<String, String>,
    claim_phase: Vec<String>,
    /// Something that we do not understand is asked for: the policy never matches.
    unknown: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Csi {
    driver: String,
    volume_attributes: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
struct Nfs {
    server: String,
    path: String,
}

/// The file, before its conditions are understood.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    #[serde(default)]
    version: Option<String>,
    #[serde(default)]
    volume_policies: Option<Vec<Entry>>,
}

#[derive(Debug, Deserialize)]
struct Entry {
    #[serde(default)]
    conditions: Option<BTreeMap<String, Value>>,
    action: EntryAction,
}

#[derive(Debug, Deserialize)]
struct EntryAction {
    #[serde(rename = "type")]
    type_: String,
}

impl Policies {
    /// Reads a ConfigMap's data: one key of any name, YAML in it.
    ///
    /// # Errors
    /// `SettingsInvalid`, with the policy and the condition at fault.
    pub fn read(config_map: &str, data: Option<&BTreeMap<String, String>>) -> Result<Self, Problem> {
        let bad = |why: String| {
            let cause = format!("read the volume policies in ConfigMap {config_map}: {why}");
            Problem::lasting(Reason::SettingsInvalid, cause)
        };
        let data = data.filter(|d| d.len() == 1);
        let yaml =
            data.and_then(|d| d.values().next()).ok_or_else(|| bad("it should have exactly one key".to_owned()))?;
        let file: File = serde_yaml_ng::from_str(yaml).map_err(|e| bad(e.to_string()))?;
        match file.version.as_deref() {
            Some(VERSION) => {}
            other => return Err(bad(format!("version is `{}`, only `{VERSION}` is known", other.unwrap_or_default()))),
        }
        let entries = file.volume_policies.unwrap_or_default().into_iter().enumerate();
        let policy = |(index, entry): (usize, Entry)| {
            let conditions = conditions(entry.conditions.unwrap_or_default())
                .map_err(|why| bad(format!("volume policy {}: {why}", index + 1)))?;
            Ok(Policy { conditions, action: action(&entry.action.type_) })
        };
        Ok(Self { policies: entries.map(policy).collect::<Result<_, Problem>>()? })
    }

    /// What the first matching policy says about a claim and its volume; either may be missing.
    pub fn action_for(
        &self,
        volume: Option<&PersistentVolume>,
        claim: Option<&PersistentVolumeClaim>,
    ) -> Option<&Action> {
        self.policies.iter().find(|p| p.conditions.hold(volume, claim)).map(|p| &p.action)
    }
}

fn action(word: &str) -> Action {
    match word {
        "skip" => Action::Skip,
        "fs-backup" => Action::FsBackup,
        "snapshot" => Action::Snapshot,
        "custom" => Action::Custom,
        other => Action::Other(other.to_owned()),
    }
}

fn conditions(entries: BTreeMap<String, Value>) -> Result<Conditions, String> {
    let mut read = Conditions::default();
    for (name, value) in entries {
        if value.is_null() {
            continue;
        }
        let bad = |e: serde_yaml_ng::Error| format!("condition `{name}`: {e}");
        match name.as_str() {
            "capacity" => read.capacity = capacity(&text(&value).unwrap_or_default())?,
            "storageClass" => read.storage_class = list(value).map_err(bad)?,
            "csi" => read.csi = Some(serde_yaml_ng::from_value(value).map_err(bad)?),
            "nfs" => read.nfs = Some(serde_yaml_ng::from_value(value).map_err(bad)?),
            "volumeTypes" => read.volume_types = list(value).map_err(bad)?,
            "pvcLabels" => read.claim_labels = serde_yaml_ng::from_value(value).map_err(bad)?,
            "pvcPhase" => read.claim_phase = list(value).map_err(bad)?,
            _ => read.unknown = true,
        }
    }
    Ok(read)
}

/// A list of texts, or a single one.
fn list(value: Value) -> Result<Vec<String>, serde_yaml_ng::Error> {
    match value {
        Value::String(one) => Ok(vec![one]),
        other => serde_yaml_ng::from_value(other),
    }
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// `"10Gi,20Gi"`, `"10Gi,"` or `",20Gi"`; zero stands for a missing end, as in Velero.
fn capacity(range: &str) -> Result<Option<(u64, Option<u64>)>, String> {
    let bad = || format!("condition `capacity`: `{range}` is not `<smallest>,<largest>`, of which one may be left out");
    let (smallest, largest) = match range.split(',').collect::<Vec<_>>()[..] {
        [""] => return Ok(None),
        [smallest, largest] => (smallest.trim(), largest.trim()),
        _ => return Err(bad()),
    };
    let end = |text: &str| if text.is_empty() { Some(0) } else { bytes(text) };
    let (smallest, largest) = (end(smallest).ok_or_else(bad)?, end(largest).ok_or_else(bad)?);
    match largest {
        0 if smallest == 0 => Ok(None),
        0 => Ok(Some((smallest, None))),
        largest if largest < smallest => Err(bad()),
        largest => Ok(Some((smallest, Some(largest)))),
    }
}

impl Conditions {
    fn hold(&self, volume: Option<&PersistentVolume>, claim: Option<&PersistentVolumeClaim>) -> bool {
        let spec = volume.and_then(|v| v.spec.as_ref());
        let one_of = |list: &[String], have: Option<&str>| {
            list.is_empty() || have.is_some_and(|have| list.iter().any(|wanted| wanted == have))
        };
        let size = || {
            let quantity: Option<&Quantity> = spec.and_then(|s| s.capacity.as_ref()?.get("storage"));
            quantity.and_then(|q| bytes(&q.0)).unwrap_or_default()
        };
        let labels = claim.and_then(|c| c.metadata.labels.as_ref());
        let has_label = |(key, value): (&String, &String)| labels.and_then(|l| l.get(key)) == Some(value);
        !self.unknown
            && self.capacity.is_none_or(|(smallest, largest)| {
                let size = size();
                size >= smallest && largest.is_none_or(|largest| size <= largest)
            })
            && one_of(&self.storage_class, spec.and_then(|s| s.storage_class_name.as_deref()).filter(|c| !c.is_empty()))
            && self.csi.as_ref().is_none_or(|wanted| wanted.holds(volume))
            && self.nfs.as_ref().is_none_or(|wanted| wanted.holds(volume))
            && one_of(&self.volume_types, volume.and_then(type_of))
            && self.claim_labels.iter().all(has_label)
            && one_of(&self.claim_phase, claim.and_then(|c| c.status.as_ref()?.phase.as_deref()))
    }
}

impl Csi {
    fn holds(&self, volume: Option<&PersistentVolume>) -> bool {
        let Some(csi) = volume.and_then(|v| v.spec.as_ref()?.csi.as_ref()) else { return false };
        let has = |(key, value): (&String, &String)| {
            csi.volume_attributes.as_ref().and_then(|attributes| attributes.get(key)) == Some(value)
        };
        self.driver.is_empty() || (self.driver == csi.driver && self.volume_attributes.iter().all(has))
    }
}

impl Nfs {
    fn holds(&self, volume: Option<&PersistentVolume>) -> bool {
        let Some(nfs) = volume.and_then(|v| v.spec.as_ref()?.nfs.as_ref()) else { return false };
        (self.server.is_empty() || self.server == nfs.server) && (self.path.is_empty() || self.path == nfs.path)
    }
}

/// The name of a volume's source, which is also the name of its field.
fn type_of(volume: &PersistentVolume) -> Option<&'static str> {
    let spec = volume.spec.as_ref()?;
    let sources = [
        ("awsElasticBlockStore", spec.aws_elastic_block_store.is_some()),
        ("azureDisk", spec.azure_disk.is_some()),
        ("azureFile", spec.azure_file.is_some()),
        ("cephfs", spec.cephfs.is_some()),
        ("cinder", spec.cinder.is_some()),
        ("csi", spec.csi.is_some()),
        ("fc", spec.fc.is_some()),
        ("flocker", spec.flocker.is_some()),
        ("flexVolume", spec.flex_volume.is_some()),
        ("gcePersistentDisk", spec.gce_persistent_disk.is_some()),
        ("glusterfs", spec.glusterfs.is_some()),
        ("hostPath", spec.host_path.is_some()),
        ("iscsi", spec.iscsi.is_some()),
        ("local", spec.local.is_some()),
        ("nfs", spec.nfs.is_some()),
        ("photonPersistentDisk", spec.photon_persistent_disk.is_some()),
        ("portworxVolume", spec.portworx_volume.is_some()),
        ("quobyte", spec.quobyte.is_some()),
        ("rbd", spec.rbd.is_some()),
        ("scaleIO", spec.scale_io.is_some()),
        ("storageos", spec.storageos.is_some()),
        ("vsphereVolume", spec.vsphere_volume.is_some()),
    ];
    sources.iter().find(|(_, is)| *is).map(|(name, _)| *name)
}

#[cfg(test)]
mod tests;

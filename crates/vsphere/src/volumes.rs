//! CNS volumes: the same disks, as Kubernetes' storage driver keeps book of them.
//!
//! CNS reports errors on two levels: a task may succeed while the result of its only volume says what failed.

use std::time::Duration;

use disk::DiskId;
use tracing::{info, warn};

use crate::disks::{mebibytes, text};
use crate::error::{Cause, Error};
use crate::fault::{Act, Fault, Raised, Recovery};
use crate::pace::Pace;
use crate::session::Session;
use crate::snapshots::{Deleted, task_of};
use crate::tasks::Runs;
use crate::transport::{Endpoint, bad_reply};
use crate::vcenter::Vcenter;
use crate::version::Declared;
use crate::xml::{Element, Reference, Request};

const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A block volume in the books of CNS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Its id, equal to the disk's.
    pub id: DiskId,
    /// Its name.
    pub name: String,
    /// Where its datastore is, `ds:///vmfs/volumes/…/`.
    pub datastore_url: String,
    /// Its size in bytes.
    pub capacity_bytes: u64,
    /// Id of its storage policy, where it has one.
    pub storage_policy: Option<String>,
    /// `green`, `yellow`, `red` or `unknown`, where CNS says.
    pub health: Option<String>,
}

/// A block volume to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewVolume {
    /// Its name. Must be unique to the purpose: asked for twice, there is still one volume.
    pub name: String,
    /// Its size in bytes; rounded up to whole MiB.
    pub capacity_bytes: u64,
    /// Managed object ids of the datastores it may lie on; empty: CNS chooses.
    pub datastores: Vec<String>,
    /// Id of its storage policy.
    pub storage_policy: Option<String>,
    /// The cluster's id in CNS: `cluster-id` of the CSI driver's configuration.
    pub cluster_id: String,
    /// What kind of cluster that is. Older CNS do not know the field and are not told.
    pub cluster_flavor: ClusterFlavor,
}

/// Kinds of clusters, as CNS tells them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClusterFlavor {
    /// An ordinary one.
    Vanilla,
    /// The control cluster of vSphere with Tanzu, a Supervisor.
    Workload,
    /// A guest of a Supervisor.
    Guest,
}

impl ClusterFlavor {
    fn as_str(self) -> &'static str {
        match self {
            Self::Vanilla => "VANILLA",
            Self::Workload => "WORKLOAD",
            Self::Guest => "GUEST_CLUSTER",
        }
    }
}

/// A volume that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreatedVolume {
    /// Its id.
    pub id: DiskId,
    /// Whether an earlier call had made it already.
    pub found: bool,
}

impl Vcenter {
    /// Reads one volume; `None` when CNS knows no such.
    pub async fn query_volume(&self, volume: &DiskId) -> Result<Option<Volume>, Error> {
        let found = self.volumes_where(None, |filter| filter.id("volumeIds", volume.as_str())).await;
        let found = found.map_err(|cause| Error::new(Act::QueryVolume, volume, cause))?;
        Ok(found.into_iter().find(|v| v.id == *volume))
    }

    /// The volumes of that name: CNS lets several have the same.
    pub async fn volumes_named(&self, name: &str) -> Result<Vec<DiskId>, Error> {
        let named = self.volumes_where(None, |filter| filter.text("names", name)).await;
        let named = named.map_err(|cause| Error::new(Act::QueryVolume, name, cause))?;
        Ok(named.into_iter().filter(|v| v.name == name).map(|v| v.id).collect())
    }

    async fn volumes_where(
        &self,
        pace: Option<&Pace>,
        filter: impl Fn(Request) -> Request,
    ) -> Result<Vec<Volume>, Cause> {
        let request = |_: &Session| cns("CnsQueryVolume").typed("filter", "CnsQueryFilter", &filter);
        let reply = self.call(Endpoint::Cns, true, pace, request).await?.value()?;
        reply.children_named("volumes").map(Volume::from_element).collect()
    }

    /// Makes a volume, or finds the one that an earlier call made under the same name.
    pub async fn create_volume(&self, volume: &NewVolume, within: Duration) -> Result<CreatedVolume, Error> {
        let pace = Pace::new(self.shared.config.deadlines.retry_pause, LONGEST_PAUSE, within);
        self.make_once(volume, pace).await.map_err(|cause| Error::new(Act::CreateVolume, &volume.name, cause))
    }

    async fn make_once(&self, volume: &NewVolume, mut pace: Pace) -> Result<CreatedVolume, Cause> {
        loop {
            let failed = match self.find_or_make(volume, &pace).await {
                Ok(created) => return Ok(created),
                Err(cause) => cause,
            };
            match failed.recovery(Act::CreateVolume) {
                Recovery::GiveUp | Recovery::AlreadyDone => return Err(failed),
                Recovery::Retry | Recovery::Reconcile => {}
            }
            warn!(volume = volume.name, cause = failed.chain(), "could not create the volume yet");
            pace.pause_after(failed).await?;
        }
    }

    async fn find_or_make(&self, volume: &NewVolume, pace: &Pace) -> Result<CreatedVolume, Cause> {
        let named = self.volumes_where(Some(pace), |filter| filter.text("names", &volume.name)).await?;
        if let Some(found) = named.into_iter().find(|v| v.name == volume.name) {
            return Ok(CreatedVolume { id: found.id, found: true });
        }
        let user = &self.shared.config.user;
        let begin = |session: &Session| {
            cns("CnsCreateVolume").group("createSpecs", |spec| volume.write(spec, user, &session.declared))
        };
        let reply = self.call(Endpoint::Cns, false, Some(pace), begin).await?;
        let result = self.finish_task(&task_of(&reply.element)?, Runs::Cns, pace).await?;
        let made = only_result(result)?;
        let id = made.child("volumeId").and_then(|id| id.text_of("id"));
        let id = id.ok_or_else(|| bad_reply("the task does not name its volume"))?;
        info!(volume = id, name = volume.name, "created a volume");
        Ok(CreatedVolume { id: id.parse().map_err(|e| bad_reply(format!("a volume's id: {e}")))?, found: false })
    }

    /// Deletes a volume and its disk. Safe to call again.
    pub async fn delete_volume(&self, volume: &DiskId, within: Duration) -> Result<Deleted, Error> {
        let pace = Pace::new(self.shared.config.deadlines.retry_pause, LONGEST_PAUSE, within);
        self.delete_volume_until_gone(volume, pace).await.map_err(|cause| Error::new(Act::DeleteVolume, volume, cause))
    }

    async fn delete_volume_until_gone(&self, volume: &DiskId, mut pace: Pace) -> Result<Deleted, Cause> {
        let mut began = false;
        loop {
            let known = self.volumes_where(Some(&pace), |filter| filter.id("volumeIds", volume.as_str())).await;
            let failed = match known {
                Ok(known) if known.iter().all(|v| v.id != *volume) => {
                    return Ok(if began { Deleted::Now } else { Deleted::AlreadyGone });
                }
                Ok(_) => {
                    began = true;
                    match self.delete_volume_once(volume, &pace).await {
                        Ok(()) => return Ok(Deleted::Now),
                        Err(cause) => cause,
                    }
                }
                Err(cause) => cause,
            };
            let failed = match failed.recovery(Act::DeleteVolume) {
                Recovery::GiveUp => return Err(failed),
                Recovery::AlreadyDone => Cause::StillThere { source: Box::new(failed) },
                Recovery::Retry | Recovery::Reconcile => failed,
            };
            warn!(%volume, cause = failed.chain(), "could not delete the volume yet");
            pace.pause_after(failed).await?;
        }
    }

    async fn delete_volume_once(&self, volume: &DiskId, pace: &Pace) -> Result<(), Cause> {
        let begin = |_: &Session| cns("CnsDeleteVolume").id("volumeIds", volume.as_str()).text("deleteDisk", "true");
        let reply = self.call(Endpoint::Cns, true, Some(pace), begin).await?;
        let result = self.finish_task(&task_of(&reply.element)?, Runs::Cns, pace).await?;
        only_result(result).map(|_| ())
    }
}

/// A request to the one object of CNS.
fn cns(method: &'static str) -> Request {
    Request::new(method, &Reference::new("CnsVolumeManager", "cns-volume-manager"))
}

/// The result of the one volume that a task was about, unless it says that it failed.
fn only_result(result: Option<Element>) -> Result<Element, Cause> {
    let result = result.ok_or_else(|| bad_reply("the task has no result"))?;
    let Some(volume) = result.child("volumeResults") else {
        return Err(bad_reply("the task says nothing about its volume"));
    };
    if let Some(fault) = volume.child("fault") {
        // Why no datastore would do says more than that none did.
        let placement = volume.child("placementResults").and_then(|p| p.child("placementFaults"));
        return Err(Fault::from_localized(placement.unwrap_or(fault), Raised::InTask).into());
    }
    Ok(volume.clone())
}

impl NewVolume {
    fn write(&self, spec: Request, user: &str, declared: &Declared) -> Request {
        let flavor = declared.knows_cluster_flavor().then_some(self.cluster_flavor.as_str());
        let mut spec = spec.text("name", &self.name).text("volumeType", "BLOCK");
        for datastore in &self.datastores {
            spec = spec.reference("datastores", &Reference::new("Datastore", datastore));
        }
        let size = self.capacity_bytes.div_ceil(1 << 20).to_string();
        let spec = spec
            .group("metadata", |metadata| {
                metadata.group("containerCluster", |cluster| {
                    cluster
                        .text("clusterType", "KUBERNETES")
                        .text("clusterId", &self.cluster_id)
                        .text("vSphereUser", user)
                        .optional("clusterFlavor", flavor)
                })
            })
            .typed("backingObjectDetails", "CnsBlockBackingDetails", |backing| backing.text("capacityInMb", &size));
        match &self.storage_policy {
            Some(policy) => {
                spec.typed("profile", "VirtualMachineDefinedProfileSpec", |profile| profile.text("profileId", policy))
            }
            None => spec,
        }
    }
}

impl Volume {
    pub(crate) fn from_element(volume: &Element) -> Result<Self, Cause> {
        let id = volume.child("volumeId").ok_or_else(|| bad_reply("a volume without an id"))?;
        let backing = volume.child("backingObjectDetails").ok_or_else(|| bad_reply("a volume without a backing"))?;
        Ok(Self {
            id: text(id, "id")?.parse().map_err(|e| bad_reply(format!("a volume's id: {e}")))?,
            name: volume.text_of("name").unwrap_or_default(),
            datastore_url: volume.text_of("datastoreUrl").unwrap_or_default(),
            capacity_bytes: mebibytes(backing, "capacityInMb")?,
            storage_policy: volume.text_of("storagePolicyId"),
            health: volume.text_of("healthStatus"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_belongs_to_a_cluster_of_its_own_kind() {
        let cases = [
            (ClusterFlavor::Vanilla, "8.0.3.0", Some("VANILLA")),
            (ClusterFlavor::Workload, "8.0.3.0", Some("WORKLOAD")),
            (ClusterFlavor::Guest, "8.0.3.0", Some("GUEST_CLUSTER")),
            (ClusterFlavor::Workload, "6.7.3", None),
        ];
        for (cluster_flavor, server, want) in cases {
            let volume = NewVolume {
                name: "pvc-1".to_owned(),
                capacity_bytes: 1 << 20,
                datastores: Vec::new(),
                storage_policy: None,
                cluster_id: "lab".to_owned(),
                cluster_flavor,
            };
            let declared = Declared::for_server(server);
            let spec = |spec| volume.write(spec, "backup@vsphere.local", &declared);
            let written = cns("CnsCreateVolume").group("createSpecs", spec).envelope("urn:vsan", &[]);
            let element = want.map(|word| format!("<clusterFlavor>{word}</clusterFlavor>"));
            assert_eq!(written.contains("clusterFlavor"), want.is_some(), "{server}: {written}");
            assert!(element.is_none_or(|element| written.contains(&element)), "{cluster_flavor:?}: {written}");
        }
    }
}

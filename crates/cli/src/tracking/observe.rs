//! What the cluster and vCenter say of nodes and disks. Reads only.

use std::time::Duration;

use anyhow::{Result, anyhow};
use api::Reason;
use connections::{Centers, Migrations};
use disk::DiskId;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::{Node, PersistentVolume};
use kube::{Client, ResourceExt};
use lifecycle::snapshot::backing;
use lifecycle::tracking::{self, Facts, Machine};
use vsphere::{self, ReasonKind, Vcenter};

use crate::cluster::all;

/// Questions to vCenter at once.
const AT_ONCE: usize = 8;
/// Longest time that one of several vCenters gets to find a virtual machine.
const OF_SEVERAL: Duration = Duration::from_secs(20);

/// Everything that a decision needs.
pub(crate) struct Seen {
    pub(crate) nodes: Vec<tracking::Node>,
    /// The virtual machine of each node with its vCenter, where there is exactly one.
    pub(crate) machines: Vec<Option<(Vcenter, vsphere::Machine)>>,
    pub(crate) disks: Vec<tracking::Disk>,
    /// Whose each disk is.
    pub(crate) volumes: Vec<Volume>,
}

/// A volume of the vSphere CSI driver.
pub(crate) struct Volume {
    pub(crate) name: String,
    /// `namespace/name` of its claim.
    pub(crate) claim: Option<String>,
}

/// Looks at all nodes and at all disks of this cluster's volumes.
///
/// What concerns one node or disk is a fact about it; what concerns vCenter as a whole ends the look, where there is no other.
/// `operation` is what our calls are called in vCenter's logs.
pub(crate) async fn observe(client: &Client, centers: &Centers, operation: &'static str) -> Result<Seen> {
    let nodes: Vec<Node> = all(client).await?;
    let volumes: Vec<PersistentVolume> = all(client).await?;
    let found: Vec<_> =
        stream::iter(&nodes).map(|node| machine_of(node, centers, operation)).buffered(AT_ONCE).try_collect().await?;
    let (known, machines): (Vec<_>, Vec<_>) = found.into_iter().unzip();
    let named = nodes.iter().map(ResourceExt::name_any).zip(known);
    let ours = ours(client, &volumes).await;
    let facts = stream::iter(&ours)
        .map(|(_, disk)| facts_in(disk, centers, operation))
        .buffered(AT_ONCE)
        .try_collect::<Vec<_>>();
    let facts = facts.await?;
    let disks = ours.iter().zip(facts).map(|((volume, disk), facts)| tracking::Disk {
        id: disk.clone(),
        shared: is_shared(volume),
        facts,
    });
    Ok(Seen {
        nodes: named.map(|(name, machine)| tracking::Node { name, machine }).collect(),
        machines,
        disks: disks.collect(),
        volumes: ours.iter().map(|(volume, _)| Volume { name: volume.name_any(), claim: claim_of(volume) }).collect(),
    })
}

/// Those of the vSphere CSI driver, made or taken over, with their disks. One whose disk cannot be told is left out, and told of.
async fn ours<'v>(client: &Client, volumes: &'v [PersistentVolume]) -> Vec<(&'v PersistentVolume, DiskId)> {
    let migrations = Migrations::new(client.clone());
    let mut ours = Vec::new();
    for volume in volumes {
        let Ok(backing) = backing(volume) else { continue }; // somebody else's
        match migrations.disk(&backing).await {
            Ok(disk) => ours.push((volume, disk)),
            Err(problem) => tracing::warn!(%problem, "a migrated volume is not looked at"),
        }
    }
    ours
}

/// Looks for a node's virtual machine in all vCenters. Of several, one that does not answer matters only where no other has it.
async fn machine_of(
    node: &Node,
    centers: &Centers,
    operation: &'static str,
) -> Result<(Machine, Option<(Vcenter, vsphere::Machine)>)> {
    let provider_id = node.spec.as_ref().and_then(|spec| spec.provider_id.as_deref());
    let Some(uuid) = provider_id.and_then(tracking::machine_id) else { return Ok((Machine::Unnamed, None)) };
    let (mut all, mut unread) = (Vec::new(), None);
    if let Some(only) = centers.only() {
        let vcenter = only.map_err(|problem| anyhow!("{}", problem.message()))?.for_operation(operation);
        match vcenter.machines_with_uuid(&uuid).await {
            Ok(found) => all.extend(found.into_iter().map(|machine| (vcenter.clone(), machine))),
            Err(error) => unread = Some(of_one(&error)?),
        }
    } else {
        for center in centers.all() {
            let uuid = &uuid;
            let look = |vcenter: Vcenter| async move {
                let vcenter = vcenter.for_operation(operation);
                let found = vcenter.machines_with_uuid(uuid).await?;
                Ok(found.into_iter().map(|machine| (vcenter.clone(), machine)).collect::<Vec<_>>())
            };
            match center.ask("look for the virtual machine", OF_SEVERAL, look).await {
                Ok(found) => all.extend(found),
                Err(problem) => unread = Some(problem.message()),
            }
        }
    }
    Ok(match (all.len(), unread) {
        (1, _) => (all.first().map_or(Machine::Missing, |(_, machine)| known(machine)), all.pop()),
        (0, None) => (Machine::Missing, None),
        (0, Some(why)) => (Machine::Unreadable(why), None),
        (several, _) => (Machine::Several(several), None),
    })
}

fn known(machine: &vsphere::Machine) -> Machine {
    let vsphere::Machine { hardware, tracking, snapshots, .. } = machine;
    Machine::Known { hardware: hardware.clone(), tracking: *tracking, snapshots: *snapshots }
}

impl Seen {
    /// Looks at the same disks once more.
    ///
    /// # Errors
    /// When vCenter does not answer any more; the facts are then as they were.
    pub(super) async fn look_at_disks_again(&mut self, centers: &Centers, operation: &'static str) -> Result<()> {
        let facts = stream::iter(&self.disks).map(|disk| facts_in(&disk.id, centers, operation)).buffered(AT_ONCE);
        let facts: Vec<_> = facts.try_collect().await?;
        self.disks.iter_mut().zip(facts).for_each(|(disk, facts)| disk.facts = facts);
        Ok(())
    }
}

/// What the vCenter that has a disk says of it now. Of several, one that is silent makes its own disks unreadable and no others.
async fn facts_in(disk: &DiskId, centers: &Centers, operation: &'static str) -> Result<Facts> {
    match centers.of_disk(disk).await {
        Ok(vcenter) => match facts_of(disk, &vcenter.for_operation(operation)).await {
            Err(error) if centers.only().is_none() => Ok(Facts::Unreadable(format!("{error:#}"))),
            facts => facts,
        },
        Err(problem) if centers.only().is_some() => Err(anyhow!("{}", problem.message())),
        Err(problem) if problem.reason == Reason::DiskMissing => Ok(Facts::Missing),
        Err(problem) => Ok(Facts::Unreadable(problem.message())),
    }
}

/// What vCenter says of a disk now.
pub(super) async fn facts_of(disk: &DiskId, vcenter: &Vcenter) -> Result<Facts> {
    let asked = async {
        let found = vcenter.retrieve_disk(disk).await?;
        let snapshots = vcenter.list_snapshots(disk).await?.len();
        Ok(Facts::Known { attached: found.attached, tracking: found.tracking, snapshots })
    };
    match asked.await {
        Ok(facts) => Ok(facts),
        Err(error) if vsphere::Error::reason_kind(&error) == ReasonKind::NotFound => Ok(Facts::Missing),
        Err(error) => Ok(Facts::Unreadable(of_one(&error)?)),
    }
}

/// An error that concerns one object, told as a fact about it.
///
/// # Errors
/// One that every further question would end with.
pub(super) fn of_one(error: &vsphere::Error) -> Result<String> {
    match error.reason_kind() {
        ReasonKind::LoginRefused
        | ReasonKind::CertificateUntrusted
        | ReasonKind::Unreachable
        | ReasonKind::BadConfig => Err(anyhow!("{}", error.describe())),
        _ => Ok(error.describe()),
    }
}

fn is_shared(volume: &PersistentVolume) -> bool {
    let modes = volume.spec.as_ref().and_then(|spec| spec.access_modes.as_ref());
    modes.is_some_and(|modes| modes.iter().any(|mode| mode == "ReadWriteMany"))
}

fn claim_of(volume: &PersistentVolume) -> Option<String> {
    let claim = volume.spec.as_ref()?.claim_ref.as_ref()?;
    Some(format!("{}/{}", claim.namespace.as_deref()?, claim.name.as_deref()?))
}

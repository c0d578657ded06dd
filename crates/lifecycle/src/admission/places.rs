//! Where transfers read and write: the datastore of a disk, and the ESXi host that serves it. Knows what others have found
//! out, and asks nobody.

use std::collections::HashMap;
use std::fmt;

use api::entity::DiskEntity;
use api::{Download, DownloadPhase, Reason, Timestamp, Upload, labels};
use disk::DiskId;
use k8s_openapi::api::storage::v1::VolumeAttachment;

/// An ESXi host.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Host {
    /// Its managed object id, such as `host-21`.
    pub id: String,
    /// Its name, for people.
    pub name: String,
}

/// What is known of the disks that transfers are about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Places {
    /// The datastores, by their managed object ids, of disks that are being restored. An Upload names its own.
    pub datastores: HashMap<DiskId, String>,
    /// The hosts that serve disks. A disk that no virtual machine has is served by whichever vCenter chooses for each
    /// connection: it is not in here.
    pub hosts: HashMap<DiskId, Host>,
    /// Since when the hosts are asked for, while there was no answer at all.
    pub hosts_unknown_since: Option<Timestamp>,
}

/// What may have a budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Place<'p> {
    Datastore(&'p str),
    Host(&'p Host),
}

impl Place<'_> {
    /// Why an Upload waits when there is no room.
    pub(super) fn reason(self) -> Reason {
        match self {
            Self::Datastore(_) => Reason::DatastoreBusy,
            Self::Host(_) => Reason::HostBusy,
        }
    }

    /// The setting that says how many it may have.
    pub(super) fn setting(self) -> &'static str {
        match self {
            Self::Datastore(_) => "uploads-per-datastore",
            Self::Host(_) => "uploads-per-host",
        }
    }

    /// Which transfers count there.
    pub(super) fn who(self) -> &'static str {
        match self {
            Self::Datastore(_) => "uploads and restores",
            Self::Host(_) => "uploads",
        }
    }
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Datastore(id) => write!(f, "datastore {id}"),
            Self::Host(host) => write!(f, "host {}", host.name),
        }
    }
}

pub(super) fn of_upload<'p>(upload: &'p Upload, places: &'p Places) -> impl Iterator<Item = Place<'p>> {
    let host = read_disk(upload).and_then(|disk| places.hosts.get(&disk));
    datastore(upload).map(Place::Datastore).into_iter().chain(host.map(Place::Host))
}

/// No host: the volume that is written is attached to no node.
pub(super) fn of_download<'p>(download: &Download, places: &'p Places) -> Option<Place<'p>> {
    places.datastores.get(&written_disk(download)?).map(|id| Place::Datastore(id))
}

pub(super) fn datastore(upload: &Upload) -> Option<&str> {
    upload.spec.datastore.as_deref().filter(|datastore| !datastore.is_empty())
}

/// The disk that an Upload reads.
pub fn read_disk(upload: &Upload) -> Option<DiskId> {
    disk_in(upload.spec.snapshot_id.as_deref())
}

/// The disk that a Download writes; `None` where it is to make one.
pub fn written_disk(download: &Download) -> Option<DiskId> {
    disk_in(download.spec.protected_entity_id.as_deref())
}

fn disk_in(entity: Option<&str>) -> Option<DiskId> {
    Some(entity?.parse::<DiskEntity>().ok()?.disk)
}

/// Whether a Download writes now. One that waits for a node takes no room: nobody knows when it begins.
pub fn is_written(download: &Download) -> bool {
    download.phase() == Some(&DownloadPhase::InProgress)
}

/// The names of the volume of ours and of the node that an attachment joins, where it does so now.
pub fn attached_to(attachment: &VolumeAttachment) -> Option<(&str, &str)> {
    let is_ours = attachment.spec.attacher == labels::CSI_DRIVER;
    let is_attached = attachment.status.as_ref().is_some_and(|status| status.attached);
    let volume = attachment.spec.source.persistent_volume_name.as_deref()?;
    (is_ours && is_attached).then_some((volume, &attachment.spec.node_name))
}

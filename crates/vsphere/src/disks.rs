//! First-class disks.

use disk::DiskId;
use jiff::Timestamp;

use crate::error::{Cause, Error};
use crate::fault::Act;
use crate::transport::bad_reply;
use crate::vcenter::Vcenter;
use crate::xml::Element;

/// A first-class disk as vCenter's catalog describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// Its id.
    pub id: DiskId,
    /// Its name, for people.
    pub name: String,
    /// When it was made.
    pub create_time: Timestamp,
    /// Its size in bytes.
    pub capacity_bytes: u64,
    /// Managed object id of the datastore it lies on, such as `datastore-39`.
    pub datastore: String,
    /// Where it lies there, such as `[vsanDatastore] fcd/2b6d….vmdk`.
    pub file_path: String,
    /// Id of the object behind the file, on datastores that have such.
    pub backing_object_id: Option<String>,
    /// Whether a virtual machine uses it.
    pub attached: bool,
    /// Whether its changes are tracked.
    pub tracking: bool,
    /// Whether it is encrypted.
    pub encrypted: bool,
}

impl Vcenter {
    /// Reads one disk from the catalog.
    pub async fn retrieve_disk(&self, disk: &DiskId) -> Result<Disk, Error> {
        self.read_disk(disk).await.map_err(|cause| Error::new(Act::RetrieveDisk, disk, cause))
    }

    pub(crate) async fn read_disk(&self, disk: &DiskId) -> Result<Disk, Cause> {
        let reply = self.read_disks("VslmRetrieveVStorageObject", None, |r| r.id("id", disk.as_str())).await?;
        Disk::from_element(&reply.value()?)
    }
}

impl Disk {
    pub(crate) fn from_element(object: &Element) -> Result<Self, Cause> {
        let config = object.child("config").ok_or_else(|| lacks("config"))?;
        let backing = config.child("backing").ok_or_else(|| lacks("backing"))?;
        let id = text(config.child("id").ok_or_else(|| lacks("id"))?, "id")?;
        Ok(Self {
            id: id.parse().map_err(|e| bad_reply(format!("a disk's id: {e}")))?,
            name: config.text_of("name").unwrap_or_default(),
            create_time: timestamp(config, "createTime")?,
            capacity_bytes: mebibytes(config, "capacityInMB")?,
            datastore: text(backing, "datastore")?,
            file_path: text(backing, "filePath")?,
            backing_object_id: backing.text_of("backingObjectId"),
            attached: config.child("consumerId").is_some(),
            tracking: is_true(config, "changedBlockTrackingEnabled"),
            encrypted: backing.child("keyId").is_some(),
        })
    }
}

fn lacks(name: &str) -> Cause {
    bad_reply(format!("`{name}` is missing"))
}

/// The text of a field that must be there.
pub(crate) fn text(element: &Element, name: &str) -> Result<String, Cause> {
    element.text_of(name).ok_or_else(|| lacks(name))
}

/// A time as XML Schema writes it.
pub(crate) fn timestamp(element: &Element, name: &str) -> Result<Timestamp, Cause> {
    let text = text(element, name)?;
    text.trim().parse().map_err(|e| bad_reply(format!("`{name}` is not a time: {e}")))
}

/// A size in MiB, as bytes.
pub(crate) fn mebibytes(element: &Element, name: &str) -> Result<u64, Cause> {
    let text = text(element, name)?;
    let size = text.trim().parse::<u64>().ok().and_then(|size| size.checked_mul(1 << 20));
    size.ok_or_else(|| bad_reply(format!("`{name}` is not a size in MiB: {text}")))
}

fn is_true(element: &Element, name: &str) -> bool {
    matches!(element.child(name).map(Element::trimmed), Some("true" | "1"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_disk_in_a_real_servers_spelling_is_read_field_for_field() {
        let reply = Element::parse(include_str!("../testdata/retrieve-disk.xml")).unwrap();
        let disk = Disk::from_element(reply.at(&["Body", "VslmRetrieveVStorageObjectResponse", "returnval"]).unwrap());
        let want = Disk {
            id: "2b6d0f5e-1c3a-4a55-9d0e-8c5f6a1b2c3d".parse().unwrap(),
            name: "pvc-5e0c & co".to_owned(),
            create_time: "2026-11-20T08:09:10.123Z".parse().unwrap(),
            capacity_bytes: 3 << 30,
            datastore: "datastore-39".to_owned(),
            file_path: "[vsanDatastore] fcd/abc.vmdk".to_owned(),
            backing_object_id: Some("52a1-77".to_owned()),
            attached: true,
            tracking: true,
            encrypted: false,
        };
        assert_eq!(disk.unwrap(), want);
    }

    #[test]
    fn a_size_beyond_64_bits_is_an_error_not_a_small_disk() {
        let huge = Element::parse("<c><capacityInMB>17592186044416</capacityInMB></c>").unwrap();
        assert!(mebibytes(&huge, "capacityInMB").is_err());
    }
}

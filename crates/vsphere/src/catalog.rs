//! A disk word for word as vCenter's catalog has it, for who notes it down in another place. Interprets nothing.

use disk::{DiskId, DiskSnapshot};

use crate::disks::text;
use crate::error::{Cause, Error};
use crate::fault::Act;
use crate::snapshots::about;
use crate::transport::bad_reply;
use crate::vcenter::Vcenter;
use crate::xml::Element;

/// What the catalog says of a disk, in its own words; what it leaves out is `None` or empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CatalogEntry {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// When it was made, as text.
    pub create_time: String,
    /// Whether it stays when its virtual machine goes.
    pub keep_after_delete_vm: Option<bool>,
    /// Whether it may not be moved.
    pub relocation_disabled: Option<bool>,
    /// Whether the datastore makes its snapshots.
    pub native_snapshot_supported: Option<bool>,
    /// Whether its changes are tracked.
    pub changed_block_tracking_enabled: Option<bool>,
    /// Type of what is behind it.
    pub backing_type: String,
    /// Managed object id of its datastore.
    pub datastore: String,
    /// Where it lies there.
    pub file_path: String,
    /// Id of the object behind the file.
    pub backing_object_id: Option<String>,
    /// Such as `thin`.
    pub provisioning_type: String,
    /// Size in MiB.
    pub capacity_mib: u64,
    /// Such as `disk`.
    pub consumption_types: Vec<String>,
    /// Virtual machines that use it.
    pub consumers: Vec<String>,
    /// Keys and values that others have noted with it.
    pub metadata: Vec<(String, String)>,
}

impl Vcenter {
    /// Reads a disk's entry, with the keys and values it had when `snapshot` was taken. That these cannot be read is no
    /// error: it then has none.
    pub async fn catalog_entry(&self, snapshot: &DiskSnapshot) -> Result<CatalogEntry, Error> {
        let entry = self.read_entry(&snapshot.disk).await;
        let entry = entry.map_err(|cause| Error::new(Act::RetrieveDisk, &snapshot.disk, cause))?;
        let fill = |r| about(r, snapshot).text("prefix", "");
        let noted = match self.read_disks("VslmRetrieveVStorageObjectMetadata", None, fill).await {
            Ok(reply) => pairs(&reply.element),
            Err(cause) => {
                tracing::debug!(%snapshot, ?cause, "the keys and values of the disk cannot be read");
                Vec::new()
            }
        };
        Ok(CatalogEntry { metadata: noted, ..entry })
    }

    async fn read_entry(&self, disk: &DiskId) -> Result<CatalogEntry, Cause> {
        let reply = self.read_disks("VslmRetrieveVStorageObject", None, |r| r.id("id", disk.as_str())).await?;
        CatalogEntry::from_element(&reply.value()?)
    }
}

fn pairs(reply: &Element) -> Vec<(String, String)> {
    let pair = |pair: &Element| (pair.text_of("key").unwrap_or_default(), pair.text_of("value").unwrap_or_default());
    reply.children_named("returnval").map(pair).collect()
}

impl CatalogEntry {
    pub(crate) fn from_element(object: &Element) -> Result<Self, Cause> {
        let lacks = |name: &str| bad_reply(format!("`{name}` is missing"));
        let config = object.child("config").ok_or_else(|| lacks("config"))?;
        let backing = config.child("backing").ok_or_else(|| lacks("backing"))?;
        let flag = |name: &str| match config.child(name).map(Element::trimmed) {
            Some("true" | "1") => Some(true),
            Some(_) => Some(false),
            None => None,
        };
        let capacity = text(config, "capacityInMB")?;
        Ok(Self {
            id: text(config.child("id").ok_or_else(|| lacks("id"))?, "id")?,
            name: config.text_of("name").unwrap_or_default(),
            create_time: config.text_of("createTime").unwrap_or_default(),
            keep_after_delete_vm: flag("keepAfterDeleteVm"),
            relocation_disabled: flag("relocationDisabled"),
            native_snapshot_supported: flag("nativeSnapshotSupported"),
            changed_block_tracking_enabled: flag("changedBlockTrackingEnabled"),
            backing_type: backing.xsi_type.clone().unwrap_or_default(),
            datastore: text(backing, "datastore")?,
            file_path: text(backing, "filePath")?,
            backing_object_id: backing.text_of("backingObjectId"),
            provisioning_type: backing.text_of("provisioningType").unwrap_or_default(),
            capacity_mib: capacity.trim().parse().map_err(|_| bad_reply(format!("`capacityInMB` is `{capacity}`")))?,
            consumption_types: config.children_named("consumptionType").map(|kind| kind.trimmed().to_owned()).collect(),
            consumers: config.children_named("consumerId").filter_map(|consumer| consumer.text_of("id")).collect(),
            metadata: Vec::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn an_entry_is_read_word_for_word() {
        let reply = Element::parse(include_str!("../testdata/retrieve-disk.xml")).unwrap();
        let entry = reply.at(&["Body", "VslmRetrieveVStorageObjectResponse", "returnval"]).unwrap();
        let entry = CatalogEntry::from_element(entry).unwrap();
        assert_eq!((entry.name.as_str(), entry.create_time.as_str()), ("pvc-5e0c & co", "2026-11-20T08:09:10.123Z"));
        assert_eq!((entry.keep_after_delete_vm, entry.relocation_disabled), (Some(true), None));
        assert_eq!(entry.backing_type, "BaseConfigInfoDiskFileBackingInfo");
        assert_eq!((entry.provisioning_type.as_str(), entry.capacity_mib), ("thin", 3072));
        assert_eq!(
            (entry.consumption_types.join(","), entry.consumers.join(",")),
            ("disk".to_owned(), "50-vm".to_owned())
        );
    }
}

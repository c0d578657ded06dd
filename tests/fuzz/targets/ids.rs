//! Ids that stand in objects and in names: ours, the original's, vCenter's. One that was read says the same when it is written.
#![no_main]

use std::fmt::{Debug, Display};
use std::str::FromStr;

use api::entity::{DiskEntity, EntityId, PvcSnapshotId};
use disk::{ChangeId, DiskId, DiskSnapshot};
use libfuzzer_sys::fuzz_target;

fn again<T: FromStr + Display + PartialEq + Debug>(text: &str) {
    let Ok(read) = text.parse::<T>() else { return };
    let written = read.to_string();
    assert_eq!(written.parse::<T>().ok().as_ref(), Some(&read), "{text:?} was written as {written:?}");
}

fuzz_target!(|text: &str| {
    again::<DiskId>(text);
    again::<DiskSnapshot>(text);
    again::<DiskEntity>(text);
    again::<PvcSnapshotId>(text);
    again::<vsphere::Thumbprint>(text);
    again::<repository::RestorePointId>(text);
    if let Ok(id) = text.parse::<EntityId>() {
        let _ = id.disk_snapshot();
    }
    let _ = ChangeId::new(text).parts().map(|(epoch, number)| (epoch.len(), number));
    let _ = (text.parse::<nbd::Uri>(), text.parse::<repository::Location>());
    let _ = (api::velero::go_duration(text), lifecycle::tracking::machine_id(text));
});

//! What vCenter refuses, and what to do then: the table is [`recovery`], one match. Talks to nobody.

use crate::error::ReasonKind;
use crate::xml::Element;

/// What we were doing. Whether another try is safe, and what a fault means, depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Act {
    /// Opening a session.
    Login,
    /// Reading what the server is.
    ReadAbout,
    /// Reading the server's certificate.
    ReadThumbprint,
    /// Reading one disk.
    RetrieveDisk,
    /// Listing a disk's snapshots.
    ListSnapshots,
    /// Reading the change id of a snapshot.
    ReadSnapshotDetails,
    /// Asking which areas changed.
    QueryChangedAreas,
    /// Taking a snapshot.
    CreateSnapshot,
    /// Deleting a snapshot.
    DeleteSnapshot,
    /// Reading a CNS volume.
    QueryVolume,
    /// Creating a CNS volume.
    CreateVolume,
    /// Deleting a CNS volume.
    DeleteVolume,
    /// Looking for a virtual machine.
    FindMachine,
    /// Asking which hosts virtual machines run on.
    FindHosts,
    /// Reading the names of hosts.
    NameHosts,
    /// Finding the datastores that hosts share.
    FindDatastores,
    /// Switching change tracking of a virtual machine.
    TrackMachine,
    /// Switching change tracking of a disk.
    TrackDisk,
    /// Asking what our account may do.
    AskPrivileges,
    /// Reading the clock.
    ReadClock,
    /// Reading the names of datastores.
    NameDatastores,
}

impl Act {
    /// Verb phrase; the subject follows it.
    pub fn phrase(self) -> &'static str {
        match self {
            Self::Login => "log in to",
            Self::ReadAbout => "read the version of",
            Self::ReadThumbprint => "read the certificate of",
            Self::RetrieveDisk => "retrieve disk",
            Self::ListSnapshots => "list snapshots of disk",
            Self::ReadSnapshotDetails => "read details of disk snapshot",
            Self::QueryChangedAreas => "query changed areas of disk snapshot",
            Self::CreateSnapshot => "take a snapshot of disk",
            Self::DeleteSnapshot => "delete disk snapshot",
            Self::QueryVolume => "query volume",
            Self::CreateVolume => "create volume",
            Self::DeleteVolume => "delete volume",
            Self::FindMachine => "find the virtual machine with UUID",
            Self::FindHosts => "find the hosts of",
            Self::NameHosts => "read the names of hosts",
            Self::FindDatastores => "find the datastores shared by hosts",
            Self::TrackMachine => "switch change tracking of virtual machine",
            Self::TrackDisk => "switch change tracking of disk",
            Self::AskPrivileges => "ask which privileges we have on",
            Self::ReadClock => "read the clock of",
            Self::NameDatastores => "read the names of datastores",
        }
    }

    /// Whether doing it twice is the same as doing it once. Deleting by a unique id is.
    pub(crate) fn is_repeatable(self) -> bool {
        !matches!(self, Self::CreateSnapshot | Self::CreateVolume)
    }
}

/// What to do after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Recovery {
    /// The same again after a pause.
    Retry,
    /// Nothing changes by itself: a person or a decision above is needed.
    GiveUp,
    /// What was wanted is so already.
    AlreadyDone,
    /// It may have been carried out: look before trying again.
    Reconcile,
}

/// Whether a fault answered the call itself or ended its task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Raised {
    AtOnce,
    InTask,
}

/// A refusal by vCenter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} ({type_name}{})", .kind.phrase(), detail(.message))]
pub struct Fault {
    /// Its class, as far as we know it.
    pub kind: FaultKind,
    /// Its class as vCenter spells it.
    pub type_name: String,
    /// vCenter's own words.
    pub message: String,
    pub(crate) raised: Raised,
}

fn detail(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
}

/// The classes of faults that are treated apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FaultKind {
    /// The session is gone.
    NotAuthenticated,
    /// Account or password wrong.
    InvalidLogin,
    /// A privilege is missing.
    NoPermission {
        /// On which object, as `Type:id`.
        object: String,
        /// Which one.
        privilege: String,
    },
    /// The disk or its VM is in no state for this.
    InvalidState,
    /// Another task works on it.
    TaskInProgress,
    /// A file is locked.
    FileLocked,
    /// Done on the datastore, but the catalog does not know.
    VslmSync,
    /// The thing is not there.
    NotFound,
    /// A parameter is refused.
    InvalidArgument {
        /// Which, where vCenter says so.
        property: Option<String>,
    },
    /// Change tracking is off, has no current epoch, or does not match.
    ChangeTracking,
    /// A file of the disk cannot be used.
    File,
    /// An internal error of vCenter or a host.
    System,
    /// The datastore cannot be used now.
    InvalidDatastore,
    /// A reference means nothing to the server: it restarted, or the object is gone.
    ManagedObjectNotFound,
    /// This server does not know the call.
    Unsupported,
    /// A host cannot be reached by vCenter.
    HostUnavailable,
    /// No room on the datastore.
    NoSpace,
    /// CNS knows no such volume.
    CnsVolumeNotFound,
    /// CNS knows the volume already.
    CnsVolumeExists,
    /// CNS knows no such snapshot.
    CnsSnapshotNotFound,
    /// The wanted snapshot exists already.
    CnsSnapshotCreated,
    /// Anything else.
    Other,
}

impl FaultKind {
    fn phrase(&self) -> String {
        match self {
            Self::NotAuthenticated => "the session is gone",
            Self::InvalidLogin => "the login was refused",
            Self::NoPermission { object, privilege } => {
                return format!("the account lacks the privilege `{privilege}` on {object}");
            }
            Self::InvalidState => "the disk or its VM is busy or in the wrong state",
            Self::TaskInProgress => "another task works on it",
            Self::FileLocked => "a file of the disk is locked",
            Self::VslmSync => "the catalog of disks is out of step with the datastore",
            Self::NotFound => "it is not there",
            Self::InvalidArgument { property: Some(property) } => {
                return format!("vCenter does not accept the parameter `{property}`");
            }
            Self::InvalidArgument { property: None } => "vCenter does not accept a parameter",
            Self::ChangeTracking => "change tracking has no answer",
            Self::File => "a file of the disk cannot be used",
            Self::System => "vCenter reports an internal error",
            Self::InvalidDatastore => "the datastore cannot be used",
            Self::ManagedObjectNotFound => "vCenter no longer knows the object",
            Self::Unsupported => "this vCenter does not know the call",
            Self::HostUnavailable => "vCenter cannot reach a host",
            Self::NoSpace => "no space is left on the datastore",
            Self::CnsVolumeNotFound => "there is no such volume",
            Self::CnsVolumeExists => "the volume exists already",
            Self::CnsSnapshotNotFound => "there is no such volume snapshot",
            Self::CnsSnapshotCreated => "the snapshot exists already",
            Self::Other => "vCenter refused",
        }
        .to_owned()
    }
}

/// The table of faults. Every pair of fault and act that means something of its own stands here, and nowhere else.
pub(crate) fn recovery(act: Act, fault: &Fault) -> Recovery {
    use FaultKind as F;
    use Recovery::{AlreadyDone, GiveUp, Reconcile, Retry};
    match (&fault.kind, act) {
        (F::NotAuthenticated, Act::CreateSnapshot | Act::CreateVolume) => Reconcile,
        (F::NotAuthenticated, _) => Retry, // the call was never started
        (F::InvalidLogin | F::NoPermission { .. }, _) => GiveUp,

        (F::InvalidState, Act::CreateSnapshot | Act::DeleteSnapshot | Act::CreateVolume | Act::DeleteVolume) => Retry,
        (F::InvalidState, _) => GiveUp,
        (F::TaskInProgress | F::FileLocked, _) => Retry,

        // The datastore has done it; only the catalog was not updated. Never repeat blindly.
        (F::VslmSync, Act::CreateSnapshot | Act::DeleteSnapshot | Act::CreateVolume | Act::DeleteVolume) => Reconcile,
        (F::VslmSync, _) => Retry,

        // Right after a disk was made the catalog may not know it yet; who takes the snapshot bounds the tries.
        (F::NotFound, Act::CreateSnapshot) => Retry,
        (F::NotFound | F::CnsVolumeNotFound, Act::DeleteSnapshot | Act::DeleteVolume) => AlreadyDone,
        (F::NotFound | F::CnsVolumeNotFound, _) => GiveUp,
        (F::CnsSnapshotNotFound, Act::DeleteSnapshot) => AlreadyDone,
        (F::CnsSnapshotNotFound, _) => GiveUp,
        (F::CnsSnapshotCreated, Act::CreateSnapshot) => AlreadyDone,
        (F::CnsSnapshotCreated, _) => GiveUp,
        (F::CnsVolumeExists, Act::CreateVolume) => Reconcile,
        (F::CnsVolumeExists, _) => GiveUp,

        // An earlier half-failed delete took the snapshot's stamp away. The caller verifies that it is really gone.
        (F::InvalidArgument { .. }, Act::DeleteSnapshot) if fault.raised == Raised::InTask => AlreadyDone,
        // Right after create the catalog may not know the snapshot yet.
        (F::InvalidArgument { property: Some(p) }, Act::ReadSnapshotDetails)
            if p.eq_ignore_ascii_case("snapshotId") =>
        {
            Retry
        }
        (F::InvalidArgument { .. } | F::ChangeTracking, _) => GiveUp,

        (F::File | F::System, _) => Retry,
        (F::InvalidDatastore | F::HostUnavailable, _) => Retry,
        (F::NoSpace, _) => GiveUp,

        // vCenter restarted and forgot its tasks: nobody knows what became of ours.
        (
            F::ManagedObjectNotFound,
            Act::CreateSnapshot | Act::DeleteSnapshot | Act::CreateVolume | Act::DeleteVolume,
        ) => Reconcile,
        (F::ManagedObjectNotFound, _) => Retry,
        (F::Unsupported | F::Other, _) => GiveUp,
    }
}

pub(crate) fn reason_kind(act: Act, fault: &Fault) -> ReasonKind {
    use FaultKind as F;
    match &fault.kind {
        F::InvalidLogin => ReasonKind::LoginRefused,
        F::NoPermission { object, privilege } => {
            ReasonKind::NoPermission { object: object.clone(), privilege: privilege.clone() }
        }
        F::InvalidState | F::TaskInProgress | F::FileLocked => ReasonKind::Busy,
        F::NotFound | F::CnsVolumeNotFound | F::CnsSnapshotNotFound => ReasonKind::NotFound,
        F::InvalidDatastore | F::HostUnavailable => ReasonKind::StorageUnavailable,
        F::NoSpace => ReasonKind::NoSpace,
        F::Unsupported => ReasonKind::Unsupported,
        F::ChangeTracking => ReasonKind::ChangesUnknown,
        F::InvalidArgument { .. } | F::File | F::System if act == Act::QueryChangedAreas => ReasonKind::ChangesUnknown,
        F::NotAuthenticated
        | F::VslmSync
        | F::InvalidArgument { .. }
        | F::File
        | F::System
        | F::ManagedObjectNotFound
        | F::CnsVolumeExists
        | F::CnsSnapshotCreated
        | F::Other => ReasonKind::Failed,
    }
}

impl Fault {
    /// Reads the `Fault` element of an envelope: its class is the `xsi:type` of what `detail` holds, or that element's
    /// name without `Fault`.
    pub(crate) fn from_soap(fault: &Element) -> Self {
        let message = fault.text_of("faultstring").unwrap_or_default();
        match fault.child("detail").and_then(|detail| detail.children.first()) {
            Some(detail) => Self::new(detail, message, Raised::AtOnce),
            None => Self { kind: FaultKind::Other, type_name: "Fault".to_owned(), message, raised: Raised::AtOnce },
        }
    }

    /// Reads a `LocalizedMethodFault`: what tasks and CNS results carry.
    pub(crate) fn from_localized(fault: &Element, raised: Raised) -> Self {
        let message = fault.text_of("localizedMessage").unwrap_or_default();
        match fault.child("fault") {
            Some(detail) => Self::new(detail, message, raised),
            None => Self { kind: FaultKind::Other, type_name: "Fault".to_owned(), message, raised },
        }
    }

    fn new(detail: &Element, message: String, raised: Raised) -> Self {
        let type_name = match &detail.xsi_type {
            Some(name) => name.clone(),
            None => detail.name.strip_suffix("Fault").unwrap_or(&detail.name).to_owned(),
        };
        let kind = kind_of(&type_name, detail);
        let message = match detail.text_of("reason") {
            Some(reason) if !message.contains(&reason) => [message, reason].join(" ").trim().to_owned(),
            _ => message,
        };
        Self { kind, type_name, message, raised }
    }
}

fn kind_of(type_name: &str, detail: &Element) -> FaultKind {
    match type_name {
        "NotAuthenticated" => FaultKind::NotAuthenticated,
        "InvalidLogin" => FaultKind::InvalidLogin,
        "NoPermission" => no_permission(detail),
        "InvalidState" | "InvalidPowerState" => FaultKind::InvalidState,
        "TaskInProgress" | "ConcurrentAccess" => FaultKind::TaskInProgress,
        "FileLocked" => FaultKind::FileLocked,
        "VslmSyncFault" | "VslmSync" => FaultKind::VslmSync,
        "NotFound" => FaultKind::NotFound,
        "InvalidArgument" => FaultKind::InvalidArgument { property: detail.text_of("invalidProperty") },
        "FileFault" if says_tracking_is_unusable(detail) => FaultKind::ChangeTracking,
        "FileFault" | "FileNotFound" | "CannotAccessFile" => FaultKind::File,
        "SystemError" => FaultKind::System,
        "InvalidDatastore" | "InvalidDatastorePath" | "InaccessibleDatastore" => FaultKind::InvalidDatastore,
        "ManagedObjectNotFound" => FaultKind::ManagedObjectNotFound,
        "MethodNotFound" | "NotImplemented" | "NotSupported" => FaultKind::Unsupported,
        "HostCommunication" | "HostNotConnected" | "HostNotReachable" => FaultKind::HostUnavailable,
        "NoDiskSpace" | "InsufficientStorageSpace" => FaultKind::NoSpace,
        "CnsVolumeNotFoundFault" | "CnsNotRegisteredFault" => FaultKind::CnsVolumeNotFound,
        "CnsAlreadyRegisteredFault" | "CnsVolumeAlreadyExistsFault" => FaultKind::CnsVolumeExists,
        "CnsSnapshotNotFoundFault" => FaultKind::CnsSnapshotNotFound,
        "CnsSnapshotCreatedFault" => FaultKind::CnsSnapshotCreated,
        _ => FaultKind::Other,
    }
}

/// Newer servers list what is missing per object, older ones name one pair.
fn no_permission(detail: &Element) -> FaultKind {
    let missing = detail.child("missingPrivileges");
    let object = missing.and_then(|m| m.child("entity")).or_else(|| detail.child("object"));
    let listed = missing.map(|m| m.children_named("privilegeIds").map(Element::trimmed).collect::<Vec<_>>().join(", "));
    let privilege = listed.filter(|l| !l.is_empty()).or_else(|| detail.text_of("privilegeId"));
    FaultKind::NoPermission {
        object: object.map_or_else(|| "an object it did not name".to_owned(), Element::as_reference_text),
        privilege: privilege.unwrap_or_else(|| "unnamed".to_owned()),
    }
}

fn says_tracking_is_unusable(detail: &Element) -> bool {
    detail
        .children_named("faultMessage")
        .filter_map(|m| m.text_of("key"))
        .any(|key| ["cbt.noTrack", "cbt.noEpoch", "cbt.cannotGetChanges"].iter().any(|end| key.ends_with(end)))
}

#[cfg(test)]
mod tests;

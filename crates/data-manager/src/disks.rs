//! Opens a disk of vCenter: launches the helper that loads VDDK, and connects to the NBD export it serves.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use api::Reason;
use connections::{Vcenters, from_vsphere};
use data_path::{Disk, Throttle};
use disk::{DiskId, DiskSnapshot};
use kube::Resource;
use lifecycle::Problem;
use lifecycle::transfer::Transport;
use operator::{Note, Publisher};
use vsphere::Vcenter;

use crate::attempt::NotDone;
use crate::interrupt::Interrupt;

/// How much longer the NBD connection waits than the helper lets the library take.
const LAST_WORDS: Duration = Duration::from_secs(30);

/// How long the death of the helper may take to be told after its connection broke.
const DEATH_IS_TOLD_WITHIN: Duration = Duration::from_millis(500);

/// VDDK's number for a disk that another process has locked.
const ALREADY_LOCKED: u16 = 15;
/// How long the lock of a process that died may last within one attempt.
const LOCKED_FOR: Duration = Duration::from_secs(60);
/// Pause between two tries to open a locked disk.
const LOCKED_PAUSE: Duration = Duration::from_secs(2);

/// Where the helper and the library are.
#[derive(Clone)]
pub(crate) struct Disks {
    /// The `vddk-helper` program.
    pub(crate) helper: PathBuf,
    /// Folder of VDDK.
    pub(crate) library: PathBuf,
    /// Folder for sockets.
    pub(crate) sockets: PathBuf,
    /// How the library may move the data, best first.
    pub(crate) transport_modes: vddk::TransportModes,
    /// Where it may connect to.
    pub(crate) ports: vddk::Ports,
    /// For one call into the library.
    pub(crate) call_deadline: Duration,
    /// What all disks together are held to.
    pub(crate) throttle: Arc<Throttle>,
    /// What the user has set of the library.
    pub(crate) vcenters: Vcenters,
}

/// A disk that is open, with the child process that serves it.
pub(crate) struct OpenDisk {
    helper: vddk::Helper,
    /// The disk, until the copy takes it.
    pub(crate) disk: Disk,
    /// How its data moves.
    pub(crate) transport: Transport,
    /// What of the user's settings the library did not get.
    refused: Option<Problem>,
}

impl Disks {
    /// Opens a disk snapshot for reading.
    pub(crate) async fn read(
        &self,
        vcenter: &Vcenter,
        snapshot: &DiskSnapshot,
        interrupt: &Interrupt,
    ) -> Result<OpenDisk, Problem> {
        let target = vddk::Target {
            disk: snapshot.disk.clone(),
            snapshot: Some(snapshot.snapshot.clone()),
            access: vddk::Access::Read,
            identity: identity(snapshot.snapshot.as_str()),
        };
        self.open(vcenter, target, interrupt).await
    }

    /// Opens a disk for writing.
    pub(crate) async fn write(
        &self,
        vcenter: &Vcenter,
        disk: &DiskId,
        interrupt: &Interrupt,
    ) -> Result<OpenDisk, Problem> {
        let target = vddk::Target {
            disk: disk.clone(),
            snapshot: None,
            access: vddk::Access::Write,
            identity: identity(disk.as_str()),
        };
        self.open(vcenter, target, interrupt).await
    }

    async fn open(&self, vcenter: &Vcenter, target: vddk::Target, interrupt: &Interrupt) -> Result<OpenDisk, Problem> {
        let act = format!("open disk {}", target.disk);
        // the datastore is asked for right before: storage vMotion may have moved the disk
        let described = vcenter.retrieve_disk(&target.disk).await.map_err(|e| from_vsphere(&act, &e))?;
        let thumbprint = vcenter.server_thumbprint().await.map_err(|e| from_vsphere(&act, &e))?;
        let config = vcenter.config();
        let connection = vddk::Connection {
            library_dir: self.library.clone(),
            server: config.bare_host().to_owned(),
            port: config.port,
            thumbprint,
            user: config.user.clone(),
            password: config.password.clone(),
            datastore: described.datastore,
        };
        let (library_settings, refused) = self.library_settings().await?;
        let options = vddk::LaunchOptions {
            call_deadline: self.call_deadline,
            transport_modes: self.transport_modes.clone(),
            ports: self.ports.clone(),
            library_settings,
            ..vddk::LaunchOptions::default()
        };
        let helper = self.launch(connection, target, options).await.map_err(|e| from_vddk(&act, &e))?;
        interrupt.helpers.spawn(helper.gone());
        // the helper ends a call that hangs and says so; a connection that gave up before it would hide that
        let patience = self.call_deadline + LAST_WORDS;
        let patient = nbd::ConnectOptions { request_deadline: patience, ..nbd::ConnectOptions::default() };
        match Disk::connect(&helper.uri(), patient).await {
            Ok(disk) => {
                let transport =
                    Transport { in_use: helper.transport_mode().to_owned(), allowed: self.transport_modes.to_string() };
                Ok(OpenDisk { helper, disk: disk.throttled(self.throttle.clone()), transport, refused })
            }
            Err(error) => Err(crate::problems::from_copy(&act, &error)),
        }
    }

    /// What the user has set of the library, and what of it the library does not get: a mistake there, or a role from before
    /// there was such a setting, holds up no backup.
    async fn library_settings(&self) -> Result<(vddk::LibrarySettings, Option<Problem>), Problem> {
        let set = match self.vcenters.library_settings().await {
            Ok(set) => set,
            Err(problem) if problem.reason == Reason::ClusterForbidden => {
                tracing::warn!(%problem, "the disk library has its defaults");
                return Ok((vddk::LibrarySettings::default(), None));
            }
            Err(problem) => return Err(problem),
        };
        let (settings, bad) = vddk::LibrarySettings::read(&set);
        let bad: Vec<String> = bad.iter().map(ToString::to_string).collect();
        let refused = (!bad.is_empty()).then(|| {
            let map = api::names::VDDK_CONFIG;
            let cause = format!("ConfigMap {map}: the disk library does not get all of it: {}", bad.join("; "));
            Problem::lasting(Reason::SettingsInvalid, cause)
        });
        Ok((settings, refused))
    }

    /// Launches the helper. A disk that is still locked is waited for: when a data-manager was killed in the middle, its
    /// helper, or the ESXi host, holds the disk for a moment longer.
    async fn launch(
        &self,
        connection: vddk::Connection,
        target: vddk::Target,
        options: vddk::LaunchOptions,
    ) -> Result<vddk::Helper, vddk::Error> {
        let end = tokio::time::Instant::now() + LOCKED_FOR;
        loop {
            let (connection, target, options) = (connection.clone(), target.clone(), options.clone());
            match vddk::Helper::launch(&self.helper, &self.sockets, connection, target, options).await {
                Err(error) if error.code() == Some(ALREADY_LOCKED) && tokio::time::Instant::now() < end => {
                    tracing::info!(error = Problem::chain(&error), "waiting for the disk's lock");
                    tokio::time::sleep(LOCKED_PAUSE).await;
                }
                outcome => return outcome,
            }
        }
    }
}

impl OpenDisk {
    /// The copy's view of the disk, and the child that must outlive it.
    pub(crate) fn split(self) -> (Disk, vddk::Helper) {
        (self.disk, self.helper)
    }

    /// Counts it, and tells at the transfer which settings of the library cannot be followed.
    pub(crate) async fn told<K: Resource<DynamicType = ()>>(&self, publisher: &Publisher, transfer: &K) {
        publisher.metrics().disk_opened(&self.transport.in_use);
        if let Some(problem) = &self.refused {
            tracing::warn!(%problem, "a setting is not followed");
            publisher.note(transfer, &Note { reason: problem.reason, message: problem.message(), warning: true }).await;
        }
    }
}

/// What the library calls us, at most 50 characters; the same for the same disk, so that clean-up after a crash finds it.
fn identity(id: &str) -> String {
    format!("vpv-{id}").chars().take(50).collect()
}

/// What really ended a copy: a broken connection is only the shadow of the helper's death, whose own error says why.
pub(crate) async fn with_last_words<T>(
    act: &str,
    outcome: Result<T, NotDone>,
    helper: &vddk::Helper,
) -> Result<T, NotDone> {
    use Reason::{DiskFlushFailed, DiskReadFailed, DiskWriteFailed};
    match outcome {
        Err(NotDone::Failed(problem))
            if matches!(problem.reason, DiskReadFailed | DiskWriteFailed | DiskFlushFailed) =>
        {
            match tokio::time::timeout(DEATH_IS_TOLD_WITHIN, helper.exited()).await {
                Ok(error) => Err(from_vddk(act, &error).into()),
                Err(_) => Err(NotDone::Failed(problem)),
            }
        }
        other => other,
    }
}

/// What the helper's end means to an object.
pub(crate) fn from_vddk(act: &str, error: &vddk::Error) -> Problem {
    let cause = format!("{act}: {}", Problem::chain(error));
    let reason = match error.kind() {
        vddk::Kind::LibraryMissing => Reason::VddkLibraryMissing,
        vddk::Kind::LibraryBroken => Reason::VddkLibraryBroken,
        vddk::Kind::OpenFailed => Reason::VddkOpenFailed,
        vddk::Kind::Hung => Reason::VddkHung,
        vddk::Kind::Crashed => Reason::VddkCrashed,
        vddk::Kind::CloseFailed => Reason::DiskFlushFailed,
        vddk::Kind::LaunchFailed | vddk::Kind::Stopped => Reason::Internal,
    };
    // somebody may supply the library or mend the host while we back off
    Problem::passing(reason, cause).with_fix(error.fix().map(str::to_owned))
}

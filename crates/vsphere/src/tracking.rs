//! Switching change tracking: of a virtual machine by its configuration, of a detached disk by a control flag.
//!
//! Which may be switched when is decided elsewhere; vCenter refuses an attached disk, and nothing else.

use std::time::Duration;

use disk::DiskId;
use tracing::{info, warn};

use crate::error::{Cause, Error};
use crate::fault::{Act, Recovery};
use crate::machines::Machine;
use crate::pace::Pace;
use crate::session::Session;
use crate::snapshots::task_of;
use crate::tasks::Runs;
use crate::transport::Endpoint;
use crate::vcenter::Vcenter;
use crate::xml::Request;

/// Longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// As VSLM calls tracking among the things that can be set and cleared.
const FLAG: &str = "enableChangedBlockTracking";

impl Vcenter {
    /// Switches tracking in a virtual machine's configuration. It takes effect when the machine is stunned the next time: by
    /// a snapshot, a migration or a power cycle. Tries again until `within` is over, where that can help; safe to call again.
    ///
    /// # Errors
    /// When vCenter refuses: the account lacks `VirtualMachine.Config.ChangeTracking` or `VirtualMachine.Config.Settings`, or
    /// the machine is busy.
    pub async fn track_machine(&self, machine: &Machine, on: bool, within: Duration) -> Result<(), Error> {
        let switch = async |pace: &Pace| self.reconfigure(machine, on, pace).await;
        let switched = self.until_done(Act::TrackMachine, within, switch).await;
        switched.map_err(|cause| Error::new(Act::TrackMachine, &machine.name, cause))
    }

    async fn reconfigure(&self, machine: &Machine, on: bool, pace: &Pace) -> Result<(), Cause> {
        let on = on.to_string();
        let request = |_: &Session| {
            let request = Request::new("ReconfigVM_Task", &machine.reference());
            request.group("spec", |spec| spec.text("changeTrackingEnabled", &on))
        };
        let reply = self.call(Endpoint::Vim, true, Some(pace), request).await?;
        self.finish_task(&task_of(&reply.element)?, Runs::Vim, pace).await?;
        info!(machine = machine.id, name = machine.name, on, "switched change tracking of a virtual machine");
        Ok(())
    }

    /// Switches tracking of a disk that no virtual machine has. Tries again until `within` is over, where that can help; safe
    /// to call again.
    ///
    /// # Errors
    /// When vCenter refuses: the disk is attached ([`crate::ReasonKind::Busy`]), or the account lacks
    /// `Datastore.FileManagement`.
    pub async fn track_disk(&self, disk: &DiskId, on: bool, within: Duration) -> Result<(), Error> {
        let switch = async |pace: &Pace| self.set_flag(disk, on, pace).await;
        let switched = self.until_done(Act::TrackDisk, within, switch).await;
        switched.map_err(|cause| Error::new(Act::TrackDisk, disk, cause))
    }

    async fn set_flag(&self, disk: &DiskId, on: bool, pace: &Pace) -> Result<(), Cause> {
        let method = if on { "VslmSetVStorageObjectControlFlags" } else { "VslmClearVStorageObjectControlFlags" };
        let fill = |r: Request| r.id("id", disk.as_str()).text("controlFlags", FLAG);
        self.read_disks(method, Some(pace), fill).await?;
        info!(%disk, on, "switched change tracking of a disk");
        Ok(())
    }

    /// Tries until it is done, the time is over, or another try cannot help.
    async fn until_done(
        &self,
        act: Act,
        within: Duration,
        switch: impl AsyncFn(&Pace) -> Result<(), Cause>,
    ) -> Result<(), Cause> {
        let mut pace = Pace::new(self.shared.config.deadlines.retry_pause, LONGEST_PAUSE, within);
        loop {
            let Err(failed) = switch(&pace).await else { return Ok(()) };
            match failed.recovery(act) {
                Recovery::GiveUp => return Err(failed),
                Recovery::Retry | Recovery::Reconcile | Recovery::AlreadyDone => {} // twice is once
            }
            warn!(cause = failed.chain(), "could not switch change tracking yet");
            pace.pause_after(failed).await?;
        }
    }
}

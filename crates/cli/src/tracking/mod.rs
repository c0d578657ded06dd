//! `tracking`: whether vCenter tracks the changes of the cluster's disks, and switching that on or off.
//!
//! `lifecycle::tracking` decides, this does it. Nothing is switched without `--yes`.

mod apply;
pub(crate) mod observe;
mod shown;

use anyhow::{Result, anyhow};
use connections::Vcenters;
use lifecycle::tracking::{self, Plan, Step};
use vsphere::Vcenter;

use crate::args::{ClusterArguments, Output, SwitchArguments, TrackingCommand};
use crate::cluster::connect;
use apply::{switch_disks, switch_machines};
use observe::{Seen, observe};
use shown::{Act, Report};

pub(crate) async fn run(command: &TrackingCommand, output: Output) -> Result<()> {
    let cluster = match command {
        TrackingCommand::Status(cluster) => cluster,
        TrackingCommand::Enable(switch) | TrackingCommand::Disable(switch) => &switch.cluster,
    };
    let centers = Centers::of(cluster).await?;
    let done = match command {
        TrackingCommand::Status(_) => status(&centers).await,
        TrackingCommand::Enable(switch) => enable(&centers, switch).await,
        TrackingCommand::Disable(switch) => disable(&centers, switch).await,
    };
    centers.known.close().await;
    done?.print(output)
}

/// The cluster, and the vCenter that its Secret names.
struct Centers {
    client: kube::Client,
    known: Vcenters,
    vcenter: Vcenter,
}

impl Centers {
    async fn of(cluster: &ClusterArguments) -> Result<Self> {
        let client = connect(cluster).await?;
        let known = Vcenters::new(client.clone(), &cluster.velero_namespace);
        let vcenter = known.get().await.map_err(|problem| anyhow!("{}", problem.message()))?;
        Ok(Self { client, known, vcenter: vcenter.for_operation("vsphere-backup tracking") })
    }

    async fn look(&self) -> Result<Seen> {
        observe(&self.client, &self.vcenter).await
    }
}

async fn status(centers: &Centers) -> Result<Report> {
    Ok(Report::of_facts(&centers.look().await?))
}

async fn enable(centers: &Centers, switch: &SwitchArguments) -> Result<Report> {
    let mut seen = centers.look().await?;
    let plan = tracking::enable(&seen.nodes, &seen.disks);
    let act = Act { on: true, done: switch.yes && plan.refused.is_none() };
    if !act.done {
        return Ok(Report::of_plan(&seen, &plan, act));
    }
    let machines = switch_machines(&mut seen, &plan.machines, true, &centers.vcenter).await;
    let disks = switch_disks(&mut seen, &plan.disks, true, &centers.vcenter).await;
    Ok(Report::of_outcomes(&seen, &plan, act, &machines, &disks))
}

async fn disable(centers: &Centers, switch: &SwitchArguments) -> Result<Report> {
    let mut seen = centers.look().await?;
    let plan = tracking::disable(&seen.nodes, &seen.disks);
    let act = Act { on: false, done: switch.yes };
    if !act.done {
        return Ok(Report::of_plan(&seen, &plan, act));
    }
    let disks = switch_disks(&mut seen, &plan.disks, false, &centers.vcenter).await;
    // a disk that could not be switched, or was attached since, keeps the machines as they are
    let looked = seen.look_at_disks_again(&centers.vcenter).await;
    let machines = match &looked {
        Ok(()) => tracking::disable_machines(&seen.nodes, &seen.disks),
        Err(error) => {
            let left = |step: &Step| match step {
                Step::Switch => Step::Refused(tracking::Why::Unreadable(format!("look at the disks again: {error:#}"))),
                step => step.clone(),
            };
            plan.machines.iter().map(left).collect()
        }
    };
    let switched = switch_machines(&mut seen, &machines, false, &centers.vcenter).await;
    Ok(Report::of_outcomes(&seen, &Plan { machines, ..plan }, act, &switched, &disks))
}

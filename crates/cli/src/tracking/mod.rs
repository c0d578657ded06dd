//! `tracking`: whether vCenter tracks the changes of the cluster's disks, and switching that on or off.
//!
//! `lifecycle::tracking` decides, this does it. Nothing is switched without `--yes`.

mod apply;
pub(crate) mod observe;
mod shown;

use std::sync::Arc;

use anyhow::{Result, anyhow};
use connections::{Centers, Vcenters};
use lifecycle::tracking::{self, Plan, Step};

use crate::args::{ClusterArguments, Output, SwitchArguments, TrackingCommand};
use crate::cluster::connect;
use apply::{switch_disks, switch_machines};
use observe::{Seen, observe};
use shown::{Act, Report};

/// What our calls are called in vCenter's logs.
const OPERATION: &str = "vsphere-backup tracking";

pub(crate) async fn run(command: &TrackingCommand, output: Output) -> Result<()> {
    let cluster = match command {
        TrackingCommand::Status(cluster) => cluster,
        TrackingCommand::Enable(switch) | TrackingCommand::Disable(switch) => &switch.cluster,
    };
    let of_cluster = Cluster::of(cluster).await?;
    let done = match command {
        TrackingCommand::Status(_) => status(&of_cluster).await,
        TrackingCommand::Enable(switch) => enable(&of_cluster, switch).await,
        TrackingCommand::Disable(switch) => disable(&of_cluster, switch).await,
    };
    of_cluster.known.close().await;
    done?.print(output)
}

/// The cluster, and the vCenters that its Secret names.
struct Cluster {
    client: kube::Client,
    known: Vcenters,
    centers: Arc<Centers>,
}

impl Cluster {
    async fn of(cluster: &ClusterArguments) -> Result<Self> {
        let client = connect(cluster).await?;
        let known = Vcenters::new(client.clone(), &cluster.velero_namespace);
        let centers = known.centers().await.map_err(|problem| anyhow!("{}", problem.message()))?;
        Ok(Self { client, known, centers })
    }

    async fn look(&self) -> Result<Seen> {
        observe(&self.client, &self.centers, OPERATION).await
    }
}

async fn status(cluster: &Cluster) -> Result<Report> {
    Ok(Report::of_facts(&cluster.look().await?))
}

async fn enable(cluster: &Cluster, switch: &SwitchArguments) -> Result<Report> {
    let mut seen = cluster.look().await?;
    let plan = tracking::enable(&seen.nodes, &seen.disks);
    let act = Act { on: true, done: switch.yes && plan.refused.is_none() };
    if !act.done {
        return Ok(Report::of_plan(&seen, &plan, act));
    }
    let machines = switch_machines(&mut seen, &plan.machines, true).await;
    let disks = switch_disks(&mut seen, &plan.disks, true, &cluster.centers).await;
    Ok(Report::of_outcomes(&seen, &plan, act, &machines, &disks))
}

async fn disable(cluster: &Cluster, switch: &SwitchArguments) -> Result<Report> {
    let mut seen = cluster.look().await?;
    let plan = tracking::disable(&seen.nodes, &seen.disks);
    let act = Act { on: false, done: switch.yes };
    if !act.done {
        return Ok(Report::of_plan(&seen, &plan, act));
    }
    let disks = switch_disks(&mut seen, &plan.disks, false, &cluster.centers).await;
    // a disk that could not be switched, or was attached since, keeps the machines as they are
    let looked = seen.look_at_disks_again(&cluster.centers, OPERATION).await;
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
    let switched = switch_machines(&mut seen, &machines, false).await;
    Ok(Report::of_outcomes(&seen, &Plan { machines, ..plan }, act, &switched, &disks))
}

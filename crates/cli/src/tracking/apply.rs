//! Does what a plan says, one object after the other, and keeps the facts in step. Decides nothing beyond what is safe at the
//! very moment: a disk is looked at right before it is switched, and right after.

use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use connections::Centers;
use lifecycle::tracking::{self, Disk, Facts, Machine, Step, Why};
use vsphere::Vcenter;

use super::OPERATION;
use super::observe::{Seen, facts_of, of_one};
use crate::output;

/// Longest time for one virtual machine or disk; vCenter reconfigures in seconds when it is not busy.
const WITHIN: Duration = Duration::from_secs(60);

/// What became of a step that was to switch something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is switched.
    Done,
    /// It could not be; cause and fix.
    Failed(String),
    /// It has changed since the plan was made.
    Changed(Why),
    /// An earlier one failed.
    NotTried,
}

impl Outcome {
    fn told(&self, on: bool) -> String {
        match self {
            Self::Done if on => "switched on".to_owned(),
            Self::Done => "switched off".to_owned(),
            Self::Failed(cause) => format!("failed: {cause}"),
            Self::Changed(why) => format!("left: {why}"),
            Self::NotTried => "not tried".to_owned(),
        }
    }
}

/// Switches virtual machines, and stops at the first that cannot be: what one account may not do on one machine it seldom may
/// on the next, and a cluster where some have it and others do not is what nobody wants.
pub(super) async fn switch_machines(seen: &mut Seen, steps: &[Step], on: bool) -> Vec<Option<Outcome>> {
    let mut outcomes = Vec::with_capacity(steps.len());
    let mut stopped = false;
    for (at, step) in steps.iter().enumerate() {
        let machine = seen.machines[at].as_ref().filter(|_| *step == Step::Switch);
        let Some((vcenter, machine)) = machine else {
            outcomes.push(None);
            continue;
        };
        let outcome = if stopped {
            Outcome::NotTried
        } else {
            match vcenter.track_machine(machine, on, WITHIN).await {
                Ok(()) => Outcome::Done,
                Err(error) => Outcome::Failed(error.describe()),
            }
        };
        stopped |= outcome != Outcome::Done;
        output::note(&format!("node {}: {}", seen.nodes[at].name, outcome.told(on)));
        if let (Outcome::Done, Machine::Known { tracking, .. }) = (&outcome, &mut seen.nodes[at].machine) {
            *tracking = on;
        }
        outcomes.push(Some(outcome));
    }
    outcomes
}

/// Switches disks. One that cannot be does not keep the others from it; a vCenter that went away does, where there is no other.
pub(super) async fn switch_disks(seen: &mut Seen, steps: &[Step], on: bool, centers: &Centers) -> Vec<Option<Outcome>> {
    let mut outcomes = Vec::with_capacity(steps.len());
    let mut stopped = false;
    for (at, step) in steps.iter().enumerate() {
        if *step != Step::Switch {
            outcomes.push(None);
            continue;
        }
        let disk = &mut seen.disks[at];
        let outcome = match stopped {
            true => Outcome::NotTried,
            false => switch_disk(disk, on, centers).await.unwrap_or_else(|error| {
                stopped = centers.only().is_some();
                Outcome::Failed(format!("{error:#}"))
            }),
        };
        output::note(&format!("disk {}: {}", disk.id, outcome.told(on)));
        if let (Outcome::Done, Facts::Known { tracking, .. }) = (&outcome, &mut disk.facts) {
            *tracking = on;
        }
        outcomes.push(Some(outcome));
    }
    outcomes
}

async fn switch_disk(disk: &mut Disk, on: bool, centers: &Centers) -> Result<Outcome> {
    let vcenter = centers.of_disk(&disk.id).await.map_err(|problem| anyhow!("{}", problem.message()))?;
    let vcenter = vcenter.for_operation(OPERATION);
    match on {
        true => switch_on(disk, &vcenter).await,
        false => switch_off(disk, &vcenter).await,
    }
}

/// A backup may have begun since the plan was made, or just now: with its snapshot there, tracking must not begin.
async fn switch_on(disk: &mut Disk, vcenter: &Vcenter) -> Result<Outcome> {
    disk.facts = facts_of(&disk.id, vcenter).await?;
    match tracking::begin(disk) {
        Step::Already => return Ok(Outcome::Done),
        Step::Left(why) | Step::Refused(why) => return Ok(Outcome::Changed(why)),
        Step::Switch => {}
    }
    let switched = vcenter.track_disk(&disk.id, true, WITHIN).await;
    // also after an error: vCenter may have done it, and only its answer got lost
    let looked = facts_of(&disk.id, vcenter).await.context("look whether a snapshot was taken meanwhile");
    match (switched, looked) {
        (Ok(()), Ok(Facts::Known { snapshots: 0, .. })) => Ok(Outcome::Done),
        (Err(error), Ok(Facts::Missing | Facts::Known { tracking: false, .. } | Facts::Known { snapshots: 0, .. })) => {
            of_one(&error).map(Outcome::Failed)
        }
        _ => taken_back(disk, vcenter).await,
    }
}

async fn taken_back(disk: &Disk, vcenter: &Vcenter) -> Result<Outcome> {
    let why = "a snapshot was taken meanwhile, or vCenter does not say";
    Ok(Outcome::Failed(match vcenter.track_disk(&disk.id, false, WITHIN).await {
        Ok(()) => format!("{why}: it is switched off again; run again when no backup runs"),
        Err(error) => format!(
            "{why}, and it could not be switched off again: {}; run `tracking disable` when no pod uses it",
            error.describe()
        ),
    }))
}

async fn switch_off(disk: &Disk, vcenter: &Vcenter) -> Result<Outcome> {
    match vcenter.track_disk(&disk.id, false, WITHIN).await {
        Ok(()) => Ok(Outcome::Done),
        Err(error) => of_one(&error).map(Outcome::Failed),
    }
}

//! How facts, plans and outcomes are told: two tables and what to do next, or one document.

use anyhow::Result;
use lifecycle::tracking::{self, Disk, Facts, Machine, Node, Plan, Step};
use serde::Serialize;

use super::apply::Outcome;
use super::observe::{Seen, Volume};
use crate::args::Output;
use crate::failure::{Refused, WithResult, exit};
use crate::output;

const DRY_RUN: &str = "nothing was changed; --yes does it";
const STUN: &str = "it takes effect when a virtual machine is stunned: make a snapshot of it and delete it, migrate it, or \
                    power-cycle it; this program makes no snapshots of virtual machines";
const THEN_DISKS: &str = "when every virtual machine was stunned, run `tracking enable` again for the disks";
const WAS_STUNNED: &str = "before --yes, make sure that every virtual machine was stunned since it was switched on";
const TEMPLATE: &str = "the template of nodes that are added by themselves needs changeTrackingEnabled too: a tracked disk cannot \
                        be attached to a node without it";

/// What was asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Act {
    /// Switching on, or off.
    pub(super) on: bool,
    /// Whether it was done, or only thought through.
    pub(super) done: bool,
}

/// What is, and what becomes or became of it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    nodes: Vec<NodeLine>,
    disks: Vec<DiskLine>,
    /// Pods that will not start.
    dangers: Vec<String>,
    /// What to do next.
    notes: Vec<String>,
    /// Why nothing is switched.
    refused: Option<String>,
    #[serde(skip)]
    act: Option<Act>,
}

/// A node and its virtual machine. What is not known is absent.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct NodeLine {
    node: String,
    machine: Option<String>,
    hardware: Option<String>,
    tracking: Option<bool>,
    #[serde(flatten)]
    told: Told,
}

/// A volume and its disk. What is not known is absent.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct DiskLine {
    claim: Option<String>,
    volume: String,
    disk: String,
    tracking: Option<bool>,
    attached: Option<bool>,
    snapshots: Option<usize>,
    #[serde(flatten)]
    told: Told,
}

/// What becomes or became of a line.
#[derive(Debug, Default, Serialize)]
struct Told {
    /// `toSwitch`, `switched`, `failed`, `notTried`, `already`, `left` or `refused`; absent where nothing was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    step: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<String>,
}

impl Told {
    fn because(step: Option<&'static str>, why: &tracking::Why) -> Self {
        Self { step, why: Some(why.to_string()), fix: Some(why.fix().to_owned()).filter(|fix| !fix.is_empty()) }
    }

    fn of(step: &Step, outcome: Option<&Outcome>) -> Self {
        match (outcome, step) {
            (Some(Outcome::Done), _) => Self { step: Some("switched"), ..Self::default() },
            (Some(Outcome::Failed(cause)), _) => {
                Self { step: Some("failed"), why: Some(cause.clone()), ..Self::default() }
            }
            (Some(Outcome::Changed(why)), _) => Self::because(Some("left"), why),
            (Some(Outcome::NotTried), _) => {
                Self { step: Some("notTried"), why: Some("one before it failed".to_owned()), ..Self::default() }
            }
            (None, Step::Switch) => Self { step: Some("toSwitch"), ..Self::default() },
            (None, Step::Already) => Self { step: Some("already"), ..Self::default() },
            (None, Step::Left(why)) => Self::because(Some("left"), why),
            (None, Step::Refused(why)) => Self::because(Some("refused"), why),
        }
    }

    fn sentence(&self) -> String {
        [self.why.as_deref(), self.fix.as_deref()].into_iter().flatten().collect::<Vec<_>>().join("; ")
    }

    fn is_failure(&self) -> bool {
        self.step == Some("failed")
    }
}

impl Report {
    /// What is.
    pub(super) fn of_facts(seen: &Seen) -> Self {
        let hint = |why: Option<tracking::Why>| why.map(|why| Told::because(None, &why)).unwrap_or_default();
        let of_disk = |disk: &Disk| match tracking::begin(disk) {
            Step::Left(why) | Step::Refused(why) => hint(Some(why)),
            Step::Already | Step::Switch => Told::default(),
        };
        let nodes = seen.nodes.iter().map(|node| hint(node.machine.objection())).collect();
        Self::new(seen, nodes, seen.disks.iter().map(of_disk).collect(), None, None)
    }

    /// What would be done.
    pub(super) fn of_plan(seen: &Seen, plan: &Plan, act: Act) -> Self {
        let none = |steps: &[Step]| vec![None; steps.len()];
        Self::of_outcomes(seen, plan, act, &none(&plan.machines), &none(&plan.disks))
    }

    /// What was done.
    pub(super) fn of_outcomes(
        seen: &Seen,
        plan: &Plan,
        act: Act,
        machines: &[Option<Outcome>],
        disks: &[Option<Outcome>],
    ) -> Self {
        let told = |steps: &[Step], outcomes: &[Option<Outcome>]| {
            steps.iter().zip(outcomes).map(|(step, outcome)| Told::of(step, outcome.as_ref())).collect()
        };
        let refused = plan.refused.as_ref().map(|why| format!("{why}; {}", why.fix()));
        let mut report = Self::new(seen, told(&plan.machines, machines), told(&plan.disks, disks), Some(act), refused);
        report.notes = notes(plan, act);
        report
    }

    fn new(seen: &Seen, nodes: Vec<Told>, disks: Vec<Told>, act: Option<Act>, refused: Option<String>) -> Self {
        let machines = seen.nodes.iter().zip(&seen.machines).zip(nodes);
        let of_disks = seen.disks.iter().zip(&seen.volumes).zip(disks);
        Self {
            nodes: machines
                .map(|((node, machine), told)| {
                    node_line(node, machine.as_ref().map(|(_, machine)| machine.name.clone()), told)
                })
                .collect(),
            disks: of_disks.map(|((disk, volume), told)| disk_line(disk, volume, told)).collect(),
            dangers: tracking::dangers(&seen.nodes, &seen.disks),
            notes: Vec::new(),
            refused,
            act,
        }
    }

    /// Prints it, and fails where something was refused or failed.
    pub(super) fn print(self, output: Output) -> Result<()> {
        let failure = self.failure();
        if failure.is_none() || output == Output::Text {
            output::result(output, &self, || self.text())?;
        }
        match failure {
            Some(failure) => Err(WithResult::new(failure, &self).into()),
            None => Ok(()),
        }
    }

    fn failure(&self) -> Option<Refused> {
        let act = self.act?;
        let what = if act.on { "switch change tracking on" } else { "switch change tracking off" };
        if let Some(why) = &self.refused {
            return Some(Refused::new(format!("{what}: {why}"), "see WHY in the tables; nothing was changed"));
        }
        let named = |name: &str, told: &Told| told.is_failure().then(|| format!("{name}: {}", told.sentence()));
        let nodes = self.nodes.iter().filter_map(|line| named(&line.node, &line.told));
        let failed: Vec<_> = nodes.chain(self.disks.iter().filter_map(|line| named(&line.disk, &line.told))).collect();
        let fix = "mend what is named, then run again: what was switched stays so";
        let message = format!("{what}: {}", failed.join("; "));
        (!failed.is_empty()).then_some(Refused { message, fix: fix.into(), code: exit::FAILED })
    }

    fn text(&self) -> String {
        let asked = self.act.is_some();
        let head = |columns: &[&'static str]| {
            let what = if asked { &["WHAT"][..] } else { &[] };
            [columns, what, &["WHY"]].concat()
        };
        let row = |mut cells: Vec<String>, told: &Told| {
            cells.extend(self.act.map(|act| what(act, told).to_owned()));
            cells.push(told.sentence());
            cells
        };
        let nodes = self.nodes.iter().map(|line| {
            let cells = vec![line.node.clone(), shown(&line.machine), shown(&line.hardware), on_off(line.tracking)];
            row(cells, &line.told)
        });
        let disks = self.disks.iter().map(|line| {
            let attached = line.attached.map(|attached| if attached { "yes" } else { "no" });
            let snapshots = line.snapshots.map(|count| count.to_string());
            let cells = [shown(&line.claim), line.volume.clone(), line.disk.clone(), on_off(line.tracking)].to_vec();
            row([cells, vec![shown(&attached), shown(&snapshots)]].concat(), &line.told)
        });
        let mut text = output::table(&head(&["NODE", "VM", "HARDWARE", "TRACKING"]), nodes);
        text.push('\n');
        let columns = ["CLAIM", "VOLUME", "DISK", "TRACKING", "ATTACHED", "SNAPSHOTS"];
        text.push_str(&output::table(&head(&columns), disks));
        let dangers = self.dangers.iter().map(|danger| format!("\ndanger: {danger}"));
        text.extend(dangers.chain(self.notes.iter().map(|note| format!("\n{note}"))));
        text
    }
}

fn node_line(node: &Node, machine: Option<String>, told: Told) -> NodeLine {
    let (hardware, tracking) = match &node.machine {
        Machine::Known { hardware, tracking, .. } => (Some(hardware.clone()), Some(*tracking)),
        _ => (None, None),
    };
    NodeLine { node: node.name.clone(), machine, hardware, tracking, told }
}

fn disk_line(disk: &Disk, volume: &Volume, told: Told) -> DiskLine {
    let known = match &disk.facts {
        Facts::Known { attached, tracking, snapshots } => Some((*attached, *tracking, *snapshots)),
        Facts::Missing | Facts::Unreadable(_) => None,
    };
    DiskLine {
        claim: volume.claim.clone(),
        volume: volume.name.clone(),
        disk: disk.id.to_string(),
        tracking: known.map(|(_, tracking, _)| tracking),
        attached: known.map(|(attached, ..)| attached),
        snapshots: known.map(|(.., snapshots)| snapshots),
        told,
    }
}

/// What to do next.
fn notes(plan: &Plan, act: Act) -> Vec<String> {
    let switches = |steps: &[Step]| steps.contains(&Step::Switch);
    let (machines, disks) = (switches(&plan.machines), switches(&plan.disks));
    let mut notes = Vec::new();
    if !act.done && plan.has_work() {
        notes.push(DRY_RUN);
    }
    if machines {
        notes.push(STUN);
    }
    if act.on && machines {
        notes.push(THEN_DISKS);
    }
    if act.on && disks && !act.done {
        notes.push(WAS_STUNNED);
    }
    if act.on {
        notes.push(TEMPLATE);
    }
    notes.into_iter().map(str::to_owned).collect()
}

fn what(act: Act, told: &Told) -> &'static str {
    match (told.step, act.on) {
        (Some("toSwitch"), true) => "to switch on",
        (Some("toSwitch"), false) => "to switch off",
        (Some("switched"), true) => "switched on",
        (Some("switched"), false) => "switched off",
        (Some("already"), true) => "on already",
        (Some("already"), false) => "off already",
        (Some("notTried"), _) => "not tried",
        (Some(step), _) => step,
        (None, _) => "",
    }
}

fn on_off(tracking: Option<bool>) -> String {
    shown(&tracking.map(|on| if on { "on" } else { "off" }))
}

fn shown(text: &Option<impl ToString>) -> String {
    text.as_ref().map_or_else(|| "?".to_owned(), ToString::to_string)
}

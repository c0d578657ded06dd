//! The whole product on one lab: what a user would lose if a scenario failed stands in its name.
//!
//! Scenarios run side by side, each in a namespace of its own, and touch nothing that another needs. Those that kill,
//! cut off or reconfigure shared programs are in `alone`; each has a lab to itself while it runs (`stage.rs`).

#![allow(clippy::unwrap_used)] // a test may fail where it stands

mod alone;
mod bad_input;
mod bad_restores;
mod cancelling;
mod changed_areas;
mod command_line;
mod disk_faults;
mod original;
mod round_trip;
mod stage;
mod velero;

use std::future::Future;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
use e2e::{Server, World};
use libtest_mimic::{Arguments, Failed, Trial};
use stage::{Lab, Stage};
use tokio::sync::Semaphore;

type Scenario = fn(World) -> Pin<Box<dyn Future<Output = Result<()>> + Send>>;

/// Names of functions and the functions, boxed so that they fit in one list.
#[macro_export]
macro_rules! scenarios {
    ($($name:ident),+ $(,)?) => {
        /// The scenarios of this file.
        pub(crate) const SCENARIOS: &[(&str, $crate::Scenario)] = &[
            $((stringify!($name), |world| Box::pin($name(world)))),+
        ];
    };
}

fn trials(stage: &Arc<Stage>, scenarios: impl Iterator<Item = &'static (&'static str, Scenario)>) -> Vec<Trial> {
    let trial = |&(name, scenario): &'static (&'static str, Scenario)| {
        let stage = stage.clone();
        Trial::test(name, move || stage.play((name, scenario)).map_err(|error| Failed::from(format!("{error:?}"))))
    };
    scenarios.map(trial).collect()
}

fn main() -> Result<ExitCode> {
    let mut arguments = Arguments::from_args();
    // scenarios fill and hash disks where they stand: with a thread a core, one would keep the others from striking in time
    let runtime = Arc::new(tokio::runtime::Builder::new_multi_thread().worker_threads(16).enable_all().build()?);

    // most of a scenario is waiting: two cores are busy, and not too busy, with eight at a time
    let alone = ["e2e-alone-a", "e2e-alone-b", "e2e-alone-c"].map(|lab| Lab::new(lab, Server::Runs));
    let alone = Stage::new(alone.to_vec(), &Arc::new(Semaphore::new(alone.len())), &runtime);
    // one after the other on a lab that nobody else has left anything in
    let checkup = Stage::new(vec![Lab::new("e2e-doctor", Server::Runs)], &Arc::new(Semaphore::new(1)), &runtime);
    let places = Arc::new(Semaphore::new(5));
    let side_by_side = Stage::new(vec![Lab::new("e2e", Server::Absent)], &places, &runtime);
    let through_velero = Stage::new(vec![Lab::new("e2e-velero", Server::Runs)], &places, &runtime);

    let mut all = trials(&alone, alone::scenarios().chain(velero::alone()));
    let lists = [
        round_trip::SCENARIOS,
        bad_input::SCENARIOS,
        bad_restores::SCENARIOS,
        disk_faults::SCENARIOS,
        cancelling::SCENARIOS,
        changed_areas::SCENARIOS,
        command_line::SCENARIOS,
        original::SCENARIOS,
    ];
    all.extend(trials(&side_by_side, lists.into_iter().flatten()));
    all.extend(trials(&through_velero, velero::scenarios()));
    all.extend(trials(&checkup, alone::doctor::SCENARIOS.iter()));

    arguments.test_threads = arguments.test_threads.or(Some(all.len())); // each waits for its place on a stage
    let outcome = libtest_mimic::run(&arguments, all);
    let unclean = [alone, through_velero, side_by_side, checkup].iter().filter(|stage| !stage.ends_clean()).count();
    Ok(if outcome.has_failed() || unclean > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

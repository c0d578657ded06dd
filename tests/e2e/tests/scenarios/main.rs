//! The whole product on one lab: what a user would lose if a scenario failed stands in its name.
//!
//! Scenarios run side by side, each in a namespace of its own, and touch nothing that another needs. Those that kill,
//! cut off or reconfigure shared programs are in `alone.rs`; each has a lab to itself while it runs.

#![allow(clippy::unwrap_used)] // a test may fail where it stands

mod alone;
mod bad_input;
mod cancelling;
mod command_line;
mod disk_faults;
mod round_trip;
mod velero;

use std::future::Future;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use anyhow::{Context as _, Result};
use e2e::{Server, World, nothing_left_at_all};
use libtest_mimic::{Arguments, Failed, Trial};
use tokio::runtime::Runtime;

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

/// The labs of the scenarios that need one to themselves.
const ALONE: [&str; 2] = ["e2e-alone-a", "e2e-alone-b"];

/// One lab, started when the first scenario needs it.
struct Stage {
    lab: String,
    velero: Server,
    runtime: Arc<Runtime>,
    world: tokio::sync::OnceCell<World>,
}

impl Stage {
    /// `E2E_LAB` is for a second run beside the first, on labs of other names.
    fn new(lab: &str, velero: Server, runtime: &Arc<Runtime>) -> Arc<Self> {
        let lab = std::env::var("E2E_LAB").map_or_else(|_| lab.to_owned(), |prefix| format!("{prefix}-{lab}"));
        Arc::new(Self { lab, velero, runtime: runtime.clone(), world: tokio::sync::OnceCell::new() })
    }

    /// Plays a scenario and says how long it took, the lab's start not counted.
    fn play(&self, (name, scenario): (&str, Scenario)) -> Result<()> {
        self.runtime.block_on(async {
            let world = self.world.get_or_try_init(|| World::start(&self.lab, self.velero)).await?.clone();
            let begin = Instant::now();
            let outcome = tokio::spawn(scenario(world)).await; // a panic is this scenario's failure, not the run's end
            println!("{name}: {:.0} s in lab {}", begin.elapsed().as_secs_f32(), self.lab);
            outcome?
        })
    }

    /// Looks at what all its scenarios together have left, and stops the lab. A lab that nobody needed was not started.
    fn stop(&self) -> Result<()> {
        let Some(world) = self.world.get() else { return Ok(()) };
        self.runtime.block_on(async {
            let left =
                nothing_left_at_all(world).await.with_context(|| format!("when all was over in lab {}", self.lab));
            world.stop().await.and(left)
        })
    }
}

/// Plays scenarios that may all be on one stage together.
fn shared(stage: &Arc<Stage>, scenario: &'static (&'static str, Scenario)) -> Trial {
    let stage = stage.clone();
    Trial::test(scenario.0, move || told(stage.play(*scenario)))
}

/// Plays scenarios that each need a stage to themselves: any that is free. There are as many as scenarios at a time.
fn alone(free: &Arc<Mutex<Vec<Arc<Stage>>>>, scenario: &'static (&'static str, Scenario)) -> Trial {
    let free = free.clone();
    Trial::test(scenario.0, move || {
        let stage = free.lock().unwrap().pop().expect("as many stages as scenarios at a time");
        let outcome = stage.play(*scenario);
        free.lock().unwrap().push(stage);
        told(outcome)
    })
}

fn told(outcome: Result<()>) -> Result<(), Failed> {
    outcome.map_err(|error| Failed::from(format!("{error:?}")))
}

/// Stops a lab; says so when its scenarios have left anything.
fn ends_clean(stage: &Stage) -> bool {
    stage.stop().inspect_err(|error| eprintln!("{error:?}")).is_ok()
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::from_args();
    // scenarios fill and hash disks where they stand: with a thread a core, one would keep the others from striking in time
    let runtime = Arc::new(tokio::runtime::Builder::new_multi_thread().worker_threads(16).enable_all().build()?);

    let stage = Stage::new("e2e", Server::Absent, &runtime);
    let lists = [
        round_trip::SCENARIOS,
        bad_input::SCENARIOS,
        disk_faults::SCENARIOS,
        cancelling::SCENARIOS,
        command_line::SCENARIOS,
    ];
    let side_by_side = lists.into_iter().flatten().map(|scenario| shared(&stage, scenario)).collect();
    let mut first = arguments.clone();
    first.test_threads = first.test_threads.or(Some(6)); // they mostly wait; two cores do the copying
    let side_by_side = libtest_mimic::run(&first, side_by_side);
    let mut clean = ends_clean(&stage);

    let stage = Stage::new("e2e-velero", Server::Runs, &runtime);
    let through_velero = velero::scenarios().map(|scenario| shared(&stage, scenario)).collect();
    let through_velero = libtest_mimic::run(&first, through_velero);
    clean &= ends_clean(&stage);

    let stages = ALONE.map(|lab| Stage::new(lab, Server::Runs, &runtime));
    let free = Arc::new(Mutex::new(stages.to_vec()));
    let one_each = alone::scenarios().chain(velero::alone()).map(|scenario| alone(&free, scenario)).collect();
    let mut second = arguments;
    second.test_threads = Some(second.test_threads.unwrap_or(usize::MAX).min(ALONE.len()));
    let one_each = libtest_mimic::run(&second, one_each);
    for stage in &stages {
        clean &= ends_clean(stage);
    }

    let failed = [side_by_side, through_velero, one_each].iter().any(libtest_mimic::Conclusion::has_failed);
    Ok(if failed || !clean { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

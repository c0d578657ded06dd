//! The whole product on one lab: what a user would lose if a scenario failed stands in its name.
//!
//! Scenarios run side by side, each in a namespace of its own, and touch nothing that another needs. Those that kill,
//! cut off or reconfigure shared programs are in `alone.rs` and run one after the other on a second lab.

#![allow(clippy::unwrap_used)] // a test may fail where it stands

mod alone;
mod bad_input;
mod disk_faults;
mod round_trip;

use std::future::Future;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
use e2e::World;
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

/// One lab, started when the first scenario needs it.
struct Stage {
    lab: String,
    runtime: Arc<Runtime>,
    world: tokio::sync::OnceCell<World>,
}

impl Stage {
    /// `E2E_LAB` is for a second run beside the first, on labs of other names.
    fn new(lab: &str, runtime: &Arc<Runtime>) -> Arc<Self> {
        let lab = std::env::var("E2E_LAB").map_or_else(|_| lab.to_owned(), |prefix| format!("{prefix}-{lab}"));
        Arc::new(Self { lab, runtime: runtime.clone(), world: tokio::sync::OnceCell::new() })
    }

    fn trial(self: &Arc<Self>, name: &'static str, scenario: Scenario) -> Trial {
        let stage = self.clone();
        Trial::test(name, move || stage.play(scenario).map_err(|error| Failed::from(format!("{error:?}"))))
    }

    fn play(&self, scenario: Scenario) -> Result<()> {
        self.runtime.block_on(async {
            let world = self.world.get_or_try_init(|| World::start(&self.lab)).await?.clone();
            tokio::spawn(scenario(world)).await? // a panic is this scenario's failure, not the run's end
        })
    }

    fn stop(&self) -> Result<()> {
        match self.world.get() {
            Some(world) => self.runtime.block_on(world.stop()),
            None => Ok(()),
        }
    }
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::from_args();
    let runtime = Arc::new(Runtime::new()?);

    let shared = Stage::new("e2e", &runtime);
    let lists = [round_trip::SCENARIOS, bad_input::SCENARIOS, disk_faults::SCENARIOS];
    let side_by_side = lists.into_iter().flatten().map(|(name, scenario)| shared.trial(name, *scenario)).collect();
    let mut first = arguments.clone();
    first.test_threads = first.test_threads.or(Some(6)); // they mostly wait; two cores do the copying
    let side_by_side = libtest_mimic::run(&first, side_by_side);
    shared.stop()?;

    let own = Stage::new("e2e-alone", &runtime);
    let one_by_one = alone::scenarios().map(|(name, scenario)| own.trial(name, *scenario)).collect();
    let mut second = arguments;
    second.test_threads = Some(1);
    let one_by_one = libtest_mimic::run(&second, one_by_one);
    own.stop()?;

    let failed = side_by_side.has_failed() || one_by_one.has_failed();
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

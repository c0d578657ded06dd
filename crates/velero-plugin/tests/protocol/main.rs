//! The plugin's protocol, spoken by a host: a client of ours over the socket, and go-plugin itself in three versions.
//!
//! This program is the tests and also the plugin that they talk to: started with Velero's magic variable it serves the
//! actions of `rehearsal.rs`. So no action of a test is in the program that we ship.

#![allow(clippy::unwrap_used)] // a test may fail where it stands
#![allow(clippy::disallowed_types)] // a host starts plugins
#![allow(clippy::print_stderr)]

mod calls;
mod ending;
mod go_hosts;
mod host;
mod lines;
mod rehearsal;
mod shipped;
mod starting;

use std::pin::Pin;
use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};

/// A test: everything a host does with one plugin, or some.
type Scene = fn() -> Pin<Box<dyn Future<Output = anyhow::Result<()>>>>;

/// Names of functions and the functions, boxed so that they fit in one list.
#[macro_export]
macro_rules! scenes {
    ($($name:ident),+ $(,)?) => {
        /// The scenes of this file.
        pub(crate) const SCENES: &[(&str, $crate::Scene)] = &[$((stringify!($name), || Box::pin($name()))),+];
    };
}

fn main() -> ExitCode {
    if std::env::var_os("VELERO_PLUGIN").is_some() {
        return velero_plugin::protocol::serve(rehearsal::registry);
    }
    let all = [starting::SCENES, calls::SCENES, lines::SCENES, ending::SCENES, go_hosts::SCENES, shipped::SCENES];
    let trials = all.concat().into_iter().map(|(name, scene)| Trial::test(name, move || play(scene))).collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn play(scene: Scene) -> Result<(), Failed> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(scene()).map_err(|e| format!("{e:?}").into())
}

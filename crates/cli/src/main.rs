//! `vsphere-backup`: disks into restic repositories and back, by hand; and what a cluster's backups are doing.
//!
//! [`args::Arguments`] is the command line, one module per command does it, [`failure`] turns what went wrong into an
//! exit code and a line on what to do. The bytes are moved by `data_path`, as in the cluster.
//!
//! ```sh
//! export RESTIC_PASSWORD=…
//! vsphere-backup backup disk.raw --repository /srv/backups
//! vsphere-backup restore latest copy.raw --repository /srv/backups
//! ```

mod args;
mod backup;
mod changes;
mod cluster;
mod disks;
mod doctor;
mod failure;
mod interrupt;
mod leftovers;
mod list;
mod memory;
mod output;
mod partial;
mod place;
mod prune;
mod repositories;
mod restore;
mod tracking;
mod verify;

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use tracing_subscriber::EnvFilter;

use crate::args::{Arguments, Command, Output};
use crate::interrupt::Interrupt;

/// What is logged unless RUST_LOG says otherwise. Where the SDK looked for keys to a bucket, it tells in a page; that there are none is in
/// the failure.
const LOG: &str = "warn,aws_config=error";
/// As [`LOG`]; what is warned of there, mistakes in settings and certificates that nobody checks, is among the findings.
const LOG_OF_DOCTOR: &str = "warn,aws_config=error,connections::vcenters=error";

/// Calls of the system that cannot be taken back (a name server, a network file system) are left alone after this long.
const LAST_CALLS: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    memory::bound();
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return usage(&error),
    };
    let log = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(log_of(&arguments.command)));
    let lines = tracing_subscriber::fmt().with_env_filter(log).without_time().with_target(false);
    // a terminal that was closed takes no line, and an attempt to tell of that there would end the command with a panic
    let lines = lines.log_internal_errors(false);
    lines.with_writer(io::stderr).with_ansi(io::stderr().is_terminal()).init();
    operator::core_dumps::never();
    let outcome = tokio::runtime::Runtime::new().context("start the runtime").and_then(|runtime| {
        let outcome = runtime.block_on(run(&arguments.command, arguments.output));
        runtime.shutdown_timeout(LAST_CALLS);
        outcome
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let meaning = failure::meaning(&error);
            output::failure(arguments.output, &error, &meaning);
            ExitCode::from(meaning.code)
        }
    }
}

async fn run(command: &Command, output: Output) -> Result<()> {
    let interrupt = Interrupt::new(operator::stop::on_signal()?);
    let work = async {
        match command {
            Command::Backup(arguments) => backup::run(arguments, output, &interrupt).await,
            Command::Restore(arguments) => restore::run(arguments, output, &interrupt).await,
            Command::Verify(arguments) => verify::run(arguments, output, &interrupt).await,
            Command::List(arguments) => match &arguments.repository {
                Some(place) => list::run(place, arguments, output).await,
                None => cluster::list(arguments, output).await,
            },
            Command::Prune(arguments) => prune::run(arguments, output, &interrupt).await,
            Command::Status(arguments) => cluster::status(arguments, output).await,
            Command::Doctor(arguments) => doctor::run(arguments, output).await,
            Command::Tracking(command) => tracking::run(command, output).await,
        }
    };
    interrupt.bound(work).await
}

fn log_of(command: &Command) -> &'static str {
    if matches!(command, Command::Doctor(_)) { LOG_OF_DOCTOR } else { LOG }
}

/// The command line cannot be understood, or asked for help. Only the arguments themselves tell who reads the answer.
fn usage(error: &clap::Error) -> ExitCode {
    let scripts = args::asks_for_json(std::env::args_os());
    if error.use_stderr() && scripts {
        output::usage_failure(error);
    }
    let _ = error.print(); // a reader that went away is no failure of ours
    ExitCode::from(if error.use_stderr() { failure::exit::REFUSED } else { 0 })
}

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
mod cluster;
mod disks;
mod failure;
mod list;
mod memory;
mod output;
mod place;
mod repositories;
mod restore;
mod verify;

use std::io;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::args::{Arguments, Command, Output};

fn main() -> ExitCode {
    memory::bound();
    let arguments = Arguments::parse();
    let log = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(log).with_writer(io::stderr).without_time().with_target(false).init();
    let outcome = tokio::runtime::Runtime::new()
        .context("start the runtime")
        .and_then(|runtime| runtime.block_on(run(&arguments.command, arguments.output)));
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
    let cancel: CancellationToken = operator::stop::on_signal()?;
    let work = async {
        match command {
            Command::Backup(arguments) => backup::run(arguments, output, &cancel).await,
            Command::Restore(arguments) => restore::run(arguments, output, &cancel).await,
            Command::Verify(arguments) => verify::run(arguments, output, &cancel).await,
            Command::List(arguments) => match &arguments.repository {
                Some(place) => list::run(place, arguments, output).await,
                None => cluster::list(arguments, output).await,
            },
            Command::Status(arguments) => cluster::status(arguments, output).await,
        }
    };
    work.await
}

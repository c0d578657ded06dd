//! `lab-disk`: the raw file and the disk snapshots behind a claim.

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use lab::{Lab, Place};

/// What lies behind a claim of the lab.
#[derive(Parser)]
#[command(name = "lab-disk")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Print the raw file behind a bound claim.
    Path {
        /// NAMESPACE/CLAIM
        claim: String,
    },
    /// Print the disk snapshots that exist for a claim, one a line.
    Snapshots {
        /// NAMESPACE/CLAIM
        claim: String,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse().command).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lab-disk: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> Result<()> {
    let lab = Lab::open(Place::from_environment()?).await?;
    let (Command::Path { claim } | Command::Snapshots { claim }) = &command;
    let (namespace, name) = claim.split_once('/').context("say which claim, as NAMESPACE/CLAIM")?;
    let disk = lab.disk_of(namespace, name).await?;
    match command {
        Command::Path { .. } => println!("{}", disk.path.display()),
        Command::Snapshots { .. } => disk.snapshots.iter().for_each(|snapshot| println!("{}", snapshot.id)),
    }
    Ok(())
}

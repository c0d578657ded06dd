//! `lab`: starts, stops and looks at a lab of this checkout. The variable `LAB` names a lab beside the first one.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use clap::{Parser, Subcommand};
use lab::{FIRST, Keeper, Lab, Options, PEERS, Part, Place, Processes, Programs, SharedS3, State, Velero, peer};

/// The lab: real peers of the backup, started and stopped as one thing.
///
/// `LAB=b lab up` starts a second lab (in target/lab-b) that shares the first one's S3 server if that runs;
/// `LAB_S3` names another lab to share with, or is `own`. `LAB_VELERO=off` leaves Velero and the scheduler out.
#[derive(Parser)]
#[command(name = "lab")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build what is missing, start what does not run, restart our programs that were built anew; return when all is ready.
    Up {
        /// Leave our own programs out.
        #[arg(long)]
        no_programs: bool,
    },
    /// Stop; the data stays.
    Down,
    /// Stop and forget the data.
    Clean,
    /// List the processes.
    Ps,
    /// Print what a process has said.
    Logs {
        /// Its name, as `lab ps` lists it.
        name: String,
    },
    /// SIGKILL for one process.
    Kill {
        /// Its name, as `lab ps` lists it.
        name: String,
    },
    /// Start a process that was killed and wait until it is ready.
    Start {
        /// Its name, as `lab ps` lists it.
        name: String,
        /// Variables for our programs, as NAME=VALUE.
        env: Vec<String>,
    },
    /// Build one peer unless it is there, and print its path.
    Peer {
        /// Its name, such as `helm`.
        name: String,
    },
    /// Build every peer that a lab needs; with `LAB_VELERO=off` those of Velero are left out.
    Peers,
    /// Renew the programs' tokens while the lab lives; `lab up` starts this.
    #[command(hide = true)]
    Keeper,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse().command).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> Result<()> {
    let place = Place::from_environment()?;
    match command {
        Command::Up { no_programs } => up(place, no_programs).await,
        Command::Down => {
            Lab::down(&place).await?;
            println!("stopped; {} keeps its data", place.folder.display());
            Ok(())
        }
        Command::Clean => {
            Lab::clean(&place).await?;
            println!("stopped and removed {}", place.folder.display());
            Ok(())
        }
        Command::Ps => ps(&place),
        Command::Logs { name } => logs(&place, &name),
        Command::Kill { name } => Processes::new(&place.folder).kill(&name).await,
        Command::Start { name, env } => Lab::open(place).await?.start_process(&name, &variables(&env)?).await,
        Command::Peer { name } => {
            println!("{}", peer(&name)?.build(&place.root)?.display());
            Ok(())
        }
        Command::Peers => {
            let velero = velero()? == Velero::Run;
            for peer in PEERS.iter().filter(|p| p.part == Part::Lab || (velero && p.part == Part::Velero)) {
                peer.build(&place.root)?;
            }
            Ok(())
        }
        Command::Keeper => lab::keep(place).await,
    }
}

async fn up(place: Place, no_programs: bool) -> Result<()> {
    let start = Instant::now();
    let mut options = Options::at(place.clone());
    options.s3 = shared_s3(&place)?;
    options.velero = velero()?;
    options.keeper = Keeper::Process(std::env::current_exe().context("find this program")?);
    if no_programs {
        options.programs = Programs::Leave;
    }
    let lab = Lab::up(options).await?;
    println!(
        "lab {} is ready after {:.1} s; use it: source {}",
        lab.place().name,
        start.elapsed().as_secs_f32(),
        shortest(&place.folder.join("env")).display()
    );
    Ok(())
}

/// Velero runs unless `LAB_VELERO` is `off`.
fn velero() -> Result<Velero> {
    match std::env::var("LAB_VELERO").unwrap_or_default().as_str() {
        "" | "on" => Ok(Velero::Run),
        "off" => Ok(Velero::Leave),
        other => bail!("LAB_VELERO is on or off, not {other:?}"),
    }
}

/// The first lab has an S3 server of its own; others share it, or what `LAB_S3` says.
fn shared_s3(place: &Place) -> Result<SharedS3> {
    let folder = |name: &str| Place::named(&place.root, name).map(|other| other.folder);
    match std::env::var("LAB_S3").unwrap_or_default().as_str() {
        "own" => Ok(SharedS3::Own),
        "" => Ok(SharedS3::OfIfRunning(folder(FIRST)?)),
        name => Ok(SharedS3::Of(folder(name)?)),
    }
}

/// A path as people type it: below the current folder without the folder.
fn shortest(path: &Path) -> PathBuf {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(here).unwrap_or(path).to_owned()
}

fn ps(place: &Place) -> Result<()> {
    let all = Processes::new(&place.folder).all()?;
    let mut text = String::new();
    if all.is_empty() {
        let _ = writeln!(text, "lab {} does not run", place.name);
    }
    for record in all {
        let state = match record.state() {
            State::Running => "running",
            State::Ended => "ended",
        };
        let _ = writeln!(text, "{:<24} {:<8} {:<8} {}", record.name, state, record.pid, record.started);
    }
    print(&mut text.as_bytes()).context("print the processes")
}

/// Copies to standard output; a reader that has seen enough (`lab logs X | head`) is no error.
fn print(from: &mut impl std::io::Read) -> std::io::Result<()> {
    match std::io::copy(from, &mut std::io::stdout()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(e),
        _ => Ok(()),
    }
}

fn logs(place: &Place, name: &str) -> Result<()> {
    let file = Processes::new(&place.folder).log_file(name);
    let mut log = std::fs::File::open(&file).with_context(|| format!("read the log of {name}, {}", file.display()))?;
    print(&mut log).context("print the log")
}

fn variables(words: &[String]) -> Result<BTreeMap<String, String>> {
    let mut variables = BTreeMap::new();
    for word in words {
        let Some((name, value)) = word.split_once('=') else { bail!("{word:?} is not NAME=VALUE") };
        variables.insert(name.to_owned(), value.to_owned());
    }
    Ok(variables)
}

//! Tasks on the source tree: what is made from code is written by `generate`, and the checks fail when the tree and
//! the code no longer agree. Run as `cargo xtask TASK`.
//!
//! This program writes files of this tree only; it reaches no cluster and no network.

mod blocked;
mod crates;
mod crds;
mod files;
mod manifests;
mod promises;
mod reasons;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use files::Files;

/// Tasks on the source tree.
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Write the CRDs, the list of blocked resources and the reference pages from the code.
    Generate,
    /// Fail when `generate` would change a file.
    CheckGenerated,
    /// Fail when a crate uses another one that it may not use.
    CheckCrates,
    /// Fail when docs/promises.md lacks a row or a row lacks a test, or names one that is not there.
    CheckPromises,
    /// Write deploy/manifests: the chart as helm renders it by default. HELM names the program, else it is looked up.
    GenerateManifests,
    /// Fail when `generate-manifests` would change a file.
    CheckManifests,
}

fn main() -> Result<()> {
    let root = root();
    match Arguments::parse().task {
        Task::Generate => generated(&root)?.write(&root),
        Task::CheckGenerated => generated(&root)?.check(&root, "cargo xtask generate"),
        Task::CheckCrates => crates::check(&root),
        Task::CheckPromises => promises::check(&root),
        Task::GenerateManifests => manifests::render(&root)?.write(&root),
        Task::CheckManifests => manifests::render(&root)?.check(&root, "cargo xtask generate-manifests"),
    }
}

fn generated(root: &Path) -> Result<Files> {
    let mut files = Files::default();
    crds::add(&mut files)?;
    blocked::add(root, &mut files)?;
    reasons::add(&mut files);
    files.also_check_folder(root, "deploy/crds").context("list the generated definitions")?;
    files.also_check_folder(root, crds::CHART_FOLDER).context("list the chart's definitions")?;
    Ok(files)
}

/// The folder of the workspace.
fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).expect("this crate lies in crates/xtask").to_owned()
}

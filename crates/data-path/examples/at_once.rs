//! Backs up several disks at once in one process, as a data-manager does: `at_once REPOSITORY NBD-URI…`. `make bench`
//! compares the four quarters of a disk with the disk.

use std::sync::Arc;

use anyhow::Context as _;
use data_path::{BackupOptions, Disk, Progress};
use futures::future::try_join_all;
use repository::store::FolderStore;
use repository::{DiskFacts, NewRestorePoint, Repository, WriterOptions};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().context("name a folder for the repository")?;
    let store = Arc::new(FolderStore::new(&folder));
    let repository = repository::initialise(store, &"only measured".into()).await?;
    let read = try_join_all(arguments.map(|uri| back_up(repository.clone(), uri))).await?;
    println!("{} MiB read", read.iter().sum::<u64>() >> 20);
    Ok(())
}

/// Gives the bytes that were read.
async fn back_up(repository: Repository, uri: String) -> anyhow::Result<u64> {
    let copying = async move {
        let disk = Disk::connect(&uri.parse()?, nbd::ConnectOptions::default()).await?;
        let point = NewRestorePoint::new("measured", &uri, jiff::Timestamp::now(), DiskFacts::of_size(disk.size()));
        let writer = repository.writer(point, WriterOptions::default()).await?;
        let (options, progress, cancel) = (BackupOptions::default(), Progress::new(), CancellationToken::new());
        let report = data_path::backup(&disk, writer, &options, &progress, &cancel).await?;
        anyhow::Ok(report.counts.read)
    };
    tokio::spawn(copying).await?
}

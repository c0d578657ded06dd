//! Backups that read only what changed: what is taken over is what the disk holds, or the backup says that it is not.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use data_path::{BackupOptions, BackupReport, Content, Disk, Error, ErrorKind, Progress};
use disk::{ByteRange, Ranges};
use repository::store::{ErrorKind as StoreError, Fault, FaultyStore, FolderStore, Operation};
use repository::{DiskFacts, NewRestorePoint, Reader, Repository, WriterOptions};
use tokio_util::sync::CancellationToken;

use crate::MIB;
use crate::peers::{Server, random, raw_file};

const CHUNK: u64 = 512 << 10;
const SIZE: u64 = 64 * MIB + 4096;

async fn repository(folder: &Path, name: &str) -> Repository {
    repository::initialise(Arc::new(FolderStore::new(folder.join(name))), &"a key".into()).await.unwrap()
}

async fn back_up(repository: &Repository, disk: &Disk, content: Content) -> Result<BackupReport, Error> {
    let facts = DiskFacts::of_size(disk.size());
    let point = NewRestorePoint::new("host", "/disk", jiff::Timestamp::now(), facts);
    let writer = repository.writer(point, WriterOptions::default()).await.unwrap();
    let options = BackupOptions { content, ..BackupOptions::default() };
    data_path::backup(disk, writer, &options, &Progress::new(), &CancellationToken::new()).await
}

/// Whether the restore point holds the file's bytes.
async fn holds(reader: &Reader, source: &Path) -> bool {
    let server = Server::qemu(source);
    let disk = server.disk().await;
    let report = data_path::verify(reader, Some(&disk), &Progress::new(), &CancellationToken::new()).await.unwrap();
    report.is_sound()
}

/// A disk with data in its first 48 MiB, a hole behind it, and a restore point of it.
async fn first(folder: &Path) -> (PathBuf, Repository, Reader) {
    let source = raw_file(folder, "disk", SIZE, &[(0, random(48 << 20, 1)), (SIZE - 512, vec![7; 512])]);
    let repository = repository(folder, "repository").await;
    let report = {
        let server = Server::qemu(&source);
        back_up(&repository, &server.disk().await, Content::Allocated).await.unwrap()
    };
    let base = repository.reader(&report.point.id).await.unwrap();
    (source, repository, base)
}

fn write(file: &Path, offset: u64, bytes: &[u8]) -> ByteRange {
    std::fs::OpenOptions::new().write(true).open(file).unwrap().write_all_at(bytes, offset).unwrap();
    ByteRange::new(offset, bytes.len() as u64)
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_changed_is_read_and_the_restore_point_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let (source, repository, base) = first(folder.path()).await;
    let areas: Ranges = [
        write(&source, 3 * MIB + 5, &random(64 << 10, 2)),
        write(&source, 10 * MIB, &vec![0; 1 << 20]), // data becomes zeroes
        write(&source, 60 * MIB, &random(100, 3)),   // in what was a hole
        write(&source, SIZE - 4096, &[9; 4096]),     // the short last chunk
    ]
    .into_iter()
    .collect();
    let server = Server::qemu(&source);
    let content = Content::Changed { areas, base };
    let report = back_up(&repository, &server.disk().await, content).await.unwrap();
    drop(server);
    // 1 + 2 + 1 + 1 chunks, and two of the sample
    assert!(report.counts.read <= 7 * CHUNK, "{} bytes were read", report.counts.read);
    assert_eq!(report.counts.settled, SIZE);
    assert!(report.stats.chunks_taken_over > 80, "{:?}", report.stats);
    assert!(holds(&repository.reader(&report.point.id).await.unwrap(), &source).await, "it is not what the disk holds");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_in_which_nothing_changed_is_backed_up_by_a_look_at_two_chunks() {
    let folder = tempfile::tempdir().unwrap();
    let (source, repository, base) = first(folder.path()).await;
    let server = Server::qemu(&source);
    let content = Content::Changed { areas: Ranges::new(), base };
    let report = back_up(&repository, &server.disk().await, content).await.unwrap();
    drop(server);
    assert!(report.counts.read > 0 && report.counts.read <= 2 * CHUNK, "{} bytes were read", report.counts.read);
    assert!(holds(&repository.reader(&report.point.id).await.unwrap(), &source).await, "it is not what the disk holds");
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_that_nobody_tracked_are_found_before_anything_is_taken_over() {
    let folder = tempfile::tempdir().unwrap();
    let (source, repository, base) = first(folder.path()).await;
    write(&source, 0, &random(48 << 20, 4));
    write(&source, SIZE - 512, &[8; 512]); // with this any sample of data hits it
    let server = Server::qemu(&source);
    let content = Content::Changed { areas: Ranges::new(), base };
    let error = back_up(&repository, &server.disk().await, content).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TrackingUntrue, "{error}");
    assert_eq!(repository.restore_points().await.unwrap().len(), 1, "it looks like a restore point");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_repository_has_lost_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let (source, _, base) = first(folder.path()).await;
    let empty = self::repository(folder.path(), "empty").await;
    let server = Server::qemu(&source);
    let content = Content::Changed { areas: Ranges::new(), base };
    let report = back_up(&empty, &server.disk().await, content).await.unwrap();
    drop(server);
    assert!(report.counts.read >= 48 * MIB, "{} bytes were read", report.counts.read);
    assert!(holds(&empty.reader(&report.point.id).await.unwrap(), &source).await, "it is not what the disk holds");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_base_of_another_size_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (_, repository, base) = first(folder.path()).await;
    let larger = raw_file(folder.path(), "larger", SIZE + MIB, &[]);
    let server = Server::qemu(&larger);
    let content = Content::Changed { areas: Ranges::new(), base };
    let error = back_up(&repository, &server.disk().await, content).await.unwrap_err();
    assert!(matches!(error, Error::OtherBase { .. }), "{error}");
}

/// The first attempt takes a hole over unread and is cut short; what it did not look at, it must not pass on.
#[tokio::test(flavor = "multi_thread")]
async fn what_an_attempt_took_over_unread_is_read_by_a_full_one_that_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let source = raw_file(folder.path(), "disk", 200 * MIB, &[(0, random(8 << 20, 5))]);
    let store = FaultyStore::new(Arc::new(FolderStore::new(folder.path().join("repository"))));
    let repository = repository::initialise(Arc::new(store.clone()), &"a key".into()).await.unwrap();
    let base = {
        let server = Server::qemu(&source);
        back_up(&repository, &server.disk().await, Content::Allocated).await.unwrap()
    };
    let base = repository.reader(&base.point.id).await.unwrap();
    write(&source, 150 * MIB, &random(64 << 10, 6));

    let server = Server::qemu(&source);
    let attempt = async |content: Content| {
        let facts = DiskFacts { snapshot: Some("disk:snapshot".parse().unwrap()), ..DiskFacts::of_size(200 * MIB) };
        let point = NewRestorePoint::new("host", "/disk", jiff::Timestamp::now(), facts);
        let options = WriterOptions { transfer: Some("upload-1".to_owned()), ..WriterOptions::default() };
        let writer = repository.writer(point, options).await.unwrap();
        let options = BackupOptions { content, ..BackupOptions::default() };
        let (progress, cancel) = (Progress::new(), CancellationToken::new());
        data_path::backup(&server.disk().await, writer, &options, &progress, &cancel).await
    };
    store.fail(Fault::always(Operation::Put, "snapshots/", StoreError::Unreachable).times(1));
    // it ends there, or in one of two hundred runs by the sample
    attempt(Content::Changed { areas: Ranges::new(), base }).await.unwrap_err();
    let report = attempt(Content::Allocated).await.unwrap();
    drop(server);
    assert_eq!(report.counts.settled, 200 * MIB);
    assert!(holds(&repository.reader(&report.point.id).await.unwrap(), &source).await, "it is not what the disk holds");
}

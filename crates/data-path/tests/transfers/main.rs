//! Backups and restores over real NBD servers, with the faults that real servers have.
#![allow(clippy::unwrap_used, missing_docs)] // a panic is how a test fails

mod incremental;
#[allow(dead_code)] // it serves other tests too
#[path = "../../../repository/tests/repository/line.rs"]
mod line;
mod original;
mod peers;
mod restore_again;
#[allow(dead_code)] // it serves other tests too
#[path = "../../../repository/tests/repository/versitygw.rs"]
mod versitygw;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use data_path::{BackupOptions, BackupReport, Disk, Error, ErrorKind, Progress, RestoreOptions, TargetContent};
use peers::{Server, random, raw_file, same};
use repository::store::FolderStore;
use repository::{Credentials, S3Options}; // of `versitygw`
use repository::{DiskFacts, NewRestorePoint, Reader, Repository, WriterOptions};
use tokio_util::sync::CancellationToken;

const MIB: u64 = 1 << 20;
/// What the product promises for a cancel.
const CANCEL: Duration = Duration::from_secs(5);

async fn repository(folder: &Path) -> Repository {
    repository::initialise(Arc::new(FolderStore::new(folder.join("repository"))), &"a key".into()).await.unwrap()
}

async fn back_up(repository: &Repository, disk: &Disk) -> Result<BackupReport, Error> {
    back_up_until(repository, disk, &Progress::new(), &CancellationToken::new()).await
}

async fn back_up_until(
    repository: &Repository,
    disk: &Disk,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<BackupReport, Error> {
    let facts = DiskFacts::of_size(disk.size());
    let point = NewRestorePoint::new("host", "/disk", jiff::Timestamp::now(), facts);
    let writer = repository.writer(point, WriterOptions::default()).await.unwrap();
    data_path::backup(disk, writer, &BackupOptions::default(), progress, cancel).await
}

async fn restore(reader: &Reader, target: Disk, content: TargetContent) -> Result<data_path::RestoreReport, Error> {
    let options = RestoreOptions { target: content, ..RestoreOptions::default() };
    data_path::restore(reader, target, &options, &Progress::new(), &CancellationToken::new()).await
}

/// A repository with one restore point of a file.
async fn backed_up(folder: &Path, source: &Path) -> (Repository, Reader) {
    let repository = repository(folder).await;
    let server = Server::qemu(source);
    let report = back_up(&repository, &server.disk().await).await.unwrap();
    let reader = repository.reader(&report.point.id).await.unwrap();
    (repository, reader)
}

async fn assert_no_restore_point(repository: &Repository) {
    assert_eq!(repository.restore_points().await.unwrap(), [], "a failed backup looks like a restore point");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_size_and_content_comes_back_byte_for_byte() {
    let odd = MIB + 512;
    let gib = (1 << 30) + MIB;
    type Parts = Vec<(u64, Vec<u8>)>;
    let cases: [(&str, u64, Parts); 7] = [
        ("empty-1m", MIB, vec![]),
        ("random-1m", MIB, vec![(0, random(1 << 20, 1))]),
        ("random-17m", 17 * MIB, vec![(0, random(17 << 20, 2))]),
        ("last-sector-17m", 17 * MIB, vec![(17 * MIB - 512, vec![9; 512])]),
        ("empty-1g", gib, vec![]),
        ("last-sector-1g", gib, vec![(0, random(4096, 3)), (gib - 512, vec![9; 512])]),
        ("half-a-chunk", odd, vec![(odd - 100, vec![1; 100])]),
    ];
    let folder = tempfile::tempdir().unwrap();
    let repository = repository(folder.path()).await;
    for (name, size, parts) in cases {
        let source = raw_file(folder.path(), &format!("{name}.raw"), size, &parts);
        let server = Server::qemu(&source);
        let report = back_up(&repository, &server.disk().await).await.unwrap();
        assert_eq!(report.counts.settled, size, "{name}: not everything was settled");
        assert_eq!(report.counts.total, size, "{name}");

        let target = raw_file(folder.path(), &format!("{name}.back"), size, &[]);
        let reader = repository.reader(&report.point.id).await.unwrap();
        let server = Server::qemu(&target);
        let restored = restore(&reader, server.disk().await, TargetContent::KnownZero).await.unwrap();
        drop(server);
        assert!(same(&source, &target), "{name} came back differently");
        assert_eq!(restored.counts.settled, size, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn holes_are_neither_read_nor_written() {
    let folder = tempfile::tempdir().unwrap();
    let source = raw_file(folder.path(), "source", 1 << 30, &[(512 * MIB, random(1 << 20, 4))]);
    let repository = repository(folder.path()).await;
    let server = Server::qemu(&source);
    let report = back_up(&repository, &server.disk().await).await.unwrap();
    assert!(report.counts.read <= 2 * MIB, "read {} bytes of a disk that holds 1 MiB", report.counts.read);

    let target = raw_file(folder.path(), "target", 1 << 30, &[]);
    let reader = repository.reader(&report.point.id).await.unwrap();
    let server = Server::qemu(&target);
    let restored = restore(&reader, server.disk().await, TargetContent::Unknown).await.unwrap();
    assert!(restored.counts.stored <= 2 * MIB, "wrote {} bytes", restored.counts.stored);
    assert!(same(&source, &target));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_a_disk_that_does_not_tell_its_holes_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let source =
        raw_file(folder.path(), "source", 17 * MIB, &[(3 * MIB, random(100_000, 22)), (17 * MIB - 512, vec![7; 512])]);
    let repository = repository(folder.path()).await;
    let file = source.to_str().unwrap();
    // no block status at all; one that calls all of it data
    for (name, arguments) in
        [("absent", vec!["--no-sr", "file", file]), ("all data", vec!["--filter=noextents", "file", file])]
    {
        let server = Server::nbdkit(&arguments);
        let report = back_up(&repository, &server.disk().await).await.unwrap();
        assert_eq!(report.counts.read, 17 * MIB, "{name}: what may hold data is read");
        let target = raw_file(folder.path(), name, 17 * MIB, &[]);
        let reader = repository.reader(&report.point.id).await.unwrap();
        let server = Server::qemu(&target);
        restore(&reader, server.disk().await, TargetContent::KnownZero).await.unwrap();
        drop(server);
        assert!(same(&source, &target), "{name}: it came back differently");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn backup_with_one_unreadable_sector_fails_and_leaves_no_restore_point() {
    let folder = tempfile::tempdir().unwrap();
    let source = raw_file(folder.path(), "source", 17 * MIB, &[(0, random(17 << 20, 5))]);
    let read = format!(
        "pread=if [ $4 -le {bad} ] && [ $(($3 + $4)) -gt {bad} ]; then echo EIO bad sector >&2; exit 1; fi; \
         dd if={file} iflag=skip_bytes,count_bytes skip=$4 count=$3 bs=1M status=none",
        bad = 12 * MIB + 512,
        file = source.display()
    );
    let server = Server::nbdkit(&["eval", &format!("get_size=echo {}", 17 * MIB), &read]);
    let repository = repository(folder.path()).await;
    let error = back_up(&repository, &server.disk().await).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DiskRead, "{error:?}");
    let Error::Read { range, .. } = error else { panic!("{error:?}") };
    assert!(range.offset <= 12 * MIB + 512 && range.end() > 12 * MIB + 512, "names another place: {range:?}");
    assert_no_restore_point(&repository).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_short_of_memory_slows_a_transfer_and_fails_none() {
    let folder = tempfile::tempdir().unwrap();
    let source = raw_file(folder.path(), "source", 24 * MIB, &[(0, random(24 << 20, 19))]);
    let pread = ["error-pread=ENOMEM", "error-pread-rate=30%"];
    let pwrite = ["error-pwrite=ENOMEM", "error-pwrite-rate=30%"];
    let short = [&["--filter=error", "file"], &pread[..], &pwrite[..]].concat();
    let server = Server::nbdkit(&[&short[..], &[source.to_str().unwrap()]].concat());
    let repository = repository(folder.path()).await;
    let report = back_up(&repository, &server.disk().await).await.unwrap();
    let reader = repository.reader(&report.point.id).await.unwrap();
    let target = raw_file(folder.path(), "target", 24 * MIB, &[]);
    let server = Server::nbdkit(&[&short[..], &[target.to_str().unwrap()]].concat());
    restore(&reader, server.disk().await, TargetContent::KnownZero).await.unwrap();
    drop(server);
    assert!(same(&source, &target));
}

#[tokio::test(flavor = "multi_thread")]
async fn backup_whose_server_dies_in_the_middle_fails_and_leaves_no_restore_point() {
    let folder = tempfile::tempdir().unwrap();
    let source = raw_file(folder.path(), "source", 64 * MIB, &[(0, random(64 << 20, 6))]);
    let mut server = Server::nbdkit(&["--filter=delay", "file", source.to_str().unwrap(), "rdelay=100ms"]);
    let repository = repository(folder.path()).await;
    let disk = server.disk().await;
    let (progress, cancel) = (Progress::new(), CancellationToken::new());
    let kill = async {
        while progress.counts().read == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        server.kill();
    };
    let (outcome, ()) = tokio::join!(back_up_until(&repository, &disk, &progress, &cancel), kill);
    assert_eq!(outcome.unwrap_err().kind(), ErrorKind::DiskRead);
    assert_no_restore_point(&repository).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelled_backup_ends_in_seconds_and_leaves_no_restore_point() {
    let folder = tempfile::tempdir().unwrap();
    let source = raw_file(folder.path(), "source", 17 * MIB, &[(0, random(17 << 20, 7))]);
    let server = Server::nbdkit(&["--filter=delay", "file", source.to_str().unwrap(), "rdelay=30"]);
    let repository = repository(folder.path()).await;
    let disk = server.disk().await;
    let (progress, cancel) = (Progress::new(), CancellationToken::new());
    let stop = async {
        while progress.counts().total == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        cancel.cancel();
        Instant::now()
    };
    let (outcome, asked) = tokio::join!(back_up_until(&repository, &disk, &progress, &cancel), stop);
    assert!(matches!(outcome, Err(Error::Cancelled)), "{outcome:?}");
    assert!(asked.elapsed() < CANCEL, "took {:?}", asked.elapsed());
    assert_no_restore_point(&repository).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn restore_refuses_a_smaller_target_before_it_writes() {
    let folder = tempfile::tempdir().unwrap();
    let source = raw_file(folder.path(), "source", 17 * MIB, &[(0, random(4096, 8))]);
    let (_, reader) = backed_up(folder.path(), &source).await;
    let target = raw_file(folder.path(), "target", 16 * MIB, &[(0, vec![0xAA; 4096])]);
    let server = Server::qemu(&target);
    let error = restore(&reader, server.disk().await, TargetContent::Unknown).await.unwrap_err();
    assert!(matches!(error, Error::TargetTooSmall { needed, target } if (needed, target) == (17 * MIB, 16 * MIB)));
    drop(server);
    assert_eq!(std::fs::read(&target).unwrap()[..4096], [0xAA; 4096], "it was written to");
}

#[tokio::test(flavor = "multi_thread")]
async fn restore_onto_a_larger_target_leaves_its_end_alone() {
    let folder = tempfile::tempdir().unwrap();
    let source = raw_file(folder.path(), "source", 17 * MIB, &[(17 * MIB - 512, vec![3; 512])]);
    let (_, reader) = backed_up(folder.path(), &source).await;
    let target = raw_file(folder.path(), "target", 18 * MIB, &[(0, vec![0xAA; 18 << 20])]);
    let server = Server::qemu(&target);
    let report = restore(&reader, server.disk().await, TargetContent::Unknown).await.unwrap();
    drop(server);
    assert_eq!(report.untouched_tail, MIB);
    let bytes = std::fs::read(&target).unwrap();
    assert!(bytes[..17 << 20] == std::fs::read(&source).unwrap()[..], "the disk came back differently");
    assert!(bytes[17 << 20..].iter().all(|byte| *byte == 0xAA), "the end was touched");
}

#[tokio::test(flavor = "multi_thread")]
async fn restore_over_old_data_leaves_none_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let source = raw_file(folder.path(), "source", 8 * MIB, &[(3 * MIB + 4096, random(100_000, 9))]);
    let (_, reader) = backed_up(folder.path(), &source).await;
    let dirty = vec![(0, vec![0xAA; 8 << 20])];
    // servers that know everything, that cannot write zeroes, that do not know where holes are
    for (name, filters) in [("all", vec![]), ("nozero", vec!["--filter=nozero"]), ("blind", vec!["--filter=noextents"])]
    {
        let target = raw_file(folder.path(), name, 8 * MIB, &dirty);
        let mut args = filters;
        args.extend(["file", target.to_str().unwrap()]);
        let server = Server::nbdkit(&args);
        restore(&reader, server.disk().await, TargetContent::Unknown).await.unwrap();
        drop(server);
        assert!(same(&source, &target), "{name}: old bytes stayed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn restore_reports_a_failed_flush() {
    let folder = tempfile::tempdir().unwrap();
    let source = raw_file(folder.path(), "source", 2 * MIB, &[(0, random(1 << 20, 10))]);
    let (_, reader) = backed_up(folder.path(), &source).await;
    let size = format!("get_size=echo {}", 2 * MIB);
    let server = Server::nbdkit(&[
        "eval",
        &size,
        "pread=head -c $3 /dev/zero",
        "can_write=exit 0",
        "pwrite=cat >/dev/null",
        "can_flush=exit 0",
        "flush=echo EIO the cache battery is empty >&2; exit 1",
    ]);
    let error = restore(&reader, server.disk().await, TargetContent::KnownZero).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DiskFlush, "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn restore_reports_a_full_target() {
    let folder = tempfile::tempdir().unwrap();
    let source = raw_file(folder.path(), "source", 2 * MIB, &[(0, random(1 << 20, 11))]);
    let (_, reader) = backed_up(folder.path(), &source).await;
    let server = Server::nbdkit(&["--filter=error", "memory", "2M", "error-pwrite=ENOSPC", "error-pwrite-rate=100%"]);
    let error = restore(&reader, server.disk().await, TargetContent::KnownZero).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DiskWrite, "{error:?}");
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("no space left"), "{cause}");
}

#[tokio::test(flavor = "multi_thread")]
async fn restore_onto_a_read_only_disk_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let source = raw_file(folder.path(), "source", MIB, &[]);
    let (_, reader) = backed_up(folder.path(), &source).await;
    let server = Server::nbdkit(&["--readonly", "memory", "1M"]);
    let error = restore(&reader, server.disk().await, TargetContent::KnownZero).await.unwrap_err();
    assert!(matches!(error, Error::TargetReadOnly), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_finds_one_changed_byte_in_data_and_in_holes() {
    let folder = tempfile::tempdir().unwrap();
    let parts = vec![(0, random(1 << 20, 12))];
    let source = raw_file(folder.path(), "source", 17 * MIB, &parts);
    let (_, reader) = backed_up(folder.path(), &source).await;
    let (progress, cancel) = (Progress::new(), CancellationToken::new());
    for (name, at) in [("same", None), ("data", Some(1000)), ("hole", Some(9 * MIB + 7)), ("end", Some(17 * MIB - 1))] {
        let other = raw_file(folder.path(), name, 17 * MIB, &parts);
        if let Some(at) = at {
            use std::os::unix::fs::FileExt;
            let file = std::fs::OpenOptions::new().read(true).write(true).open(&other).unwrap();
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[!byte[0]], at).unwrap();
        }
        let server = Server::qemu(&other);
        let report = data_path::verify(&reader, Some(&server.disk().await), &progress, &cancel).await.unwrap();
        let found: Vec<_> = report.differences.iter().map(|range| (range.offset, range.length)).collect();
        assert_eq!(found, at.map(|at| (at, 1)).into_iter().collect::<Vec<_>>(), "{name}");
        assert_eq!(report.counts.settled, 17 * MIB, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_names_a_damaged_pack_and_restore_refuses_it() {
    let folder = tempfile::tempdir().unwrap();
    let source = raw_file(folder.path(), "source", 8 * MIB, &[(0, random(8 << 20, 13))]);
    let (_, reader) = backed_up(folder.path(), &source).await;
    flip_a_byte_in_the_largest_pack(&folder.path().join("repository/data"));
    let (progress, cancel) = (Progress::new(), CancellationToken::new());
    let report = data_path::verify(&reader, None, &progress, &cancel).await.unwrap();
    assert!(!report.is_sound(), "damage went unseen");
    assert!(report.damages.iter().any(|damage| damage.contains("pack")), "{:?}", report.damages);

    let target = raw_file(folder.path(), "target", 8 * MIB, &[]);
    let server = Server::qemu(&target);
    let error = restore(&reader, server.disk().await, TargetContent::KnownZero).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Repository(repository::ErrorKind::Damaged), "{error:?}");
    let Error::Unread { places, .. } = &error else { panic!("it names no place: {error:?}") };
    assert!(places.iter().all(|range| report.damaged.touches(&range)), "{error}");
    assert!(error.to_string().contains(" bytes at "), "{error}");
}

/// Half a disk is better than none, as long as everybody knows which half.
#[tokio::test(flavor = "multi_thread")]
async fn skipping_damage_restores_the_rest_and_names_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let whole = random(40 << 20, 21);
    let source = raw_file(folder.path(), "source", 40 * MIB, &[(0, whole.clone())]);
    let (_, reader) = backed_up(folder.path(), &source).await;
    flip_a_byte_in_the_largest_pack(&folder.path().join("repository/data"));
    let used = vec![(0, vec![0xEE; 40 << 20])];
    for (name, before, content) in
        [("new", Vec::new(), TargetContent::KnownZero), ("used", used, TargetContent::Unknown)]
    {
        let target = raw_file(folder.path(), name, 40 * MIB, &before);
        let server = Server::qemu(&target);
        let options = RestoreOptions { target: content, skip_damaged: true, ..RestoreOptions::default() };
        let (progress, cancel) = (Progress::new(), CancellationToken::new());
        let disk = server.disk().await;
        let report = data_path::restore(&reader, disk, &options, &progress, &cancel).await.unwrap();
        drop(server);
        assert!(report.damaged.bytes() > 0 && report.damaged.bytes() < 20 * MIB, "{name}: {:?}", report.damaged);
        assert_eq!(report.counts.settled, 40 * MIB, "{name}");
        let mut want = whole.clone();
        for range in report.damaged.iter() {
            let (from, to) = (usize::try_from(range.offset).unwrap(), usize::try_from(range.end()).unwrap());
            want[from..to].fill(0);
        }
        assert!(std::fs::read(&target).unwrap() == want, "{name}: zeroes where it is damaged, the rest as it was");
    }
}

fn flip_a_byte_in_the_largest_pack(data: &Path) {
    let mut packs = Vec::new();
    for folder in std::fs::read_dir(data).unwrap() {
        let folder = folder.unwrap().path();
        packs.extend(std::fs::read_dir(folder).unwrap().map(|pack| pack.unwrap().path()));
    }
    let largest = packs.iter().max_by_key(|pack| std::fs::metadata(pack).unwrap().len()).unwrap();
    let mut permissions = std::fs::metadata(largest).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o600);
    std::fs::set_permissions(largest, permissions).unwrap();
    let mut bytes = std::fs::read(largest).unwrap();
    bytes[100] ^= 1;
    std::fs::write(largest, bytes).unwrap();
}

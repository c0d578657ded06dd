//! Restores that are cut short and go on: what is on the disk for good is not written again, what may be lost is.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use data_path::{
    Checkpoint, Checkpoints, Counts, Error, ErrorKind, Progress, RestoreOptions, RestoreReport, TargetContent, Unfit,
};
use repository::Reader;
use tokio_util::sync::CancellationToken;

use crate::peers::{Server, random, raw_file, same};
use crate::{MIB, backed_up};

/// What the product promises to do again at most.
const REDONE: u64 = 64 * MIB;
const SIZE: u64 = 96 * MIB + 4096;
/// Often enough for a restore of seconds.
const OFTEN: Duration = Duration::from_millis(50);
const NEVER: Duration = Duration::from_secs(3600);

/// A restore point with data, a hole, and data that is there twice; and the file it is of.
async fn restore_point(folder: &Path) -> (PathBuf, Reader) {
    let data = random(72 << 20, 21);
    let again = data[..8 << 20].to_vec();
    let parts = [(0, data), (80 * MIB, again), (SIZE - 512, vec![7; 512])];
    let source = raw_file(folder, "source", SIZE, &parts);
    let (_, reader) = backed_up(folder, &source).await;
    (source, reader)
}

/// As it comes back out of a status.
fn noted(reader: &Reader, checkpoint: &Checkpoint) -> Checkpoint {
    Checkpoint::noted(reader, checkpoint.digest(), checkpoint.chunk_size(), checkpoint.up_to(), &checkpoint.beyond())
        .unwrap()
}

fn options(target: TargetContent, begin: Checkpoint, every: Duration) -> (RestoreOptions, Arc<Checkpoints>) {
    let checkpoints = Arc::new(Checkpoints::new(begin, every));
    (RestoreOptions { target, checkpoints: Some(checkpoints.clone()), ..RestoreOptions::default() }, checkpoints)
}

/// A server that loses what was not flushed when it is killed; writes 25 MiB a second.
fn forgetful(file: &Path) -> Server {
    let args = ["--filter=delay", "--filter=cache", "file", file.to_str().unwrap(), "cache=writeback", "wdelay=160ms"];
    Server::nbdkit(&args)
}

/// Restores until `kill_at` bytes are on the disk for good, and kills the server and the restore; the last checkpoint.
async fn cut_short(reader: &Reader, target: &Path, content: TargetContent, kill_at: u64) -> Checkpoint {
    let mut server = forgetful(target);
    let (options, checkpoints) = options(content, Checkpoint::nothing(reader), OFTEN);
    let (progress, cancel) = (Progress::new(), CancellationToken::new());
    let restore = data_path::restore(reader, server.disk().await, &options, &progress, &cancel);
    tokio::select! {
        done = restore => panic!("it ended before {kill_at} bytes were there for good: {done:?}"),
        () = async {
            while checkpoints.latest().bytes() < kill_at {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            server.kill();
        } => {}
    }
    let redone = progress.counts().settled - checkpoints.latest().bytes();
    assert!(redone <= REDONE, "{redone} bytes are to be written again");
    checkpoints.latest()
}

async fn goes_on(reader: &Reader, target: &Path, content: TargetContent, begin: Checkpoint) -> Counts {
    let server = Server::qemu(target);
    let (options, _) = options(content, begin, OFTEN);
    let cancel = CancellationToken::new();
    let done = data_path::restore(reader, server.disk().await, &options, &Progress::new(), &cancel).await;
    done.unwrap().counts
}

async fn is_cut_short_and_goes_on(content: TargetContent) {
    let folder = tempfile::tempdir().unwrap();
    let (source, reader) = restore_point(folder.path()).await;
    let target = match content {
        TargetContent::KnownZero => raw_file(folder.path(), "target", SIZE, &[]),
        TargetContent::Unknown => {
            raw_file(folder.path(), "target", SIZE, &[(0, vec![0xAA; usize::try_from(SIZE).unwrap()])])
        }
    };
    let kill_at = rand::random_range(24 * MIB..64 * MIB);
    let last = cut_short(&reader, &target, content, kill_at).await;
    let counts = goes_on(&reader, &target, content, noted(&reader, &last)).await;
    assert!(same(&source, &target), "killed at {kill_at}: the disk came back differently");
    assert_eq!(counts.resumed, last.bytes(), "killed at {kill_at}");
    assert_eq!(counts.settled, SIZE, "killed at {kill_at}");
    assert_eq!(counts.stored + counts.skipped, SIZE - last.bytes(), "killed at {kill_at}: what was there was written");
    assert!(counts.read <= counts.stored, "killed at {kill_at}: what was there was read");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_onto_a_new_disk_goes_on_from_what_a_crash_left() {
    is_cut_short_and_goes_on(TargetContent::KnownZero).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_over_old_data_goes_on_and_leaves_none_of_it() {
    is_cut_short_and_goes_on(TargetContent::Unknown).await;
}

async fn restored(reader: &Reader, server: &Server, begin: Checkpoint) -> (Result<RestoreReport, Error>, Checkpoint) {
    let (options, checkpoints) = options(TargetContent::KnownZero, begin, OFTEN);
    let cancel = CancellationToken::new();
    let done = data_path::restore(reader, server.disk().await, &options, &Progress::new(), &cancel).await;
    (done, checkpoints.latest())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_of_another_restore_point_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let (mine, other) = (folder.path().join("mine"), folder.path().join("other"));
    std::fs::create_dir(&mine).unwrap();
    std::fs::create_dir(&other).unwrap();
    let source = raw_file(&mine, "source", 4 * MIB, &[(0, random(3 << 20, 22))]);
    let (_, reader) = backed_up(&mine, &source).await;
    let (_, of_other) = backed_up(&other, &raw_file(&other, "source", 4 * MIB, &[(0, random(3 << 20, 23))])).await;
    let whole =
        |reader: &Reader| Checkpoint::noted(reader, reader.digest(), reader.chunk_size(), reader.size(), "").unwrap();

    let (digest, chunk) = (reader.digest(), reader.chunk_size());
    let cases = [
        ("of another restore point", of_other.digest(), chunk, 4 * MIB, "", Unfit::OtherContent),
        ("of no restore point", "", chunk, 4 * MIB, "", Unfit::OtherContent),
        ("cut otherwise", digest, chunk / 2, 4 * MIB, "", Unfit::OtherContent),
        ("of too many bytes", digest, chunk, 5 * MIB, "", Unfit::BehindTheEnd),
        ("with too many chunks", digest, chunk, 0, "ffff", Unfit::BehindTheEnd),
        ("within a chunk", digest, chunk, 512, "", Unfit::NoBorder { up_to: 512 }),
        ("garbage", digest, chunk, 0, "what is this", Unfit::NoMap),
    ];
    for (situation, digest, chunk, up_to, beyond, want) in cases {
        assert_eq!(Checkpoint::noted(&reader, digest, chunk, up_to, beyond), Err(want), "{situation}");
    }

    let target = raw_file(&mine, "target", 4 * MIB, &[]);
    let server = Server::qemu(&target);
    let (done, last) = restored(&reader, &server, whole(&of_other)).await;
    drop(server);
    assert_eq!((done.unwrap().counts.resumed, last), (0, whole(&reader)));
    assert!(same(&source, &target), "the disk came back differently");

    let empty = raw_file(&mine, "empty", 4 * MIB, &[]);
    let server = Server::qemu(&empty);
    let (done, _) = restored(&reader, &server, whole(&reader)).await;
    drop(server);
    assert_eq!(done.unwrap().counts.stored, 0, "a checkpoint of this restore point was not believed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flush_that_fails_once_fails_the_restore_and_names_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let source = raw_file(folder.path(), "source", 16 * MIB, &[(0, random(16 << 20, 24))]);
    let (_, reader) = backed_up(folder.path(), &source).await;
    let size = format!("get_size=echo {}", 16 * MIB);
    let server = Server::nbdkit(&[
        "eval",
        &size,
        "pread=head -c $3 /dev/zero",
        "can_write=exit 0",
        "pwrite=cat >/dev/null; sleep 0.05",
        "can_flush=exit 0",
        // as a kernel does: who asks again is told that all is well
        "flush=test -e $tmpdir/failed || { touch $tmpdir/failed; echo EIO the cable is loose >&2; exit 1; }",
    ]);
    let (done, last) = restored(&reader, &server, Checkpoint::nothing(&reader)).await;
    assert_eq!(done.unwrap_err().kind(), ErrorKind::DiskFlush);
    assert_eq!(last, Checkpoint::nothing(&reader), "it names what may be lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_is_asked_to_stop_leaves_a_checkpoint_of_all_it_wrote() {
    let folder = tempfile::tempdir().unwrap();
    let source = raw_file(folder.path(), "source", 32 * MIB, &[(0, random(32 << 20, 25))]);
    let (_, reader) = backed_up(folder.path(), &source).await;
    let server = Server::nbdkit(&["--filter=delay", "memory", "32M", "wdelay=100ms"]);
    let (options, checkpoints) = options(TargetContent::KnownZero, Checkpoint::nothing(&reader), NEVER);
    let (progress, cancel) = (Progress::new(), CancellationToken::new());
    let stop = async {
        while progress.counts().stored < 8 * MIB {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        cancel.cancel();
    };
    let disk = server.disk().await;
    let (done, ()) = tokio::join!(data_path::restore(&reader, disk, &options, &progress, &cancel), stop);
    assert!(matches!(done, Err(Error::Cancelled)), "{done:?}");
    assert_eq!(checkpoints.latest().bytes(), progress.counts().settled, "not all of it is named");
}

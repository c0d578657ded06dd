//! A backup that was cut short goes on where it was, at any moment of it, and never with something else than the disk had.

use std::sync::Arc;
use std::time::Duration;

use disk::Ranges;
use repository::store::{ErrorKind as StoreError, Fault, FaultyStore, Operation};
use repository::{ChunkRef, MaintenanceOptions, NewRestorePoint, Repository, TakeOver, Writer, WriterOptions};
use tokio_util::sync::CancellationToken;

use crate::judge::{CHUNK, MIB, Place, TestDisk, noise, password};

const TRANSFER: &str = "upload-1";
/// What a kill may cost at most.
const READ_AGAIN: u64 = 256 * MIB;
/// Most tests let less be at risk, so that a small disk has checkpoints: what they show does not depend on how much it is.
const AT_RISK: u64 = 40 * MIB;
/// A disk of which a writer that dies at its end has something done.
const SIZE: u64 = 56 * MIB;

fn point(disk: &TestDisk, snapshot: &str) -> NewRestorePoint {
    let mut point = disk.point();
    point.disk.snapshot = Some(snapshot.parse().unwrap());
    point
}

fn options() -> WriterOptions {
    WriterOptions { transfer: Some(TRANSFER.to_owned()), at_risk: AT_RISK, ..WriterOptions::default() }
}

async fn writer(repository: &Repository, disk: &TestDisk) -> Writer {
    repository.writer(point(disk, "disk:snapshot"), options()).await.unwrap()
}

/// Puts what is not done; gives the bytes that were put, and an error as it comes.
async fn go_on(writer: &Writer, disk: &TestDisk) -> (u64, Result<(), repository::Error>) {
    let mut put = 0;
    for index in 0..writer.chunk_count() {
        let range = writer.chunk_range(index);
        if writer.resumed().touches(&range) {
            continue;
        }
        let done = match disk.chunk(range.offset, range.length) {
            Some(data) => writer.put_chunk(index, data).await,
            None => writer.put_zero(index..index + 1).await,
        };
        if done.is_err() {
            return (put, done);
        }
        put += range.length;
    }
    (put, Ok(()))
}

async fn reopened(place: &Place) -> Repository {
    repository::open(place.store(), &password()).await.unwrap()
}

async fn assert_finished(place: &Place, disk: &TestDisk) {
    let repository = reopened(place).await;
    let points = repository.restore_points().await.unwrap();
    assert_eq!(points.len(), 1);
    disk.assert_is_read(&repository.reader(&points[0].id).await.unwrap()).await;
    place.restic().check();
}

/// What another process could go on with.
async fn left_by_the_dead(place: &Place, disk: &TestDisk) -> Ranges {
    writer(&reopened(place).await, disk).await.resumed().clone()
}

/// Reads all of the disk and dies before anything is flushed.
async fn killed(place: &Place, disk: &TestDisk) -> u64 {
    killed_with(place, disk, options()).await
}

/// The same with as much at risk as in a cluster.
async fn killed_as_in_a_cluster(place: &Place, disk: &TestDisk) -> u64 {
    killed_with(place, disk, WriterOptions { at_risk: WriterOptions::default().at_risk, ..options() }).await
}

async fn killed_with(place: &Place, disk: &TestDisk, options: WriterOptions) -> u64 {
    let repository = repository::initialise(place.store(), &password()).await.unwrap();
    let first = repository.writer(point(disk, "disk:snapshot"), options).await.unwrap();
    assert!(first.resumed().is_empty());
    let (put, done) = go_on(&first, disk).await;
    done.unwrap();
    put
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_was_killed_reads_little_again_and_stores_nothing_twice() {
    let disk = TestDisk::random(300 * MIB, 1).with(200 * MIB, vec![0; 40 * MIB as usize]);
    let place = Place::new();
    let put = killed_as_in_a_cluster(&place, &disk).await;
    let resumed = left_by_the_dead(&place, &disk).await;
    assert!(resumed.bytes() >= disk.size - READ_AGAIN, "{} MiB are done", resumed.bytes() / MIB);

    let again = writer(&reopened(&place).await, &disk).await;
    let (put_again, done) = go_on(&again, &disk).await;
    done.unwrap();
    assert_eq!(put_again, put - resumed.bytes(), "what is settled is not put");
    again.commit().await.unwrap();
    drop(again);
    assert_finished(&place, &disk).await;
    let stored: u64 = place.objects("data").iter().map(|pack| std::fs::metadata(pack).unwrap().len()).sum();
    // nine packs may have been on their way, be it that they arrived
    assert!(stored < 260 * MIB + 9 * 16 * MIB + 16 * MIB, "{} MiB are stored", stored / MIB);

    reopened(&place).await.forget_transfer(TRANSFER).await.unwrap();
    assert!(place.objects("transfers").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_compresses_well_costs_no_more_to_read_again() {
    // 64 bytes of noise in each 4 KiB: packs of 16 MiB would hold a GiB of it
    let mut content = vec![0; 500 * MIB as usize];
    let salt = noise(content.len() as u64 / 64, 7);
    content.chunks_mut(4096).zip(salt.chunks(64)).for_each(|(page, salt)| page[..64].copy_from_slice(salt));
    let disk = TestDisk::empty(500 * MIB).with(0, content);
    let place = Place::new();
    killed_as_in_a_cluster(&place, &disk).await;
    let resumed = left_by_the_dead(&place, &disk).await;
    assert!(resumed.bytes() >= disk.size - READ_AGAIN, "{} MiB are done", resumed.bytes() / MIB);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_killed_after_any_put_goes_on_with_the_truth() {
    let disk = TestDisk::random(SIZE, 3).with(20 * MIB, vec![0; 10 * MIB as usize]);
    let place = Place::new();
    let store = FaultyStore::new(place.store());
    let repository = repository::initialise(Arc::new(store.clone()), &password()).await.unwrap();
    let mut rounds = 0;
    // each round lives a little longer than the last, so that the kills walk over everything that is put
    loop {
        rounds += 1;
        assert!(rounds < 60, "it never comes to its end");
        store.die_after_puts(rounds);
        let finished = async {
            let repository = repository::open(Arc::new(store.clone()), &password()).await?;
            let writer = repository.writer(point(&disk, "disk:snapshot"), options()).await?;
            go_on(&writer, &disk).await.1?;
            writer.commit().await
        };
        let finished = finished.await;
        store.heal();
        // one that was killed right after it put the snapshot file stands as well: it must be whole, too
        if finished.is_ok() || !place.objects("snapshots").is_empty() {
            break;
        }
    }
    assert!(rounds > 2, "{rounds} rounds");
    drop(repository);
    assert_finished(&place, &disk).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn packs_that_went_since_are_read_from_the_disk_again() {
    let disk = TestDisk::random(96 * MIB, 4); // several packs go
    let place = Place::new();
    killed(&place, &disk).await;
    let before = left_by_the_dead(&place, &disk).await;
    let packs = place.objects("data");
    for (pack, is_removed) in packs[1..].iter().zip([true, false].into_iter().cycle()) {
        match is_removed {
            true => std::fs::remove_file(pack).unwrap(),
            false => std::fs::File::options().write(true).open(pack).unwrap().set_len(77).unwrap(),
        }
    }

    let again = writer(&reopened(&place).await, &disk).await;
    assert!(again.resumed().bytes() < before.bytes());
    go_on(&again, &disk).await.1.unwrap();
    again.commit().await.unwrap();
    assert_finished(&place, &disk).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn checkpoints_of_another_disk_snapshot_or_in_pieces_are_not_believed() {
    let disk = TestDisk::random(SIZE, 5);
    let place = Place::new();
    killed(&place, &disk).await;
    let repository = reopened(&place).await;
    assert!(!left_by_the_dead(&place, &disk).await.is_empty());

    let other = repository.writer(point(&disk, "disk:another"), options()).await.unwrap();
    assert!(other.resumed().is_empty());
    drop(other);
    let none = repository.writer(disk.point(), options()).await.unwrap_err();
    assert!(none.to_string().contains("no disk snapshot"), "{none}");

    for object in place.objects("transfers") {
        let bytes = std::fs::read(&object).unwrap();
        std::fs::write(&object, &bytes[..bytes.len() - 1]).unwrap();
    }
    std::fs::write(place.objects("transfers")[0].with_file_name("not a number"), "x").unwrap();
    let again = writer(&reopened(&place).await, &disk).await;
    assert!(again.resumed().is_empty());
    go_on(&again, &disk).await.1.unwrap();
    again.commit().await.unwrap();
    assert_finished(&place, &disk).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_takes_no_checkpoints_costs_the_checkpoints_and_not_the_backup() {
    let disk = TestDisk::random(SIZE, 6);
    for kind in [StoreError::AccessDenied, StoreError::Failed] {
        let place = Place::new();
        let store = FaultyStore::new(place.store());
        let repository = repository::initialise(Arc::new(store.clone()), &password()).await.unwrap();
        store.fail(Fault::always(Operation::Put, "transfers/", kind));
        store.fail(Fault::always(Operation::List, "transfers/", StoreError::AccessDenied));
        let writer = writer(&repository, &disk).await;
        go_on(&writer, &disk).await.1.unwrap();
        writer.commit().await.unwrap();
        assert_finished(&place, &disk).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn checkpoints_to_which_nobody_comes_back_go_in_a_maintenance_run() {
    let disk = TestDisk::random(SIZE, 8);
    let place = Place::new();
    killed(&place, &disk).await;
    let repository = reopened(&place).await;
    assert!(!left_by_the_dead(&place, &disk).await.is_empty());
    let never = CancellationToken::new();
    let report = repository.maintain(&MaintenanceOptions::default(), &never).await.unwrap();
    assert_eq!(report.transfers_swept, 0, "it may still come back");
    let now = MaintenanceOptions { grace: Duration::ZERO, allow_short_grace: true, ..MaintenanceOptions::default() };
    let report = repository.maintain(&now, &never).await.unwrap();
    assert_eq!(report.transfers_swept, 1);
    assert!(place.objects("transfers").is_empty());
    assert!(place.store().list("transfers/").await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_repeats_itself_is_read_to_its_end() {
    // one pattern all over; and 12 MiB of noise five times, which fill too few packs to be sent
    let noise = noise(12 * MIB, 10);
    for content in [vec![0xff; 60 * MIB as usize], noise.repeat(5)] {
        let disk = TestDisk::empty(60 * MIB).with(0, content);
        let place = Place::new();
        let repository = repository::initialise(place.store(), &password()).await.unwrap();
        let writer = writer(&repository, &disk).await;
        let reading = tokio::time::timeout(Duration::from_secs(120), go_on(&writer, &disk));
        reading.await.expect("reading waits for ever").1.unwrap();
        writer.commit().await.unwrap();
        assert_finished(&place, &disk).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn attempt_after_attempt_lists_each_pack_once() {
    let disk = TestDisk::random(100 * MIB, 11);
    let place = Place::new();
    let repository = repository::initialise(place.store(), &password()).await.unwrap();
    for part in [60, 75, 90, 100] {
        let attempt = writer(&repository, &disk).await;
        for index in 0..part * MIB / CHUNK {
            let range = attempt.chunk_range(index);
            if !attempt.resumed().touches(&range) {
                attempt.put_chunk(index, disk.chunk(range.offset, range.length).unwrap()).await.unwrap();
            }
        }
        if part == 100 {
            attempt.commit().await.unwrap();
        }
    }
    assert_finished(&place, &disk).await;
    let listed: Vec<String> = place
        .objects("index")
        .iter()
        .flat_map(|file| {
            let id = file.file_name().unwrap().to_str().unwrap().to_owned();
            let text = place.restic().content(&["cat", "index", &id]);
            let index: serde_json::Value = serde_json::from_str(&text).unwrap();
            let packs = index["packs"].as_array().unwrap().clone();
            packs.into_iter().map(|pack| pack["id"].as_str().unwrap().to_owned())
        })
        .collect();
    let different: std::collections::HashSet<_> = listed.iter().collect();
    assert_eq!(different.len(), listed.len(), "a pack is listed twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_attempt_took_over_unread_is_taken_over_again() {
    let disk = TestDisk::empty(104 * MIB).with(100 * MIB, noise(4 * MIB, 9));
    let place = Place::new();
    let repository = repository::initialise(place.store(), &password()).await.unwrap();
    let base = disk.back_up(&repository).await.unwrap();
    let base = repository.reader(&base.id).await.unwrap();
    let first = writer(&repository, &disk).await;
    for index in 0..first.chunk_count() {
        match base.chunk(index) {
            ChunkRef::Data(id) => assert_eq!(first.take_over(index, id).await.unwrap(), TakeOver::Done),
            ChunkRef::Zero => first.take_over_zero(index..index + 1).await.unwrap(),
            ChunkRef::Unknown => panic!("chunk {index} of a whole base is known"),
        }
    }
    first.abandon().await;
    assert!(place.objects("transfers").is_empty(), "nobody has looked at the disk");
}

//! A backup that failed, was abandoned or was killed leaves nothing that looks like a restore point.

use std::sync::Arc;

use bytes::Bytes;
use repository::store::{ErrorKind as StoreError, Fault, FaultyStore, Operation};
use repository::{Error, ErrorKind, Repository, TakeOver, WriterOptions};

use crate::judge::{CHUNK, MIB, Place, TestDisk, noise, password};

async fn faulty(place: &Place) -> (FaultyStore, Repository) {
    let store = FaultyStore::new(place.store());
    let repository = repository::initialise(Arc::new(store.clone()), &password()).await.unwrap();
    (store, repository)
}

fn assert_no_restore_point(place: &Place) {
    assert!(place.objects("snapshots").is_empty(), "{:?}", place.objects("snapshots"));
    place.restic().check();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_whose_packs_cannot_be_stored_fails_with_the_first_cause() {
    let place = Place::new();
    let (store, repository) = faulty(&place).await;
    store.fail(Fault::always(Operation::Put, "data/", StoreError::AccessDenied).after(1));
    let disk = TestDisk::random(40 * MIB, 1);
    let error = disk.back_up(&repository).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AccessDenied, "{error}");
    assert_no_restore_point(&place);
}

#[tokio::test(flavor = "multi_thread")]
async fn later_calls_on_a_failed_writer_repeat_the_first_cause() {
    let place = Place::new();
    let (store, repository) = faulty(&place).await;
    store.fail(Fault::always(Operation::Put, "data/", StoreError::Unreachable));
    let disk = TestDisk::random(MIB, 2);
    let writer = repository.writer(disk.point(), WriterOptions::default()).await.unwrap();
    disk.put_into(&writer).await.unwrap();
    for _ in 0..2 {
        let error = writer.commit().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unreachable);
        assert!(error.to_string().contains("pack"), "{error}");
    }
    assert_eq!(writer.put_chunk(0, Bytes::new()).await.unwrap_err().kind(), ErrorKind::Unreachable);
    assert_no_restore_point(&place);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pack_that_lies_there_too_short_is_no_part_of_a_backup() {
    let place = Place::new();
    let (_, repository) = faulty(&place).await;
    let disk = TestDisk::random(80 * MIB, 9); // five packs: four may wait to be hashed together
    let writer = repository.writer(disk.point(), WriterOptions::default()).await.unwrap();
    disk.put_into(&writer).await.unwrap();
    let stored = async {
        loop {
            // one that is still being written has another name
            match place.objects("data").into_iter().find(|pack| !pack.to_string_lossy().contains(".tmp-")) {
                Some(pack) => break pack,
                None => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
            }
        }
    };
    let pack = tokio::time::timeout(std::time::Duration::from_secs(60), stored).await.expect("80 MiB fill five packs");
    let file = std::fs::File::options().write(true).open(&pack).unwrap();
    file.set_len(file.metadata().unwrap().len() - 1).unwrap();
    let Err(Error::SendAgain { chunks }) = writer.commit().await else { panic!("a pack is too short") };
    assert!(place.objects("snapshots").is_empty(), "{:?}", place.objects("snapshots"));
    for index in chunks {
        let range = writer.chunk_range(index);
        writer.put_chunk(index, disk.chunk(range.offset, range.length).unwrap()).await.unwrap();
    }
    let point = writer.commit().await.unwrap();
    let repository = repository::open(place.store(), &password()).await.unwrap();
    disk.assert_is_read(&repository.reader(&point.id).await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_killed_between_any_two_puts_leaves_nothing_that_looks_like_one() {
    let disk = TestDisk::random(20 * MIB, 3).with(0, vec![0; 2 * CHUNK as usize]);
    let place = Place::new();
    let (store, repository) = faulty(&place).await;
    let before = store.puts();
    disk.back_up(&repository).await.unwrap();
    let puts = store.puts() - before;
    assert!(puts >= 5, "two packs of data, one of trees, an index file, a snapshot file");
    for survived in 0..puts {
        let place = Place::new();
        let (store, repository) = faulty(&place).await;
        store.die_after_puts(survived);
        let error = disk.back_up(&repository).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unreachable);
        assert_no_restore_point(&place);
        store.heal();
        let again = repository::open(place.store(), &password()).await.unwrap();
        let point = disk.back_up(&again).await.unwrap();
        disk.assert_is_read(&again.reader(&point.id).await.unwrap()).await;
        place.restic().check();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_file_whose_answer_was_lost_does_not_stay() {
    let place = Place::new();
    let (store, repository) = faulty(&place).await;
    store.fail(Fault::always(Operation::Put, "snapshots/", StoreError::Unreachable).done_anyway());
    let error = TestDisk::random(MIB, 4).back_up(&repository).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable);
    assert_no_restore_point(&place);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_file_that_cannot_be_read_back_does_not_stay() {
    let place = Place::new();
    let (store, repository) = faulty(&place).await;
    store.fail(Fault::always(Operation::Get, "snapshots/", StoreError::Failed));
    assert_eq!(TestDisk::random(MIB, 5).back_up(&repository).await.unwrap_err().kind(), ErrorKind::StoreFailed);
    assert_no_restore_point(&place);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_with_a_chunk_that_never_came_is_not_committed() {
    // an archiver that logs and skips what it cannot read would have committed here
    let place = Place::new();
    let repository = place.initialised().await;
    let disk = TestDisk::random(4 * MIB, 6);
    let writer = repository.writer(disk.point(), WriterOptions::default()).await.unwrap();
    for index in (0..writer.chunk_count()).filter(|index| *index != 3) {
        let range = writer.chunk_range(index);
        writer.put_chunk(index, disk.chunk(range.offset, range.length).unwrap()).await.unwrap();
    }
    let error = writer.commit().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidUse);
    assert!(error.to_string().contains("chunk 3 never came"), "{error}");
    assert_no_restore_point(&place);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abandoned_backup_ends_at_once_and_leaves_no_restore_point() {
    let place = Place::new();
    let repository = place.initialised().await;
    let disk = TestDisk::random(40 * MIB, 7);
    let writer = repository.writer(disk.point(), WriterOptions::default()).await.unwrap();
    disk.put_into(&writer).await.unwrap();
    writer.abandon().await;
    assert_no_restore_point(&place);
    let point = disk.back_up(&repository).await.unwrap();
    disk.assert_is_read(&repository.reader(&point.id).await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_size_and_times_do_not_make_changed_content_known() {
    // a parent matched by size and time would not be read at all
    let place = Place::new();
    let repository = place.initialised().await;
    let (one, two) = (TestDisk::random(4 * MIB, 8), TestDisk::random(4 * MIB, 9));
    let first = one.back_up(&repository).await.unwrap();
    let second = two.back_up(&repository).await.unwrap();
    assert_eq!(first.time, second.time);
    two.assert_is_read(&repository.reader(&second.id).await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_are_taken_over_unread_only_when_they_are_there() {
    let place = Place::new();
    let repository = place.initialised().await;
    let disk = TestDisk::random(4 * MIB, 10).with(MIB, vec![0; MIB as usize]);
    let base = disk.back_up(&repository).await.unwrap();
    let base = repository.reader(&base.id).await.unwrap();
    let changed = disk.clone().with(3 * MIB, noise(1000, 11));
    let writer = repository.writer(changed.point(), WriterOptions::default()).await.unwrap();
    for index in 0..writer.chunk_count() {
        let range = writer.chunk_range(index);
        match base.chunk(index) {
            _ if index == 6 => {
                writer.put_chunk(index, changed.chunk(range.offset, range.length).unwrap()).await.unwrap();
            }
            repository::ChunkRef::Zero => writer.put_zero(index..index + 1).await.unwrap(),
            repository::ChunkRef::Data(id) => assert_eq!(writer.take_over(index, id).await.unwrap(), TakeOver::Done),
            repository::ChunkRef::Unknown => panic!("chunk {index} of a whole base is known"),
        }
    }
    let point = writer.commit().await.unwrap();
    assert_eq!((writer.stats().chunks_taken_over, writer.stats().chunks_new), (5, 1));
    changed.assert_is_read(&repository.reader(&point.id).await.unwrap()).await;
    place.restic().check();

    let writer = repository.writer(changed.point(), WriterOptions::default()).await.unwrap();
    let unknown = repository::ChunkId::of(b"never stored");
    assert_eq!(writer.take_over(0, unknown).await.unwrap(), TakeOver::Unknown);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_of_the_wrong_length_or_place_is_refused() {
    let place = Place::new();
    let repository = place.initialised().await;
    let disk = TestDisk::empty(MIB + 512);
    let writer = repository.writer(disk.point(), WriterOptions::default()).await.unwrap();
    let bytes = |length: u64| Bytes::from(vec![1; length as usize]);
    assert!(writer.put_chunk(0, bytes(CHUNK - 1)).await.is_err());
    assert!(writer.put_chunk(2, bytes(CHUNK)).await.is_err(), "the last chunk is shorter");
    assert!(writer.put_chunk(3, bytes(CHUNK)).await.is_err());
    assert!(writer.put_zero(0..4).await.is_err());
    writer.put_zero(0..3).await.unwrap();
    let point = writer.commit().await.unwrap();
    disk.assert_is_read(&repository.reader(&point.id).await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_backups_at_once_of_the_same_disk_are_both_whole() {
    let place = Place::new();
    let repository = place.initialised().await;
    let disk = TestDisk::random(24 * MIB, 12);
    let (one, two) = tokio::join!(disk.back_up(&repository), disk.back_up(&repository));
    for point in [one.unwrap(), two.unwrap()] {
        disk.assert_is_read(&repository.reader(&point.id).await.unwrap()).await;
    }
    place.restic().check();
}

//! What is broken in the repository is reported with its name, and never restored as something else.

use std::path::Path;
use std::sync::Arc;

use repository::store::Store;
use repository::{Error, ErrorKind, Repository, RestorePoint};

use crate::judge::{MIB, Place, TestDisk, noise, password};

async fn written(place: &Place, disk: &TestDisk) -> (Repository, RestorePoint) {
    let repository = place.initialised().await;
    let point = disk.back_up(&repository).await.unwrap();
    // as another process would see it
    (repository::open(place.store(), &password()).await.unwrap(), point)
}

/// Reads everything; the first error.
async fn read_all(repository: &Repository, point: &RestorePoint) -> Result<(), Error> {
    use futures::TryStreamExt;
    let reader = repository.reader(&point.id).await?;
    reader.read(reader.plan(0..reader.chunk_count()), 4).try_for_each(|_| async { Ok(()) }).await
}

pub(crate) fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        text += ": ";
        text += &cause.to_string();
        next = cause.source();
    }
    text
}

fn flip_a_byte(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 0x40;
    std::fs::write(path, bytes).unwrap();
}

fn largest(place: &Place, folder: &str) -> std::path::PathBuf {
    place.objects(folder).into_iter().max_by_key(|path| path.metadata().unwrap().len()).unwrap()
}

async fn assert_damage_is_named(place: &Place, point: &RestorePoint, name: &str) {
    let repository = repository::open(place.store(), &password()).await.unwrap();
    let error = read_all(&repository, point).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged, "{}", chain(&error));
    assert!(chain(&error).contains(name), "`{}` does not name {name}", chain(&error));
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn restore_reports_a_flipped_byte_and_names_chunk_and_pack() {
    let place = Place::new();
    let (_, point) = written(&place, &TestDisk::random(5 * MIB, 1)).await;
    let pack = largest(&place, "data");
    flip_a_byte(&pack, 3 << 20);
    assert_damage_is_named(&place, &point, &name_of(&pack)).await;
    assert!(!place.restic().run(&["check", "--read-data"]).status.success(), "restic agrees");
}

#[tokio::test(flavor = "multi_thread")]
async fn restore_reports_a_truncated_pack() {
    let place = Place::new();
    let (_, point) = written(&place, &TestDisk::random(5 * MIB, 2)).await;
    let pack = largest(&place, "data");
    let file = std::fs::OpenOptions::new().write(true).open(&pack).unwrap();
    file.set_len(MIB).unwrap();
    assert_damage_is_named(&place, &point, &name_of(&pack)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn restore_reports_a_missing_pack() {
    let place = Place::new();
    let (_, point) = written(&place, &TestDisk::random(5 * MIB, 3)).await;
    let pack = largest(&place, "data");
    std::fs::remove_file(&pack).unwrap();
    assert_damage_is_named(&place, &point, &name_of(&pack)).await;
}

/// Each is a sound object of this repository, and each piece of it decrypts: only the names are wrong.
#[tokio::test(flavor = "multi_thread")]
async fn restore_never_takes_a_pack_for_another_one() {
    let place = Place::new();
    let repository = place.initialised().await;
    let one = TestDisk::random(5 * MIB, 17).back_up(&repository).await.unwrap();
    let first = largest(&place, "data");
    let two = TestDisk::random(6 * MIB, 18).back_up(&repository).await.unwrap();
    let second = largest(&place, "data");
    let (kept, other) = (std::fs::read(&first).unwrap(), std::fs::read(&second).unwrap());

    let replace = |path: &Path, bytes: &[u8]| std::fs::write(path, bytes).unwrap();
    replace(&first, &other);
    replace(&second, &kept);
    assert_damage_is_named(&place, &one, &name_of(&first)).await;
    assert_damage_is_named(&place, &two, &name_of(&second)).await;

    // of the right length, with the header of its own
    let contents = 4 * (512 << 10);
    replace(&first, &[&other[..contents], &kept[contents..]].concat());
    replace(&second, &other);
    assert_damage_is_named(&place, &one, &name_of(&first)).await;
    let (lost, read, said) = examined(place.store(), &one).await;
    assert_eq!((lost.len(), read.len()), (4, 6), "{said}");
    // its own length, and the header of the other
    let header = 1000;
    replace(&first, &[&kept[..kept.len() - header], &other[other.len() - header..]].concat());
    assert_damage_is_named(&place, &one, &name_of(&first)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn restore_reports_a_missing_index_and_restic_can_mend_it() {
    let place = Place::new();
    let disk = TestDisk::random(5 * MIB, 4);
    let (_, point) = written(&place, &disk).await;
    for index in place.objects("index") {
        std::fs::remove_file(index).unwrap();
    }
    assert_damage_is_named(&place, &point, "no index lists").await;
    place.restic().content(&["rebuild-index"]); // reads our packs' headers
    let repository = repository::open(place.store(), &password()).await.unwrap();
    disk.assert_is_read(&repository.reader(&point.id).await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_index_or_snapshot_file_is_not_taken_for_an_empty_one() {
    for folder in ["index", "snapshots"] {
        let place = Place::new();
        let (_, point) = written(&place, &TestDisk::random(MIB, 5)).await;
        let object = largest(&place, folder);
        flip_a_byte(&object, 20);
        assert_damage_is_named(&place, &point, &name_of(&object)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_heals_what_a_lost_pack_took_with_it() {
    let place = Place::new();
    let disk = TestDisk::random(5 * MIB, 6);
    let (repository, _) = written(&place, &disk).await;
    let pack = largest(&place, "data");
    std::fs::remove_file(&pack).unwrap();

    // the index still lists the pack, so the new backup believes that it is there, until its check
    let writer = repository.writer(disk.point(), repository::WriterOptions::default()).await.unwrap();
    disk.put_into(&writer).await.unwrap();
    let Err(Error::SendAgain { chunks }) = writer.commit().await else { panic!("the pack is gone") };
    assert_eq!(writer.stats().chunks_known, 10);
    assert_eq!(chunks, (0..10).collect::<Vec<_>>());
    assert_eq!(place.objects("snapshots").len(), 1, "no restore point before its data is there");
    for index in chunks {
        let range = writer.chunk_range(index);
        writer.put_chunk(index, disk.chunk(range.offset, range.length).unwrap()).await.unwrap();
    }
    let point = writer.commit().await.unwrap();
    let repository = repository::open(place.store(), &password()).await.unwrap();
    disk.assert_is_read(&repository.reader(&point.id).await.unwrap()).await; // although the index lists the lost pack first
    place.restic().content(&["rebuild-index"]); // drops the lost pack from the index
    place.restic().check();
    let repository = repository::open(place.store(), &password()).await.unwrap();
    disk.assert_is_read(&repository.reader(&point.id).await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_vanishes_while_we_write_is_noticed_before_the_snapshot_file() {
    let place = Place::new();
    let (one, two) = (TestDisk::random(5 * MIB, 7), TestDisk::random(5 * MIB, 7).with(0, noise(MIB, 8)));
    let (repository, first) = written(&place, &one).await;
    let writer = repository.writer(two.point(), repository::WriterOptions::default()).await.unwrap();
    two.put_into(&writer).await.unwrap();
    // someone forgets and prunes between our look and our commit
    repository.forget(&first.id).await.unwrap();
    place.restic().content(&["prune", "--max-unused", "0"]);
    let Err(Error::SendAgain { chunks }) = writer.commit().await else { panic!("eight chunks are gone") };
    assert_eq!(chunks, (2..10).collect::<Vec<_>>());
    for index in chunks {
        let range = writer.chunk_range(index);
        writer.put_chunk(index, two.chunk(range.offset, range.length).unwrap()).await.unwrap();
    }
    let point = writer.commit().await.unwrap();
    place.restic().check();
    two.assert_is_read(&repository.reader(&point.id).await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_unreadable_snapshot_file_hides_no_other_restore_point() {
    let place = Place::new();
    let (_, point) = written(&place, &TestDisk::random(5 * MIB, 11)).await;
    let garbage = "ab".repeat(32);
    std::fs::write(place.objects("snapshots")[0].with_file_name(&garbage), "garbage").unwrap();
    let repository = repository::open(place.store(), &password()).await.unwrap();
    assert_eq!(repository.restore_points().await.unwrap(), std::slice::from_ref(&point));
    let found = repository.find_by_prefix(&point.id.to_string()[..8]).await.unwrap();
    read_all(&repository, &found).await.unwrap();
    let error = repository.find_by_prefix("abab").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged, "who asks for it is told: {}", chain(&error));
}

#[tokio::test(flavor = "multi_thread")]
async fn opening_a_damaged_restore_point_fails_no_sound_one_of_the_same_process() {
    let place = Place::new();
    let repository = place.initialised().await;
    let damaged = TestDisk::random(5 * MIB, 12).back_up(&repository).await.unwrap();
    std::fs::remove_file(largest(&place, "data")).unwrap();
    let sound = TestDisk::random(5 * MIB, 13).back_up(&repository).await.unwrap();
    for round in 0..20 {
        let opening = (0..8).map(|_| repository.reader(&sound.id));
        let (broken, opened) = futures::join!(repository.reader(&damaged.id), futures::future::join_all(opening));
        assert_eq!(broken.err().map(|e| e.kind()), Some(ErrorKind::Damaged));
        for reader in opened {
            assert!(reader.is_ok(), "round {round}: {}", chain(&reader.unwrap_err()));
        }
    }
}

/// Numbers of the chunks that are lost, and of those that were read, and what is said about the lost ones.
pub(crate) async fn examined(store: Arc<dyn Store>, point: &RestorePoint) -> (Vec<u64>, Vec<u64>, String) {
    use futures::StreamExt;
    let repository = repository::open(store, &password()).await.unwrap();
    let reader = repository.reader_despite_damage(&point.id).await.unwrap();
    let (mut lost, mut read, mut said) = (Vec::new(), Vec::new(), String::new());
    let mut chunks = std::pin::pin!(reader.examine(reader.plan(0..reader.chunk_count()), 4));
    while let Some(chunk) = chunks.next().await {
        match chunk {
            Ok(chunk) => read.extend(chunk.at),
            Err(unread) => {
                assert_eq!(unread.error.kind(), ErrorKind::Damaged, "{}", chain(&unread.error));
                said += &format!("{}\n", chain(&unread.error));
                lost.extend(unread.at);
            }
        }
    }
    lost.sort_unstable();
    read.sort_unstable();
    (lost, read, said)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_lost_place_of_a_damaged_disk_is_named_and_all_others_are_read() {
    let place = Place::new();
    let (_, point) = written(&place, &TestDisk::random(5 * MIB, 14)).await;
    let pack = largest(&place, "data");
    // random chunks are stored as they are, with 32 bytes each around them
    flip_a_byte(&pack, 1 << 20);
    flip_a_byte(&pack, 3 << 20);
    let (lost, read, said) = examined(place.store(), &point).await;
    assert_eq!((lost.len(), read.len()), (2, 8), "two of the ten chunks of one read: {lost:?}, {read:?}");
    assert!(said.lines().all(|line| line.contains(&name_of(&pack))), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_missing_pack_or_index_file_costs_is_told_to_its_full_extent() {
    let place = Place::new();
    let repository = place.initialised().await;
    let old = TestDisk::random(2 * MIB, 15);
    old.back_up(&repository).await.unwrap();
    let (old_index, old_pack) = (largest(&place, "index"), largest(&place, "data"));
    let new = TestDisk { size: 4 * MIB, ..old }.with(2 * MIB, noise(2 * MIB, 16));
    let point = new.back_up(&repository).await.unwrap();

    let kept = std::fs::read(&old_pack).unwrap();
    std::fs::remove_file(&old_pack).unwrap();
    let (lost, read, said) = examined(place.store(), &point).await;
    assert_eq!((lost, read), ((0..4).collect(), (4..8).collect()), "{said}");
    assert!(said.contains(&name_of(&old_pack)) && said.contains("missing"), "{said}");

    std::fs::write(&old_pack, kept).unwrap();
    std::fs::remove_file(&old_index).unwrap();
    let (lost, read, said) = examined(place.store(), &point).await;
    assert_eq!((lost, read), ((0..4).collect(), (4..8).collect()), "{said}");
    assert!(said.contains("no index lists"), "{said}");
}

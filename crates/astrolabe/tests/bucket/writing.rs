//! Backups in the original's layout are written as it writes them, gone on with, and given up without a trace.

use astrolabe::{Broken, Cut, Description, Error, Keys, OpenSegment, Removed, Writer};
use bytes::Bytes;
use disk::ByteRange;
use repository::store::{S3Store, Store as _};

use crate::line::Line;
use crate::versitygw::Versitygw;
use crate::{Bucket, MIB, PREFIX, noise, snapshot, tree};

/// Segments of two parts, which are as small as S3 allows.
const CUT: Cut = Cut { segment: 10 << 20, part: 5 << 20 };
const PEINFO: &str = include_str!("../../testdata/worked-example.peinfo.json");
const EXAMPLE: &str = "2b6d0f5e-1c3a-4e57-9d1b-0a8c6f3e7d42:c9f1d7aa-60b2-4c1e-8f3d-5e2b9a714c06";

fn described(disk: &[u8]) -> Description {
    let name = "pvc-7d0e8f1a-33c4-4a0e-9a52-6f1d2c8be417".to_owned();
    Description { name, capacity_mib: (disk.len() / MIB) as u64, ..Description::default() }
}

fn part(disk: &[u8], range: ByteRange) -> Bytes {
    let at = |offset: u64| usize::try_from(offset).unwrap();
    Bytes::copy_from_slice(&disk[at(range.offset)..at(range.end())])
}

/// Sends what is missing of a segment; returns how many parts that were.
async fn fill(segment: OpenSegment<'_>, disk: &[u8]) -> usize {
    let missing = segment.missing();
    for (number, range) in missing.iter().rev() {
        segment.put(*number, part(disk, *range)).await.unwrap(); // in any order
    }
    segment.finish().await.unwrap();
    missing.len()
}

/// Sends what is missing of a disk; returns how many parts that were of each segment.
async fn fill_all(writer: &Writer, disk: &[u8]) -> Vec<usize> {
    let mut sent = Vec::new();
    while let Some(segment) = writer.open(sent.len() as u64).await.unwrap() {
        sent.push(fill(segment, disk).await);
    }
    sent
}

#[tokio::test(flavor = "multi_thread")]
async fn a_written_backup_is_what_the_original_would_have_written() {
    let bucket = Bucket::new().await;
    let tree = tree(&bucket.store, &[PREFIX]);
    let (of, disk) = (snapshot(EXAMPLE), noise(22));
    let writer = tree.writer(&of, described(&disk), CUT).await.unwrap();
    assert_eq!(fill_all(&writer, &disk).await, [2, 2, 1]);
    let keys = Keys::new(PREFIX, &of);
    assert_eq!(bucket.store.size(keys.peinfo()).await.unwrap(), None, "it is a backup before it is complete");
    assert_eq!(writer.commit().await.unwrap().size(), 22 << 20);
    let segments = [(0, 0, 10), (1, 10, 10), (2, 20, 2)];
    for (number, offset, mib) in segments {
        let key = format!("{}/{number:06}-{:016}", keys.data(), offset * MIB);
        let stored = bucket.store.get(&key).await.unwrap();
        assert!(stored == disk[offset * MIB..(offset + mib) * MIB], "{key}");
    }
    let description = bucket.store.get(&format!("{}/000000-0000000000000000", keys.description())).await.unwrap();
    assert_eq!(description, described(&disk).write());
    assert_eq!(bucket.store.get(keys.peinfo()).await.unwrap(), PEINFO, "the worked example, byte for byte");
    assert_eq!(bucket.keys().await.len(), 5);
    assert_eq!(bucket.store.uploads("").await.unwrap(), []);
}

/// As the original puts it: what goes by an object's type takes no other one for the list of backups.
#[tokio::test(flavor = "multi_thread")]
async fn only_what_makes_it_a_backup_is_stored_as_json() {
    let server = Versitygw::start();
    let mut options = server.options("");
    let line = Line::to(&format!("127.0.0.1:{}", options.endpoint.unwrap().port().unwrap())).await;
    options.endpoint = Some(line.url().parse().unwrap());
    let store = S3Store::new(options).await.unwrap();
    let (of, disk) = (snapshot(EXAMPLE), noise(1));
    let writer = tree(&store, &[PREFIX]).writer(&of, described(&disk), CUT).await.unwrap();
    assert_eq!(fill_all(&writer, &disk).await, [1]);
    writer.commit().await.unwrap();

    let keys = Keys::new(PREFIX, &of);
    let first = |folder: &str| format!("{folder}/000000-0000000000000000");
    for (key, part, of_type) in [
        (keys.peinfo().to_owned(), "/ivd/peinfo/", "application/json"),
        (first(keys.description()), "/ivd/md/", "binary/octet-stream"),
        (first(keys.data()), "/ivd/data/", "binary/octet-stream"),
    ] {
        assert!(store.size(&key).await.unwrap().is_some(), "{key} is there");
        let told = line.answered("HEAD", part, "content-type").pop().flatten();
        assert_eq!(told.as_deref(), Some(of_type), "{key}");
    }
}

#[test]
fn a_disk_is_cut_as_in_the_worked_example() {
    assert_eq!(Cut::default(), Cut { segment: 104_857_600_000, part: 10_485_760 });
    let disk: u64 = 3_221_225_472;
    assert_eq!((disk.div_ceil(Cut::default().part), disk % Cut::default().part), (308, 2_097_152));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_parts_of_the_one_upload_that_was_begun_are_not_sent_again() {
    let bucket = Bucket::new().await;
    let (of, disk) = (snapshot("disk:snap"), noise(23));
    let tree = tree(&bucket.store, &[PREFIX]);
    let first = tree.writer(&of, described(&disk), CUT).await.unwrap();
    fill(first.open(0).await.unwrap().unwrap(), &disk).await;
    let second = first.open(1).await.unwrap().unwrap();
    let (number, range) = second.missing()[1];
    second.put(number, part(&disk, range)).await.unwrap();
    drop(second); // killed
    drop(first);

    let again = tree.writer(&of, described(&disk), CUT).await.unwrap();
    assert_eq!(again.whole(), 10 << 20, "a segment that is whole stays");
    assert_eq!(fill_all(&again, &disk).await, [1, 1]);
    let written = again.commit().await.unwrap();
    assert!(written.read(ByteRange::new(0, 23 << 20)).await.unwrap() == disk);
}

/// A node that was stopped for long goes on where another one has completed the backup meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_writer_takes_nothing_of_a_completed_backup() {
    let bucket = Bucket::new().await;
    let (of, disk) = (snapshot("disk:snap"), noise(10));
    let tree = tree(&bucket.store, &[PREFIX]);
    let writer = tree.writer(&of, described(&disk), CUT).await.unwrap();
    fill_all(&writer, &disk).await;
    writer.commit().await.unwrap();
    let before = bucket.keys().await;
    let refused = tree.writer(&of, described(&disk), CUT).await.unwrap_err();
    assert!(matches!(refused, Error::Broken { source: Broken::There { .. }, .. }), "{refused:?}");
    assert_eq!(bucket.keys().await, before);
    let whole = tree.open(&of).await.unwrap().unwrap();
    assert!(whole.read(ByteRange::new(0, 10 << 20)).await.unwrap() == disk);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_uploads_that_were_begun_none_is_believed() {
    let bucket = Bucket::new().await;
    let (of, disk) = (snapshot("disk:snap"), noise(10));
    let keys = Keys::new(PREFIX, &of);
    let key = format!("{}/000000-0000000000000000", keys.data());
    for _ in 0..2 {
        let begun = bucket.store.begin_multipart(&key).await.unwrap();
        bucket.store.put_part(&begun, 1, vec![0; 5 << 20].into()).await.unwrap();
    }
    let tree = tree(&bucket.store, &[PREFIX]);
    let writer = tree.writer(&of, described(&disk), CUT).await.unwrap();
    assert_eq!(fill_all(&writer, &disk).await, [2]);
    let written = writer.commit().await.unwrap();
    assert!(written.read(ByteRange::new(0, 10 << 20)).await.unwrap() == disk);
    assert_eq!(bucket.store.uploads("").await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_part_of_the_new_backup_goes_before_it_is_written() {
    let bucket = Bucket::new().await;
    let (of, disk) = (snapshot("disk:snap"), noise(12));
    let keys = Keys::new(PREFIX, &of);
    // a backup that was never finished, cut otherwise, without its last segment, with a stray object
    bucket.lay(&keys, &disk, &[MIB, 5 * MIB]).await;
    bucket.store.delete(keys.peinfo()).await.unwrap();
    bucket.store.delete(&format!("{}/000002-{:016}", keys.data(), 5 * MIB)).await.unwrap();
    bucket.put(&format!("{}/notes", keys.data()), "x").await;
    let tree = tree(&bucket.store, &[PREFIX]);
    assert!(tree.open(&of).await.unwrap().is_none());
    let writer = tree.writer(&of, described(&disk), CUT).await.unwrap();
    let description = format!("{}/000000-0000000000000000", keys.description());
    assert_eq!(bucket.keys().await, [description], "it is written anew at the end");
    assert_eq!(fill_all(&writer, &disk).await, [2, 1]);
    assert!(writer.commit().await.unwrap().read(ByteRange::new(0, 12 << 20)).await.unwrap() == disk);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_backup_leaves_nothing() {
    let bucket = Bucket::new().await;
    let (of, disk) = (snapshot("disk:snap"), noise(22));
    let tree = tree(&bucket.store, &[PREFIX]);
    let writer = tree.writer(&of, described(&disk), CUT).await.unwrap();
    fill(writer.open(0).await.unwrap().unwrap(), &disk).await;
    let second = writer.open(1).await.unwrap().unwrap();
    let (number, range) = second.missing()[0];
    second.put(number, part(&disk, range)).await.unwrap();
    assert_eq!(tree.delete(&of).await.unwrap(), Removed { objects: 1, uploads: 1 });
    assert!(bucket.keys().await.is_empty() && bucket.store.uploads("").await.unwrap().is_empty());
}

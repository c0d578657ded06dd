//! Tags that are added to a restore point: it stays what it is, and no reader ever misses it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use disk::DiskSnapshot;
use repository::store::{ErrorKind as StoreError, Fault, FaultyStore, Operation};
use repository::{NewRestorePoint, Repository, RestorePoint, WriterOptions};

use crate::judge::{MIB, Place, TestDisk, password};

fn identity() -> DiskSnapshot {
    "2b6d0f5e-1c3a:c9f1d7aa-60b2".parse().unwrap()
}

/// A restore point of a disk snapshot.
async fn backed_up(repository: &Repository) -> RestorePoint {
    let disk = TestDisk::random(MIB, 1);
    let mut point: NewRestorePoint = disk.point();
    point.disk.snapshot = Some(identity());
    let writer = repository.writer(point, WriterOptions::default()).await.unwrap();
    disk.put_into(&writer).await.unwrap();
    writer.commit().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tagged_restore_point_is_the_same_and_restic_sees_the_tag() {
    let place = Place::new();
    let repository = place.initialised().await;
    let point = backed_up(&repository).await;
    place.restic().run(&["tag", "--add", "keep", &point.id.to_string()]); // which notes the original's id in the file
    let before = repository.points_of(&identity().disk).await.unwrap().pop().unwrap();
    repository.tag(&before.id, &[("tracking", "doubted"), ("untrue-tracking", "5205")]).await.unwrap();
    let points = repository.points_of(&identity().disk).await.unwrap();
    let [after] = &points[..] else { panic!("one restore point, not {points:?}") };
    assert_eq!((after.identity(), after.time, &after.path), (Some(identity()), point.time, &point.path));
    assert_eq!((after.tags["tracking"].as_str(), after.tags["keep"].as_str()), ("doubted", ""));
    TestDisk::random(MIB, 1).assert_is_read(&repository.reader(&after.id).await.unwrap()).await;
    let shown = place.restic().content(&["snapshots", "--json", "--tag", "tracking=doubted"]);
    assert!(shown.contains(&after.id.to_string()) && shown.contains("\"original\""), "{shown}");
    place.restic().check();

    repository.tag(&after.id, &[("tracking", "doubted")]).await.unwrap();
    assert_eq!(repository.points_of(&identity().disk).await.unwrap()[0].id, after.id, "it has that tag");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_looks_while_tags_are_added_finds_the_restore_point() {
    let place = Place::new();
    let repository = place.initialised().await;
    let mut id = backed_up(&repository).await.id;
    let over = Arc::new(AtomicBool::new(false));
    let reading = {
        let (over, other) = (over.clone(), repository::open(place.store(), &password()).await.unwrap());
        tokio::spawn(async move {
            let mut looks = 0;
            while !over.load(Ordering::Relaxed) {
                assert!(other.find_readable(&identity()).await.unwrap().is_some(), "look {looks} missed it");
                assert!(other.reader_of(&identity()).await.unwrap().is_some(), "look {looks} could not open it");
                looks += 1;
            }
            looks
        })
    };
    for number in 0..100 {
        repository.tag(&id, &[("round", &number.to_string())]).await.unwrap();
        id = repository.points_of(&identity().disk).await.unwrap().pop().unwrap().id;
    }
    over.store(true, Ordering::Relaxed);
    assert!(reading.await.unwrap() > 0);
    assert_eq!(place.objects("snapshots").len(), 1, "snapshot files are left");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_point_that_cannot_be_tagged_stays_as_it_is() {
    let place = Place::new();
    let store = FaultyStore::new(place.store());
    let repository = repository::initialise(Arc::new(store.clone()), &password()).await.unwrap();
    let point = backed_up(&repository).await;
    store.fail(Fault::always(Operation::Put, "snapshots/", StoreError::Unreachable));
    repository.tag(&point.id, &[("tracking", "doubted")]).await.unwrap_err();
    let fresh = place.initialised().await;
    assert_eq!(fresh.points_of(&identity().disk).await.unwrap()[0].id, point.id);

    repository.forget(&point.id).await.unwrap();
    fresh.tag(&point.id, &[("tracking", "doubted")]).await.unwrap();
    assert!(place.objects("snapshots").is_empty(), "what was deleted came back");
}

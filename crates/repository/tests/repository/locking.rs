//! Locks keep other programs away, and theirs keep us.

use std::sync::Arc;

use repository::ErrorKind;
use repository::store::{ErrorKind as StoreError, Fault, FaultyStore, Operation};

use crate::judge::{MIB, Place, TestDisk, password};

#[tokio::test(flavor = "multi_thread")]
async fn restic_cannot_prune_while_a_transfer_holds_its_lock() {
    let place = Place::new();
    let repository = place.initialised().await;
    TestDisk::random(MIB, 1).back_up(&repository).await.unwrap();
    let lock = repository.lock("upload-1").await.unwrap();
    assert_eq!(lock.skipped(), None);
    let prune = place.restic().run(&["prune"]);
    assert!(!prune.status.success());
    let said = String::from_utf8_lossy(&prune.stderr).into_owned();
    assert!(said.contains("already locked") && said.contains("upload-1") && said.contains("vsphere-backup"), "{said}");
    let beside = repository.lock("upload-2").await.unwrap(); // transfers do not keep each other away
    beside.release().await.unwrap();
    lock.release().await.unwrap();
    assert!(place.objects("locks").is_empty());
    place.restic().content(&["prune"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_lock_goes_away_too() {
    let place = Place::new();
    let repository = place.initialised().await;
    drop(repository.lock("upload-1").await.unwrap());
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !place.objects("locks").is_empty() {
        assert!(std::time::Instant::now() < deadline);
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn we_give_way_to_a_restic_that_has_the_repository_to_itself() {
    let place = Place::new();
    let repository = place.initialised().await;
    TestDisk::random(MIB, 2).back_up(&repository).await.unwrap();
    // a restic that was stopped in the middle of a prune: its exclusive lock is fresh, whatever its process does
    let lock = exclusive_lock_of_restic(&place);
    let error = repository.lock("upload-1").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked);
    assert_eq!(place.objects("locks").len(), 1, "only restic's is there: {error}");
    std::fs::remove_file(lock).unwrap();
    repository.lock("upload-1").await.unwrap().release().await.unwrap();
}

/// Stops a `restic prune` while it holds its lock, and ends it with the lock left behind.
fn exclusive_lock_of_restic(place: &Place) -> std::path::PathBuf {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    loop {
        let mut prune = place.restic().command(&["prune"]);
        let mut child = prune.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap();
        while child.try_wait().unwrap().is_none() {
            if let [lock] = &place.objects("locks")[..] {
                // restic writes under another name and renames
                if lock.file_name().unwrap().len() == 64 {
                    child.kill().unwrap();
                    child.wait().unwrap();
                    if lock.exists() {
                        return lock.clone();
                    }
                }
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        assert!(std::time::Instant::now() < deadline, "never saw restic's lock");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn locks_that_a_dead_worker_left_are_removed_by_name() {
    let place = Place::new();
    let repository = place.initialised().await;
    std::mem::forget(repository.lock("upload-1").await.unwrap());
    std::mem::forget(repository.lock("upload-2").await.unwrap());
    assert_eq!(repository.remove_locks_of("upload-1").await.unwrap(), 1);
    assert_eq!(place.objects("locks").len(), 1);
    assert_eq!(repository.remove_locks_of("upload-1").await.unwrap(), 0);
}

/// The time is the test's own: it goes on when everybody waits.
#[tokio::test(start_paused = true)]
async fn a_lock_that_could_not_be_removed_goes_once_the_store_is_there_again() {
    let place = Place::new();
    place.initialised().await;
    let seconds = std::time::Duration::from_secs;
    let away = Fault::always(Operation::Delete, "locks/", StoreError::Unreachable).after(1);
    let lost = Fault::always(Operation::Put, "locks/", StoreError::Unreachable).done_anyway();
    let cases = [
        ("unlocked while the store was away", away.clone(), false),
        ("dropped while the store was away", away, true),
        ("written, and the answer was lost", lost.clone(), false),
        ("written after it was removed", lost, true),
    ];
    for (what, fault, late) in cases {
        let store = FaultyStore::new(place.store());
        let repository = repository::open(Arc::new(store.clone()), &password()).await.unwrap();
        store.fail(fault);
        let written = repository.lock_to_read("download-1").await;
        let refused = written.is_err();
        match written {
            Ok(lock) if late => {
                drop(lock);
                let refused = async {
                    while store.struck() == 0 {
                        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                    }
                };
                tokio::time::timeout(seconds(10), refused).await.expect(what);
            }
            Ok(lock) => drop(lock.release().await.expect_err(what)),
            Err(_) => {}
        }
        let [lock] = &place.objects("locks")[..] else { panic!("{what}: it is not there") };
        store.heal();
        if refused && late {
            let content = std::fs::read(lock).unwrap();
            let gone = async {
                while lock.exists() {
                    tokio::time::sleep(seconds(1)).await;
                }
            };
            tokio::time::timeout(seconds(20), gone).await.expect(what);
            std::fs::write(lock, content).unwrap(); // the request that was given up arrives
        }
        let gone = async {
            while !place.objects("locks").is_empty() {
                tokio::time::sleep(seconds(1)).await;
            }
        };
        tokio::time::timeout(seconds(60), gone).await.expect(what);
    }
}

/// Whoever waits for a lock may be stopped in the middle of it: the lock would keep restic's `prune` away for half an hour.
#[tokio::test(start_paused = true)]
async fn a_lock_that_nobody_waited_for_any_more_goes_too() {
    let place = Place::new();
    place.initialised().await;
    let seconds = std::time::Duration::from_secs;
    let store = FaultyStore::new(place.store());
    let repository = repository::open(Arc::new(store.clone()), &password()).await.unwrap();
    store.fail(Fault::always(Operation::Put, "locks/", StoreError::Unreachable).done_anyway().silent());
    let waited = tokio::time::timeout(seconds(5), repository.lock("upload-1")).await;
    assert!(waited.is_err(), "the store does not answer");
    assert_eq!(place.objects("locks").len(), 1, "it was written all the same");
    store.heal();
    let gone = async {
        while !place.objects("locks").is_empty() {
            tokio::time::sleep(seconds(1)).await;
        }
    };
    tokio::time::timeout(seconds(60), gone).await.expect("it stays");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_key_that_may_not_delete_is_enough_for_a_backup() {
    let place = Place::new();
    place.initialised().await;
    let store = FaultyStore::new(place.store());
    store.fail(Fault::always(Operation::Delete, "", StoreError::AccessDenied));
    let repository = repository::open(Arc::new(store), &password()).await.unwrap();
    let lock = repository.lock("upload-1").await.unwrap();
    assert!(lock.skipped().unwrap().contains("not delete"), "{:?}", lock.skipped());
    assert!(place.objects("locks").is_empty(), "a lock that cannot be removed is not written");
    TestDisk::random(MIB, 3).back_up(&repository).await.unwrap();
    lock.release().await.unwrap();
    place.restic().check();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_full_gives_back_what_it_holds() {
    let place = Place::new();
    let disk = TestDisk::random(MIB, 4);
    let point = disk.back_up(&place.initialised().await).await.unwrap();
    for (operation, kind) in [
        (Operation::Put, StoreError::Failed),          // full, or over a quota
        (Operation::Put, StoreError::AccessDenied),    // a key that only reads
        (Operation::Delete, StoreError::AccessDenied), // a read-only file system
        (Operation::Delete, StoreError::Failed),
    ] {
        let store = FaultyStore::new(place.store());
        store.fail(Fault::always(operation, "", kind));
        let repository = repository::open(Arc::new(store), &password()).await.unwrap();
        let lock = repository.lock_to_read("download-1").await.unwrap();
        assert!(lock.skipped().unwrap().contains("a fault on purpose"), "the cause is told: {:?}", lock.skipped());
        disk.assert_is_read(&repository.reader(&point.id).await.unwrap()).await;
        lock.release().await.unwrap();
        assert!(place.objects("locks").is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_not_begun_where_nothing_can_be_written() {
    let place = Place::new();
    place.initialised().await;
    let store = FaultyStore::new(place.store());
    store.fail(Fault::always(Operation::Put, "", StoreError::Failed));
    let repository = repository::open(Arc::new(store), &password()).await.unwrap();
    assert_eq!(repository.lock("upload-1").await.unwrap_err().kind(), ErrorKind::StoreFailed);
    assert!(place.objects("locks").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_away_is_waited_for_rather_than_read_without_a_lock() {
    let place = Place::new();
    place.initialised().await;
    let store = FaultyStore::new(place.store());
    store.fail(Fault::always(Operation::Put, "", StoreError::Unreachable));
    let repository = repository::open(Arc::new(store), &password()).await.unwrap();
    assert_eq!(repository.lock_to_read("download-1").await.unwrap_err().kind(), ErrorKind::Unreachable);
}

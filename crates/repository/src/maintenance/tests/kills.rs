//! A run that is killed between any two writes leaves every restore point whole, and the next one ends its work.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::world::{assert_restic_agrees, assert_whole, back_up, lost_packs, maintain, with_garbage};
use crate::error::{Error, ErrorKind};
use crate::maintenance::GRACE;
use crate::store::{ErrorKind as StoreError, Fault, FaultyStore, Operation};

const NOW: Duration = Duration::ZERO;
/// restic judges every so many histories.
const SAMPLE: usize = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_killed_between_any_two_writes_loses_nothing_and_the_next_one_frees_the_space() {
    // `aabc` shares its first pack's `a` with nobody; `bcd` keeps what it has of `b` and `c`
    let (base, repository) = with_garbage("bcd", "aefg").await;
    let now = Timestamp::now();
    let later = now + SignedDuration::try_from(GRACE).unwrap();
    maintain(&repository, GRACE, now).await.unwrap();

    let whole = FaultyStore::new(Arc::new(base.fork()));
    let report = maintain(&repository.over(Arc::new(whole.clone())), GRACE, later).await.unwrap();
    assert!(report.packs_removed >= 3 && report.index_files_replaced >= 1 && report.bytes_removed > 0, "{report:?}");
    assert_eq!(report.next_due, None);
    let writes = whole.writes();
    assert!(writes >= 12, "{writes}");
    for survived in 0..writes {
        let memory = base.fork();
        let store = FaultyStore::new(Arc::new(memory.clone()));
        store.die_after_writes(survived);
        let killed = maintain(&repository.over(Arc::new(store)), GRACE, later).await;
        let history = format!("killed after {survived} writes");
        assert!(killed.is_err() || survived + 1 == writes, "{history}: {killed:?}");
        assert_whole(&memory, &repository, &["bcd"]).await.expect(&history);
        assert_eq!(lost_packs(&memory, &repository).await, [], "{history}");
        if survived % SAMPLE == 0 {
            assert_restic_agrees(&memory);
        }
        // a backup finds its way, whatever the dead run said it would remove
        let beside = memory.fork();
        back_up(&repository.over(Arc::new(beside.clone())), "aefh").await.unwrap();
        assert_whole(&beside, &repository, &["bcd", "aefh"]).await.expect(&history);

        for lock in memory.keys("locks/") {
            crate::store::Store::delete(&memory, &lock).await.unwrap(); // stale after half an hour
        }
        maintain(&repository.over(Arc::new(memory.clone())), GRACE, later).await.expect(&history);
        assert_whole(&memory, &repository, &["bcd"]).await.expect(&history);
        assert_eq!(memory.keys("data/").len(), 2, "{history}: a pack of data and one of trees are needed");
        assert_eq!(memory.keys("maintenance/"), Vec::<String>::new(), "{history}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pack_goes_only_when_nobody_has_needed_it_for_the_grace() {
    let (memory, repository) = with_garbage("bcd", "aefg").await;
    let packs = memory.keys("data/").len();
    let start = Timestamp::now();
    let at = |hours: i64| start + SignedDuration::from_hours(hours);
    let first = maintain(&repository, GRACE, at(0)).await.unwrap();
    assert_eq!((first.packs_removed, first.index_files_replaced), (0, 0));
    assert_eq!(first.next_due, Some(at(72)), "{first:?}");
    assert!(first.packs_unused > 0);
    let second = maintain(&repository, GRACE, at(71)).await.unwrap();
    assert_eq!((second.packs_removed, second.next_due), (0, Some(at(72))));
    assert_eq!(memory.keys("data/").len(), packs);
    assert_restic_agrees(&memory); // marks are nothing to it

    // what is needed again is not marked any more
    let again = back_up(&repository, "aefg").await.unwrap();
    let third = maintain(&repository, GRACE, at(73)).await.unwrap();
    assert!(third.packs_unused < second.packs_unused, "{third:?}");
    assert_whole(&memory, &repository, &["bcd", "aefg"]).await.unwrap();
    repository.forget(&again.id).await.unwrap();
    let fourth = maintain(&repository, GRACE, at(74)).await.unwrap();
    assert_eq!((fourth.packs_removed, fourth.next_due), (0, Some(at(74 + 72))), "the grace begins anew");
    maintain(&repository, GRACE, at(74 + 72)).await.unwrap();
    assert_eq!(memory.keys("data/").len(), 2);
    assert_restic_agrees(&memory);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_may_not_delete_frees_nothing_and_says_so() {
    for key in ["", "data/", "index/", "maintenance/"] {
        let (memory, repository) = with_garbage("bcd", "aefg").await;
        let before = memory.keys("");
        let store = FaultyStore::new(Arc::new(memory.clone()));
        store.fail(Fault::always(Operation::Delete, key, StoreError::AccessDenied));
        let error = maintain(&repository.over(Arc::new(store)), NOW, Timestamp::now()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AccessDenied);
        assert!(error.to_string().contains("may not delete"), "{error}");
        assert_eq!(memory.keys(""), before, "not even a lock or a mark is left");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_goes_while_one_restore_point_cannot_be_read() {
    let (memory, repository) = with_garbage("bcd", "aefg").await;
    let broken = memory.fork();
    for index in broken.keys("index/") {
        crate::store::Store::delete(&broken, &index).await.unwrap(); // now nobody knows where its trees are
    }
    let before = broken.keys("data/");
    let error = maintain(&repository.over(Arc::new(broken.clone())), NOW, Timestamp::now()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
    assert!(error.to_string().contains("read snapshot"), "{error}");
    assert_eq!(broken.keys("data/"), before);
    assert_eq!(broken.keys("maintenance/"), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_grace_must_be_allowed_and_waits_for_transfers_with_a_deadline() {
    let (memory, repository) = with_garbage("bcd", "aefg").await;
    let options = crate::MaintenanceOptions { grace: NOW, ..crate::MaintenanceOptions::default() };
    let cancel = tokio_util::sync::CancellationToken::new();
    assert_eq!(repository.maintain(&options, &cancel).await.unwrap_err().kind(), ErrorKind::InvalidUse);

    let transfer = repository.lock("upload-1").await.unwrap();
    let options = crate::MaintenanceOptions { allow_short_grace: true, patience: NOW, ..options };
    let error = repository.maintain(&options, &cancel).await.unwrap_err();
    assert!(matches!(&error, Error::Locked { by, .. } if by.contains("upload-1")), "{error}");
    assert_eq!(memory.keys("locks/").len(), 1, "our own is gone, that of the transfer stays");
    repository.maintain(&crate::MaintenanceOptions::default(), &cancel).await.unwrap(); // a long one does not wait

    let patient = crate::MaintenanceOptions { patience: Duration::from_secs(60), ..options };
    let (maintained, released) = tokio::join!(repository.maintain(&patient, &cancel), transfer.release());
    released.unwrap();
    assert!(maintained.unwrap().packs_removed > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_runs_do_not_work_at_the_same_time() {
    let (_memory, repository) = with_garbage("bcd", "aefg").await;
    let lock = crate::lock::Lock::take_exclusive(repository.clone(), "driver").await.unwrap();
    let error = maintain(&repository, NOW, Timestamp::now()).await.unwrap_err();
    assert!(matches!(&error, Error::Locked { by, exclusive: true, .. } if by.contains("driver")), "{error}");
    repository.lock("upload-1").await.unwrap().release().await.unwrap(); // transfers do not mind
    lock.release().await.unwrap();
    maintain(&repository, NOW, Timestamp::now()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dry_run_says_what_would_go_and_touches_nothing() {
    let (memory, repository) = with_garbage("bcd", "aefg").await;
    let before = memory.keys("");
    let store = FaultyStore::new(Arc::new(memory.clone()));
    for operation in [Operation::Put, Operation::Delete] {
        store.fail(Fault::always(operation, "", StoreError::AccessDenied));
    }
    let options = crate::MaintenanceOptions {
        grace: NOW,
        allow_short_grace: true,
        dry_run: true,
        ..crate::MaintenanceOptions::default()
    };
    let cancel = tokio_util::sync::CancellationToken::new();
    let plan = repository.over(Arc::new(store)).maintain(&options, &cancel).await.unwrap();
    assert_eq!(memory.keys(""), before);
    let done = maintain(&repository, NOW, Timestamp::now()).await.unwrap();
    assert_eq!((plan.packs_removed, plan.bytes_removed), (done.packs_removed, done.bytes_removed));
}

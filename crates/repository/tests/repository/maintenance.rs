//! Space comes back, in a folder and in a bucket, and restic agrees before, between and after.

use std::sync::Arc;
use std::time::Duration;

use repository::store::{ErrorKind as StoreError, Fault, FaultyStore, Operation, S3Store, Store};
use repository::{ErrorKind, MaintenanceOptions, Report, Repository};
use tokio_util::sync::CancellationToken;

use crate::judge::{MIB, Place, Restic, TestDisk, password};
use crate::versitygw::Versitygw;

async fn free_all(repository: &Repository) -> Result<Report, repository::Error> {
    let options =
        MaintenanceOptions { grace: Duration::ZERO, allow_short_grace: true, ..MaintenanceOptions::default() };
    repository.maintain(&options, &CancellationToken::new()).await
}

async fn bytes(store: &dyn Store) -> u64 {
    store.list("data/").await.unwrap().iter().map(|object| object.size).sum()
}

/// Backs two disks up, deletes one restore point, and looks what is left.
async fn shrinks(store: Arc<dyn Store>, restic: &Restic) {
    let repository = repository::initialise(store.clone(), &password()).await.unwrap();
    let (kept, gone) = (TestDisk::random(6 * MIB, 1), TestDisk::random(20 * MIB, 2));
    let kept_point = kept.back_up(&repository).await.unwrap();
    let small = bytes(store.as_ref()).await;
    let gone_point = gone.back_up(&repository).await.unwrap();
    repository.forget(&gone_point.id).await.unwrap();

    repository.maintain(&MaintenanceOptions::default(), &CancellationToken::new()).await.unwrap();
    assert!(bytes(store.as_ref()).await > small + 20 * MIB, "not before the grace");
    restic.check();
    let report = free_all(&repository).await.unwrap();
    assert!(report.bytes_removed > 20 * MIB, "{report:?}");
    assert_eq!(bytes(store.as_ref()).await, small);
    restic.check();
    assert_eq!(store.list("maintenance/").await.unwrap(), [], "nothing is left to remember");
    let fresh = repository::open(store, &password()).await.unwrap();
    kept.assert_is_read(&fresh.reader(&kept_point.id).await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_shrinks_after_a_restore_point_is_deleted() {
    let place = Place::new();
    shrinks(place.store(), &place.restic()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_shrinks_after_a_restore_point_is_deleted() {
    let server = Versitygw::start();
    let store = Arc::new(S3Store::new(server.options("a/prefix")).await.unwrap());
    let (repository, environment) = server.restic("a/prefix");
    shrinks(store, &Restic { repository, environment }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_restic_backed_up_beside_us_stays_and_its_prune_between_our_runs_does_no_harm() {
    let place = Place::new();
    let repository = place.initialised().await;
    let (kept, gone) = (TestDisk::random(3 * MIB, 3), TestDisk::random(5 * MIB, 4));
    let point = kept.back_up(&repository).await.unwrap();
    let deleted = gone.back_up(&repository).await.unwrap();
    let file = place.file("a \"file\" of restic");
    std::fs::write(&file, crate::judge::noise(MIB, 5)).unwrap();
    place.restic().content(&["backup", &file.display().to_string()]);
    repository.forget(&deleted.id).await.unwrap();

    repository.maintain(&MaintenanceOptions::default(), &CancellationToken::new()).await.unwrap(); // marks
    place.restic().content(&["prune", "--max-unused", "0"]); // and restic is faster
    let report = free_all(&repository).await.unwrap();
    assert_eq!(report.snapshots, 2, "restic's is one of them");
    place.restic().content(&[
        "restore",
        "latest",
        "--path",
        &file.display().to_string(),
        "--target",
        &place.file("back").display().to_string(),
    ]);
    place.restic().check();
    kept.assert_is_read(&repository.reader(&point.id).await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn we_keep_away_while_restic_is_at_work() {
    let place = Place::new();
    let repository = place.initialised().await;
    // restic reads its input to the end before it unlocks; the input does not end
    let mut restic = place.restic().command(&["backup", "--stdin"]);
    let mut child = restic
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while !place.objects("locks").iter().any(|lock| lock.file_name().unwrap().len() == 64) {
        assert!(std::time::Instant::now() < deadline, "restic takes no lock");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let error = free_all(&repository).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked, "{error}");
    assert_eq!(place.objects("locks").len(), 1, "only restic's is there");
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"some data, as restic refuses none").unwrap();
    assert!(child.wait().unwrap().success());
    free_all(&repository).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_with_a_key_that_may_only_add_asks_for_its_packs_once_more() {
    let place = Place::new();
    place.initialised().await;
    let store = FaultyStore::new(place.store());
    store.fail(Fault::always(Operation::Delete, "locks/", StoreError::AccessDenied));
    // the second question about each of the two packs finds nothing: someone who saw no lock has removed them
    store.fail(Fault::always(Operation::Size, "data/", StoreError::Failed).after(2).times(2));
    let repository = repository::open(Arc::new(store), &password()).await.unwrap();
    let lock = repository.lock("upload-1").await.unwrap();
    assert!(lock.skipped().is_some());
    let error = TestDisk::random(MIB, 6).back_up(&repository).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StoreFailed, "{error}");
    assert!(place.objects("snapshots").is_empty(), "unproven, so it does not stay");
}

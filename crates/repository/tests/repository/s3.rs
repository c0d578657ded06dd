//! The same through a real S3 server, with restic on the other side of it.

use std::sync::Arc;

use repository::store::{S3Store, Store};
use repository::{ErrorKind, Repository};

use crate::judge::{MIB, Place, Restic, TestDisk, noise, password};
use crate::versitygw::Versitygw;

async fn store(server: &Versitygw, prefix: &str) -> Arc<dyn Store> {
    Arc::new(S3Store::new(server.options(prefix)).await.unwrap())
}

fn restic(server: &Versitygw, prefix: &str) -> Restic {
    let (repository, environment) = server.restic(prefix);
    Restic { repository, environment }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_comes_back_from_a_bucket_also_by_restic() {
    const PREFIX: &str = "plugins/vsphere-restic-repo/namespace";
    let (server, place) = (Versitygw::start(), Place::new());
    let repository = repository::initialise(store(&server, PREFIX).await, &password()).await.unwrap();
    let disk = TestDisk::random(70 * MIB, 1).with(20 * MIB, vec![0; 30 * MIB as usize]).with(69 * MIB, noise(MIB, 2));
    let point = disk.back_up(&repository).await.unwrap();
    disk.assert_is_read(&repository.reader(&point.id).await.unwrap()).await;
    restic(&server, PREFIX).check();
    let file = place.file("disk.raw");
    restic(&server, PREFIX).dump(&point.id.to_string(), &file);
    disk.assert_is_file(&file);
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_first_backups_at_once_in_a_bucket_end_in_one_sound_repository() {
    let server = Versitygw::start();
    let mut makers = Vec::new();
    for _ in 0..20 {
        let store = store(&server, "x").await;
        makers.push(tokio::spawn(async move { repository::initialise(store, &password()).await }));
    }
    let mut made: Vec<Repository> = Vec::new();
    for maker in makers {
        made.push(maker.await.unwrap().unwrap());
    }
    assert!(made.iter().all(|repository| repository.id() == made[0].id()));
    TestDisk::random(MIB, 3).back_up(&made[4]).await.unwrap();
    repository::initialise(store(&server, "x").await, &password()).await.unwrap();
    restic(&server, "x").check();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_whose_store_goes_away_in_the_middle_fails_as_unreachable() {
    let mut server = Versitygw::start();
    let mut options = server.options("");
    options.attempts = 2;
    let store: Arc<dyn Store> = Arc::new(S3Store::new(options).await.unwrap());
    let repository = repository::initialise(store, &password()).await.unwrap();
    let disk = TestDisk::random(40 * MIB, 4);
    let writer = repository.writer(disk.point(), repository::WriterOptions::default()).await.unwrap();
    let bytes = disk.chunk(0, writer.chunk_size()).unwrap();
    writer.put_chunk(0, bytes).await.unwrap();
    server.kill();
    let mut failed = None;
    for index in 1..writer.chunk_count() {
        let range = writer.chunk_range(index);
        if let Err(error) = writer.put_chunk(index, disk.chunk(range.offset, range.length).unwrap()).await {
            failed = Some(error);
            break;
        }
    }
    let error = match failed {
        Some(error) => error,
        None => writer.commit().await.unwrap_err(),
    };
    assert_eq!(error.kind(), ErrorKind::Unreachable, "{error}");
    assert!(!server.bucket().join("snapshots").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_comes_back_through_a_private_certificate() {
    let server = Versitygw::start_with_tls();
    let repository = repository::initialise(store(&server, "x").await, &password()).await.unwrap();
    let disk = TestDisk::random(18 * MIB, 5);
    let point = disk.back_up(&repository).await.unwrap();
    disk.assert_is_read(&repository.reader(&point.id).await.unwrap()).await;
}

//! What a small disk asks of the store once its repository is open: what a user would lose is the night in which a thousand of them
//! wait for one answer after the other.

use crate::bucket::Bucket;
use crate::judge::{MIB, TestDisk};
use crate::versitygw::Versitygw;

#[tokio::test(flavor = "multi_thread")]
async fn a_small_disk_after_others_asks_the_store_for_little() {
    let server = Versitygw::start();
    let bucket = Bucket::new(&server, "few").await;
    let repository = bucket.initialised().await.unwrap();
    let other = repository.lock("upload-1").await.unwrap();
    TestDisk::random(2 * MIB, 71).back_up(&repository).await.unwrap();

    bucket.line.heal(); // which forgets what was asked so far
    let lock = repository.lock("upload-2").await.unwrap();
    let disk = TestDisk::random(2 * MIB, 72);
    let point = disk.back_up(&repository).await.unwrap();
    lock.release().await.unwrap();
    assert_eq!(repository.restore_points().await.unwrap().len(), 2);

    let asked = |part: &str| bucket.line.tries("GET", part).into_iter().sum::<usize>();
    assert_eq!(asked("few%2Findex%2F"), 2, "listings of the index: before the commit and after it");
    assert_eq!(asked("few%2Fsnapshots%2F"), 1, "listings of the restore points, by us");
    assert_eq!(asked("/few/data/"), 2, "ends of packs that were read back: one of trees, one of data");
    assert_eq!(asked("/few/snapshots/"), 1, "the snapshot file is read back, and not once more");
    assert_eq!(asked("/few/locks/"), 0, "locks that were known");
    other.release().await.unwrap();

    let fresh = bucket.opened().await;
    bucket.line.heal();
    let reader = fresh.reader(&point.id).await.unwrap();
    assert_eq!(asked("/few/data/"), 2, "the same to open it for a restore");
    disk.assert_is_read(&reader).await;
    bucket.restic().check();
}

/// What one writer adds while the other lists has not vanished; else all index files would be read anew, a thousand of them.
#[tokio::test(flavor = "multi_thread")]
async fn writers_side_by_side_do_not_read_the_index_files_of_their_own_process() {
    let server = Versitygw::start();
    let bucket = Bucket::new(&server, "beside").await;
    let repository = bucket.initialised().await.unwrap();
    let lock = repository.lock("upload-1").await.unwrap();
    let back_up = async |seeds: std::ops::Range<u64>| {
        for seed in seeds {
            TestDisk::random(MIB, seed).back_up(&repository).await.unwrap();
        }
    };
    tokio::join!(back_up(100..120), back_up(200..220), back_up(300..320));
    let read: usize = bucket.line.tries("GET", "/beside/index/").into_iter().sum();
    // of 60 and more; one that another lists before the writer has heard that it is stored is read, as a stranger's would be
    assert!(read <= 5, "{read} index files were read though this process wrote them");
    lock.release().await.unwrap();
    assert_eq!(repository.restore_points().await.unwrap().len(), 60);
    bucket.restic().check();
}

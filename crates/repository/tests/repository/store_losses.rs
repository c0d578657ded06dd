//! A bucket that said it had an object, and has not: no restore point counts without what it needs, and what is lost later is
//! named.

use std::time::Duration;

use futures::future::join_all;
use repository::{Error, ErrorKind, MaintenanceOptions, Repository, RestorePoint, WriterOptions};
use tokio_util::sync::CancellationToken;

use crate::bucket::{Bucket, fine};
use crate::damage::{chain, examined};
use crate::judge::{MIB, TestDisk, noise};
use crate::line::{Rule, Trouble};
use crate::versitygw::Versitygw;

/// As a transfer does it: what vanished is sent again.
async fn back_up(disk: &TestDisk, repository: &Repository) -> Result<RestorePoint, Error> {
    let writer = repository.writer(disk.point(), WriterOptions::default()).await?;
    disk.put_into(&writer).await?;
    for _ in 0..3 {
        match writer.commit().await {
            Err(Error::SendAgain { chunks }) => {
                for index in chunks {
                    let range = writer.chunk_range(index);
                    writer.put_chunk(index, disk.chunk(range.offset, range.length).unwrap()).await?;
                }
            }
            outcome => return outcome,
        }
    }
    writer.commit().await
}

#[tokio::test(flavor = "multi_thread")]
async fn whichever_object_the_bucket_takes_and_loses_no_restore_point_is_without_it() {
    let server = Versitygw::start();
    let whole = loses(&server, usize::MAX).await;
    assert!(whole >= 6, "a key, config, a pack of data, one of trees, an index and a snapshot file: {whole}");
    join_all((0..whole).map(|number| loses(&server, number))).await;
}

/// Makes a repository and a backup, of which the bucket loses one object; gives the number of objects that were put.
async fn loses(server: &Versitygw, number: usize) -> usize {
    let bucket = Bucket::new(server, format!("loses-{number}")).await;
    bucket.line.trouble(Rule::always(Trouble::LoseObject).of("PUT", "").after(number).once());
    let disk = TestDisk::random(5 * MIB, 41);
    let first = async {
        let repository = bucket.initialised().await?;
        back_up(&disk, &repository).await
    };
    let first = first.await;
    let put = bucket.line.tries("PUT", "").len();
    let struck = bucket.line.struck("PUT", "");
    assert_eq!(struck, usize::from(number != usize::MAX), "object {number} was not lost");
    if let Err(error) = &first {
        assert!(error.may_pass() || error.kind() == ErrorKind::Damaged, "object {number}: {}", chain(error));
    }

    // what was lost shows to the next one, and does not stop him
    let when = format!("object {number} was lost");
    let repository = fine(bucket.initialised().await, &when);
    let again = TestDisk::random(5 * MIB, 41).with(4 * MIB, noise(MIB, 42));
    let second = fine(back_up(&again, &repository).await, &when);
    let fresh = bucket.opened().await;
    if let Ok(first) = &first {
        disk.assert_is_read(&fine(fresh.reader(&first.id).await, &when)).await;
    }
    again.assert_is_read(&fine(fresh.reader(&second.id).await, &when)).await;
    let points = fresh.restore_points().await.unwrap();
    assert_eq!(points.len(), usize::from(first.is_ok()) + 1, "object {number}");

    // an index may list a pack that was lost, until the next maintenance run
    let now = MaintenanceOptions { grace: Duration::ZERO, allow_short_grace: true, ..MaintenanceOptions::default() };
    fine(fresh.maintain(&now, &CancellationToken::new()).await, &when);
    bucket.restic().check();
    put
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pack_that_the_bucket_loses_later_is_named_with_the_bytes_of_the_disk_that_it_costs() {
    let server = Versitygw::start();
    let bucket = Bucket::new(&server, "later").await;
    let repository = bucket.initialised().await.unwrap();
    let old = TestDisk::random(2 * MIB, 51);
    old.back_up(&repository).await.unwrap();
    let packs = bucket.objects("data/").await;
    let new = TestDisk { size: 4 * MIB, ..old }.with(2 * MIB, noise(2 * MIB, 52));
    let point = new.back_up(&repository).await.unwrap();
    let store = bucket.store().await;
    let mut sizes = store.list("data/").await.unwrap();
    sizes.retain(|object| packs.contains(&object.key));
    let lost = sizes.into_iter().max_by_key(|object| object.size).unwrap().key;
    store.delete(&lost).await.unwrap();

    let error = bucket.opened().await.reader(&point.id).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged, "{}", chain(&error));
    assert!(chain(&error).contains(&format!("object {lost} is missing")), "{}", chain(&error));
    let (missed, read, said) = examined(store, &point).await;
    assert_eq!((missed, read), ((0..4).collect(), (4..8).collect()), "{said}");
    assert!(said.contains(&lost), "{said}");
}

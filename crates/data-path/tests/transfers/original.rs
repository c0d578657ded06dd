//! Disks in the original's layout: onto a target that was just made, and onto one that holds something else.

use std::path::Path;
use std::time::Duration;

use astrolabe::{Address, Description, Keys, Peinfo, Tree};
use bytes::Bytes;
use data_path::{Disk, Progress, RestoreOptions, TargetContent};
use repository::store::{S3Store, Store as _};
use tokio_util::sync::CancellationToken;

use crate::MIB;
use crate::line::Line;
use crate::peers::{Server, random, raw_file, same};
use crate::versitygw::Versitygw;

const PREFIX: &str = "plugins/vsphere-astrolabe-repo";
const SNAPSHOT: &str = "disk:snap";

async fn bucket(server: &Versitygw) -> S3Store {
    S3Store::new(server.options("")).await.unwrap()
}

fn tree(store: &S3Store) -> Tree {
    let prefixes = vec![PREFIX.to_owned()];
    Tree::new(store.clone(), Address { bucket: "backups".to_owned(), host: String::new(), prefixes })
}

/// Lays a raw file there as the original would, cut at these bytes.
async fn lay(store: &S3Store, file: &Path, cuts: &[usize]) {
    let disk = Bytes::from(std::fs::read(file).unwrap());
    let keys = Keys::new(PREFIX, &SNAPSHOT.parse().unwrap());
    let borders: Vec<usize> = [0].into_iter().chain(cuts.iter().copied()).chain([disk.len()]).collect();
    for (number, border) in borders.windows(2).enumerate() {
        let key = format!("{}/{number:06}-{:016}", keys.data(), border[0]);
        store.put(&key, disk.slice(border[0]..border[1]).into()).await.unwrap();
    }
    let described = Description { capacity_mib: disk.len() as u64 / MIB, ..Description::default() };
    let key = format!("{}/000000-0000000000000000", keys.description());
    store.put(&key, Bytes::from(described.write()).into()).await.unwrap();
    let peinfo = Peinfo::new(&keys, "backups", "", "pvc-1").write();
    store.put(keys.peinfo(), Bytes::from(peinfo).into()).await.unwrap();
}

async fn restore(store: &S3Store, target: Disk, content: TargetContent) -> data_path::RestoreReport {
    let disk = tree(store).open(&SNAPSHOT.parse().unwrap()).await.unwrap().unwrap();
    let options = RestoreOptions { target: content, ..RestoreOptions::default() };
    data_path::restore(&disk, target, &options, &Progress::new(), &CancellationToken::new()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_of_the_original_comes_back_with_its_holes_whatever_the_target_held() {
    let (folder, server) = (tempfile::tempdir().unwrap(), Versitygw::start());
    let parts = [
        (0, random(700_000, 1)),
        (20 * MIB - 300, random(600, 2)), // over a cut that lies within a chunk
        (47 * MIB - 512, vec![9; 512]),
    ];
    let source = raw_file(folder.path(), "source", 47 * MIB, &parts);
    let store = bucket(&server).await;
    lay(&store, &source, &[(20 << 20) - 100, 30 << 20]).await;

    let fresh = raw_file(folder.path(), "fresh", 47 * MIB, &[]);
    let nbd = Server::qemu(&fresh);
    let report = restore(&store, nbd.disk().await, TargetContent::KnownZero).await;
    drop(nbd);
    assert!(same(&source, &fresh), "it came back differently");
    assert_eq!((report.counts.settled, report.counts.read), (47 * MIB, 47 * MIB));
    assert!(report.counts.stored <= 3 * MIB, "wrote {} bytes of a disk that holds few", report.counts.stored);

    let used = raw_file(folder.path(), "used", 48 * MIB, &[(0, random(48 << 20, 3))]);
    let tail = std::fs::read(&used).unwrap()[47 << 20..].to_vec();
    let nbd = Server::qemu(&used);
    restore(&store, nbd.disk().await, TargetContent::Unknown).await;
    drop(nbd);
    let (used, source) = (std::fs::read(&used).unwrap(), std::fs::read(&source).unwrap());
    assert!(used[..47 << 20] == source[..], "something of what was there shows through");
    assert!(used[47 << 20..] == tail[..], "what lies behind the disk was touched");
}

/// One request after the other, a disk of a terabyte would take days from a store that is far away.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_of_the_original_is_asked_for_in_several_pieces_at_a_time() {
    let (folder, server) = (tempfile::tempdir().unwrap(), Versitygw::start());
    let source = raw_file(folder.path(), "source", 32 * MIB, &[(0, random(32 << 20, 4))]);
    lay(&bucket(&server).await, &source, &[]).await;
    let mut options = server.options("");
    let line = Line::to(&format!("127.0.0.1:{}", options.endpoint.unwrap().port().unwrap())).await;
    options.endpoint = Some(line.url().parse().unwrap());
    options.read_timeout = Duration::from_secs(120); // longer than we wait: no request is held back and sent again
    let store = S3Store::new(options).await.unwrap();

    line.hold_until(4, "GET", "vsphere-astrolabe-repo/data/");
    let target = raw_file(folder.path(), "target", 32 * MIB, &[]);
    let nbd = Server::qemu(&target);
    let restoring = restore(&store, nbd.disk().await, TargetContent::KnownZero);
    tokio::time::timeout(Duration::from_secs(60), restoring).await.expect("four requests at a time");
    drop(nbd);
    assert!(same(&source, &target), "it came back differently");
}

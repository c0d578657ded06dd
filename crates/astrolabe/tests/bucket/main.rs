//! Backups in the original's layout in a bucket of a real S3 server, laid there object by object.
#![allow(clippy::unwrap_used)] // a panic is how a test fails

mod deleting;
#[allow(dead_code)] // it serves other tests too
#[path = "../../../repository/tests/repository/line.rs"]
mod line;
mod reading;
#[allow(dead_code)] // it serves other tests too
#[path = "../../../repository/tests/repository/versitygw.rs"]
mod versitygw;
mod writing;

use astrolabe::{Address, Description, Keys, Peinfo, Tree};
use bytes::Bytes;
use disk::DiskSnapshot;
use repository::store::{S3Store, Store as _};
use repository::{Credentials, S3Options}; // of `versitygw`
use versitygw::Versitygw;

const PREFIX: &str = "plugins/vsphere-astrolabe-repo";
const MIB: usize = 1 << 20;

/// A server with a bucket.
struct Bucket {
    _server: Versitygw,
    store: S3Store,
    tree: Tree,
}

impl Bucket {
    async fn new() -> Self {
        let server = Versitygw::start();
        let store = S3Store::new(server.options("")).await.unwrap();
        let tree = tree(&store, &["by-hand", PREFIX]);
        Self { _server: server, store, tree }
    }

    async fn put(&self, key: &str, bytes: impl Into<Bytes>) {
        self.store.put(key, bytes.into().into()).await.unwrap();
    }

    /// Lays a disk of whole MiB there, cut at these places, as the original would.
    async fn lay(&self, keys: &Keys, disk: &[u8], cuts: &[usize]) {
        let borders: Vec<usize> = [0].into_iter().chain(cuts.iter().copied()).chain([disk.len()]).collect();
        for (number, border) in borders.windows(2).enumerate() {
            let key = format!("{}/{number:06}-{:016}", keys.data(), border[0]);
            self.put(&key, disk[border[0]..border[1]].to_vec()).await;
        }
        let described = Description { capacity_mib: (disk.len() / MIB) as u64, ..Description::default() };
        self.put(&format!("{}/000000-0000000000000000", keys.description()), described.write()).await;
        self.put(keys.peinfo(), Peinfo::new(keys, "backups", "http://store", "pvc-1").write()).await;
    }

    /// Every key of the bucket.
    async fn keys(&self) -> Vec<String> {
        self.store.list("").await.unwrap().into_iter().map(|object| object.key).collect()
    }
}

fn tree(store: &S3Store, prefixes: &[&str]) -> Tree {
    let prefixes = prefixes.iter().map(|prefix| (*prefix).to_owned()).collect();
    let address =
        Address { bucket: "k8s-backups".to_owned(), host: "https://s3.lab.example:9000".to_owned(), prefixes };
    Tree::new(store.clone(), address)
}

fn snapshot(text: &str) -> DiskSnapshot {
    text.parse().unwrap()
}

/// Bytes that repeat nowhere within a disk of a test.
fn noise(mib: usize) -> Vec<u8> {
    (0..(mib * MIB / 8) as u64).flat_map(|n| n.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes()).collect()
}

/// An error with its causes.
fn told(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

//! What `tests/fuzz` reaches of the private parts of this crate. Built for it alone.
//!
//! What lies in a bucket is sealed, so a stranger's bytes end at the seal. Who has the key may still be another program, or an earlier
//! or later one of ours: whatever is below the seal must be read without a panic. Not sealed are key files and what the store answers.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use async_trait::async_trait;
use aws_sdk_s3::config::SharedHttpClient;
use aws_sdk_s3::primitives::SdkBody;
use aws_smithy_runtime_api::client::http::{HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::http::StatusCode;
use bytes::Bytes;

use crate::config::Config;
use crate::crypto::{Cipher, MasterKey};
use crate::disk_image::{DiskDocument, Layout};
use crate::index::{Index, IndexFile};
use crate::keys::OpenKey;
use crate::lock::LockFile;
use crate::pack::{self, pack_length};
use crate::restore_point::{RestorePointId, SnapshotFile};
use crate::store::{self, Body, ErrorKind, Multipart, Object, PutNew, S3Store, Store};
use crate::tree::Tree;
use crate::{
    Credentials, DiskFacts, NewRestorePoint, Repository, S3Options, WriterOptions, hash, keys, maintenance, unpacked,
};

static CIPHER: LazyLock<Cipher> = LazyLock::new(|| Cipher::new(&[7; 64]));

/// A document as `unpacked` reads it: compressed or plain, of each kind.
pub fn document(plain: &[u8]) {
    let sealed = CIPHER.seal(plain);
    if let Ok(file) = unpacked::unseal::<IndexFile>(&CIPHER, "index/x", &sealed) {
        let index = Index::new();
        index.add([1; 32], &file.packs);
        for pack in &file.packs {
            let _ = pack.length();
            for blob in &pack.blobs {
                let (kind, id) = blob.key();
                let _ = (index.find(kind, &id), index.find_lasting(kind, &id));
            }
        }
    }
    if let Ok(file) = unpacked::unseal::<SnapshotFile>(&CIPHER, "snapshots/x", &sealed) {
        let _ = file.clone().tagged(&[("backup", "nightly")]);
        let id: RestorePointId = hash::hex(&[1; 32]).parse().expect("an id");
        let _ = file.restore_point(id).map(|point| point.identity());
    }
    if let Ok(file) = unpacked::unseal::<LockFile>(&CIPHER, "locks/x", &sealed) {
        let now = jiff::Timestamp::UNIX_EPOCH;
        let _ = (file.keeps_us_out(now), file.keeps_maintenance_out(now), file.is_transfers(now));
    }
    let _ = Config::open(&sealed, &CIPHER);
}

/// What is JSON below the seal and not a document of its own: folders, `/disk.json`, a key.
pub fn json(text: &[u8]) {
    if let Ok(tree) = Tree::parse(text) {
        for node in &tree.nodes {
            let _ = (node.chunks(), node.subtree(), node.refers_to(), tree.node(&node.name));
        }
    }
    if let Ok(key) = serde_json::from_slice::<MasterKey>(text) {
        let _ = key.cipher();
    }
    if let Ok(disk) = serde_json::from_slice::<DiskDocument>(text)
        && let Ok(layout) = Layout::new(disk.facts.size_bytes, disk.chunk_size, disk.extent_size)
    {
        let last = layout.chunk_count() - 1;
        assert_eq!(layout.chunk_range(last).end(), layout.size);
        let _ = (layout.folder_chunks(layout.folder_of(last)), layout.short_tail(), layout.chunks_per_extent());
        assert_eq!(layout.folder_of(last) + 1, layout.folder_count());
    }
}

/// The header of a pack, opened, and the end of a pack as it lies there.
pub fn pack(header: &[u8]) {
    let _ = pack::header_size(header);
    if let Ok(blobs) = pack::decode_header(header) {
        let _ = pack_length(&blobs);
        assert_eq!(pack::encode_header(&blobs), header, "what is read is all that was there");
    }
}

/// A key file: who can write to the bucket can write one, without any key.
pub fn key_file(text: &[u8]) {
    keys::read(text);
}

/// A note of a maintenance run.
pub fn maintenance_note(plain: &[u8]) {
    maintenance::read_note(&CIPHER, &CIPHER.seal(plain));
}

/// Transfer whose checkpoint is read, and bytes of the disk that it copies: five chunks, the last one short.
const TRANSFER: &str = "upload";
const DISK: u64 = 5 * crate::CHUNK_SIZE - 4096;

/// What a writer that was cut short left behind, read by the writer that goes on: nothing it says can be stored, so no more than its
/// zeroes may count as done.
pub fn checkpoint(plain: &[u8]) {
    let bucket = Bucket::default();
    bucket.lock().insert(format!("transfers/{TRANSFER}/00000000"), Bytes::from(CIPHER.seal(plain)));
    let key = OpenKey { object: "keys/x".to_owned(), cipher: CIPHER.clone() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(async {
        let repository = Repository::with(Arc::new(bucket), Config::generate(), key).expect("our own version");
        let disk = DiskFacts { snapshot: Some("disk:snap".parse().expect("an id")), ..DiskFacts::of_size(DISK) };
        let point = NewRestorePoint::new("cluster", "/shop/data", jiff::Timestamp::UNIX_EPOCH, disk);
        let options = WriterOptions { transfer: Some(TRANSFER.to_owned()), ..WriterOptions::default() };
        let Ok(writer) = repository.writer(point, options).await else { return };
        assert!(
            writer.resumed().iter().all(|done| done.end() <= DISK),
            "{:?} is behind the disk's end",
            writer.resumed()
        );
        assert_eq!(writer.stats().bytes_settled, writer.resumed().bytes());
        assert_eq!(writer.stats().chunks_taken_over + writer.stats().chunks_known, 0, "nothing is stored");
    });
}

/// What a store answers to each of our requests, whatever was asked: answers end at a NUL, their first byte says with which number.
pub fn store_answers(bytes: &[u8]) {
    static RUNTIME: LazyLock<tokio::runtime::Runtime> =
        LazyLock::new(|| tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime"));
    static ANSWERS: LazyLock<Answers> = LazyLock::new(Answers::default);
    static STORE: LazyLock<S3Store> = LazyLock::new(|| {
        let credentials = Credentials::Given { id: "k".to_owned(), secret: "s".into(), token: None };
        let endpoint = "https://s3.example".parse().expect("a URL");
        let options = S3Options { credentials, attempts: 1, ..S3Options::new(Some(endpoint), "bucket", "folder") };
        RUNTIME.block_on(S3Store::over(options, ANSWERS.client()))
    });
    let again = || ANSWERS.are(bytes);
    LazyLock::force(&STORE); // which needs the runtime for itself
    RUNTIME.block_on(async {
        again();
        for object in STORE.list("snapshots/").await.unwrap_or_default() {
            assert!(!object.key.ends_with('/') && !object.key.starts_with("folder/folder/"), "{object:?}");
        }
        again();
        let _ = STORE.open_uploads("").await;
        again();
        let _ = STORE.uploads("packs/").await;
        let upload = Multipart { key: "packs/a".to_owned(), id: "1".to_owned() };
        again();
        let parts = STORE.parts(&upload).await.unwrap_or_default();
        assert!(parts.is_sorted_by_key(|part| part.number));
        again();
        let _ = STORE.complete_upload(&upload, &parts).await;
        again();
        let _ = (STORE.begin_multipart("packs/a").await, STORE.abort_upload(&upload).await);
        again();
        let _ = STORE.get("config").await;
        again();
        if let Ok(range) = STORE.get_range("data/x", 3, 7).await {
            assert_eq!(range.len(), 7, "as many bytes as were asked for");
        }
        again();
        let _ = (STORE.size("config").await, STORE.delete("config").await);
        again();
        let _ = STORE.put_new("config", Bytes::from_static(b"x").into()).await;
    });
}

/// A server of S3 that says the same whatever it is asked; when it has said all, that nothing is there.
#[derive(Debug, Clone, Default)]
struct Answers(Arc<Mutex<Vec<(u16, Vec<u8>)>>>);

impl Answers {
    fn are(&self, bytes: &[u8]) {
        const NUMBERS: [u16; 12] = [200, 204, 206, 301, 400, 403, 404, 409, 412, 500, 501, 503];
        let answer = |piece: &[u8]| {
            let (first, body) = piece.split_first()?;
            Some((NUMBERS[usize::from(*first) % NUMBERS.len()], body.to_vec()))
        };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) =
            bytes.split(|byte| *byte == 0).rev().filter_map(answer).collect();
    }

    fn client(&self) -> SharedHttpClient {
        let answers = self.clone();
        http_client_fn(move |_, _| SharedHttpConnector::new(answers.clone()))
    }
}

impl HttpConnector for Answers {
    fn call(&self, _: HttpRequest) -> HttpConnectorFuture {
        let next = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let (number, body) = next.unwrap_or((404, Vec::new()));
        let number = StatusCode::try_from(number).expect("a number of HTTP");
        HttpConnectorFuture::ready(Ok(HttpResponse::new(number, SdkBody::from(body))))
    }
}

/// Objects in memory.
#[derive(Debug, Default)]
struct Bucket(Mutex<BTreeMap<String, Bytes>>);

impl Bucket {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Bytes>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn found(&self, key: &str) -> Result<Bytes, store::Error> {
        let missing = || store::Error::new(ErrorKind::NotFound, "get", key, self.place(), "there is none");
        self.lock().get(key).cloned().ok_or_else(missing)
    }
}

#[async_trait]
impl Store for Bucket {
    fn place(&self) -> String {
        "memory".to_owned()
    }

    async fn get(&self, key: &str) -> Result<Bytes, store::Error> {
        self.found(key)
    }

    async fn get_range(&self, key: &str, offset: u64, length: u64) -> Result<Bytes, store::Error> {
        let all = self.found(key)?;
        let range = usize::try_from(offset).ok().zip(usize::try_from(offset.saturating_add(length)).ok());
        let within = range.filter(|(_, end)| *end <= all.len()).map(|(begin, end)| all.slice(begin..end));
        within.ok_or_else(|| store::Error::new(ErrorKind::Failed, "get", key, self.place(), "it ends before"))
    }

    async fn put(&self, key: &str, body: Body) -> Result<(), store::Error> {
        self.lock().insert(key.to_owned(), body.bytes);
        Ok(())
    }

    async fn put_new(&self, key: &str, body: Body) -> Result<PutNew, store::Error> {
        let mut objects = self.lock();
        if objects.contains_key(key) {
            return Ok(PutNew::Exists);
        }
        objects.insert(key.to_owned(), body.bytes);
        Ok(PutNew::Created)
    }

    async fn size(&self, key: &str) -> Result<Option<u64>, store::Error> {
        Ok(self.lock().get(key).map(|bytes| bytes.len() as u64))
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Object>, store::Error> {
        let objects = self.lock();
        let below = objects.iter().filter(|(key, _)| key.starts_with(prefix));
        Ok(below.map(|(key, bytes)| Object { key: key.clone(), size: bytes.len() as u64 }).collect())
    }

    async fn delete(&self, key: &str) -> Result<(), store::Error> {
        self.lock().remove(key);
        Ok(())
    }
}

//! What a storage location says about encryption, trust and temporary keys reaches the server. versitygw encrypts nothing,
//! so the headers are read off the line by a proxy in between.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use repository::store::{Checksum, CustomerKey, PutNew, S3Store, Store, StoreEncryption};
use repository::{Credentials, S3Options};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use url::Url;

use crate::judge::{MIB, TestDisk, password};
use crate::versitygw::Versitygw;

/// The head of a request: method, and the lines that follow.
#[derive(Debug, Clone)]
struct Head {
    method: String,
    lines: Vec<String>,
}

impl Head {
    fn value(&self, name: &str) -> Option<&str> {
        let found = self.lines.iter().filter_map(|line| line.split_once(':'));
        found.into_iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }
}

/// Passes everything on, both ways, and keeps what clients sent.
struct Recorder {
    url: Url,
    sent: Arc<Mutex<Vec<Vec<u8>>>>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Recorder {
    async fn before(server: &Versitygw) -> Self {
        let upstream = server.options("").endpoint.unwrap();
        let upstream = format!("127.0.0.1:{}", upstream.port().unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let sent: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
        let record = sent.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass(client, upstream.clone(), record.clone()));
            }
        });
        Self { url, sent, accepting }
    }

    async fn store(&self, server: &Versitygw, change: impl FnOnce(&mut S3Options)) -> S3Store {
        let mut options = server.options("x");
        options.endpoint = Some(self.url.clone());
        options.attempts = 1;
        change(&mut options);
        S3Store::new(options).await.unwrap()
    }

    /// Heads of the requests so far with this method.
    fn heads(&self, method: &str) -> Vec<Head> {
        let all = self.sent.lock().unwrap().iter().flat_map(|sent| heads(sent)).collect::<Vec<_>>();
        all.into_iter().filter(|head| head.method == method).collect()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn pass(client: TcpStream, upstream: String, record: Arc<Mutex<Vec<Vec<u8>>>>) {
    let Ok(server) = TcpStream::connect(upstream).await else { return };
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.into_split(), server.into_split());
    let place = {
        let mut all = record.lock().unwrap();
        all.push(Vec::new());
        all.len() - 1
    };
    let there = async {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(length @ 1..) = from_client.read(&mut buffer).await {
            record.lock().unwrap()[place].extend_from_slice(&buffer[..length]);
            if to_server.write_all(&buffer[..length]).await.is_err() {
                return;
            }
        }
        let _ = to_server.shutdown().await; // the server may have gone first
    };
    let back = async {
        let _ = tokio::io::copy(&mut from_server, &mut to_client).await; // the client may have gone first
    };
    tokio::join!(there, back);
}

fn heads(sent: &[u8]) -> Vec<Head> {
    let (text, mut heads, mut within) = (String::from_utf8_lossy(sent), Vec::new(), false);
    for line in text.split("\r\n") {
        let method = line.split(' ').next().unwrap_or_default();
        if line.ends_with(" HTTP/1.1") {
            heads.push(Head { method: method.to_owned(), lines: Vec::new() });
            within = true;
        } else if line.is_empty() {
            within = false;
        } else if let Some(head) = heads.last_mut().filter(|_| within) {
            head.lines.push(line.to_owned());
        }
    }
    heads
}

/// Every kind of request that touches an object. What the server answers is not the question here.
async fn touch(store: &S3Store) {
    let body = || Bytes::from_static(b"content").into();
    let _ = store.put("a", body()).await;
    let _: Result<PutNew, _> = store.put_new("b", body()).await;
    let _ = store.get("a").await;
    let _ = store.get_range("a", 1, 2).await;
    let _ = store.size("a").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_demands_encryption_takes_our_objects() {
    const ALGORITHM: &str = "x-amz-server-side-encryption";
    const KMS_KEY: &str = "x-amz-server-side-encryption-aws-kms-key-id";
    let cases = [
        (StoreEncryption::AsTheBucketDoes, None, None),
        (StoreEncryption::Algorithm("AES256".to_owned()), Some("AES256"), None),
        (StoreEncryption::Algorithm("aws:kms".to_owned()), Some("aws:kms"), None),
        (StoreEncryption::Kms("arn:aws:kms:x:1:key/2".to_owned()), Some("aws:kms"), Some("arn:aws:kms:x:1:key/2")),
    ];
    for (encryption, algorithm, key) in cases {
        let server = Versitygw::start();
        let recorder = Recorder::before(&server).await;
        touch(&recorder.store(&server, |options| options.encryption = encryption.clone()).await).await;
        let puts = recorder.heads("PUT");
        assert_eq!(puts.len(), 2, "{encryption:?}");
        for put in puts {
            assert_eq!((put.value(ALGORITHM), put.value(KMS_KEY)), (algorithm, key), "{encryption:?}");
            assert!(algorithm.is_none() || put.value("authorization").unwrap().contains(ALGORITHM), "it is signed");
        }
        for read in recorder.heads("GET").iter().chain(&recorder.heads("HEAD")) {
            assert_eq!(read.value(ALGORITHM), None, "a store refuses it on reads: {encryption:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_the_customer_brings_is_on_every_request_for_an_object() {
    let customer_key = CustomerKey::new(&[b'k'; 32]).unwrap();
    assert!(!format!("{customer_key:?}").contains("a2tra2"), "a log line must not tell the key");
    assert!(CustomerKey::new(&[b'k'; 31]).is_none() && CustomerKey::new(&[b'k'; 33]).is_none());
    let server = Versitygw::start();
    let recorder = Recorder::before(&server).await;
    let encryption = StoreEncryption::CustomerKey(customer_key);
    touch(&recorder.store(&server, |options| options.encryption = encryption).await).await;
    for (method, at_least) in [("PUT", 2), ("GET", 2), ("HEAD", 1)] {
        let touching: Vec<_> = recorder.heads(method).into_iter().filter(|head| head.value("host").is_some()).collect();
        assert!(touching.len() >= at_least, "{method}: {touching:?}");
        let with_key = touching.iter().filter(|head| {
            let header = |name: &str| head.value(&format!("x-amz-server-side-encryption-customer-{name}"));
            (header("algorithm"), header("key"), header("key-md5"))
                == (
                    Some("AES256"),
                    Some("a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s="),
                    Some("mT2HRsMGJ5IX5C+0rreZ8Q=="),
                )
        });
        assert!(with_key.count() >= at_least, "{method}: {touching:?}");
    }
}

/// Stores without checksums refuse the headers, and most refuse bodies in pieces with a checksum at the end.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_knows_no_checksums_sees_none() {
    let server = Versitygw::start();
    let recorder = Recorder::before(&server).await;
    touch(&recorder.store(&server, |_| {}).await).await;
    let plain = recorder.heads("PUT");
    touch(&recorder.store(&server, |options| options.checksum = Some(Checksum::Crc32)).await).await;
    let all = recorder.heads("PUT");
    assert_eq!((plain.len(), all.len()), (2, 4));
    let about_checksums = |head: &Head| head.lines.iter().any(|line| line.to_lowercase().contains("checksum"));
    assert!(!plain.iter().any(about_checksums), "{plain:?}");
    for put in &all[2..] {
        assert_eq!(put.value("x-amz-checksum-crc32"), Some("/sUwqQ=="));
        assert_eq!((put.value("x-amz-trailer"), put.value("content-encoding")), (None, None), "one piece, as ever");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn temporary_keys_come_with_their_token() {
    let server = Versitygw::start();
    let recorder = Recorder::before(&server).await;
    let store = recorder.store(&server, |options| {
        let Credentials::Given { token, .. } = &mut options.credentials else { unreachable!("the test has keys") };
        *token = Some("only for a while".into());
    });
    touch(&store.await).await;
    let put = recorder.heads("PUT").into_iter().next().unwrap();
    assert_eq!(put.value("x-amz-security-token"), Some("only for a while"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_nobody_knows_is_taken_only_where_that_is_asked_for() {
    let server = Versitygw::start_with_tls();
    let options = || S3Options { ca_pem: None, attempts: 1, ..server.options("x") };
    let refused = S3Store::new(options()).await.unwrap().put("a", Bytes::from_static(b"x").into()).await;
    assert_eq!(refused.unwrap_err().kind(), repository::store::ErrorKind::Unreachable);
    let store = S3Store::new(S3Options { skip_tls_verify: true, ..options() }).await.unwrap();
    let repository = repository::initialise(Arc::new(store), &password()).await.unwrap();
    let disk = TestDisk::random(18 * MIB, 6);
    let point = disk.back_up(&repository).await.unwrap();
    disk.assert_is_read(&repository.reader(&point.id).await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_away_is_unreachable_also_without_looking_at_certificates() {
    let mut server = Versitygw::start_with_tls();
    let options = S3Options { skip_tls_verify: true, attempts: 1, ..server.options("x") };
    server.kill();
    let gone = S3Store::new(options).await.unwrap().get("a").await.unwrap_err();
    assert_eq!(gone.kind(), repository::store::ErrorKind::Unreachable, "{gone}");
}

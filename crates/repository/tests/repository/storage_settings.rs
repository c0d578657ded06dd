//! What a storage location says about encryption, trust and temporary keys reaches the server. versitygw encrypts nothing,
//! so the headers are read off the line by a proxy in between.

use std::sync::Arc;

use bytes::Bytes;
use repository::store::{Checksum, CustomerKey, PutNew, S3Store, Store, StoreEncryption};
use repository::{Credentials, S3Options};

use crate::judge::{MIB, TestDisk, password};
use crate::recorder::{Head, Recorder};
use crate::versitygw::Versitygw;

/// A recorder before a server.
async fn before(server: &Versitygw) -> Recorder {
    let endpoint = server.options("").endpoint.unwrap();
    Recorder::before(&format!("127.0.0.1:{}", endpoint.port().unwrap())).await
}

async fn through(recorder: &Recorder, server: &Versitygw, change: impl FnOnce(&mut S3Options)) -> S3Store {
    let mut options = server.options("x");
    options.endpoint = Some(recorder.url().parse().unwrap());
    options.attempts = 1;
    change(&mut options);
    S3Store::new(options).await.unwrap()
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
        let recorder = before(&server).await;
        touch(&through(&recorder, &server, |options| options.encryption = encryption.clone()).await).await;
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
    let recorder = before(&server).await;
    let encryption = StoreEncryption::CustomerKey(customer_key);
    touch(&through(&recorder, &server, |options| options.encryption = encryption).await).await;
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
    let recorder = before(&server).await;
    touch(&through(&recorder, &server, |_| {}).await).await;
    let plain = recorder.heads("PUT");
    touch(&through(&recorder, &server, |options| options.checksum = Some(Checksum::Crc32)).await).await;
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
    let recorder = before(&server).await;
    let store = through(&recorder, &server, |options| {
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

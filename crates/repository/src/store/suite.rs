//! One suite for every store: what the layers above rely on holds for each of them.
#![allow(clippy::unwrap_used)] // a panic is how a test fails

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::{Body, ErrorKind, FaultyStore, FolderStore, Object, PutNew, S3Store, Store};
use crate::hash::sha256;
use crate::location::{Credentials, S3Options};

#[path = "../../tests/repository/versitygw.rs"]
mod versitygw;

use versitygw::Versitygw;

fn body(bytes: &'static [u8]) -> Body {
    Bytes::from_static(bytes).into()
}

async fn holds(store: &dyn Store) {
    an_object_comes_back_whole_and_in_parts(store).await;
    a_put_replaces_and_put_new_does_not(store).await;
    what_is_not_there_is_said_to_be_missing(store).await;
    a_listing_is_complete_sorted_and_below_its_prefix(store).await;
    a_large_object_with_a_known_hash_comes_back(store).await;
    of_many_first_puts_one_wins(store).await;
}

async fn an_object_comes_back_whole_and_in_parts(store: &dyn Store) {
    store.put("data/00/some", body(b"0123456789")).await.unwrap();
    assert_eq!(store.get("data/00/some").await.unwrap(), "0123456789");
    assert_eq!(store.get_range("data/00/some", 3, 4).await.unwrap(), "3456");
    assert_eq!(store.get_range("data/00/some", 9, 1).await.unwrap(), "9");
    assert_eq!(store.get_range("data/00/some", 9, 0).await.unwrap(), "");
    assert_eq!(store.size("data/00/some").await.unwrap(), Some(10));
    assert!(store.get_range("data/00/some", 8, 3).await.is_err(), "a part that ends beyond the object");
    assert!(store.get_range("data/00/some", 20, 3).await.is_err());
    store.put("empty", body(b"")).await.unwrap();
    assert_eq!(store.get("empty").await.unwrap(), "");
    assert_eq!(store.size("empty").await.unwrap(), Some(0));
}

async fn a_put_replaces_and_put_new_does_not(store: &dyn Store) {
    store.put("config", body(b"one")).await.unwrap();
    store.put("config", body(b"two")).await.unwrap();
    assert_eq!(store.get("config").await.unwrap(), "two");
    assert_eq!(store.put_new("config", body(b"three")).await.unwrap(), PutNew::Exists);
    assert_eq!(store.get("config").await.unwrap(), "two");
    assert_eq!(store.put_new("other/config", body(b"four")).await.unwrap(), PutNew::Created);
    assert_eq!(store.get("other/config").await.unwrap(), "four");
}

async fn what_is_not_there_is_said_to_be_missing(store: &dyn Store) {
    assert_eq!(store.get("nowhere/x").await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(store.get_range("nowhere/x", 0, 1).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(store.size("nowhere/x").await.unwrap(), None);
    assert_eq!(store.list("nowhere/").await.unwrap(), []);
    store.delete("nowhere/x").await.unwrap();
    store.put("gone", body(b"x")).await.unwrap();
    store.delete("gone").await.unwrap();
    assert_eq!(store.size("gone").await.unwrap(), None);
}

async fn a_listing_is_complete_sorted_and_below_its_prefix(store: &dyn Store) {
    for name in ["keys/b", "keys/a", "locks/c", "data/ff/d"] {
        store.put(name, body(b"xy")).await.unwrap();
    }
    let object = |key: &str| Object { key: key.to_owned(), size: 2 };
    assert_eq!(store.list("keys/").await.unwrap(), [object("keys/a"), object("keys/b")]);
    let all: Vec<_> = store.list("").await.unwrap().into_iter().map(|object| object.key).collect();
    assert!(all.is_sorted() && all.contains(&"data/ff/d".to_owned()) && all.contains(&"locks/c".to_owned()), "{all:?}");
    assert!(store.list("data/").await.unwrap().iter().any(|object| object.key == "data/ff/d"));
}

async fn a_large_object_with_a_known_hash_comes_back(store: &dyn Store) {
    let bytes: Vec<u8> = (0..5_000_000_u32).flat_map(u32::to_le_bytes).take(17 << 20).collect();
    let body = Body { sha256: Some(sha256(&bytes)), bytes: Bytes::from(bytes) };
    store.put("data/aa/large", body.clone()).await.unwrap();
    assert_eq!(store.size("data/aa/large").await.unwrap(), Some(17 << 20));
    assert!(store.get("data/aa/large").await.unwrap() == body.bytes);
    assert!(store.get_range("data/aa/large", 1 << 20, 1 << 20).await.unwrap() == body.bytes[1 << 20..2 << 20]);
}

async fn of_many_first_puts_one_wins(store: &dyn Store) {
    let puts = (0..10).map(|_| store.put_new("first", body(b"me")));
    let answers: Vec<_> = futures::future::join_all(puts).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(answers.iter().filter(|answer| **answer == PutNew::Created).count(), 1, "{answers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_holds() {
    let folder = tempfile::tempdir().unwrap();
    holds(&FolderStore::new(folder.path().join("not yet there"))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_faulty_store_without_faults_holds() {
    let folder = tempfile::tempdir().unwrap();
    holds(&FaultyStore::new(Arc::new(FolderStore::new(folder.path())))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_holds() {
    let server = Versitygw::start();
    holds(&S3Store::new(server.options("")).await.unwrap()).await;
    holds(&S3Store::new(server.options("/a/prefix/")).await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_behind_a_private_certificate_holds() {
    let server = Versitygw::start_with_tls();
    holds(&S3Store::new(server.options("x")).await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_nobody_vouches_for_is_refused() {
    let server = Versitygw::start_with_tls();
    let mut options = server.options("");
    options.ca_pem = None;
    options.attempts = 1;
    let error = S3Store::new(options).await.unwrap().size("x").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable);
    assert!(chain(&error).contains("certificate"), "{}", chain(&error));
}

#[tokio::test]
async fn certificates_that_cannot_be_read_are_an_error_and_not_a_panic() {
    let ca_pems = [
        "",
        "not pem at all",
        "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ];
    for pem in ca_pems {
        let mut options = S3Options::new(None, "bucket", "");
        options.ca_pem = Some(pem.to_owned());
        let error = S3Store::new(options).await.unwrap_err();
        assert!(chain(&error).contains("certificate"), "{}", chain(&error));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_bucket_and_a_wrong_key_are_told_apart() {
    let server = Versitygw::start();
    let mut elsewhere = server.options("");
    elsewhere.bucket = "no-such-bucket".to_owned();
    let store = S3Store::new(elsewhere).await.unwrap();
    assert_eq!(store.get("config").await.unwrap_err().kind(), ErrorKind::BucketMissing);
    assert_eq!(store.list("keys/").await.unwrap_err().kind(), ErrorKind::BucketMissing);
    assert_eq!(store.put("x", body(b"x")).await.unwrap_err().kind(), ErrorKind::BucketMissing);

    for (id, secret) in [("tester", "wrong"), ("nobody", "only for this test")] {
        let mut options = server.options("");
        options.credentials = Credentials::Given { id: id.to_owned(), secret: secret.into(), token: None };
        let store = S3Store::new(options).await.unwrap();
        for error in [
            store.get("config").await.unwrap_err(),
            store.list("").await.unwrap_err(),
            store.size("x").await.unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::AccessDenied, "{}", chain(&error));
            assert!(!chain(&error).contains(secret));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_gone_is_unreachable_within_the_timeout() {
    let mut server = Versitygw::start();
    let mut options = server.options("");
    options.attempts = 2;
    server.kill();
    let store = S3Store::new(options).await.unwrap();
    assert_eq!(store.get("config").await.unwrap_err().kind(), ErrorKind::Unreachable);
    assert_eq!(store.put("x", body(b"x")).await.unwrap_err().kind(), ErrorKind::Unreachable);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_never_answers_is_unreachable_within_the_timeout() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap(); // accepts, says nothing
    let endpoint = format!("http://{}", silent.local_addr().unwrap()).parse().unwrap();
    let mut options = S3Options::new(Some(endpoint), "bucket", "");
    options.credentials = Credentials::Given { id: "a".to_owned(), secret: "b".into(), token: None };
    options.read_timeout = Duration::from_millis(200);
    options.operation_timeout = Duration::from_secs(2);
    options.attempts = 2;
    let error = S3Store::new(options).await.unwrap().get("config").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable, "{}", chain(&error));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_put_waits_for_a_word_that_the_store_never_says() {
    // a server that never answers `Expect: 100-continue` would cost a second for each put
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap()).parse().unwrap();
    let mut options = S3Options::new(Some(endpoint), "bucket", "");
    options.credentials = Credentials::Given { id: "a".to_owned(), secret: "b".into(), token: None };
    let store = S3Store::new(options).await.unwrap();
    let bytes = Bytes::from(vec![1; 17 << 20]);
    let large = Body { sha256: Some(sha256(&bytes)), bytes };
    let put = tokio::spawn(async move { store.put("data/aa/large", large).await });
    let (mut line, _) = silent.accept().await.unwrap();
    let mut head = Vec::new();
    while !head.windows(4).any(|w| w == b"\r\n\r\n") {
        use tokio::io::AsyncReadExt;
        assert_ne!(line.read_buf(&mut head).await.unwrap(), 0);
    }
    put.abort();
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    assert!(!head.contains("expect:"), "{head}");
    assert!(!head.contains("trailer"), "stores that are not AWS reject trailers: {head}");
    assert!(head.contains("content-length: 17825792"), "{head}");
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text += ": ";
        text += &cause.to_string();
        next = cause.source();
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_in_parts_is_gone_on_with_completed_and_given_up() {
    let server = Versitygw::start();
    let store = S3Store::new(server.options("a/prefix")).await.unwrap();
    let part = |byte: u8| Bytes::from(vec![byte; 5 << 20]);
    let begun = store.begin_multipart("x/large:1").await.unwrap();
    store.put_part(&begun, 2, part(2)).await.unwrap();
    store.put_part(&begun, 1, part(1)).await.unwrap();
    let other = store.begin_multipart("x/large:2").await.unwrap();
    assert_eq!(store.uploads("x/large:1").await.unwrap(), std::slice::from_ref(&begun), "found by another process");
    assert_eq!(store.size("x/large:1").await.unwrap(), None, "no object before it is completed");
    let mut parts = store.parts(&begun).await.unwrap();
    assert_eq!(parts.iter().map(|part| (part.number, part.size)).collect::<Vec<_>>(), [(1, 5 << 20), (2, 5 << 20)]);
    parts.push(store.put_part(&begun, 3, Bytes::from_static(b"end")).await.unwrap());
    store.complete_upload(&begun, &parts).await.unwrap();
    let whole = store.get("x/large:1").await.unwrap();
    assert!(whole == [&part(1)[..], &part(2), b"end"].concat());
    store.abort_upload(&other).await.unwrap();
    store.abort_upload(&other).await.unwrap();
    assert_eq!(store.uploads("").await.unwrap(), []);
    assert_eq!(store.parts(&other).await.unwrap_err().kind(), ErrorKind::NotFound);
}

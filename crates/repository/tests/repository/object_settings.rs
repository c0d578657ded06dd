//! Tags, checksums and the region: what the server itself says about objects and their bucket.

use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Region};
use aws_sdk_s3::types::ChecksumMode;
use bytes::Bytes;
use repository::store::{Body, Checksum, ErrorKind, PutNew, S3Store, Store};
use repository::{Credentials, S3Options};
use ring::digest::{SHA256, digest};
use secrecy::ExposeSecret as _;

use crate::versitygw::Versitygw;

/// A client of the server that is none of ours.
fn judge(options: &S3Options) -> Client {
    let Credentials::Given { id, secret, .. } = &options.credentials else { unreachable!("the test has keys") };
    let keys = aws_credential_types::Credentials::new(id, secret.expose_secret(), None, None, "test");
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .region(Region::new("us-east-1"))
        .force_path_style(true)
        .endpoint_url(options.endpoint.as_ref().unwrap().as_str())
        .credentials_provider(keys);
    Client::from_conf(config.build())
}

/// Puts `a` as a pack is put, with its hash, and `b` as a key file is put.
async fn put_both(store: &S3Store) {
    let bytes = Bytes::from_static(b"content");
    let sha256 = digest(&SHA256, &bytes).as_ref().try_into().unwrap();
    store.put("a", Body { bytes: bytes.clone(), sha256: Some(sha256) }).await.unwrap();
    assert_eq!(store.put_new("b", bytes.into()).await.unwrap(), PutNew::Created);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_object_has_the_tags_that_the_rules_of_its_bucket_go_by() {
    let server = Versitygw::start();
    let options = S3Options { tagging: Some("team=shop&tier=caf%C3%A9".to_owned()), ..server.options("x") };
    put_both(&S3Store::new(options.clone()).await.unwrap()).await;
    for key in ["x/a", "x/b"] {
        let told = judge(&options).get_object_tagging().bucket(&options.bucket).key(key).send().await.unwrap();
        let mut tags: Vec<_> = told.tag_set().iter().map(|tag| (tag.key(), tag.value())).collect();
        tags.sort();
        assert_eq!(tags, [("team", "shop"), ("tier", "café")], "{key}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_object_has_the_checksum_that_its_storage_location_asks_for() {
    let server = Versitygw::start();
    let judge = judge(&server.options(""));
    for checksum in [Checksum::Crc32, Checksum::Crc32c, Checksum::Crc64Nvme, Checksum::Sha1, Checksum::Sha256] {
        let prefix = format!("{checksum:?}");
        let options = S3Options { checksum: Some(checksum), ..server.options(&prefix) };
        put_both(&S3Store::new(options.clone()).await.unwrap()).await;
        for key in ["a", "b"] {
            let head = judge.head_object().bucket(&options.bucket).key(format!("{prefix}/{key}"));
            let head = head.checksum_mode(ChecksumMode::Enabled).send().await.unwrap();
            let kept = match checksum {
                Checksum::Crc32 => (head.checksum_crc32(), "/sUwqQ=="),
                Checksum::Crc32c => (head.checksum_crc32_c(), "Ya91Mw=="),
                Checksum::Crc64Nvme => (head.checksum_crc64_nvme(), "lhVdXyVQTGE="),
                Checksum::Sha1 => (head.checksum_sha1(), "BA8G/XdAkkeNRQd09bowxdp4rMg="),
                Checksum::Sha256 => (head.checksum_sha256(), "7XACtDnprIRfIjV9giusFERzD722AW0+yUMil7nsn3M="),
            };
            assert_eq!(kept.0, Some(kept.1), "{checksum:?} of {key}");
        }
    }
}

/// As for a location of AWS that names no region: Velero asks for it too.
#[tokio::test(flavor = "multi_thread")]
async fn the_region_of_a_bucket_is_found_where_nobody_says() {
    let server = Versitygw::start_in("eu-lab-7");
    let nowhere = S3Options { attempts: 1, ..server.options("x") };
    let lost = S3Store::new(nowhere.clone()).await.unwrap().put("a", Bytes::from_static(b"x").into()).await;
    assert!(lost.is_err(), "the server insists on its region, as AWS does");
    let region = S3Store::region_of_bucket(&nowhere).await.unwrap();
    assert_eq!(region, "eu-lab-7");
    put_both(&S3Store::new(S3Options { region, ..nowhere.clone() }).await.unwrap()).await;

    drop(server);
    let away = S3Store::region_of_bucket(&nowhere).await.unwrap_err();
    assert_eq!(away.kind(), ErrorKind::Unreachable, "{away:?}");
}

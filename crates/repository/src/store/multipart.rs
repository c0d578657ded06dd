//! Uploads of large objects in parts, which other programs may have begun: listed, gone on with, completed, aborted.
//!
//! Only a bucket has them. Our own repository never needs one; the original's layout is made of them.

use aws_sdk_s3::config::RequestChecksumCalculation;
use aws_sdk_s3::primitives::{ByteStream, DateTime};
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use md5::{Digest as _, Md5};

use super::encryption::Encrypted as _;
use super::s3::S3Store;
use super::{Error, ErrorKind};

/// An upload that was begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Multipart {
    /// Key of the object that it will be, below the store's root.
    pub key: String,
    /// The store's name for it.
    pub id: String,
}

/// A part that the store has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// From 1 on.
    pub number: i32,
    /// Bytes.
    pub size: u64,
    /// The store's word for its content.
    pub tag: String,
}

impl S3Store {
    /// Uploads that were begun, of all keys that begin with `prefix`.
    ///
    /// # Errors
    /// As the store says.
    pub async fn uploads(&self, prefix: &str) -> Result<Vec<Multipart>, Error> {
        Ok(self.listed_uploads(prefix).await?.into_iter().map(|(upload, _)| upload).collect())
    }

    /// The same, with when each was begun where the store says it.
    pub(super) async fn listed_uploads(&self, prefix: &str) -> Result<Vec<(Multipart, Option<DateTime>)>, Error> {
        let mut found = Vec::new();
        let (mut key_marker, mut id_marker) = (None, None);
        loop {
            let request = self.client.list_multipart_uploads().bucket(&self.bucket).prefix(self.name(prefix));
            let request = request.set_key_marker(key_marker.clone()).set_upload_id_marker(id_marker.clone());
            let page = request.send().await.map_err(|cause| self.failed("list uploads below", prefix, cause))?;
            for upload in page.uploads() {
                let (Some(key), Some(id)) = (upload.key(), upload.upload_id()) else { continue };
                let below = key.strip_prefix(&self.prefix).filter(|key| key.starts_with(prefix)); // stores that ignore the prefix
                let of = |key: &str| Multipart { key: key.to_owned(), id: id.to_owned() };
                found.extend(below.map(|key| (of(key), upload.initiated().copied())));
            }
            let next = (
                page.next_key_marker().filter(|marker| !marker.is_empty()).map(str::to_owned),
                page.next_upload_id_marker().map(str::to_owned),
            );
            if page.is_truncated() != Some(true) || next.0.is_none() {
                return Ok(found);
            }
            if next == (key_marker, id_marker) {
                let cause = "the store gives the same page again and again";
                return Err(Error::new(ErrorKind::Failed, "list uploads below", prefix, self.place.clone(), cause));
            }
            (key_marker, id_marker) = next;
        }
    }

    /// Begins one.
    ///
    /// # Errors
    /// As the store says.
    pub async fn begin_multipart(&self, key: &str) -> Result<Multipart, Error> {
        let request = self.client.create_multipart_upload().bucket(&self.bucket).key(self.name(key));
        let request = request.encrypted(&self.encryption).set_tagging(self.tagging.clone());
        let begun = request.send().await.map_err(|cause| self.failed("begin to upload", key, cause))?;
        let id = begun.upload_id().unwrap_or_default().to_owned();
        if id.is_empty() {
            let cause = "the store gave the upload no name";
            return Err(Error::new(ErrorKind::Failed, "begin to upload", key, self.place.clone(), cause));
        }
        Ok(Multipart { key: key.to_owned(), id })
    }

    /// The parts that it has, by number.
    ///
    /// # Errors
    /// As the store says; [`ErrorKind::NotFound`] when it was completed or aborted meanwhile.
    pub async fn parts(&self, upload: &Multipart) -> Result<Vec<Part>, Error> {
        let request = self.client.list_parts().bucket(&self.bucket).key(self.name(&upload.key)).upload_id(&upload.id);
        let mut pages = request.into_paginator().send();
        let mut parts = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|cause| self.failed("list the parts of", &upload.key, cause))?;
            parts.extend(page.parts().iter().filter_map(|part| {
                let size = u64::try_from(part.size()?).ok()?;
                Some(Part { number: part.part_number()?, size, tag: part.e_tag()?.to_owned() })
            }));
        }
        parts.sort_by_key(|part| part.number);
        Ok(parts)
    }

    /// Sends a part, with the checksum that every store knows: its MD5.
    ///
    /// # Errors
    /// As the store says.
    pub async fn put_part(&self, upload: &Multipart, number: i32, bytes: Bytes) -> Result<Part, Error> {
        let size = bytes.len() as u64;
        let digest = STANDARD.encode(Md5::digest(&bytes));
        let request = self.client.upload_part().bucket(&self.bucket).key(self.name(&upload.key));
        let request = request.upload_id(&upload.id).part_number(number).content_md5(digest);
        let overrides = aws_sdk_s3::Config::builder()
            .timeout_config(self.put_timeout.clone())
            // an upload that another program began knows no other checksum
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired);
        let request = request.encrypted(&self.encryption).body(ByteStream::from(bytes));
        let sent = request.customize().config_override(overrides).send().await;
        let sent = sent.map_err(|cause| self.failed("upload a part of", &upload.key, cause))?;
        Ok(Part { number, size, tag: sent.e_tag().unwrap_or_default().to_owned() })
    }

    /// Makes the object of its parts, which are in order.
    ///
    /// # Errors
    /// As the store says.
    pub async fn complete_upload(&self, upload: &Multipart, parts: &[Part]) -> Result<(), Error> {
        let part = |part: &Part| CompletedPart::builder().part_number(part.number).e_tag(&part.tag).build();
        let all = CompletedMultipartUpload::builder().set_parts(Some(parts.iter().map(part).collect())).build();
        let request = self.client.complete_multipart_upload().bucket(&self.bucket).key(self.name(&upload.key));
        let overrides = aws_sdk_s3::Config::builder().timeout_config(self.put_timeout.clone());
        let request = request.upload_id(&upload.id).multipart_upload(all).encrypted(&self.encryption);
        let done = request.customize().config_override(overrides).send().await;
        done.map(drop).map_err(|cause| self.failed("complete the upload of", &upload.key, cause))
    }

    /// Gives it up: its parts go. One that is gone already is fine.
    ///
    /// # Errors
    /// As the store says.
    pub async fn abort_upload(&self, upload: &Multipart) -> Result<(), Error> {
        let request = self.client.abort_multipart_upload().bucket(&self.bucket).key(self.name(&upload.key));
        match request.upload_id(&upload.id).send().await {
            Ok(_) => Ok(()),
            Err(cause) => match self.failed("abort the upload of", &upload.key, cause) {
                gone if gone.kind() == ErrorKind::NotFound => Ok(()),
                error => Err(error),
            },
        }
    }
}

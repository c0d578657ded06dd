//! Uploads in parts that are open in a bucket: found, and given up. Ours are none: packs are put in one piece. They are of other
//! programs that write there, such as the original, or of ones that were killed.

use std::cmp::max;

use aws_sdk_s3::primitives::DateTime;
use aws_sdk_s3::types::MultipartUpload;
use jiff::Timestamp;

use super::{Error, ErrorKind, S3Store};

/// An upload in parts that was begun, and neither completed nor given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenUpload {
    /// The object that it would make, below the store's root.
    pub key: String,
    /// Its id in the store.
    pub id: String,
    /// When it was begun, or its last part came, by the clock of the store.
    pub last_sign: Timestamp,
}

impl S3Store {
    /// Those below `prefix`, which ends in `/` or is empty. One for which the store says no time counts as begun now.
    ///
    /// # Errors
    /// As a list, and where the store does not know how.
    pub async fn open_uploads(&self, prefix: &str) -> Result<Vec<OpenUpload>, Error> {
        let mut found = Vec::new();
        let (mut key_marker, mut id_marker) = (None, None);
        loop {
            let request = self.client.list_multipart_uploads().bucket(&self.bucket).prefix(self.name(prefix));
            let request = request.set_key_marker(key_marker).set_upload_id_marker(id_marker);
            let page = request.send().await.map_err(|cause| self.failed("list open uploads below", prefix, cause))?;
            for upload in page.uploads() {
                if let Some(open) = self.open_upload(upload).await? {
                    found.push(open);
                }
            }
            key_marker = page.next_key_marker().map(str::to_owned);
            id_marker = page.next_upload_id_marker().map(str::to_owned);
            if page.is_truncated() != Some(true) || key_marker.is_none() {
                return Ok(found);
            }
        }
    }

    async fn open_upload(&self, upload: &MultipartUpload) -> Result<Option<OpenUpload>, Error> {
        let (Some(name), Some(id)) = (upload.key(), upload.upload_id()) else { return Ok(None) };
        // some stores take a prefix for a wish
        let Some(key) = name.strip_prefix(&self.prefix) else { return Ok(None) };
        let Some(begun) = time(upload.initiated()) else {
            return Ok(Some(OpenUpload { key: key.to_owned(), id: id.to_owned(), last_sign: Timestamp::now() }));
        };
        let mut last_sign = begun;
        let request = self.client.list_parts().bucket(&self.bucket).key(name).upload_id(id);
        let mut pages = request.into_paginator().send();
        while let Some(page) = pages.next().await {
            let page = match page.map_err(|cause| self.failed("list the parts of", key, cause)) {
                Ok(page) => page,
                Err(gone) if gone.kind() == ErrorKind::NotFound => return Ok(None), // it has ended since
                Err(error) => return Err(error),
            };
            for part in page.parts() {
                last_sign = max(last_sign, time(part.last_modified()).unwrap_or(last_sign));
            }
        }
        Ok(Some(OpenUpload { key: key.to_owned(), id: id.to_owned(), last_sign }))
    }

    /// Gives one up: its parts go. One that has ended meanwhile is fine, and stays as it ended.
    ///
    /// # Errors
    /// As a deletion.
    pub async fn give_up(&self, upload: &OpenUpload) -> Result<(), Error> {
        let (name, id) = (self.name(&upload.key), &upload.id);
        let request = self.client.abort_multipart_upload().bucket(&self.bucket).key(name).upload_id(id);
        match request.send().await.map_err(|cause| self.failed("give up the upload of", &upload.key, cause)) {
            Ok(_) => Ok(()),
            Err(gone) if gone.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Begins one and leaves it open, with one part.
    ///
    /// # Errors
    /// As a put.
    pub async fn begin_upload(&self, key: &str, part: &'static [u8]) -> Result<OpenUpload, Error> {
        let name = self.name(key);
        let begun = self.client.create_multipart_upload().bucket(&self.bucket).key(&name).send().await;
        let begun = begun.map_err(|cause| self.failed("begin an upload in parts of", key, cause))?;
        let id = begun.upload_id().unwrap_or_default().to_owned();
        let open = OpenUpload { key: key.to_owned(), id, last_sign: Timestamp::now() };
        let body = aws_sdk_s3::primitives::ByteStream::from_static(part);
        let request = self.client.upload_part().bucket(&self.bucket).key(&name).upload_id(&open.id);
        match request.part_number(1).body(body).send().await {
            Ok(_) => Ok(open),
            Err(cause) => {
                let failed = self.failed("put a part of", key, cause);
                let _ = self.give_up(&open).await; // what is told is why it failed
                Err(failed)
            }
        }
    }
}

fn time(of: Option<&DateTime>) -> Option<Timestamp> {
    Timestamp::from_second(of?.secs()).ok()
}

//! Uploads in parts that are open in a bucket, and when somebody last worked on them. Ours are none: packs are put in one piece. They are of other
//! programs that write there, such as the original, or of ones that were killed.

use std::cmp::max;

use aws_sdk_s3::primitives::DateTime;
use aws_sdk_s3::types::MultipartUpload;
use jiff::Timestamp;

use super::{Error, ErrorKind, Multipart, S3Store};

/// An upload in parts that was begun, and neither completed nor given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenUpload {
    /// Its key and its name in the store.
    pub upload: Multipart,
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
            let request = request.set_key_marker(key_marker.clone()).set_upload_id_marker(id_marker.clone());
            let page = request.send().await.map_err(|cause| self.failed("list open uploads below", prefix, cause))?;
            for upload in page.uploads() {
                if let Some(open) = self.open_upload(upload).await? {
                    found.push(open);
                }
            }
            let next = (page.next_key_marker().map(str::to_owned), page.next_upload_id_marker().map(str::to_owned));
            if page.is_truncated() != Some(true) || next.0.is_none() {
                return Ok(found);
            }
            if next == (key_marker, id_marker) {
                let cause = "the store gives the same page again and again";
                return Err(Error::new(
                    ErrorKind::Failed,
                    "list open uploads below",
                    prefix,
                    self.place.clone(),
                    cause,
                ));
            }
            (key_marker, id_marker) = next;
        }
    }

    async fn open_upload(&self, upload: &MultipartUpload) -> Result<Option<OpenUpload>, Error> {
        let (Some(name), Some(id)) = (upload.key(), upload.upload_id()) else { return Ok(None) };
        // some stores take a prefix for a wish
        let Some(key) = name.strip_prefix(&self.prefix) else { return Ok(None) };
        let Some(begun) = time(upload.initiated()) else {
            let upload = Multipart { key: key.to_owned(), id: id.to_owned() };
            return Ok(Some(OpenUpload { upload, last_sign: Timestamp::now() }));
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
        Ok(Some(OpenUpload { upload: Multipart { key: key.to_owned(), id: id.to_owned() }, last_sign }))
    }
}

fn time(of: Option<&DateTime>) -> Option<Timestamp> {
    Timestamp::from_second(of?.secs()).ok()
}

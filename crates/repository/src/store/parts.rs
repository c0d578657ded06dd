//! Uploads in parts that are open in a bucket, and when somebody last worked on them. Ours are none: packs are put in one piece. They
//! are of other programs that write there, such as the original, or of ones that were killed.

use std::cmp::max;

use aws_sdk_s3::primitives::DateTime;
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
        for (upload, begun) in self.listed_uploads(prefix).await? {
            found.extend(match time(begun.as_ref()) {
                Some(begun) => self.open_upload(upload, begun).await?,
                None => Some(OpenUpload { upload, last_sign: Timestamp::now() }),
            });
        }
        Ok(found)
    }

    /// With the time of its last part; `None` when it has ended since.
    async fn open_upload(&self, upload: Multipart, begun: Timestamp) -> Result<Option<OpenUpload>, Error> {
        let mut last_sign = begun;
        let request = self.client.list_parts().bucket(&self.bucket).key(self.name(&upload.key)).upload_id(&upload.id);
        let mut pages = request.into_paginator().send();
        while let Some(page) = pages.next().await {
            let page = match page.map_err(|cause| self.failed("list the parts of", &upload.key, cause)) {
                Ok(page) => page,
                Err(gone) if gone.kind() == ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(error),
            };
            for part in page.parts() {
                last_sign = max(last_sign, time(part.last_modified()).unwrap_or(last_sign));
            }
        }
        Ok(Some(OpenUpload { upload, last_sign }))
    }
}

fn time(of: Option<&DateTime>) -> Option<Timestamp> {
    Timestamp::from_second(of?.secs()).ok()
}

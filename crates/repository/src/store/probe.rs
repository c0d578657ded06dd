//! What a store can do, tried out on small objects of our own, and what time it is there. Whatever is put is deleted again.

use std::sync::{Arc, Mutex, PoisonError};

use aws_sdk_s3::config::interceptors::BeforeDeserializationInterceptorContextRef;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use aws_sdk_s3::primitives::{DateTime, DateTimeFormat};
use bytes::Bytes;
use jiff::Timestamp;

use super::s3::HttpStatus as _;
use super::{Body, Error, ErrorKind, Multipart, S3Store, Store};

/// What is put. Long enough for a part of it to be told from another.
const CONTENT: &[u8] = b"vsphere-backup doctor has put this and deletes it again; if you read it, you may delete it";

/// Something that a store is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ability {
    /// Take an object.
    Put,
    /// Give it back as it was.
    Get,
    /// Give a part of it.
    Range,
    /// Say its size.
    Size,
    /// List it at once, over pages.
    List,
    /// Refuse to overwrite.
    PutNew,
    /// Begin an upload in parts, list it, give it up.
    Multipart,
    /// Delete.
    Delete,
}

/// How it did it.
#[derive(Debug)]
pub enum Did {
    /// As it should.
    Well,
    /// It does not know how; what it did instead.
    Otherwise(&'static str),
    /// It failed, or gave a wrong answer.
    Failed(Error),
}

impl S3Store {
    /// Tries everything that backups need of a store, on objects below `folder`, which ends in `/`. What needs an object that
    /// could not be put is left out.
    pub async fn probe(&self, folder: &str) -> Vec<(Ability, Did)> {
        let (first, second) = (format!("{folder}first"), format!("{folder}second"));
        let body = || Body::from(Bytes::from_static(CONTENT));
        let mut tried = Vec::new();
        let put = async {
            self.put(&first, body()).await?;
            self.put(&second, body()).await
        };
        let put = did(put.await);
        let there = matches!(put, Did::Well);
        tried.push((Ability::Put, put));
        if there {
            tried.push((Ability::Get, self.gives(&first).await));
            tried.push((Ability::Range, self.gives_a_part(&first).await));
            tried.push((Ability::Size, self.says_the_size(&first).await));
            tried.push((Ability::List, self.lists_pages(folder, &[&first, &second]).await));
            tried.push((Ability::PutNew, self.refuses_to_overwrite(&first).await));
        }
        tried.push((Ability::Multipart, self.takes_parts(&format!("{folder}parts")).await));
        tried.push((Ability::Delete, self.deletes(&[&first, &second]).await));
        tried
    }

    async fn gives(&self, key: &str) -> Did {
        match self.get(key).await {
            Ok(bytes) if bytes == CONTENT => Did::Well,
            Ok(_) => Did::Failed(self.wrong("get", key, "other bytes came back")),
            Err(error) => Did::Failed(error),
        }
    }

    async fn gives_a_part(&self, key: &str) -> Did {
        match self.get_range(key, 8, 16).await {
            Ok(bytes) if bytes == CONTENT[8..24] => Did::Well,
            Ok(_) => Did::Failed(self.wrong("get a part of", key, "other bytes came back")),
            Err(error) => Did::Failed(error),
        }
    }

    async fn says_the_size(&self, key: &str) -> Did {
        match self.size(key).await {
            Ok(Some(size)) if size == CONTENT.len() as u64 => Did::Well,
            Ok(other) => Did::Failed(self.wrong("look at", key, format!("it calls its size {other:?}"))),
            Err(error) => Did::Failed(error),
        }
    }

    /// Two objects in pages of one.
    async fn lists_pages(&self, folder: &str, wanted: &[&str]) -> Did {
        let request = self.client.list_objects_v2().bucket(&self.bucket).prefix(self.name(folder)).max_keys(1);
        let mut pages = request.into_paginator().send();
        let mut found = Vec::new();
        while let Some(page) = pages.next().await {
            match page {
                Ok(page) => found.extend(page.contents().iter().filter_map(|object| object.key().map(str::to_owned))),
                Err(cause) => return Did::Failed(self.failed("list", folder, cause)),
            }
        }
        let all = wanted.iter().all(|key| found.contains(&self.name(key)));
        if all { Did::Well } else { Did::Failed(self.wrong("list", folder, format!("it shows {found:?} only"))) }
    }

    async fn refuses_to_overwrite(&self, key: &str) -> Did {
        let request = self.client.put_object().bucket(&self.bucket).key(self.name(key)).if_none_match("*");
        match self.upload(request, Body::from(Bytes::from_static(CONTENT))).await {
            Ok(()) => Did::Otherwise("it overwrites all the same"),
            Err(cause) => match cause.status() {
                Some(409 | 412) => Did::Well,
                Some(501) => Did::Otherwise("it says that it does not know how"),
                _ => Did::Failed(self.failed("put", key, cause)),
            },
        }
    }

    async fn takes_parts(&self, key: &str) -> Did {
        let open = match self.begin_multipart(key).await {
            Ok(open) => open,
            Err(error) => return Did::Failed(error),
        };
        let listed = match self.put_part(&open, 1, Bytes::from_static(CONTENT)).await {
            Ok(_) => self.lists_upload(&open).await,
            Err(error) => Did::Failed(error),
        };
        if let Err(error) = self.abort_upload(&open).await {
            return Did::Failed(error);
        }
        listed
    }

    /// Shows an upload among those that are open.
    async fn lists_upload(&self, open: &Multipart) -> Did {
        // an error of `open_uploads` no longer tells with which number the store has answered
        let request = self.client.list_multipart_uploads().bucket(&self.bucket).prefix(self.name(&open.key));
        match request.send().await {
            Err(cause) if cause.status() == Some(501) => {
                return Did::Otherwise("it says that it does not know how to list it");
            }
            Err(cause) => return Did::Failed(self.failed("list uploads below", &open.key, cause)),
            Ok(_) => {}
        }
        match self.open_uploads(&open.key).await {
            Ok(listed) if listed.iter().any(|other| other.upload == *open) => Did::Well,
            Ok(_) => Did::Otherwise("it does not list it"),
            Err(error) => Did::Failed(error),
        }
    }

    async fn deletes(&self, keys: &[&str]) -> Did {
        for key in keys {
            let deleted = async {
                self.delete(key).await?;
                self.size(key).await
            };
            match deleted.await {
                Ok(None) => {}
                Ok(Some(_)) => return Did::Failed(self.wrong("delete", key, "it is still there")),
                Err(error) => return Did::Failed(error),
            }
        }
        Did::Well
    }

    /// Whether the bucket answers our keys, and what time it is there, where it says so. Reads one name of a list.
    ///
    /// # Errors
    /// As a list.
    pub async fn reach(&self) -> (Result<(), Error>, Option<Timestamp>) {
        let seen = Clock::default();
        let request = self.client.list_objects_v2().bucket(&self.bucket).prefix(&self.prefix).max_keys(1);
        let answer = request.customize().interceptor(seen.clone()).send().await;
        let outcome = answer.map(drop).map_err(|cause| self.failed("list", "", cause));
        (outcome, seen.time())
    }

    fn wrong(&self, operation: &'static str, key: &str, cause: impl Into<String>) -> Error {
        Error::new(ErrorKind::Failed, operation, key, self.place(), cause.into())
    }
}

fn did(outcome: Result<(), Error>) -> Did {
    outcome.map_or_else(Did::Failed, |()| Did::Well)
}

/// Reads the `Date` of an answer, also of a refusal.
#[derive(Debug, Clone, Default)]
struct Clock(Arc<Mutex<Option<Timestamp>>>);

impl Clock {
    fn time(&self) -> Option<Timestamp> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Intercept for Clock {
    fn name(&self) -> &'static str {
        "Clock"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let date = context.response().headers().get("date");
        let date = date.and_then(|text| DateTime::from_str(text, DateTimeFormat::HttpDate).ok());
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) =
            date.and_then(|date| Timestamp::from_second(date.secs()).ok());
        Ok(())
    }
}

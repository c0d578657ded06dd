//! A repository in a bucket of a real S3 server, at the end of a line on which things can go wrong.

use std::sync::Arc;
use std::time::Duration;

use repository::store::{S3Store, Store};
use repository::{Error, Repository};

use crate::judge::{Restic, password};
use crate::line::Line;
use crate::versitygw::Versitygw;

/// Tries of each request.
pub(crate) const ATTEMPTS: usize = 3;

/// How long an answer may stand still.
pub(crate) const STALLED: Duration = Duration::from_secs(1);

/// A bucket behind a line of its own, under a prefix of its own.
pub(crate) struct Bucket<'a> {
    server: &'a Versitygw,
    pub(crate) line: Line,
    prefix: String,
}

impl<'a> Bucket<'a> {
    pub(crate) async fn new(server: &'a Versitygw, prefix: impl Into<String>) -> Self {
        let endpoint = server.options("").endpoint.unwrap();
        let line = Line::to(&format!("127.0.0.1:{}", endpoint.port().unwrap())).await;
        Self { server, line, prefix: prefix.into() }
    }

    pub(crate) async fn store(&self) -> Arc<dyn Store> {
        let mut options = self.server.options(&self.prefix);
        options.endpoint = Some(self.line.url().parse().unwrap());
        options.attempts = ATTEMPTS as u32;
        options.first_pause = Duration::from_millis(20);
        options.stall_timeout = STALLED;
        Arc::new(S3Store::new(options).await.unwrap())
    }

    /// As its first user, or a later one, makes and opens it.
    pub(crate) async fn initialised(&self) -> Result<Repository, Error> {
        repository::initialise(self.store().await, &password()).await
    }

    /// As another process would open it.
    pub(crate) async fn opened(&self) -> Repository {
        repository::open(self.store().await, &password()).await.unwrap()
    }

    pub(crate) fn restic(&self) -> Restic {
        let (repository, environment) = self.server.restic(&self.prefix);
        Restic { repository, environment }
    }

    /// Names of the objects in a folder.
    pub(crate) async fn objects(&self, folder: &str) -> Vec<String> {
        let listed = self.store().await.list(folder).await.unwrap();
        listed.into_iter().map(|object| object.key).collect()
    }
}

/// What came of an act that must end well, `when` something had gone wrong before.
pub(crate) fn fine<T>(outcome: Result<T, Error>, when: impl std::fmt::Debug) -> T {
    outcome.unwrap_or_else(|error| panic!("{when:?}: {}", crate::damage::chain(&error)))
}

//! Uploads: a disk snapshot into the repository.

mod apply;
mod content;
mod copy;
mod original;

use api::{Timestamp, Upload, UploadPhase, names};
use kube::ResourceExt as _;
use lifecycle::transfer::{self, Transfer, Work};

use crate::at_work::Place;
use crate::attempt::Claimed;
use crate::context::Context;
use crate::kind::Kind;

pub(crate) use copy::{describe_repository, open_repository};

impl Kind for Upload {
    fn lease(name: &str) -> String {
        names::upload_lease(name)
    }

    fn transfer(&self) -> Transfer {
        self.into()
    }

    fn has_ended(&self) -> bool {
        self.phase().is_some_and(UploadPhase::is_terminal)
    }

    fn knows(_: Work) -> bool {
        true
    }

    fn started(status: &Self::Status, node: &str, now: Timestamp) -> Self::Status {
        transfer::upload::started(status, node, now)
    }

    fn span(&self) -> tracing::Span {
        tracing::info_span!("upload", name = self.name_any(), disk_snapshot = self.spec.snapshot_id)
    }

    async fn perform(ctx: &Context, claimed: Claimed<Self>, place: &Place) {
        apply::perform(ctx, claimed, place).await;
    }
}

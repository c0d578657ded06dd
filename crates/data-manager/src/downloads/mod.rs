//! Downloads: a restore point onto a volume.

mod apply;
mod copy;
mod resume;

use api::{Download, DownloadPhase, Timestamp, names};
use kube::ResourceExt as _;
use lifecycle::transfer::{self, Transfer, Work};

use crate::at_work::Place;
use crate::attempt::Claimed;
use crate::context::Context;
use crate::kind::Kind;

impl Kind for Download {
    fn lease(name: &str) -> String {
        names::download_lease(name)
    }

    fn transfer(&self) -> Transfer {
        self.into()
    }

    fn has_ended(&self) -> bool {
        self.phase().is_some_and(DownloadPhase::is_terminal)
    }

    fn knows(work: Work) -> bool {
        matches!(work, Work::Copy { .. }) // it has no disk snapshot, and its deletion cancels it
    }

    fn started(status: &Self::Status, node: &str, now: Timestamp) -> Self::Status {
        transfer::download::started(status, node, now)
    }

    fn span(&self) -> tracing::Span {
        tracing::info_span!("download", name = self.name_any(), target_disk = self.spec.protected_entity_id)
    }

    async fn perform(ctx: &Context, claimed: Claimed<Self>, place: &Place) {
        apply::perform(ctx, claimed, place).await;
    }
}

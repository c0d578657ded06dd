//! What this node can do for an Upload. Reads only.

use api::{Timestamp, Upload, UploadPhase, names};
use kube::ResourceExt as _;
use lifecycle::transfer::{Holder, Node};
use operator::Error;

use crate::context::Context;

/// This node, as the decision about an Upload needs it.
pub(crate) async fn node(upload: &Upload, ctx: &Context) -> Result<Node, Error> {
    let name = upload.name_any();
    let at_work = ctx.at_work.has(&name);
    let ended = upload.phase().is_some_and(UploadPhase::is_terminal);
    let holder = if at_work || ended {
        Holder::Us // nothing to ask the API server for
    } else {
        holder(ctx, &names::upload_lease(&name)).await?
    };
    Ok(Node { free_slots: ctx.at_work.free_slots(), at_work, holder })
}

/// Who holds a lease, as this node sees it.
pub(crate) async fn holder(ctx: &Context, lease: &str) -> Result<Holder, Error> {
    Ok(match ctx.leases.held_by_another(lease).await? {
        None => Holder::Nobody,
        Some((_, free_in)) => {
            let seconds = i64::try_from(free_in.as_secs()).unwrap_or(i64::MAX).saturating_add(1);
            Holder::Other {
                until: Timestamp::now()
                    .saturating_add(jiff::SignedDuration::from_secs(seconds))
                    .unwrap_or(Timestamp::MAX),
            }
        }
    })
}

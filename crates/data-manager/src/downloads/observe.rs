//! What this node can do for a Download. Reads only.

use api::{Download, DownloadPhase, names};
use kube::ResourceExt as _;
use lifecycle::transfer::{Holder, Node};
use operator::Error;

use crate::context::Context;
use crate::uploads::holder;

/// This node, as the decision about a Download needs it.
pub(crate) async fn node(download: &Download, ctx: &Context) -> Result<Node, Error> {
    let name = download.name_any();
    let at_work = ctx.at_work.has(&name);
    let ended = download.phase().is_some_and(DownloadPhase::is_terminal);
    let holder = if at_work || ended {
        Holder::Us // nothing to ask the API server for
    } else {
        holder(ctx, &names::download_lease(&name)).await?
    };
    Ok(Node { free_slots: ctx.at_work.free_slots(), at_work, holder })
}

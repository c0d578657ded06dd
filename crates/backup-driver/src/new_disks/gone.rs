//! A Download that somebody deletes leaves its disk behind: a controller is told nothing about objects that are gone.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::Download;
use futures::StreamExt as _;
use kube::{Api, ResourceExt as _};
use lifecycle::transfer::STOPPING;
use lifecycle::{Problem, new_disk, retry};

use super::{apply, observe};
use crate::shown::Change;
use crate::{Context, Error};

/// How often a node that is to stop writing is looked at; it sends no event.
const LETTING_GO: Duration = Duration::from_secs(1);
/// How long the disk of a Download that was deleted is tried to be deleted.
const REMOVED_WITHIN: Duration = Duration::from_secs(3600);

/// Removes the disk of each Download that is deleted while somebody has to answer for it.
pub(super) async fn follow_deletions(ctx: Arc<Context>) {
    let mut changes = pin!(ctx.downloads.changes());
    while let Some(change) = changes.next().await {
        let Change::Gone(download) = change else { continue };
        ctx.new_disks.forget(&download.uid().unwrap_or_default());
        if new_disk::is_owed(&download) {
            tokio::spawn(after_deletion(download, ctx.clone()));
        }
    }
}

/// Removes the disk of a Download that is gone. Nobody else will: it is tried again and again, for [`REMOVED_WITHIN`].
pub(super) async fn after_deletion(download: Arc<Download>, ctx: Arc<Context>) {
    let (name, disk) = (download.name_any(), new_disk::name(&download));
    let (begun, mut failures) = (Instant::now(), 0);
    loop {
        let why = match remove_left(&download, &ctx).await {
            Ok(Left::Nothing) => return,
            Ok(Left::Written(_)) if begun.elapsed() < STOPPING => {
                tokio::time::sleep(LETTING_GO).await;
                continue;
            }
            Ok(Left::Written(node)) => format!("node {node} still writes it"),
            Err(error) => Problem::chain(&error),
        };
        failures += 1;
        let pause = retry::controller_pause(failures);
        if begun.elapsed() + pause > REMOVED_WITHIN {
            tracing::warn!(download = name, disk, why, "it was deleted, and its disk stays; delete it in vCenter");
            return;
        }
        tracing::info!(download = name, disk, why, again_in = ?pause, "it was deleted, and its disk is still there");
        tokio::time::sleep(pause).await;
    }
}

/// What a Download that is gone has left.
enum Left {
    /// Nothing; or it is not gone, and its own steps remove the disk.
    Nothing,
    /// A disk that this node writes.
    Written(String),
}

async fn remove_left(download: &Download, ctx: &Context) -> Result<Left, Error> {
    let downloads: Api<Download> = Api::namespaced(ctx.client.clone(), &ctx.namespace);
    let read = downloads.get_opt(&download.name_any()).await;
    let read = read.map_err(Error::cluster("look whether the Download is gone"))?;
    if read.is_some_and(|there| there.uid() == download.uid()) {
        return Ok(Left::Nothing);
    }
    if let Some(node) = observe::writer(download, ctx).await? {
        return Ok(Left::Written(node));
    }
    apply::delete_named(&new_disk::name(download), None, ctx).await?;
    Ok(Left::Nothing)
}

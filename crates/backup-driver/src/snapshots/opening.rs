//! Opens the repository that a Snapshot goes to, before anything is made in vCenter. Writes nothing into Kubernetes but an event, and into
//! a BackupRepository which namespace it did not know to be backed up through it.

use std::time::Duration;

use api::parameters::RepositoryFormat;
use api::{Reason, Snapshot};
use connections::from_original;
use lifecycle::Problem;
use operator::Note;

use crate::Context;
use crate::repositories::note_namespace;

/// The repository has to be open within this time (design D5b): until then nothing exists.
const OPENING: Duration = Duration::from_secs(30);

/// Opens the repository of claims that are backed up from `namespace`, and makes it where there is none.
pub(super) async fn open_repository(asked: &Snapshot, namespace: &str, ctx: &Context) -> Result<(), Problem> {
    let opening = async {
        let described = ctx.repositories.find(&asked.spec.backup_repository).await?;
        if ctx.repositories.format(&described).await? == RepositoryFormat::Legacy {
            let original = ctx.repositories.original(&described).await?;
            original.reach().await.map_err(|e| from_original("reach the bucket", &e))?;
            return Ok(None); // nothing has to be made before
        }
        let opened = ctx.repositories.open_or_make(&described, namespace).await?;
        Ok::<_, Problem>(Some((described, opened)))
    };
    let late = |_| {
        let cause = format!("open the repository: it was not open within {} seconds", OPENING.as_secs());
        Problem::passing(Reason::StoreUnreachable, cause)
    };
    let opened = tokio::time::timeout(OPENING, opening).await.map_err(late)??;
    let Some((described, opened)) = opened else { return Ok(()) };
    // no backup lies there yet; one that cannot be opened would be looked into for nothing ever after
    let noted = tokio::time::timeout(OPENING, note_namespace(&described, namespace, ctx)).await;
    noted.map_err(|_| {
        let cause =
            format!("note that namespace {namespace} is backed up: no answer within {} seconds", OPENING.as_secs());
        Problem::passing(Reason::ClusterUnreachable, cause)
    })??;
    if opened.well_known_key {
        let reason = Reason::RepositoryPasswordDefault;
        let message = format!("{} {}", reason.meaning(), reason.fix());
        tracing::warn!(%reason, place = opened.repository.place(), message);
        ctx.publisher.note(asked, &Note { reason, message, warning: true }).await;
    }
    Ok(())
}

//! Writes to BackupRepositories, which several of our tasks write, and their users.

use std::time::Duration;

use api::BackupRepository;
use connections::from_kube;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use lifecycle::{Problem, also_for};
use serde_json::{Value, json};

use crate::Context;
use crate::error::is_code;

/// Tries to change an object that others change too.
const TRIES: u32 = 6;
/// Pause after the first of them; each is twice as long as the one before, 3 seconds in all.
const PAUSE: Duration = Duration::from_millis(100);

/// Changes a BackupRepository. `wanted` gets what is there now and gives the patch, with the `resourceVersion` of it; where somebody else
/// was faster, it is asked anew. Nothing is written where it wants nothing, or where that object is gone. Gives whether it was written.
pub(crate) async fn change(
    described: &BackupRepository,
    ctx: &Context,
    wanted: impl Fn(&BackupRepository) -> Option<Value>,
) -> Result<bool, kube::Error> {
    let repositories: Api<BackupRepository> = Api::all(ctx.client.clone());
    let name = described.name_any();
    let mut failed = 0;
    loop {
        let read = repositories.get_opt(&name).await?;
        let Some(now) = read.filter(|now| now.uid() == described.uid()) else { return Ok(false) };
        let Some(patch) = wanted(&now) else { return Ok(false) };
        match repositories.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Err(error) if is_code(&error, 409) && failed + 1 < TRIES => {
                tokio::time::sleep(PAUSE * 2u32.pow(failed)).await;
                failed += 1;
            }
            written => return written.map(|_| true),
        }
    }
}

/// Notes that backups of a namespace lie here, where the BackupRepository does not allow it: from then on they are looked for.
pub(crate) async fn note_namespace(
    described: &BackupRepository,
    namespace: &str,
    ctx: &Context,
) -> Result<(), Problem> {
    // what the location `default` says is no object, and can note nothing
    if described.uid().is_none() || also_for::noted(described, namespace).is_none() {
        return Ok(());
    }
    let changed = change(described, ctx, |now| {
        let (key, value) = also_for::noted(now, namespace)?;
        Some(json!({ "metadata": { "annotations": { key: value }, "resourceVersion": now.resource_version() } }))
    });
    let name = described.name_any();
    let act = format!("note in BackupRepository {name} that namespace {namespace} is backed up through it");
    if changed.await.map_err(|e| from_kube(&act, &e))? {
        tracing::info!(
            repository = name,
            namespace,
            "noted that there are backups of a namespace that it does not allow"
        );
    }
    Ok(())
}

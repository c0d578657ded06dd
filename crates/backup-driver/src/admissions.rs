//! Lets Uploads start that were made with `admitted: false`, as many per datastore as the user has set. Decides nothing:
//! [`lifecycle::admission`] does.
//!
//! The status of an Upload is the driver's as long as it is not admitted, and the data-managers' from then on.

use std::collections::HashSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use api::Upload;
use futures::StreamExt as _;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use lifecycle::Problem;
use lifecycle::admission::{Budget, Verdict, verdicts};
use lifecycle::transfer::upload;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::error::is_code;
use crate::shown::shown;
use crate::{Context, Error};

/// How long the others wait for a change of the setting, or for a failed attempt to be due.
const LOOK_AGAIN: Duration = Duration::from_secs(15);
/// Changes that one look answers, when so many have come.
const CHANGES: usize = 1000;

/// What one process remembers.
#[derive(Default)]
struct Admissions {
    /// Uids of those that were admitted and are not shown so yet.
    granted: HashSet<String>,
    /// What was last said to be wrong with the setting.
    complaint: Option<String>,
}

/// Looks at all Uploads after each change until `stop`.
pub(crate) async fn run(ctx: Arc<Context>, stop: CancellationToken) {
    let (uploads, changed) = shown::<Upload>(Api::namespaced(ctx.client.clone(), &ctx.namespace));
    let mut changed = pin!(changed.ready_chunks(CHANGES));
    let mut admissions = Admissions::default();
    let mut some_wait = false;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            change = changed.next() => if change.is_none() { return },
            () = tokio::time::sleep(LOOK_AGAIN), if some_wait => {}
        }
        some_wait = admissions.look(&uploads.state(), &ctx).await;
    }
}

impl Admissions {
    /// Lets those start that may; tells whether others wait.
    async fn look(&mut self, uploads: &[Arc<Upload>], ctx: &Context) -> bool {
        let waits = |upload: &Arc<Upload>| upload.spec.admitted == Some(false);
        self.granted.retain(|uid| uploads.iter().any(|u| waits(u) && u.uid().as_ref() == Some(uid)));
        if uploads.iter().all(|upload| upload.spec.admitted.is_none()) {
            return false;
        }
        let Some(budget) = self.budget(ctx).await else { return true };
        let granted = |upload: &Upload| upload.uid().is_some_and(|uid| self.granted.contains(&uid));
        for (upload, verdict) in verdicts(uploads, budget, granted, ctx.now()) {
            match carry_out(upload, &verdict, ctx).await {
                Ok(()) if verdict == Verdict::Admit => self.granted.extend(upload.uid()),
                Ok(()) => {}
                Err(error) if error.is_conflict() => {} // what has changed comes as an event
                Err(error) => {
                    let (upload, error) = (upload.name_any(), Problem::chain(&error));
                    tracing::warn!(upload, error, "could not tell an Upload whether it may start; trying again");
                }
            }
        }
        uploads.iter().any(waits)
    }

    /// The setting; `None` when it cannot be read now. One that cannot be understood bounds nothing.
    async fn budget(&mut self, ctx: &Context) -> Option<Budget> {
        let settings = match ctx.vcenters.settings().await {
            Ok(settings) => settings,
            Err(problem) => {
                tracing::warn!(%problem, "whether Uploads may start is not known now");
                return None;
            }
        };
        let (budget, complaint) = match settings.uploads_per_datastore() {
            Ok(budget) => (budget, None),
            Err(error) => (None, Some(error.to_string())),
        };
        if self.complaint != complaint {
            if let Some(error) = &complaint {
                tracing::warn!(error, "Uploads of one datastore do not take turns until it is corrected");
            }
            self.complaint = complaint;
        }
        Some(budget)
    }
}

async fn carry_out(upload: &Upload, verdict: &Verdict, ctx: &Context) -> Result<(), Error> {
    let before = upload.status.clone().unwrap_or_default();
    match verdict {
        Verdict::HoldBack(why) => {
            ctx.publish(upload, &upload::held_back(&before, why, ctx.now())).await?;
            Ok(())
        }
        Verdict::Admit => {
            // said before it is done: from then on the status is not ours
            let upload = ctx.publish(upload, &upload::admitted(&before, ctx.now())).await?;
            admit(&upload, true, ctx).await
        }
        Verdict::TakeBack => admit(upload, false, ctx).await,
    }
}

/// Writes the field, if the Upload is what was looked at.
async fn admit(upload: &Upload, admitted: bool, ctx: &Context) -> Result<(), Error> {
    let uploads: Api<Upload> = Api::namespaced(ctx.client.clone(), &ctx.namespace);
    let patch = Patch::Merge(json!({
        "metadata": { "resourceVersion": upload.resource_version() },
        "spec": { "admitted": admitted },
    }));
    match uploads.patch(&upload.name_any(), &PatchParams::default(), &patch).await {
        Ok(_) => {
            tracing::info!(upload = upload.name_any(), admitted, "told an Upload whether it may start");
            Ok(())
        }
        Err(e) if is_code(&e, 404) => Ok(()), // deleted since we looked, which comes as an event
        Err(e) => Err(Error::cluster("tell an Upload whether it may start")(e)),
    }
}

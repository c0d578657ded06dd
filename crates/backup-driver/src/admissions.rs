//! Lets Uploads start that were made with `admitted: false`, as many per datastore and per ESXi host as the user has set.
//! Decides nothing: [`lifecycle::admission`] does. Where they read is found out by [`crate::places`].
//!
//! The status of an Upload is the driver's as long as it is not admitted, and the data-managers' from then on.

use std::collections::HashSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use api::{Download, Upload};
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use lifecycle::Problem;
use lifecycle::admission::{Budgets, Places, Verdict, anyone_asks, verdicts};
use lifecycle::transfer::upload;
use serde_json::json;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::error::is_code;
use crate::places::Finder;
use crate::{Context, Error};

/// How long the others wait for a change of a setting, for a machine that moves, or for a failed attempt to be due.
const LOOK_AGAIN: Duration = Duration::from_secs(15);
/// How long Uploads wait for the first list of restores, which count beside them.
const RESTORES_WITHIN: Duration = Duration::from_secs(30);

/// What one process remembers.
#[derive(Default)]
struct Admissions {
    /// Uids of those that were admitted and are not shown so yet.
    granted: HashSet<String>,
    /// Where transfers read and write.
    finder: Finder,
}

/// Looks at all Uploads after each change of one or of a restore, until `stop`.
pub(crate) async fn run(ctx: Arc<Context>, stop: CancellationToken) {
    let (uploads, downloads) = (ctx.uploads.objects(), ctx.downloads.objects());
    let (mut changed, mut written) = (ctx.uploads.touched(), ctx.downloads.touched());
    let mut admissions = Admissions::default();
    let mut restores = pin!(timeout(RESTORES_WITHIN, downloads.wait_until_ready()));
    let (mut may_begin, mut some_wait) = (false, false);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            change = changed.changed() => if change.is_err() { return },
            change = written.changed() => if change.is_err() { return },
            listed = &mut restores, if !may_begin => {
                may_begin = true;
                if listed.is_err() {
                    let within = RESTORES_WITHIN.as_secs();
                    tracing::warn!("Downloads could not be listed within {within} s: restores are not counted until they are");
                }
            }
            () = tokio::time::sleep(LOOK_AGAIN), if some_wait => {}
        }
        if may_begin {
            some_wait = admissions.look(&uploads.state(), &downloads.state(), &ctx).await;
        }
    }
}

impl Admissions {
    /// Lets those start that may; tells whether others wait.
    async fn look(&mut self, uploads: &[Arc<Upload>], downloads: &[Arc<Download>], ctx: &Context) -> bool {
        let waits = |upload: &Arc<Upload>| upload.spec.admitted == Some(false);
        self.granted.retain(|uid| uploads.iter().any(|u| waits(u) && u.uid().as_ref() == Some(uid)));
        if uploads.iter().all(|upload| upload.spec.admitted.is_none()) {
            return false;
        }
        let Some(budgets) = Self::budgets(ctx).await else { return true };
        let (finder, granted, now) = (&mut self.finder, &self.granted, ctx.now());
        let granted = |upload: &Upload| upload.uid().is_some_and(|uid| granted.contains(&uid));
        let places = match anyone_asks(uploads, granted, now) {
            true => finder.places(uploads, downloads, budgets, ctx).await,
            false => Places::default(),
        };
        for (upload, verdict) in verdicts(uploads, downloads, budgets, &places, granted, now) {
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

    /// The settings; `None` when they cannot be read now. One that cannot be understood bounds nothing, as the log said when it was read.
    async fn budgets(ctx: &Context) -> Option<Budgets> {
        let settings = match ctx.vcenters.settings().await {
            Ok(settings) => settings,
            Err(problem) => {
                tracing::warn!(%problem, "whether Uploads may start is not known now");
                return None;
            }
        };
        Some(settings.budgets())
    }
}

async fn carry_out(upload: &Upload, verdict: &Verdict, ctx: &Context) -> Result<(), Error> {
    let before = upload.status.clone().unwrap_or_default();
    match verdict {
        Verdict::HoldBack { reason, why } => {
            ctx.publish(upload, &upload::held_back(&before, *reason, why, ctx.now())).await?;
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

//! Writes for a clone, up to the written volume and at its end. Decides nothing.

use std::time::Duration;

use api::conditions::{self, READY};
use api::{BackupRepository, CloneFromSnapshot, Download, Reason, Timestamp, labels};
use connections::{from_kube, from_look_for_original, from_repository, restore_point};
use disk::DiskSnapshot;
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::runtime::controller::Action;
use kube::{Api, ResourceExt};
use lifecycle::clone::claims::{self, class};
use lifecycle::clone::volumes::{self, UnknownDisk};
use lifecycle::clone::{self, is_ours, status};
use lifecycle::patience::Patience;
use lifecycle::stored::is_outside_our_folder;
use lifecycle::{Problem, flavor, new_disk, retry};
use operator::Note;
use serde_json::{Value, json};

use super::Next;
use super::observe::Looked;
use crate::error::{is_code, is_refusal};
use crate::steps::Step;
use crate::{Attempts, Context, Error, To};

/// Opening the repository and looking for the restore point take no longer than this in one attempt.
const LOOKING: Duration = Duration::from_secs(60);
/// Longest time in which a lock is looked for that nobody needs any more.
const UNLOCKING: Duration = Duration::from_secs(10);
/// How often it is looked whether the CSI driver has recorded the disk of a volume that it made in the in-tree driver's name.
const RECORDING: Duration = Duration::from_secs(3);
/// How often a node that was asked to stop writing is looked at; it sends no event.
const LETTING_GO: Duration = Duration::from_millis(500);
/// How often the removal of a volume is looked at; its going comes as an event.
const REMOVING: Duration = Duration::from_secs(5);

/// Looks for the restore point; if it is there, makes the scratch claim.
pub(super) async fn provision(looked: &Looked, ctx: &Context) -> Result<Next, Error> {
    let asked = &looked.clone;
    // what an attempt says comes back as an event, and is no reason for another one
    if let Some(due) = ctx.pauses.due(&Attempts::of(asked, To::Provision)).filter(|due| *due > ctx.now()) {
        return Ok(Next::Look(look_by(asked, Some(due), ctx)));
    }
    let begun = ctx.now(); // an attempt may take long
    let before = asked.status.clone().unwrap_or_default();
    match ctx.vcenters.flavor().await.map(|found| flavor::refusal(&found, "restore a claim")) {
        Ok(None) => {}
        Ok(Some(refused)) => return give_up(asked, &refused, ctx).await,
        Err(problem) => return not_provisioned(asked, &problem, begun, ctx).await,
    }
    let asked = &ctx.publish(asked, &status::provisioning(&before, ctx.now())).await?;
    let scratch = match scratch_claim(asked, looked.seen.target.as_ref(), ctx).await {
        Ok(scratch) => scratch,
        Err(problem) => return not_provisioned(asked, &problem, begun, ctx).await,
    };
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(ctx.client.clone(), &ctx.namespace);
    match claims.create(&PostParams::default(), &scratch).await {
        Ok(_) => {}
        Err(e) if is_code(&e, 409) => {}
        Err(e) if is_refusal(&e) => {
            let problem = Problem::lasting(Reason::InvalidSpec, format!("make the scratch claim: {e}"));
            return give_up(asked, &problem, ctx).await;
        }
        Err(e) => return not_provisioned(asked, &from_kube("make the scratch claim", &e), begun, ctx).await,
    }
    Step::ScratchMade.done();
    let before = asked.status.clone().unwrap_or_default();
    ctx.publish(asked, &status::provisioned(&before, ctx.now())).await?;
    ctx.pauses.forget(&Attempts::of(asked, To::Provision));
    Ok(Next::Step)
}

/// It is tried again for a while after the attempt that has `begun` then, or ends.
async fn not_provisioned(
    asked: &CloneFromSnapshot,
    problem: &Problem,
    begun: Timestamp,
    ctx: &Context,
) -> Result<Next, Error> {
    let attempts = Attempts::of(asked, To::Provision);
    let last = clone::begins_until(asked, problem, ctx.pauses.due(&attempts), begun);
    hindered(asked, problem, (clone::BEGINNING, begun, last), &attempts, ctx).await
}

/// The API server does not take the claim of a volume that is written.
pub(super) async fn not_handed(
    asked: &CloneFromSnapshot,
    problem: &Problem,
    begun: Timestamp,
    ctx: &Context,
) -> Result<Next, Error> {
    let attempts = Attempts::of(asked, To::Hand);
    let last = clone::hands_until(asked, problem, ctx.pauses.due(&attempts), begun);
    hindered(asked, problem, (clone::HANDING, begun, last), &attempts, ctx).await
}

/// Says what keeps it from going on, and tries again, later each time and for the `last` time then; or gives up. The attempt that failed
/// had `begun` then.
async fn hindered(
    asked: &CloneFromSnapshot,
    problem: &Problem,
    (patience, begun, last): (Patience, Timestamp, Option<Timestamp>),
    attempts: &Attempts,
    ctx: &Context,
) -> Result<Next, Error> {
    let Some(last) = last else { return give_up(asked, problem, ctx).await };
    let now = ctx.now();
    // noted before it is said: it was tried, whatever becomes of the word
    let pause = |errors| retry::controller_pause(errors).min(retry::wake(last, now));
    let due = ctx.pauses.after_failure(attempts, now, pause);
    let before = asked.status.clone().unwrap_or_default();
    ctx.publish(asked, &status::hindered(&before, patience, problem, begun)).await?;
    tracing::warn!(clone = asked.name_any(), %problem, again_at = %due, "a restore does not go on");
    Ok(Next::Look(look_by(asked, Some(due), ctx)))
}

fn uid_of(asked: &CloneFromSnapshot) -> String {
    asked.uid().unwrap_or_default()
}

async fn scratch_claim(
    asked: &CloneFromSnapshot,
    target: Option<&PersistentVolumeClaim>,
    ctx: &Context,
) -> Result<PersistentVolumeClaim, Problem> {
    let like = claims::model(asked, target)?;
    let late = |_| {
        let cause = format!("look for the restore point: not found within {} seconds", LOOKING.as_secs());
        Problem::passing(Reason::StoreUnreachable, cause)
    };
    let disk_bytes = tokio::time::timeout(LOOKING, disk_size(asked, ctx)).await.map_err(late)??;
    claims::fits(asked, &like, disk_bytes)?;
    let node = node_for(&like, ctx).await?;
    Ok(claims::scratch(asked, &like, disk_bytes, &ctx.namespace, node.as_deref()))
}

/// How large the disk is, in bytes, in the repository, or else in the original's layout.
async fn disk_size(asked: &CloneFromSnapshot, ctx: &Context) -> Result<u64, Problem> {
    let source = claims::source(asked)?;
    let described = ctx.repositories.find(&asked.spec.backup_repository).await?;
    let from = source.namespace_among(&described.allowed_namespaces).ok_or_else(|| {
        let cause = "neither the id nor the repository says from which namespace the claim was backed up";
        Problem::lasting(Reason::InvalidSpec, cause)
    })?;
    match restore_point_size(&described, &from, &source.disk_snapshot, ctx).await {
        Err(problem) if clone::may_be_of_the_original(&problem) => {
            let found = original_size(&described, &source.disk_snapshot, ctx).await;
            let in_use = ctx.repositories.format(&described).await.ok();
            match found {
                // keys for our folder alone are enough for what is ours
                Err(denied) if is_outside_our_folder(&denied, in_use) => Err(problem),
                found => found?.ok_or(problem),
            }
        }
        found => found,
    }
}

/// Finds the restore point and reads how large its disk is.
///
/// It opens the whole restore point, index included, where one number would do: this is also the proof that all of its
/// chunks are there, which must come before a volume is made. The index stays open for the next restore.
async fn restore_point_size(
    described: &BackupRepository,
    from: &str,
    disk_snapshot: &DiskSnapshot,
    ctx: &Context,
) -> Result<u64, Problem> {
    let repository = ctx.repositories.open(described, from).await?;
    let found = restore_point(&repository, disk_snapshot).await?;
    let point = found.ok_or_else(|| {
        let cause = format!(
            "look for the restore point of {disk_snapshot}: there is none in {}, the repository of namespace {from}, BackupRepository {}",
            repository.place(),
            described.name_any()
        );
        Problem::lasting(Reason::RestorePointMissing, cause)
    })?;
    Ok(point.size())
}

/// Finds the original's backup and checks that all of its objects are there.
async fn original_size(
    described: &BackupRepository,
    disk_snapshot: &DiskSnapshot,
    ctx: &Context,
) -> Result<Option<u64>, Problem> {
    let original = ctx.repositories.original(described).await?;
    let found = original.open(disk_snapshot).await;
    let found = found.map_err(|e| from_look_for_original("look for the backup in the original's layout", &e))?;
    Ok(found.map(|disk| disk.size()))
}

/// The node to name on the claim, where the class waits for a first consumer: the one the scheduler has chosen for the
/// real claim's pod if there is one yet.
async fn node_for(like: &PersistentVolumeClaim, ctx: &Context) -> Result<Option<String>, Problem> {
    let class = class(like);
    let classes: Api<StorageClass> = Api::all(ctx.client.clone());
    let read = classes.get_opt(class).await.map_err(|e| from_kube("read the storage class", &e))?;
    let Some(found) = read else {
        return Err(Problem::lasting(Reason::StorageClassMissing, format!("storage class `{class}` does not exist")));
    };
    if found.volume_binding_mode.as_deref() != Some("WaitForFirstConsumer") {
        return Ok(None);
    }
    let nodes: Api<Node> = Api::all(ctx.client.clone());
    let all = nodes.list(&ListParams::default()).await.map_err(|e| from_kube("list nodes", &e))?;
    let usable = |n: &&Node| n.spec.as_ref().is_none_or(|s| s.unschedulable != Some(true));
    let of_the_pod = like.annotations().get(claims::SELECTED_NODE);
    let chosen = all.items.iter().filter(usable).max_by_key(|n| (n.metadata.name.as_ref() == of_the_pod, is_ready(n)));
    let cause = "name a node for a class that waits for a first consumer: there is none";
    let chosen = chosen.ok_or_else(|| Problem::passing(Reason::ClaimBindTimeout, cause))?;
    Ok(Some(chosen.name_any()))
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|s| s.conditions.iter().flatten());
    conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True")
}

/// Makes the Download for the volume that is there.
pub(super) async fn download(looked: &Looked, ctx: &Context) -> Result<Next, Error> {
    let Some(volume) = &looked.seen.volume else { return Ok(Next::Look(Action::await_change())) };
    let now = ctx.now(); // when it is asked: an answer may take long
    let disk = match ctx.migrations.disk_of(volume).await {
        Ok(disk) => disk,
        Err(problem) => return cannot_say(&looked.clone, volume, problem, now, ctx).await,
    };
    ctx.pauses.forget(&Attempts::of(&looked.clone, To::FindDisk));
    let before = looked.clone.status.clone().unwrap_or_default();
    // first: what is not told later has its own time
    let asked = &ctx.publish(&looked.clone, &status::goes_on(&before)).await?;
    let wanted = match claims::source(asked) {
        Ok(source) => claims::download(asked, &source, &disk, ctx.now()),
        Err(problem) => return give_up(asked, &problem, ctx).await,
    };
    let downloads: Api<Download> = Api::namespaced(ctx.client.clone(), &ctx.namespace);
    match downloads.create(&PostParams::default(), &wanted).await {
        Ok(_) => {}
        Err(e) if is_code(&e, 409) => {}
        Err(e) => return Err(Error::cluster("make the Download")(e)),
    }
    Step::DownloadMade.done();
    Ok(Next::Step)
}

/// Says what keeps it waiting, and looks again, later each time, or gives up.
async fn cannot_say(
    asked: &CloneFromSnapshot,
    volume: &PersistentVolume,
    problem: Problem,
    now: Timestamp,
    ctx: &Context,
) -> Result<Next, Error> {
    let before = asked.status.clone().unwrap_or_default();
    match volumes::unknown_disk(asked, volume, problem, ctx.pauses.due(&Attempts::of(asked, To::FindDisk)), now) {
        UnknownDisk::IsRecorded(at) => {
            let message =
                format!("waiting until {at} for the CSI driver to record the disk of volume {}", volume.name_any());
            ctx.publish(asked, &status::working(&before, Reason::Provisioning, &message, now)).await?;
            Ok(Next::Look(Action::requeue(RECORDING)))
        }
        UnknownDisk::MayPass(problem, last) => {
            // noted before it is said: it was asked, whatever becomes of the word
            let pause = |errors| retry::controller_pause(errors).min(retry::wake(last, now));
            let due = ctx.pauses.after_failure(&Attempts::of(asked, To::FindDisk), ctx.now(), pause);
            ctx.publish(asked, &status::disk_unknown(&before, &problem, now)).await?;
            Ok(Next::Look(ctx.wake_at(due)))
        }
        UnknownDisk::IsUnknown(problem) => give_up(asked, &problem, ctx).await,
    }
}

/// Says what the Download says.
pub(super) async fn follow(looked: &Looked, at: Option<Timestamp>, ctx: &Context) -> Result<Next, Error> {
    let before = looked.clone.status.clone().unwrap_or_default();
    if let Some(download) = &looked.seen.download {
        ctx.publish(&looked.clone, &status::followed(&before, download, ctx.now())).await?;
    }
    Ok(Next::Look(look_by(&looked.clone, at, ctx)))
}

/// Looks again at that time, or sooner where somebody may take the claim away meanwhile.
pub(super) fn look_by(asked: &CloneFromSnapshot, at: Option<Timestamp>, ctx: &Context) -> Action {
    clone::look_by(asked, at, ctx.now()).map_or_else(Action::await_change, |at| ctx.wake_at(at))
}

/// Velero has not made the claim yet.
pub(super) async fn await_claim(asked: &CloneFromSnapshot, at: Timestamp, ctx: &Context) -> Result<Next, Error> {
    let before = asked.status.clone().unwrap_or_default();
    let message = format!("waiting until {at} for Velero to create the claim");
    ctx.publish(asked, &status::working(&before, Reason::WaitingForClaim, &message, ctx.now())).await?;
    Ok(Next::Look(ctx.wake_at(ctx.now() + clone::claim_pause(asked, ctx.now()))))
}

/// Notes why it ends, before anything is removed.
pub(super) async fn give_up(asked: &CloneFromSnapshot, problem: &Problem, ctx: &Context) -> Result<Next, Error> {
    let before = asked.status.clone().unwrap_or_default();
    ctx.publish(asked, &status::giving_up(&before, problem, ctx.now())).await?;
    Step::EndNoted.done();
    Ok(Next::Step)
}

/// Notes that it was asked to stop, before anything is removed.
pub(super) async fn stop_now(asked: &CloneFromSnapshot, ctx: &Context) -> Result<Next, Error> {
    let before = asked.status.clone().unwrap_or_default();
    ctx.publish(asked, &status::stopping(&before, ctx.now())).await?;
    Step::EndNoted.done();
    Ok(Next::Step)
}

/// Deletes the Download and looks until no node holds its lease: a volume must not go while it is written.
pub(super) async fn stop_writing(looked: &Looked, ctx: &Context) -> Result<Next, Error> {
    if let Some(download) = &looked.seen.download {
        delete::<Download>(ctx, &ctx.namespace, &download.name_any()).await?;
    }
    Ok(Next::Look(Action::requeue(LETTING_GO)))
}

/// Removes Download, claims and volume. The volume's going is the provisioner's work; we wait for it.
pub(super) async fn clean(looked: &Looked, ctx: &Context) -> Result<Next, Error> {
    let (asked, seen) = (&looked.clone, &looked.seen);
    let namespace = asked.namespace().unwrap_or_default();
    if let Some(download) = &seen.download {
        delete::<Download>(ctx, &ctx.namespace, &download.name_any()).await?;
    }
    if let Some(volume) = &seen.volume {
        doom(volume, &asked.uid().unwrap_or_default(), ctx).await?;
    }
    if let Some(target) = seen.target.as_ref().filter(|t| is_ours(asked, t) && asked.spec.claim_creator.is_none()) {
        delete::<PersistentVolumeClaim>(ctx, &namespace, &target.name_any()).await?;
    }
    if let Some(scratch) = seen.scratch.as_ref().filter(|s| s.metadata.deletion_timestamp.is_none()) {
        delete::<PersistentVolumeClaim>(ctx, &ctx.namespace, &scratch.name_any()).await?;
    }
    Step::Cleaned.done();
    let removed = seen.volume.is_none() && seen.scratch.is_none();
    Ok(if removed { Next::Step } else { Next::Look(Action::requeue(REMOVING)) })
}

/// Lets a volume go with its claim, and marks it, so that it is seen until it is gone.
///
/// A volume that was pointed at a claim which it did not get may have lost that claim's uid (V-04). Then it is never
/// released, and the next claim of that name would take it; so it is pointed back at its scratch claim, which is gone.
pub(crate) async fn doom(volume: &PersistentVolume, clone_uid: &str, ctx: &Context) -> Result<(), Error> {
    let spec = volume.spec.as_ref();
    let policy = spec.and_then(|s| s.persistent_volume_reclaim_policy.as_deref());
    let scratch = claims::scratch_name_of(clone_uid);
    let claim = spec.and_then(|s| s.claim_ref.as_ref());
    let released = claim.is_some_and(|c| c.name.as_deref() == Some(&scratch) && c.uid.is_some());
    if policy == Some("Delete") && clone::is_marked(volume) && released {
        return Ok(());
    }
    let volumes: Api<PersistentVolume> = Api::all(ctx.client.clone());
    let mut patch = json!({
        // the volume controller may be binding it at this moment
        "metadata": { "labels": { labels::SCRATCH_FOR: clone_uid }, "resourceVersion": volume.resource_version() },
        "spec": { "persistentVolumeReclaimPolicy": "Delete" },
    });
    if !released {
        patch["spec"]["claimRef"] = json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "namespace": ctx.namespace, "name": scratch, "uid": clone_uid,
            "resourceVersion": Value::Null, "fieldPath": Value::Null,
        });
    }
    match volumes.patch(&volume.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await {
        Ok(_) => Ok(()),
        Err(e) if is_code(&e, 404) => Ok(()),
        Err(e) => Err(Error::cluster("let the volume go")(e)),
    }
}

/// Deletes an object of a namespace; one that is gone already is deleted.
pub(crate) async fn delete<K>(ctx: &Context, namespace: &str, name: &str) -> Result<(), Error>
where
    K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + serde::de::DeserializeOwned
        + std::fmt::Debug,
{
    let api: Api<K> = Api::namespaced(ctx.client.clone(), namespace);
    match api.delete(name, &DeleteParams::default()).await {
        Ok(_) => Ok(()),
        Err(e) if is_code(&e, 404) => Ok(()),
        Err(e) => Err(Error::cluster(format!("delete {} {namespace}/{name}", K::kind(&())))(e)),
    }
}

/// Removes the lock that a node has left in the repository which died while it wrote the volume: no node will have that Download any more.
/// What cannot be removed now goes once it is stale.
async fn unlock(asked: &CloneFromSnapshot, ctx: &Context) {
    let (Ok(source), Some(download)) = (claims::source(asked), claims::download_name(asked)) else { return };
    let removing = async {
        let described = ctx.repositories.find(&asked.spec.backup_repository).await?;
        let Some(from) = source.namespace_among(&described.allowed_namespaces) else { return Ok(0) };
        let repository = ctx.repositories.open(&described, &from).await?;
        repository.remove_locks_of(&download).await.map_err(|e| from_repository("remove the lock of the Download", &e))
    };
    match tokio::time::timeout(UNLOCKING, removing).await {
        Ok(Ok(_)) => {}
        Ok(Err(problem)) => tracing::info!(%problem, download, "a lock of it may be left until it is stale"),
        Err(_) => tracing::info!(download, "the store does not answer; a lock of it may be left until it is stale"),
    }
}

/// Everything is removed: writes the end that was noted. Velero shows why an operation failed only under `--details`, so
/// the claim that stays without a volume says it too (V-07).
pub(super) async fn end(looked: &Looked, ctx: &Context) -> Result<Next, Error> {
    let asked = &looked.clone;
    let ended = status::ended(&asked.status.clone().unwrap_or_default(), ctx.now());
    let ready = conditions::get(&ended.conditions, READY).cloned();
    ctx.publish(asked, &ended).await?;
    ctx.pauses.forget_all(&uid_of(asked));
    if ended.progress.is_some() && !looked.seen.writing {
        // beside: nobody waits for it, and a store that is away must not keep the end of others
        let (asked, ctx) = (asked.clone(), ctx.clone());
        tokio::spawn(async move {
            // a thousand restores may be cancelled at once, and each of them opens a repository
            let Ok(_turn) = ctx.unlocking.acquire().await else { return }; // nobody closes it
            unlock(&asked, &ctx).await;
        });
    }
    let left = looked.seen.target.as_ref().filter(|t| asked.spec.claim_creator.is_some() && is_ours(asked, t));
    let reason = ready.as_ref().and_then(|c| Reason::from_word(&c.reason));
    if let (Some(claim), Some(reason), Some(ready)) = (left, reason, ready) {
        let message = format!("CloneFromSnapshot {} ended: {}", asked.name_any(), ready.message);
        ctx.publisher.note(claim, &Note { reason, message, warning: true }).await;
    }
    Ok(Next::Look(Action::await_change()))
}

/// The claim is bound and holds the data. Which disk it is says the Download; nothing waits for that where it is gone.
pub(super) async fn complete(looked: &Looked, ctx: &Context) -> Result<Next, Error> {
    let disk = looked.seen.download.as_ref().and_then(new_disk::disk_of);
    let before = looked.clone.status.clone().unwrap_or_default();
    let progress = looked.seen.download.as_ref().and_then(|d| d.status.as_ref()).map(|s| s.progress);
    let before = api::CloneFromSnapshotStatus { progress: progress.or(before.progress), ..before };
    ctx.publish(&looked.clone, &status::completed(&before, disk.as_ref(), ctx.now())).await?;
    ctx.pauses.forget_all(&uid_of(&looked.clone));
    Ok(Next::Look(Action::await_change()))
}

/// Deletes a clone that has been finished for a day.
pub(super) async fn remove(asked: &CloneFromSnapshot, ctx: &Context) -> Result<Next, Error> {
    let clones: Api<CloneFromSnapshot> = Api::namespaced(ctx.client.clone(), &asked.namespace().unwrap_or_default());
    let this_one = Preconditions { uid: asked.uid(), resource_version: asked.resource_version() };
    let params = DeleteParams { preconditions: Some(this_one), ..DeleteParams::default() };
    clones.delete(&asked.name_any(), &params).await.map_err(Error::cluster("delete a finished CloneFromSnapshot"))?;
    Ok(Next::Look(Action::await_change()))
}

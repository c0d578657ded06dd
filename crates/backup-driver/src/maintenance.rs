//! Frees the space of deleted backups: watches BackupRepositories, and runs [`Repository::maintain`] when
//! `lifecycle::maintenance` says it is time. One run at a time; transfers neither stop it nor wait for it.
//!
//! What a restart must know stands in annotations of the BackupRepository; how the last run ended, in its condition
//! `Maintenance`.
//!
//! [`Repository::maintain`]: repository::Repository::maintain

mod parts;

use std::sync::Arc;
use std::time::Duration;

use api::conditions::{self, Status};
use api::{BackupRepository, REPOSITORY_DRIVER, Reason, RepositoryStatus, Timestamp, Weight};
use connections::{Settings, from_repository};
use futures::StreamExt;
use kube::api::{Patch, PatchParams};
use kube::runtime::controller::{Action, Config, Controller};
use kube::runtime::reflector::Store;
use kube::{Api, ResourceExt};
use lifecycle::maintenance::{self, Noted, Part, Plan, after_run, plan};
use lifecycle::{Problem, retry};
use operator::client::watching;
use operator::{Note, Watches};
use repository::{MaintenanceOptions, Report, Repository};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use self::parts::{Done, Parts, Ran};
use crate::repositories::change;
use crate::{Attempts, Context, Error, To};

/// Condition of a BackupRepository: how the last run ended.
const MAINTENANCE: &str = "Maintenance";
/// A changed setting is seen after this long at the latest; ConfigMaps are not watched.
const SETTINGS: Duration = Duration::from_secs(3600);

/// Runs the controller until `stop`, which also ends a run under way: whatever it leaves is whole.
pub async fn run(ctx: Arc<Context>, stop: CancellationToken) {
    let repositories: Api<BackupRepository> = Api::all(ctx.client.clone());
    let mut watches = Watches::of::<BackupRepository>(&ctx.metrics);
    let controller = Controller::new(repositories, watching());
    let shared = Shared { ctx, stop: stop.clone(), repositories: controller.store(), parts: Parts::default() };
    let shared = Arc::new(shared);
    controller
        .with_config(Config::default().concurrency(1))
        .graceful_shutdown_on(stop.cancelled_owned())
        .run(reconcile, |repository, error, shared| shared.ctx.after_error(&*repository, error), shared)
        .for_each(|looked| {
            watches.looked(&looked);
            std::future::ready(())
        })
        .await;
}

/// What a look needs.
struct Shared {
    ctx: Arc<Context>,
    stop: CancellationToken,
    /// Those that there are.
    repositories: Store<BackupRepository>,
    parts: Parts,
}

impl Shared {
    /// Keeps what ended well for the next try.
    fn keep(&self, of: &BackupRepository, done: Done) {
        let there: Vec<String> = self.repositories.state().iter().filter_map(|known| known.uid()).collect();
        self.parts.keep(of, done, &there);
    }
}

/// Notes that a backup was deleted from a repository. Failing to note it is logged: the deletion itself is done. Where no object describes
/// the place, nobody could read it: the space is freed with that of the next deletion through one that does.
pub(crate) async fn note_deletion(described: &BackupRepository, ctx: &Context) {
    if described.uid().is_none() {
        tracing::debug!(repository = described.name_any(), "a deletion has no BackupRepository to be noted in");
        return;
    }
    let (key, value) = maintenance::deletion(ctx.now());
    let patch = Patch::Merge(json!({ "metadata": { "annotations": { key: value } } }));
    let repositories: Api<BackupRepository> = Api::all(ctx.client.clone());
    if let Err(error) = repositories.patch(&described.name_any(), &PatchParams::default(), &patch).await {
        let (repository, error) = (described.name_any(), Problem::chain(&error));
        tracing::warn!(repository, error, "a deletion was not noted; its space is freed after the next one");
    }
}

async fn reconcile(known: Arc<BackupRepository>, shared: Arc<Shared>) -> Result<Action, Error> {
    let (ctx, stop) = (shared.ctx.as_ref(), &shared.stop);
    if known.repository_driver != REPOSITORY_DRIVER || Noted::of(&known).is_nothing() {
        return Ok(Action::await_change());
    }
    let name = known.name_any();
    let repositories: Api<BackupRepository> = Api::all(ctx.client.clone());
    let began = ctx.now(); // before what is noted is read: what is noted later counts as not seen
    let read = repositories.get_opt(&name).await.map_err(Error::cluster(format!("read BackupRepository {name}")))?;
    let Some(described) = read.filter(|r| r.uid() == known.uid()) else { return Ok(Action::await_change()) };
    let noted = Noted::of(&described);
    let settings = Settings::read(&ctx.client, &ctx.namespace).await?.maintenance();
    let attempts = Attempts::of(&described, To::Maintain);
    match plan(&noted, &settings, ctx.pauses.due(&attempts), ctx.now()) {
        Plan::Rest => Ok(Action::requeue(SETTINGS)),
        Plan::WakeAt(at) => Ok(Action::requeue(retry::wake(at, ctx.now()).min(SETTINGS))),
        Plan::Run => {
            match on_a_thread(&described, &noted, &settings, &shared).await {
                Ok(done) => {
                    ctx.pauses.forget(&attempts);
                    if let Err(error) = finished(&described, &noted, began, &done, &settings, ctx).await {
                        shared.keep(&described, done); // only the note is to be made again
                        return Err(error);
                    }
                    Ok(Action::requeue(Duration::from_secs(1))) // when is the next one due?
                }
                Err(_) if stop.is_cancelled() => Ok(Action::await_change()),
                Err(problem) => {
                    let due = ctx.pauses.after_failure(&attempts, ctx.now(), pause);
                    failed(&described, &problem, ctx).await?;
                    Ok(ctx.wake_at(due))
                }
            }
        }
    }
}

/// Minutes, as with uploads: somebody else's `prune` may take hours.
fn pause(failures: u32) -> Duration {
    Duration::from_secs(u64::from(retry::upload_back_off_minutes(failures)) * 60)
}

/// A run on a thread of its own: it decrypts and reads every tree of a repository, and other controllers go on.
async fn on_a_thread(
    described: &BackupRepository,
    noted: &Noted,
    settings: &maintenance::Settings,
    shared: &Arc<Shared>,
) -> Result<Done, Problem> {
    let (described, noted, settings) = (described.clone(), noted.clone(), settings.clone());
    let (shared, runtime) = (shared.clone(), tokio::runtime::Handle::current());
    let run = tokio::task::spawn_blocking(move || runtime.block_on(maintain(&described, &noted, &settings, &shared)));
    run.await
        .unwrap_or_else(|_| Err(Problem::passing(Reason::Internal, "free the space of deleted backups: it panicked")))
}

/// A run in each of its repositories: one a namespace. One that fails keeps no other from its run; what it failed by is given at the end.
/// The others are not run again with it, unless something has changed for them.
async fn maintain(
    described: &BackupRepository,
    noted: &Noted,
    settings: &maintenance::Settings,
    shared: &Shared,
) -> Result<Done, Problem> {
    let (ctx, stop) = (&shared.ctx, &shared.stop);
    let options = MaintenanceOptions {
        holder: format!("backup-driver.{}", ctx.cluster),
        grace: Duration::try_from(settings.grace).unwrap_or(repository::maintenance::GRACE),
        allow_short_grace: settings.short_grace,
        ..MaintenanceOptions::default()
    };
    let now = ctx.now();
    let mut done = shared.parts.take(described, |part| part.counts(noted, settings, now));
    let namespaces = described.namespaces();
    let ran = done.run(&namespaces, async |namespace: &str| {
        let began = ctx.now();
        let ran = match ctx.repositories.open(described, namespace).await {
            Ok(repository) => maintain_one(&repository, described, namespace, &options, stop).await,
            Err(problem) if problem.reason == Reason::RepositoryMissing => return Ran::Nothing,
            Err(problem) if is_of_the_place(&problem) => return Ran::FailedForAll(problem),
            Err(problem) => Err(problem),
        };
        match ran {
            Ok(report) => {
                let (noted, settings) = (noted.clone(), settings.clone());
                Ran::Well(Box::new((Part { began, noted, settings, next_due: report.next_due }, report)))
            }
            Err(problem) if stop.is_cancelled() => Ran::FailedForAll(problem),
            Err(problem) => {
                let repository = described.name_any();
                tracing::warn!(repository, namespace, %problem, "maintenance goes on with the next namespace");
                Ran::Failed(problem)
            }
        }
    });
    if let Err(problem) = ran.await {
        shared.keep(described, done);
        return Err(problem);
    }
    Ok(done)
}

/// Whether what a repository could not be opened by keeps the others closed as well: they lie in the same bucket, one Secret holds the key
/// of all, and one API server is asked for it. A refusal of the store may be of one folder alone.
fn is_of_the_place(problem: &Problem) -> bool {
    matches!(
        problem.reason,
        Reason::BucketMissing
            | Reason::StorageLocationMissing
            | Reason::StoreUnreachable
            | Reason::RepositoryPasswordMissing
            | Reason::ClusterUnreachable
            | Reason::ClusterForbidden
    )
}

/// A run in the repository of one namespace.
async fn maintain_one(
    repository: &Repository,
    described: &BackupRepository,
    namespace: &str,
    options: &MaintenanceOptions,
    stop: &CancellationToken,
) -> Result<Report, Problem> {
    let act = format!("free the space of deleted backups of namespace {namespace}");
    let failed = |e: repository::Error| from_repository(&act, &e);
    // one driver is active in a cluster: a lock of this name is of one that died
    repository.remove_locks_of(&options.holder).await.map_err(failed)?;
    let report = repository.maintain(options, stop).await.map_err(failed)?;
    let (repository, ran) = (described.name_any(), serde_json::to_string(&report).unwrap_or_default());
    tracing::info!(repository, namespace, report = ran, "maintenance ran");
    Ok(report)
}

/// Notes a run that ended well. It has seen what was deleted before the first of its parts began.
async fn finished(
    described: &BackupRepository,
    noted: &Noted,
    began: Timestamp,
    done: &Done,
    settings: &maintenance::Settings,
    ctx: &Context,
) -> Result<(), Error> {
    let began = done.began().map_or(began, |first| first.min(began));
    let reports: Vec<&Report> = done.reports().collect();
    let next_due = reports.iter().filter_map(|report| report.next_due).min();
    let message = summary(&reports, settings);
    let changed = change(described, ctx, |now| {
        let annotations = after_run(noted, &Noted::of(now), began, next_due);
        let status = with_condition(now, Status::True, Reason::Completed, &message, ctx.now());
        Some(json!({
            "metadata": { "annotations": annotations, "resourceVersion": now.resource_version() },
            "status": status,
        }))
    });
    let act = format!("note maintenance of BackupRepository {}", described.name_any());
    changed.await.map(drop).map_err(Error::cluster(act))
}

/// Says why a run did not end well; an event when the reason is new.
async fn failed(described: &BackupRepository, problem: &Problem, ctx: &Context) -> Result<(), Error> {
    let name = described.name_any();
    let before = described.status.as_ref().and_then(|s| conditions::get(&s.conditions, MAINTENANCE));
    let told = before.is_some_and(|c| c.reason == problem.reason.as_str());
    tracing::warn!(repository = name, %problem, "maintenance did not end well; tried again later");
    let status = with_condition(described, Status::False, problem.reason, &problem.message(), ctx.now());
    let repositories: Api<BackupRepository> = Api::all(ctx.client.clone());
    let patched = repositories.patch(&name, &PatchParams::default(), &Patch::Merge(json!({ "status": status }))).await;
    patched.map_err(Error::cluster(format!("say why BackupRepository {name} was not maintained")))?;
    if !told {
        let warning = problem.reason.weight() == Weight::Trouble;
        ctx.publisher.note(described, &Note { reason: problem.reason, message: problem.message(), warning }).await;
    }
    Ok(())
}

fn with_condition(
    described: &BackupRepository,
    holds: Status,
    reason: Reason,
    message: &str,
    now: Timestamp,
) -> RepositoryStatus {
    let mut status = described.status.clone().unwrap_or_default();
    conditions::set(&mut status.conditions, MAINTENANCE, holds, reason, message, now);
    status
}

fn summary(reports: &[&Report], settings: &maintenance::Settings) -> String {
    let sum = |of: fn(&Report) -> u64| reports.iter().copied().map(of).sum::<u64>();
    let count = |of: fn(&Report) -> usize| reports.iter().copied().map(of).sum::<usize>();
    let mut text = format!(
        "removed {} of {} packs ({} of {} bytes); {} bytes wait for their grace to end",
        count(|r| r.packs_removed),
        count(|r| r.packs),
        sum(|r| r.bytes_removed),
        sum(|r| r.bytes),
        sum(|r| r.bytes_unused.saturating_sub(r.bytes_removed)),
    );
    for refused in &settings.refused {
        text.push_str("; ");
        text.push_str(refused);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_space_of_one_namespace_is_freed_though_anothers_folder_is_refused_and_nobody_asks_in_vain_for_each() {
        let cases = [
            ("no bucket", Reason::BucketMissing, true),
            ("no storage location", Reason::StorageLocationMissing, true),
            ("a store that is away", Reason::StoreUnreachable, true),
            ("no Secret with the key", Reason::RepositoryPasswordMissing, true),
            ("an API server that is away", Reason::ClusterUnreachable, true),
            ("no right to read the Secrets", Reason::ClusterForbidden, true),
            ("a policy that may be of one folder", Reason::StoreAccessDenied, false),
            ("a store that fails at one object", Reason::StoreFailed, false),
            ("the key of another repository", Reason::RepositoryPasswordWrong, false),
            ("somebody else's lock", Reason::RepositoryLocked, false),
        ];
        for (situation, reason, want) in cases {
            assert_eq!(is_of_the_place(&Problem::passing(reason, "open it")), want, "{situation}");
        }
    }
}

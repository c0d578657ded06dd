//! Starts and stops the driver: log, metrics, the leader lease, then one controller per kind.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use connections::{Migrations, Repositories, Vcenters};
use futures::future::select_all;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use operator::{Health, Lease, Leases, Metrics, Pace, Publisher, client, serve, stop, telemetry};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::arguments::{Server, Sweeps};
use crate::shown::Shown;
use crate::{
    Context, admissions, claims, clones, deletes, elsewhere, leases, leftovers, locks, maintenance, new_disks, orphans,
    snapshots, sweep, transfers,
};

/// How long work at hand may go on after we were asked to stop. Whatever is cut off is found again at the next start.
const FAREWELL: Duration = Duration::from_secs(20);
/// Restores that have ended and whose locks are looked for at a time: each opens a repository.
const UNLOCKED_AT_A_TIME: usize = 4;

/// Runs the driver until it is asked to stop, or loses the lease.
pub async fn run(server: Server) -> anyhow::Result<()> {
    telemetry::init(server.log_format, &server.log_level)?;
    operator::core_dumps::never();
    let stop = stop::on_signal()?;
    let (metrics, health) = (Metrics::new("backup-driver"), Health::default());
    let address = serve(&server.metrics_address, &metrics, &health, stop.clone()).await?;
    if let Some(missed) = server.accepted.missed() {
        tracing::warn!("{missed}");
    }
    let client = client::connect(server.kubeconfig.as_deref()).await?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), %address, namespace = server.namespace, "backup-driver starts");
    refuse_beside_the_original(&client, &server.namespace).await?;
    let cluster = cluster_id(&client).await?;
    let leases = Leases::new(client.clone(), &server.namespace, &server.identity, server.lease());
    let lease = match leases.wait_for(api::names::DRIVER_LEASE, &stop).await {
        Ok(lease) => lease,
        Err(operator::Error::Stopped) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    tracing::info!(cluster, "this driver is the active one");
    metrics.set_leader(true);
    let (uploads, watching_uploads) = Shown::new(Api::namespaced(client.clone(), &server.namespace), &metrics);
    let (downloads, watching_downloads) = Shown::new(Api::namespaced(client.clone(), &server.namespace), &metrics);
    let ctx = Arc::new(Context {
        publisher: Publisher::new(client.clone(), "backup-driver", &server.identity, metrics.clone()),
        vcenters: Vcenters::new(client.clone(), &server.namespace),
        repositories: Repositories::new(client.clone(), &server.namespace),
        migrations: Migrations::new(client.clone()),
        transfers: Leases::transfers(client.clone(), &server.namespace, &server.identity),
        namespace: server.namespace,
        client,
        cluster,
        metrics: metrics.clone(),
        pace: Arc::new(Pace::default()),
        pauses: Arc::default(),
        new_disks: Arc::default(),
        uploads,
        downloads,
        written: Arc::default(),
        clone_gone: Arc::default(),
        unlocking: Arc::new(Semaphore::new(UNLOCKED_AT_A_TIME)),
        workers: server.backup_workers,
    });
    health.set_ready(true);
    // tasks of their own, for whoever looks at them: work at hand does so after we were asked to stop
    let watching =
        [watching_uploads, watching_downloads].map(|watching| AbortOnDropHandle::new(tokio::spawn(watching)));
    let outcome = work(&ctx, &server.sweeps, watching, &stop, &lease).await;
    health.set_ready(false);
    metrics.set_leader(false);
    // released only when nothing of ours runs any more: the next driver may start at once
    match outcome {
        Ok(()) => {
            ctx.vcenters.close().await;
            lease.release().await;
            tracing::info!("backup-driver stopped");
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// Runs all controllers until `stop`, then gives them a moment. What they look at is shown by `watching` as long.
async fn work(
    ctx: &Arc<Context>,
    sweeps: &Sweeps,
    watching: [AbortOnDropHandle<Infallible>; 2],
    stop: &CancellationToken,
    lease: &Lease,
) -> anyhow::Result<()> {
    let lost = lease.lost();
    let ask = stop.child_token();
    let running = async {
        tokio::join!(
            claims::run(ctx.clone(), ask.clone()),
            snapshots::run(ctx.clone(), ask.clone()),
            clones::run(ctx.clone(), ask.clone()),
            deletes::run(ctx.clone(), ask.clone()),
            transfers::run(ctx.clone(), ask.clone()),
            admissions::run(ctx.clone(), ask.clone()),
            sweep::run(ctx.clone(), sweeps.every(), ask.clone()),
            orphans::run(ctx.clone(), sweeps.orphan_grace(), ask.clone()),
            elsewhere::run(ctx.clone(), ask.clone()),
            locks::run(ctx.clone(), ask.clone()),
            leases::run(ctx.clone(), sweeps.every(), ask.clone()),
            leftovers::run(ctx.clone(), sweeps.leftovers(), sweeps.orphan_age(), ask.clone()),
            maintenance::run(ctx.clone(), ask.clone()),
            new_disks::run(ctx.clone(), ask.clone()),
        );
    };
    let patience = async {
        stop.cancelled().await;
        tokio::time::sleep(FAREWELL).await;
    };
    tokio::select! {
        () = running => {}
        (Err(error), ..) = select_all(watching) => {
            bail!("a watch of Uploads or Downloads broke off, and nobody would hear of them any more: {error}")
        }
        () = patience => tracing::warn!("work at hand was cut off; the next start takes it up"),
        () = lost.cancelled() => bail!("the leader lease was lost: another driver may be active, so this one ends at once"),
    }
    if stop.is_cancelled() { Ok(()) } else { bail!("the controllers ended by themselves") }
}

/// Identifies the cluster: uid of namespace kube-system.
async fn cluster_id(client: &Client) -> anyhow::Result<String> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let system =
        namespaces.get("kube-system").await.context("read namespace kube-system, which identifies the cluster")?;
    system.uid().context("namespace kube-system has no uid")
}

/// Two drivers would both act on the same objects. The original's pods carry the same name label and not our mark.
async fn refuse_beside_the_original(client: &Client, namespace: &str) -> anyhow::Result<()> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let named = ListParams::default().labels("name=backup-driver,app.kubernetes.io/part-of!=velero-plugin-for-vsphere");
    let found = pods.list(&named).await.context("look for the original's driver")?;
    let runs = |pod: &&Pod| pod.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Running");
    match found.items.iter().find(runs) {
        Some(pod) => bail!(
            "{}: pod {} of the original plugin runs. {}",
            api::Reason::OriginalRunning,
            pod.name_any(),
            api::Reason::OriginalRunning.fix()
        ),
        None => Ok(()),
    }
}

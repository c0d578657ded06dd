//! Starts everything, runs until told to stop, and ends in order.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use api::{Download, Upload};
use connections::{Repositories, Vcenters};
use futures::{Stream, StreamExt as _};
use kube::core::PartialObjectMeta;
use kube::runtime::{Controller, WatchStreamExt as _, watcher};
use kube::{Api, Client, ResourceExt as _};
use operator::client::watching;
use operator::{Health, Leases, Metrics, Pace, Publisher, Watches};
use tokio_util::sync::CancellationToken;

use crate::Config;
use crate::at_work::AtWork;
use crate::context::Context;
use crate::disks::Disks;
use crate::given;
use crate::kind::Kind;
use crate::pacing::Pacing;
use crate::reconcile::{after_error, reconcile};

/// How long transfers may take to stop once the process is told to; less than a pod's grace period of 30 s.
const STOP_WITHIN: Duration = Duration::from_secs(20);
/// How long a look at the API server may take to end.
const LOOKS_END_WITHIN: Duration = Duration::from_secs(3);
/// How long vCenter may take to end the session.
const LOGOUT_WITHIN: Duration = Duration::from_secs(5);

/// Runs the data-manager of one node.
///
/// # Errors
/// When the log, the API server's configuration or the metrics address cannot be had at all. What is away for a while
/// is waited for.
pub async fn run(config: Config) -> Result<()> {
    operator::telemetry::init(config.log_format, &config.log_level)?;
    operator::core_dumps::never();
    // fails only when a provider is installed already, which is as good
    let _ = rustls::crypto::ring::default_provider().install_default();
    let stop = operator::stop::on_signal()?;
    let client = operator::client::connect(config.kubeconfig.as_deref()).await?;
    let (metrics, health) = (Metrics::new("data-manager"), Health::default());
    let address = operator::serve(&config.metrics_address, &metrics, &health, stop.clone()).await?;
    tracing::info!(node = config.node_name, %address, version = env!("CARGO_PKG_VERSION"), "the data-manager starts");
    if let Some(missed) = config.given.missed() {
        tracing::warn!("{missed}");
    }
    if let Some(missed) = config.accepted.missed() {
        tracing::warn!("{missed}");
    }

    let (leases, given_back) =
        Leases::transfers(client.clone(), &config.namespace, &config.node_name).watched(&metrics);
    let shared = Shared::new(&config, client, leases, metrics, stop.clone())?;
    let (uploads, uploads_ended) = AtWork::new(config.upload_slots.into());
    let (downloads, downloads_ended) = AtWork::new(config.download_slots.into());
    let look_again = [uploads.clone(), downloads.clone()];
    let looking_again = given_back.for_each(move |()| {
        look_again.iter().for_each(AtWork::look_again);
        std::future::ready(())
    });
    tokio::spawn(stop.clone().run_until_cancelled_owned(looking_again));
    let (up, down) = (shared.context(uploads), shared.context(downloads));
    health.set_ready(true);
    let watching =
        async { tokio::join!(control::<Upload>(&up, uploads_ended), control::<Download>(&down, downloads_ended),) };
    // a look at an API server that is away may hang on; nothing depends on its end
    let told_to_stop = async {
        stop.cancelled().await;
        tokio::time::sleep(LOOKS_END_WITHIN).await;
    };
    tokio::select! {
        _ = watching => {}
        () = told_to_stop => tracing::warn!("some looks at the API server did not end in time"),
    }
    health.set_ready(false);
    settle(&[&up, &down]).await;
    if tokio::time::timeout(LOGOUT_WITHIN, shared.vcenters.close()).await.is_err() {
        tracing::warn!("vCenter did not answer the logout; its session ends when it has been idle");
    }
    tracing::info!("the data-manager has stopped");
    Ok(())
}

/// What both kinds of transfers share.
struct Shared {
    client: Client,
    config: Config,
    publisher: Publisher,
    leases: Leases,
    vcenters: Vcenters,
    repositories: Repositories,
    pacing: Arc<Pacing>,
    disks: Disks,
    stop: CancellationToken,
}

impl Shared {
    fn new(config: &Config, client: Client, leases: Leases, metrics: Metrics, stop: CancellationToken) -> Result<Self> {
        let exe = std::env::current_exe().context("find the folder of this program")?;
        let pacing = Arc::new(Pacing::default());
        let vcenters = match config.given.vcenter(std::env::var_os(given::PASSWORD))? {
            Some(vcenter) => Vcenters::given(client.clone(), &config.namespace, vcenter),
            None => Vcenters::new(client.clone(), &config.namespace),
        };
        Ok(Self {
            publisher: Publisher::new(client.clone(), "data-manager", &config.node_name, metrics),
            leases,
            repositories: Repositories::new(client.clone(), &config.namespace),
            disks: Disks {
                helper: exe.with_file_name("vddk-helper"),
                library: config.vddk_dir.clone(),
                sockets: config.scratch_dir.clone(),
                transport_modes: config.vddk_transport_modes.clone(),
                ports: config.vddk_ports.clone(),
                call_deadline: Duration::from_secs(config.disk_call_deadline),
                throttle: pacing.throttle(),
                vcenters: vcenters.clone(),
            },
            vcenters,
            pacing,
            client,
            config: config.clone(),
            stop,
        })
    }

    fn context(&self, at_work: AtWork) -> Arc<Context> {
        Arc::new(Context {
            client: self.client.clone(),
            namespace: self.config.namespace.clone(),
            node: self.config.node_name.clone(),
            publisher: self.publisher.clone(),
            leases: self.leases.clone(),
            pace: Pace::default(),
            vcenters: self.vcenters.clone(),
            repositories: self.repositories.clone(),
            pacing: self.pacing.clone(),
            disks: self.disks.clone(),
            at_work,
            shutdown: self.stop.clone(),
        })
    }
}

/// Watches one kind of transfer until the process is told to stop.
async fn control<K: Kind>(ctx: &Arc<Context>, ended: impl Stream<Item = ()> + Send + Sync + 'static) {
    let api: Api<K> = Api::namespaced(ctx.client.clone(), &ctx.namespace);
    let deletions = follow_deletions::<K>(ctx.clone());
    let mut watches = Watches::of::<K>(ctx.publisher.metrics());
    let controller = Controller::new(api, watching())
        .reconcile_all_on(ended)
        .graceful_shutdown_on(ctx.shutdown.clone().cancelled_owned())
        .run(reconcile::<K>, after_error::<K>, ctx.clone())
        .for_each(|looked| {
            watches.looked(&looked); // those of looks are logged where they are counted
            std::future::ready(())
        });
    tokio::select! {
        () = controller => {}
        () = deletions => unreachable!("it watches until it is dropped"),
    }
}

/// Stops transfers whose object was deleted: a controller is told nothing about objects that are gone.
async fn follow_deletions<K: operator::Reported + Send + Sync + 'static>(ctx: Arc<Context>) {
    let api: Api<PartialObjectMeta<K>> = Api::namespaced(ctx.client.clone(), &ctx.namespace);
    let mut events = pin!(watcher(api.clone(), watching()).default_backoff());
    loop {
        match events.next().await {
            Some(Ok(watcher::Event::Delete(object))) => ctx.at_work.is_gone(&object.name_any()),
            // the watch began anew: what was deleted meanwhile is not told
            Some(Ok(watcher::Event::InitDone)) => {
                for name in ctx.at_work.names() {
                    if matches!(api.get_opt(&name).await, Ok(None)) {
                        ctx.at_work.is_gone(&name);
                    }
                }
            }
            Some(_) => {} // after an error the watch backs off and begins anew; the controller watches the same and tells of it
            None => std::future::pending().await,
        }
    }
}

/// Waits until the transfers have stopped, so that no helper, socket or lease outlives us.
async fn settle(contexts: &[&Arc<Context>]) {
    let began = Instant::now();
    while contexts.iter().any(|ctx| !ctx.at_work.is_idle()) {
        if began.elapsed() > STOP_WITHIN {
            tracing::warn!("some transfers did not stop in time; the next process resumes them");
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

//! The life of the process: look who started us, listen, say where, serve, and go at once when told to.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;

use super::flags::Flags;
use super::registry::{Registry, RegistryError};
use super::socket::{Socket, SocketError};
use super::{handshake, log, parent, services};
use crate::{Cluster, Host};

/// How long calls that are under way may take to end. The server kills us after two seconds.
const DRAIN: Duration = Duration::from_secs(1);
/// Where Velero is when it does not say.
const NAMESPACE: &str = "velero";

/// Why the plugin could not be served.
#[derive(Debug, thiserror::Error)]
enum ServeError {
    #[error("list the actions")]
    Registry(#[from] RegistryError),
    #[error(transparent)]
    Socket(#[from] SocketError),
    #[error("start the runtime")]
    Runtime(#[source] std::io::Error),
    #[error("tell the host where we listen")]
    Announce(#[source] std::io::Error),
    #[error("serve the host")]
    Serve(#[from] tonic::transport::Error),
}

/// Serves the server that started this process until it says stop; `actions` says what there is to serve.
///
/// The command line may be anything. Ends with 0 after Shutdown, SIGTERM or the death of the server, and with 1 and a
/// sentence on stderr where no Velero server can be served.
pub fn serve(actions: impl FnOnce(&Host) -> Result<Registry, RegistryError>) -> ExitCode {
    let environment = |name: &str| std::env::var(name).ok();
    if let Err(refusal) = handshake::check(environment) {
        return say_to_a_person(&refusal);
    }
    let mut words = std::env::args_os().map(|word| word.to_string_lossy().into_owned());
    let command = words.next().unwrap_or_default();
    let flags = Flags::read(words);
    log::start(flags.log_level.as_deref());
    leave_no_core_dump();
    let namespace = environment("VELERO_NAMESPACE").filter(|n| !n.is_empty()).or(flags.namespace);
    let host = Host {
        namespace: namespace.unwrap_or_else(|| NAMESPACE.to_owned()),
        features: flags.features,
        cluster: Arc::new(Cluster::default()),
    };
    tracing::debug!(version = env!("CARGO_PKG_VERSION"), command, namespace = host.namespace, "plugin started");
    match actions(&host).map_err(ServeError::from).and_then(|registry| run(registry, command, environment)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "the plugin cannot be served");
            ExitCode::FAILURE
        }
    }
}

/// A core dump would hold the token of Velero's account. One byte and not none: a dump that is piped to a program heeds only that
/// (core(5)), as `operator::core_dumps` tells of our other programs; where none is allowed at all, that stays.
fn leave_no_core_dump() {
    if getrlimit(Resource::Core).maximum.is_some_and(|most| most == 0) {
        return;
    }
    if let Err(error) = setrlimit(Resource::Core, Rlimit { current: Some(1), maximum: Some(1) }) {
        tracing::warn!(%error, "core dumps of this process could not be switched off; one would hold a token");
    }
}

/// Listens, serves and cleans up.
fn run(registry: Registry, command: String, environment: impl Fn(&str) -> Option<String>) -> Result<(), ServeError> {
    let socket = Socket::bind(environment)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(ServeError::Runtime)?;
    let served = runtime.block_on(listen(registry, command, &socket));
    drop(socket); // before anything else: the server may kill us at any time from here on
    runtime.shutdown_background(); // work of an action that hangs ends with the process
    served
}

async fn listen(registry: Registry, command: String, socket: &Socket) -> Result<(), ServeError> {
    let listener = socket.listener().and_then(UnixListener::from_std).map_err(ServeError::Runtime)?;
    let stop = CancellationToken::new();
    stop_when_told(&stop).map_err(ServeError::Runtime)?;
    let router = services::all(registry, command, &stop);
    let serving =
        router.serve_with_incoming_shutdown(UnixListenerStream::new(listener), stop.clone().cancelled_owned());
    // the socket takes connections since it was bound, so the host may come before the first poll of `serving`
    handshake::announce(socket.path(), std::io::stdout()).map_err(ServeError::Announce)?;
    let at_the_latest = async {
        stop.cancelled().await;
        tokio::time::sleep(DRAIN).await;
    };
    tokio::select! {
        served = serving => Ok(served?),
        () = at_the_latest => Ok(()),
    }
}

/// Stops on SIGTERM and when the server is gone. SIGINT is for the server: a terminal sends it to both of us.
fn stop_when_told(stop: &CancellationToken) -> std::io::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::spawn(async move { while interrupt.recv().await.is_some() {} });
    let (stop, server) = (stop.clone(), parent::now());
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            () = parent::gone(server) => {}
        }
        stop.cancel();
    });
    Ok(())
}

/// For whoever started the program by hand, or a host that is not Velero.
#[allow(clippy::print_stderr)]
fn say_to_a_person(refusal: &handshake::Refusal) -> ExitCode {
    eprintln!("{refusal}.");
    if *refusal == handshake::Refusal::NotAHost {
        eprintln!(
            "Add its image to Velero with `velero plugin add`, or put the file into a folder with `install FOLDER`."
        );
    }
    ExitCode::FAILURE
}

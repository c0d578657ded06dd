//! The server: one export, any number of connections, bounded memory.

mod check;
mod handshake;
mod transmission;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::BufReader;
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use self::handshake::Handshake;
use self::transmission::Session;
use crate::export::{Export, Features};
use crate::stream::{self, ReadHalf, WriteHalf};
use crate::wire::transmission_flag;

/// Requests are read through a buffer of this many bytes; a write's data beyond it goes past the buffer.
const HEADER_BUFFER: usize = 8 << 10;
/// How long accepting rests after the system had no descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Where a server takes connections.
#[derive(Debug)]
pub enum Listener {
    /// A socket in the file system. Its file stays when the server ends.
    Unix(UnixListener),
    /// A TCP port.
    Tcp(TcpListener),
}

impl From<UnixListener> for Listener {
    fn from(listener: UnixListener) -> Self {
        Self::Unix(listener)
    }
}

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Self {
        Self::Tcp(listener)
    }
}

impl Listener {
    async fn accept(&self) -> io::Result<(ReadHalf, WriteHalf)> {
        match self {
            Self::Unix(listener) => listener.accept().await.map(|(stream, _)| stream::split_unix(stream)),
            Self::Tcp(listener) => listener.accept().await.map(|(stream, _)| stream::split_tcp(stream)),
        }
    }
}

/// Limits of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServeOptions {
    /// Connections at once; more are closed at once.
    pub connections: usize,
    /// Bytes of requests and answers in flight per connection. One larger request is served alone.
    pub memory_per_connection: u32,
    /// Requests in flight per connection.
    pub requests_per_connection: usize,
    /// A client that has not finished the handshake by then is closed.
    pub handshake_deadline: Duration,
    /// After `shutdown`, requests in flight get this long to be answered.
    pub drain_deadline: Duration,
}

impl Default for ServeOptions {
    fn default() -> Self {
        Self {
            connections: 16,
            memory_per_connection: 32 << 20,
            requests_per_connection: 128,
            handshake_deadline: Duration::from_secs(10),
            drain_deadline: Duration::from_secs(10),
        }
    }
}

/// What all connections share.
struct Shared {
    export: Arc<dyn Export>,
    name: String,
    features: Features,
    options: ServeOptions,
}

impl Shared {
    /// The export's flags as clients see them.
    fn transmission_flags(&self, structured: bool) -> u16 {
        let mut flags = transmission_flag::HAS_FLAGS;
        let mut offer = |offered: bool, flag: u16| flags |= if offered { flag } else { 0 };
        let writable = !self.export.read_only();
        offer(!writable, transmission_flag::READ_ONLY);
        offer(self.features.flush, transmission_flag::SEND_FLUSH);
        offer(self.features.fua && writable, transmission_flag::SEND_FUA);
        offer(self.features.trim && writable, transmission_flag::SEND_TRIM);
        offer(self.features.write_zeroes && writable, transmission_flag::SEND_WRITE_ZEROES);
        offer(structured, transmission_flag::SEND_DF);
        offer(self.features.multi_conn, transmission_flag::CAN_MULTI_CONN);
        flags
    }
}

/// Serves `export` under `name`, and as the default export, until `shutdown`.
///
/// Then requests in flight are answered, and every connection is closed. The error is one of the listener.
pub async fn serve(
    listener: impl Into<Listener>,
    export: Arc<dyn Export>,
    name: impl Into<String>,
    shutdown: CancellationToken,
) -> io::Result<()> {
    serve_with(listener, export, name, shutdown, ServeOptions::default()).await
}

/// As [`serve`], with other limits.
pub async fn serve_with(
    listener: impl Into<Listener>,
    export: Arc<dyn Export>,
    name: impl Into<String>,
    shutdown: CancellationToken,
    options: ServeOptions,
) -> io::Result<()> {
    let listener = listener.into();
    let features = export.features();
    let shared = Arc::new(Shared { export, name: name.into(), features, options });
    // dropping the set ends every connection, on every way out
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(_) if connections.len() >= options.connections => {
                warn!(limit = options.connections, "refused an NBD connection: too many");
            }
            Ok(halves) => {
                connections.spawn(connection(halves, Arc::clone(&shared), shutdown.clone()));
            }
            Err(error) if is_transient(&error) => {
                warn!(%error, "could not accept an NBD connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
            Err(error) => return Err(error),
        }
    }
    drop(listener);
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(options.drain_deadline, drained).await.is_err() {
        warn!("NBD requests were still in flight at the drain deadline");
    }
    Ok(())
}

/// One connection of a client, for `tests/fuzz`.
#[cfg(fuzzing)]
pub(crate) async fn serve_one(halves: (ReadHalf, WriteHalf), export: Arc<dyn Export>, options: ServeOptions) {
    let features = export.features();
    let shared = Arc::new(Shared { export, name: "disk".to_owned(), features, options });
    connection(halves, shared, CancellationToken::new()).await;
}

/// Whether accepting can succeed later: the peer went away, or descriptors are scarce.
fn is_transient(error: &io::Error) -> bool {
    let scarce = error.raw_os_error().map(rustix::io::Errno::from_raw_os_error);
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted)
        || matches!(scarce, Some(rustix::io::Errno::MFILE | rustix::io::Errno::NFILE | rustix::io::Errno::NOBUFS))
}

/// From the first byte to the last of one connection. Its end is the client's business, so it is only noted.
async fn connection((reader, mut writer): (ReadHalf, WriteHalf), shared: Arc<Shared>, shutdown: CancellationToken) {
    let mut reader = BufReader::with_capacity(HEADER_BUFFER, reader);
    let handshake = Handshake { shared: &shared, reader: &mut reader, writer: &mut writer };
    let agreed = tokio::select! {
        () = shutdown.cancelled() => return,
        agreed = tokio::time::timeout(shared.options.handshake_deadline, handshake.agree()) => agreed,
    };
    let ended = match agreed {
        Ok(Ok(Some(terms))) => Session::new(shared, terms).run(reader, writer, shutdown).await,
        Ok(Ok(None)) => Ok(()),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    };
    match ended {
        Ok(()) => debug!("an NBD client left"),
        Err(error) => debug!(%error, "an NBD connection ended"),
    }
}

//! Launches a helper and watches it until it is gone. Its socket's folder goes with it, on every path.

use std::collections::VecDeque;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout};
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::address::Address;
use crate::catalogue;
use crate::error::Error;
use crate::leftovers;
use crate::library;
use crate::order::{Message, Order};
use crate::ports::Ports;
use crate::settings::LibrarySettings;
use crate::start;
use crate::target::{Connection, Target};
use crate::transport::TransportModes;

/// Log lines that are kept for the error after a crash.
const KEPT_LINES: usize = 20;
/// A line of the helper is cut here, in bytes.
const MAX_LINE: usize = 2000;
/// How long ending the access may take when the helper was dropped: the reads under way are waited for, and a helper that
/// is killed leaves the access announced.
const ABANDONED_WITHIN: Duration = Duration::from_secs(8);
/// After a kill the kernel needs a moment; a process in an uninterruptible wait needs longer, and we do not wait for it.
const KILL_DEADLINE: Duration = Duration::from_secs(5);

/// Deadlines, the transport, and the library's settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaunchOptions {
    /// From the start of the process until the disk is open and served.
    pub start_deadline: Duration,
    /// For one call into the library. The library's own time-outs are set below it.
    pub call_deadline: Duration,
    /// For ending the access in order, before the helper is killed.
    pub stop_deadline: Duration,
    /// How long the helper may be silent, though it should say every third of this that it lives.
    pub silence_deadline: Duration,
    /// Transport modes in order of preference.
    pub transport_modes: TransportModes,
    /// Ports that the library may connect to.
    pub ports: Ports,
    /// What the user has set of the library's configuration.
    pub library_settings: LibrarySettings,
}

impl Default for LaunchOptions {
    fn default() -> Self {
        Self {
            start_deadline: Duration::from_secs(240),
            call_deadline: Duration::from_secs(180),
            stop_deadline: Duration::from_secs(60),
            silence_deadline: Duration::from_secs(30),
            transport_modes: TransportModes::default(),
            ports: Ports::default(),
            library_settings: LibrarySettings::default(),
        }
    }
}

/// One disk, served by a process of its own.
///
/// [`stop`](Self::stop) ends the access and says whether that went well. Dropping it does the same in the background and
/// tells nobody; a call that holds this up is given 2 s, then the process is killed. [`gone`](Self::gone) waits for that.
#[derive(Debug)]
pub struct Helper {
    uri: nbd::Uri,
    _address: Address,
    size: u64,
    transport_mode: String,
    process_id: u32,
    stop: CancellationToken,
    abandon: CancellationToken,
    ended: watch::Receiver<Option<Error>>,
}

impl Helper {
    /// Starts `helper_binary`, which opens `target` and serves it on a socket in a private folder below `socket_dir`.
    pub async fn launch(
        helper_binary: &Path,
        socket_dir: &Path,
        connection: Connection,
        target: Target,
        options: LaunchOptions,
    ) -> Result<Self, Error> {
        if let Some(problem) = target.problem() {
            return Err(Error::BadTarget { problem });
        }
        let found = library::find(&connection.library_dir)
            .ok_or_else(|| Error::LibraryMissing { dir: connection.library_dir.clone() })?;
        let launch_error = |source| Error::Launch { helper: helper_binary.to_owned(), source: Arc::new(source) };
        leftovers::sweep(socket_dir);
        let folder = tempfile::Builder::new()
            .prefix(leftovers::PREFIX)
            .permissions(Permissions::from_mode(0o700)) // whoever reaches the socket reads the disk
            .tempdir_in(socket_dir)
            .map_err(launch_error)?;
        let socket = folder.path().join(leftovers::SOCKET);
        let address = Address::of(&socket).map_err(launch_error)?;
        let command = start::command(helper_binary, &found.folder, folder.path());
        let mut child = start::spawn(command).await.map_err(launch_error)?;
        let pipes = child.stdin.take().zip(child.stdout.take()).zip(child.stderr.take());
        let ((stdin, stdout), stderr) = pipes.expect("all three were asked for");
        let log = Log::relay(stderr, connection.password.clone(), child.id().unwrap_or_default());
        let mut process = Process {
            child,
            stdin: Some(stdin),
            messages: BufReader::new(stdout).lines(),
            log,
            library: found.file,
            options,
            _folder: folder,
        };
        let order = process.order(&connection, &target, &socket);
        let (transport_mode, size) = process.start(order).await?;
        let process_id = process.child.id().unwrap_or_default();
        let disk = target.export_name();
        info!(%disk, transport_mode, size, process_id, "disk opened");
        let stop = CancellationToken::new();
        let (report, ended) = watch::channel(None);
        let abandon = CancellationToken::new();
        let (stopping, abandoning) = (stop.clone(), abandon.clone());
        tokio::spawn(async move {
            let cause = tokio::select! {
                cause = process.watch(stopping) => cause,
                () = abandoning.cancelled() => process.abandon().await,
            };
            if !matches!(cause, Error::Stopped) {
                warn!(%disk, process_id, error = %cause, "disk is not served any more");
            }
            drop(process); // the folder is gone before anyone learns of the end
            let _ = report.send(Some(cause));
        });
        Ok(Self {
            uri: nbd::Uri::unix(address.path(), target.export_name()),
            _address: address,
            size,
            transport_mode,
            process_id,
            stop,
            abandon,
            ended,
        })
    }

    /// Where the disk is served.
    pub fn uri(&self) -> nbd::Uri {
        self.uri.clone()
    }

    /// The disk's size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// How the library moves the data: `nbdssl`, `nbd`, …
    pub fn transport_mode(&self) -> &str {
        &self.transport_mode
    }

    /// The helper's process id.
    pub fn process_id(&self) -> u32 {
        self.process_id
    }

    /// Resolves when the helper is gone, with the cause. May be awaited any number of times.
    pub async fn exited(&self) -> Error {
        let mut ended = self.ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(cause) => cause.clone().unwrap_or(Error::Stopped),
            Err(_) => Error::Stopped, // the runtime is shutting down
        }
    }

    /// Resolves when the process is gone, however that came about; also after the helper was dropped.
    pub fn gone(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut ended = self.ended.clone();
        async move {
            let _ = ended.wait_for(Option::is_some).await; // an error: the runtime is shutting down
        }
    }

    /// Ends the access in order and waits until the process is gone. Disconnect NBD clients before.
    ///
    /// After writing, an error here means that data may be missing on the disk.
    pub async fn stop(self) -> Result<(), Error> {
        self.stop.cancel();
        match self.exited().await {
            Error::Stopped => Ok(()),
            cause => Err(cause),
        }
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        self.abandon.cancel();
    }
}

/// A running helper. Dropping it kills the process and removes its folder.
struct Process {
    child: Child,
    /// Closing it asks the helper to end.
    stdin: Option<ChildStdin>,
    messages: Lines<BufReader<ChildStdout>>,
    log: Log,
    library: PathBuf,
    options: LaunchOptions,
    _folder: TempDir,
}

impl Process {
    fn order(&self, connection: &Connection, target: &Target, socket: &Path) -> Order {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Order {
            library: self.library.clone(),
            library_dir: connection.library_dir.clone(),
            server: connection.server.clone(),
            port: connection.port,
            thumbprint: connection.thumbprint.clone(),
            user: connection.user.clone(),
            password: connection.password.expose_secret().to_owned(),
            datastore: connection.datastore.clone(),
            disk: target.disk.to_string(),
            snapshot: target.snapshot.as_ref().map(ToString::to_string),
            access: target.access,
            identity: target.identity.clone(),
            transport_modes: self.options.transport_modes.to_string(),
            ports: self.options.ports.clone(),
            library_settings: self.options.library_settings.clone(),
            socket: socket.to_owned(),
            scratch: socket.parent().unwrap_or(socket).to_owned(),
            export: target.export_name(),
            call_deadline_ms: millis(self.options.call_deadline),
            stop_deadline_ms: millis(self.options.stop_deadline),
            heartbeat_ms: millis(self.options.silence_deadline / 3).max(1),
        }
    }

    /// Hands over the order and waits for the disk; transport mode and size in bytes.
    async fn start(&mut self, order: Order) -> Result<(String, u64), Error> {
        let deadline = self.options.start_deadline;
        let due = Instant::now() + deadline;
        let starting = async {
            self.hand_over(order).await;
            loop {
                match self.next_message().await {
                    Some(Message::Alive) => {}
                    Some(Message::Ready { transport, size }) => return Ok((transport, size)),
                    Some(message) => return Err(Some(self.cause(message))),
                    None => return Err(None),
                }
            }
        };
        match timeout_at(due, starting).await {
            Ok(Ok(ready)) => Ok(ready),
            Ok(Err(Some(cause))) => {
                self.reap(self.options.stop_deadline).await;
                Err(cause)
            }
            Ok(Err(None)) => Err(self.crashed().await),
            Err(_) => {
                self.kill().await;
                Err(Error::Hung { act: "opening the disk".into(), seconds: deadline.as_secs() })
            }
        }
    }

    /// A helper that dies before it has read everything says why elsewhere.
    async fn hand_over(&mut self, order: Order) {
        let mut line = serde_json::to_vec(&order).expect("an order is plain data");
        line.push(b'\n');
        if let Some(stdin) = &mut self.stdin {
            let _ = stdin.write_all(&line).await;
            let _ = stdin.flush().await;
        }
        line.fill(0);
    }

    /// Watches until the process is gone; why it is.
    async fn watch(&mut self, stop: CancellationToken) -> Error {
        let silence = self.options.silence_deadline;
        loop {
            let message = tokio::select! {
                () = stop.cancelled() => return self.end().await,
                message = timeout(silence, self.next_message()) => message,
            };
            match message {
                Ok(Some(Message::Alive | Message::Ready { .. })) => {}
                Ok(Some(message)) => {
                    let cause = self.cause(message);
                    self.kill().await;
                    return cause;
                }
                Ok(None) => return self.crashed().await,
                Err(_) => {
                    self.kill().await;
                    return Error::Hung { act: "total silence".into(), seconds: silence.as_secs() };
                }
            }
        }
    }

    /// Ends the access in order if that is quick, and the process in any case: nobody waits, and the disk may be
    /// somebody else's in a moment.
    async fn abandon(&mut self) -> Error {
        match timeout(ABANDONED_WITHIN, self.end()).await {
            Ok(cause) => cause,
            Err(_) => {
                self.kill().await;
                Error::Stopped
            }
        }
    }

    /// Ends the access in order; then the process, if need be.
    async fn end(&mut self) -> Error {
        self.stdin = None;
        let mut cause = Error::Stopped;
        let deadline = self.options.stop_deadline;
        let ending = async {
            let mut stopped = false;
            while let Some(message) = self.next_message().await {
                match message {
                    Message::Alive | Message::Ready { .. } => {}
                    Message::Stopped => stopped = true,
                    // the first failure is the cause
                    message if matches!(cause, Error::Stopped) => cause = self.cause(message),
                    _ => {}
                }
            }
            stopped
        };
        // the helper itself gives up at the deadline; this one is for a helper that cannot
        match timeout(deadline + KILL_DEADLINE, ending).await {
            Ok(true) => {
                self.reap(KILL_DEADLINE).await;
                cause
            }
            Ok(false) if matches!(cause, Error::Stopped) => self.crashed().await,
            Ok(false) => {
                self.reap(KILL_DEADLINE).await;
                cause
            }
            Err(_) => {
                self.kill().await;
                Error::Hung { act: "ending the access".into(), seconds: deadline.as_secs() }
            }
        }
    }

    /// The next line that makes sense; `None` when there will be none.
    async fn next_message(&mut self) -> Option<Message> {
        loop {
            let line = self.messages.next_line().await.ok()??;
            match serde_json::from_str(&line) {
                Ok(message) => return Some(message),
                // a library that prints to standard output must not stop us
                Err(_) => debug!(line = cut(&line), "the VDDK helper printed something else"),
            }
        }
    }

    fn cause(&self, message: Message) -> Error {
        match message {
            Message::LibraryBroken { problem } => Error::LibraryBroken { path: self.library.clone(), problem },
            Message::Error { function, code, text } => {
                Error::OpenFailed { function, entry: catalogue::look_up(code), text }
            }
            Message::Hung { function, millis } => Error::Hung { act: function, seconds: millis.div_ceil(1000) },
            Message::CloseError { function, code } => Error::CloseFailed { function, entry: catalogue::look_up(code) },
            Message::Stopped | Message::Alive | Message::Ready { .. } => Error::Stopped,
        }
    }

    async fn crashed(&mut self) -> Error {
        let how = match timeout(KILL_DEADLINE, self.child.wait()).await {
            Ok(Ok(status)) => describe(status),
            _ => {
                self.kill().await;
                "closed its output and was killed".into()
            }
        };
        Error::Crashed { how, last_log: self.log.lines().await }
    }

    /// Waits for a process that is about to exit; kills it otherwise.
    async fn reap(&mut self, within: Duration) {
        if timeout(within, self.child.wait()).await.is_err() {
            self.kill().await;
        }
    }

    async fn kill(&mut self) {
        if timeout(KILL_DEADLINE, self.child.kill()).await.is_err() {
            warn!(process_id = self.child.id(), "a killed VDDK helper does not end: it waits in the kernel");
        }
    }
}

/// What the helper writes to standard error: relayed to our log, and the last lines kept.
struct Log {
    kept: Arc<Mutex<VecDeque<String>>>,
    ended: CancellationToken,
}

impl Log {
    fn relay(stderr: ChildStderr, password: SecretString, process_id: u32) -> Self {
        let kept = Arc::new(Mutex::new(VecDeque::new()));
        let ended = CancellationToken::new();
        let (lines, done) = (Arc::clone(&kept), ended.clone().drop_guard());
        tokio::spawn(async move {
            let _done = done;
            let mut reader = BufReader::new(stderr);
            let mut raw = Vec::new();
            // bytes, not text: the library logs in whatever encoding it likes
            while reader.read_until(b'\n', &mut raw).await.is_ok_and(|count| count > 0) {
                let line = clean(&raw, password.expose_secret());
                raw.clear();
                debug!(target: "vddk", process_id, "{line}");
                let mut kept = lines.lock().unwrap_or_else(PoisonError::into_inner);
                if kept.len() == KEPT_LINES {
                    kept.pop_front();
                }
                kept.push_back(line);
            }
        });
        Self { kept, ended }
    }

    /// The last lines, once the process is gone.
    async fn lines(&self) -> Vec<String> {
        let _ = timeout(KILL_DEADLINE, self.ended.cancelled()).await;
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

/// A log line as we show it: cut, and without the password, whatever the library prints.
fn clean(raw: &[u8], password: &str) -> String {
    let line = String::from_utf8_lossy(raw);
    let line = line.trim_end();
    let line = if password.is_empty() { line.to_owned() } else { line.replace(password, "(password)") };
    cut(&line).to_owned()
}

fn cut(line: &str) -> &str {
    let mut end = line.len().min(MAX_LINE);
    while !line.is_char_boundary(end) {
        end -= 1;
    }
    &line[..end]
}

fn describe(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => format!("was killed by signal {signal}{}", signal_name(signal)),
        (None, Some(code)) => format!("exited with status {code}"),
        (None, None) => "ended in an unknown way".into(),
    }
}

fn signal_name(signal: i32) -> &'static str {
    match signal {
        4 => " (SIGILL)",
        6 => " (SIGABRT)",
        7 => " (SIGBUS)",
        8 => " (SIGFPE)",
        9 => " (SIGKILL)",
        11 => " (SIGSEGV)",
        15 => " (SIGTERM)",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_cannot_put_the_password_into_our_log() {
        assert_eq!(clean(b"login as admin/s3cret!\n", "s3cret!"), "login as admin/(password)");
        assert_eq!(clean(b"\xff odd\r\n", ""), "\u{fffd} odd");
        assert!(cut(&"é".repeat(MAX_LINE)).len() <= MAX_LINE);
    }
}

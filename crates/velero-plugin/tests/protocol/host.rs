//! A host: starts the plugin, reads its first line, speaks gRPC over its socket and keeps every line of its log.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use hyper_util::rt::TokioIo;
use serde_json::{Map, Value};
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use velero_plugin::protocol::wire::generated::delete_item_action_client::DeleteItemActionClient;
use velero_plugin::protocol::wire::generated::plugin_lister_client::PluginListerClient;
use velero_plugin::protocol::wire::generated::volume_snapshotter_client::VolumeSnapshotterClient;
use velero_plugin::protocol::wire::plugin::grpc_controller_client::GrpcControllerClient;
use velero_plugin::protocol::wire::v2::backup_item_action_client::BackupItemActionClient;
use velero_plugin::protocol::wire::v2::restore_item_action_client::RestoreItemActionClient;

/// Longest wait for anything of a plugin in a test; two busy cores are slow.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// How a plugin is started.
pub(crate) struct Start {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
    pub(crate) variables: Vec<(String, String)>,
}

impl Start {
    /// The actions of the tests, with the environment that Velero gives.
    pub(crate) fn rehearsal() -> Self {
        Self::of(&std::env::current_exe().unwrap())
    }

    pub(crate) fn of(program: &Path) -> Self {
        let variables = [
            ("VELERO_PLUGIN", "hello"),
            ("PLUGIN_PROTOCOL_VERSIONS", "2"),
            ("PLUGIN_MIN_PORT", "10000"),
            ("PLUGIN_MAX_PORT", "25000"),
        ];
        let variables = variables.map(|(n, v)| (n.to_owned(), v.to_owned())).to_vec();
        Self { program: program.to_owned(), arguments: Vec::new(), variables }
    }

    pub(crate) fn arguments(mut self, words: &str) -> Self {
        self.arguments = words.split_whitespace().map(str::to_owned).collect();
        self
    }

    pub(crate) fn variable(mut self, name: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        self.variables.push((name.to_owned(), value.as_ref().to_string_lossy().into_owned()));
        self
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // nothing of this machine's cluster, should it have one
        command.env_remove("KUBECONFIG").env_remove("VELERO_NAMESPACE");
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }
}

/// A running plugin.
pub(crate) struct Plugin {
    child: Child,
    log: Option<JoinHandle<Vec<u8>>>,
    rest_of_stdout: Receiver<String>,
    /// The line on stdout.
    pub(crate) handshake: String,
    /// From the start of the process to that line.
    pub(crate) started_in: Duration,
}

impl Plugin {
    /// Starts it and waits for its line.
    pub(crate) fn start(start: &Start) -> Result<Self> {
        let began = Instant::now();
        let mut child = start.command().spawn().context("start the plugin")?;
        let mut stderr = child.stderr.take().context("stderr is piped")?;
        let log = std::thread::spawn(move || {
            let mut all = Vec::new();
            let _ = stderr.read_to_end(&mut all);
            all
        });
        let stdout = BufReader::new(child.stdout.take().context("stdout is piped")?);
        let (line, lines) = channel();
        std::thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|l| line.send(l)));
        let Ok(handshake) = lines.recv_timeout(PATIENCE) else {
            let _ = child.kill();
            bail!("no line on stdout; stderr: {}", String::from_utf8_lossy(&log.join().unwrap_or_default()));
        };
        let started_in = began.elapsed();
        Ok(Self { child, log: Some(log), rest_of_stdout: lines, handshake, started_in })
    }

    /// The socket that the line names.
    pub(crate) fn socket(&self) -> PathBuf {
        self.handshake.split('|').nth(3).expect("the line has fields").into()
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The CPU time that it has used so far, in steps of 10 ms (`utime` and `stime`, proc_pid_stat(5)).
    pub(crate) fn worked(&self) -> Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.id()))?;
        let after_name = stat.rsplit_once(") ").context("a name in brackets")?.1;
        let ticks = after_name.split(' ').skip(11).take(2).map(str::parse::<u64>).sum::<Result<u64, _>>()?;
        Ok(Duration::from_millis(ticks * 10))
    }

    /// A connection without any limit on messages.
    pub(crate) async fn connect(&self) -> Result<Connection> {
        let socket = self.socket();
        let connector = tower::service_fn(move |_| {
            let socket = socket.clone();
            async move { UnixStream::connect(socket).await.map(TokioIo::new) }
        });
        let endpoint = Endpoint::from_static("http://plugin.invalid").connect_timeout(PATIENCE).timeout(PATIENCE);
        Ok(Connection(endpoint.connect_with_connector(connector).await?))
    }

    /// Asks it to end as a server does, and waits until it has.
    pub(crate) async fn shut_down(self) -> Result<End> {
        let mut connection = self.connect().await?;
        let asked = Instant::now();
        connection.controller().shutdown(velero_plugin::protocol::wire::plugin::Empty {}).await?;
        drop(connection);
        self.wait(asked).await
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: rustix::process::Signal) -> Result<()> {
        let id = rustix::process::Pid::from_raw(self.id().try_into()?).context("a process has an id")?;
        Ok(rustix::process::kill_process(id, signal)?)
    }

    /// Waits for its end, which `since` is when it was asked for.
    pub(crate) async fn wait(mut self, since: Instant) -> Result<End> {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            if Instant::now() > deadline {
                bail!("the plugin does not end");
            }
            tokio::time::sleep(Duration::from_millis(1)).await; // a poll, with a deadline; connections go on meanwhile
        };
        let took = since.elapsed();
        let log = self.log.take().context("the log is read once")?.join().map_err(|_| anyhow::anyhow!("log reader"))?;
        let more_on_stdout = self.rest_of_stdout.iter().collect();
        Ok(End { status, took, log: String::from_utf8(log)?, socket_left: self.socket().exists(), more_on_stdout })
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// How a plugin ended.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) status: ExitStatus,
    pub(crate) took: Duration,
    pub(crate) log: String,
    pub(crate) socket_left: bool,
    pub(crate) more_on_stdout: Vec<String>,
}

impl End {
    /// Fails unless it went as a server likes it.
    pub(crate) fn expect_clean(&self) {
        assert_eq!((self.status.code(), self.status.signal()), (Some(0), None), "{self:?}");
        assert!(!self.socket_left, "the socket is gone");
        assert_eq!(self.more_on_stdout, Vec::<String>::new(), "P-05: stdout is for one line");
    }

    /// The log, each line read as an object.
    pub(crate) fn lines(&self) -> Vec<Map<String, Value>> {
        self.log.lines().map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{e}: {l}"))).collect()
    }
}

/// A connection to a plugin.
#[derive(Clone)]
pub(crate) struct Connection(pub(crate) Channel);

impl Connection {
    pub(crate) fn lister(&mut self) -> PluginListerClient<Channel> {
        PluginListerClient::new(self.0.clone())
    }

    pub(crate) fn controller(&mut self) -> GrpcControllerClient<Channel> {
        GrpcControllerClient::new(self.0.clone())
    }

    pub(crate) fn backup(&mut self) -> BackupItemActionClient<Channel> {
        let client = BackupItemActionClient::new(self.0.clone());
        client.max_decoding_message_size(usize::MAX).max_encoding_message_size(usize::MAX)
    }

    pub(crate) fn restore(&mut self) -> RestoreItemActionClient<Channel> {
        let client = RestoreItemActionClient::new(self.0.clone());
        client.max_decoding_message_size(usize::MAX).max_encoding_message_size(usize::MAX)
    }

    pub(crate) fn delete(&mut self) -> DeleteItemActionClient<Channel> {
        let client = DeleteItemActionClient::new(self.0.clone());
        client.max_decoding_message_size(usize::MAX).max_encoding_message_size(usize::MAX)
    }

    pub(crate) fn snapshotter(&mut self) -> VolumeSnapshotterClient<Channel> {
        let client = VolumeSnapshotterClient::new(self.0.clone());
        client.max_decoding_message_size(usize::MAX).max_encoding_message_size(usize::MAX)
    }
}

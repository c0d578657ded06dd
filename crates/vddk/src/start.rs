//! Starts the helper's process: clean environment, private folder, and a parent thread that does not end.

use std::io;
use std::path::Path;
use std::process::Stdio;
use std::sync::OnceLock;
use std::sync::mpsc as std_mpsc;

use tokio::process::{Child, Command};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

struct Job {
    command: Command,
    runtime: Handle,
    reply: oneshot::Sender<io::Result<Child>>,
}

/// Starts a process whose parent thread lives as long as this process.
///
/// The helper asks to be told when its parent dies, and for the kernel a parent is a thread: one of a runtime may end
/// while the helper is still needed.
pub(crate) async fn spawn(command: Command) -> io::Result<Child> {
    static STARTER: OnceLock<std_mpsc::Sender<Job>> = OnceLock::new();
    let starter = STARTER.get_or_init(|| {
        let (jobs, queue) = std_mpsc::channel::<Job>();
        let run = move || {
            for mut job in queue {
                let _guard = job.runtime.enter();
                let _ = job.reply.send(job.command.spawn());
            }
        };
        // without the thread the queue is gone, and every start says so
        let _ = std::thread::Builder::new().name("vddk-starter".into()).spawn(run);
        jobs
    });
    let (reply, spawned) = oneshot::channel();
    let gone = || io::Error::other("the thread that starts helpers is gone");
    starter.send(Job { command, runtime: Handle::current(), reply }).map_err(|_| gone())?;
    spawned.await.map_err(|_| gone())?
}

/// The helper's command line and environment: nothing of ours, no secret, and the library's folder first.
pub(crate) fn command(helper: &Path, library_folder: &Path, scratch: &Path) -> Command {
    let mut command = Command::new(helper);
    command
        .env_clear()
        .env("LD_LIBRARY_PATH", library_folder)
        .env("HOME", scratch)
        .env("TMPDIR", scratch)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

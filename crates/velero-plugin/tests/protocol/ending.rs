//! How the plugin ends, in all the ways in which a server lets it.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, test_kill_process};
use tokio_stream::StreamExt;

use crate::calls::{execute, item};
use crate::host::{PATIENCE, Plugin, Start};

crate::scenes!(
    shutdown_ends_the_process_at_once_and_leaves_nothing,
    p04_no_process_is_left_that_could_keep_the_server_waiting,
    a_call_that_hangs_does_not_keep_the_server_waiting,
    sigterm_is_a_shutdown_and_sigint_is_not_for_us,
    an_action_that_kills_the_process_is_told_as_unavailable,
    a_plugin_does_not_outlive_its_server,
);

/// How long a server may be kept waiting; it kills after two seconds. A busy machine makes it generous.
const AT_ONCE: Duration = Duration::from_millis(900);

async fn shutdown_ends_the_process_at_once_and_leaves_nothing() -> Result<()> {
    use velero_plugin::protocol::wire::plugin::grpc_stdio_client::GrpcStdioClient;
    let plugin = Plugin::start(&Start::rehearsal())?;
    let connection = plugin.connect().await?;
    // a host keeps this stream open for as long as it lives
    let mut silence = GrpcStdioClient::new(connection.0.clone()).stream_stdio(()).await?.into_inner();
    let end = plugin.shut_down().await?;
    end.expect_clean();
    assert!(end.took < AT_ONCE, "{:?}", end.took);
    eprintln!("shutdown took {:?}", end.took);
    assert!(matches!(silence.next().await, None | Some(Err(_))), "nothing was ever said there");
    assert_eq!(end.log, "", "and nothing needs to be said");
    Ok(())
}

async fn p04_no_process_is_left_that_could_keep_the_server_waiting() -> Result<()> {
    let plugin = Plugin::start(&Start::rehearsal())?;
    plugin.connect().await?.backup().execute(execute(item("log"))).await?;
    let mut children = String::new();
    for task in std::fs::read_dir(format!("/proc/{}/task", plugin.id()))? {
        children += &std::fs::read_to_string(task?.path().join("children"))?;
    }
    assert_eq!(children, "", "clippy.toml of the crate forbids to start any");
    let end = plugin.shut_down().await?; // waits for the end of stderr, as the server does
    assert!(end.took < AT_ONCE, "{:?}", end.took);
    Ok(())
}

async fn a_call_that_hangs_does_not_keep_the_server_waiting() -> Result<()> {
    let plugin = Plugin::start(&Start::rehearsal())?;
    let mut hanging = plugin.connect().await?;
    let call = tokio::spawn(async move { hanging.backup().execute(execute(item("hang"))).await });
    // the call is under way once another one on the same runtime was answered after it
    plugin.connect().await?.backup().execute(execute(item("echo"))).await?;
    let end = plugin.shut_down().await?;
    end.expect_clean();
    assert!(end.took < Duration::from_secs(2), "{:?}: the server would have killed us", end.took);
    assert!(call.await?.is_err());
    Ok(())
}

async fn sigterm_is_a_shutdown_and_sigint_is_not_for_us() -> Result<()> {
    let plugin = Plugin::start(&Start::rehearsal())?;
    plugin.signal(Signal::INT)?;
    plugin.connect().await?.backup().execute(execute(item("echo"))).await?;
    let asked = Instant::now();
    plugin.signal(Signal::TERM)?;
    let end = plugin.wait(asked).await?;
    end.expect_clean();
    assert!(end.took < AT_ONCE, "{:?}", end.took);
    Ok(())
}

async fn an_action_that_kills_the_process_is_told_as_unavailable() -> Result<()> {
    let plugin = Plugin::start(&Start::rehearsal())?;
    let error = plugin.connect().await?.backup().execute(execute(item("abort"))).await.unwrap_err();
    assert!(matches!(error.code(), tonic::Code::Unavailable | tonic::Code::Unknown), "{error:?}");
    let socket = plugin.socket();
    assert!(plugin.wait(Instant::now()).await?.status.code().is_none());
    std::fs::remove_file(socket)?; // nobody was left to do it
    let again = Plugin::start(&Start::rehearsal())?; // as the server does before the next call
    again.connect().await?.backup().execute(execute(item("echo"))).await?;
    again.shut_down().await?.expect_clean();
    Ok(())
}

async fn a_plugin_does_not_outlive_its_server() -> Result<()> {
    // a server that starts the plugin and hands its line on: a shell, which waits for a word that never comes
    let start = Start::rehearsal();
    let mut server = std::process::Command::new("sh")
        .args(["-c", "\"$0\" </dev/null & echo $!; read word"])
        .arg(&start.program)
        .envs(start.variables)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut lines = BufReader::new(server.stdout.take().context("stdout is piped")?).lines();
    let (one, other) = (lines.next().context("a line")??, lines.next().context("a line")??);
    let (id, handshake) = if one.contains('|') { (other, one) } else { (one, other) };
    let plugin = Pid::from_raw(id.parse()?).context("a process has an id")?;
    let socket = std::path::PathBuf::from(handshake.split('|').nth(3).context("a socket")?);
    assert!(socket.exists());
    server.kill()?;
    server.wait()?;
    let deadline = Instant::now() + PATIENCE;
    while test_kill_process(plugin).is_ok() && !is_dead(&id) && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(20)).await; // a poll, with a deadline
    }
    let lives = test_kill_process(plugin).is_ok() && !is_dead(&id);
    if lives {
        rustix::process::kill_process(plugin, Signal::KILL)?;
    }
    assert!(!lives, "the plugin ends when its server is gone");
    assert!(!socket.exists(), "and takes its socket along");
    Ok(())
}

/// Whether a process has ended and only nobody has asked how.
fn is_dead(id: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{id}/stat")).is_ok_and(|s| s.contains(") Z "))
}

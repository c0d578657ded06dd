//! Waiting until a process answers; a process that ends meanwhile is reported with what it said last.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::processes::{Processes, tail};
use crate::wait::until;

/// How long a process may take to become ready, on a slow machine with everything starting at once.
pub(crate) const DEADLINE: Duration = Duration::from_secs(90);

/// Waits until `ready` says so, as long as the process runs.
pub(crate) async fn wait(processes: &Processes, name: &str, mut ready: impl AsyncFnMut() -> bool) -> Result<()> {
    let what = format!("{name} is ready");
    let answers = until(DEADLINE, &what, async || {
        if ready().await {
            return Ok(Some(()));
        }
        if !processes.runs(name)? {
            bail!("{name} ended before it was ready");
        }
        Ok(None)
    });
    answers.await.with_context(|| said_last(processes, name))
}

fn said_last(processes: &Processes, name: &str) -> String {
    let log = processes.log_file(name);
    format!("start {name}; its log {} ends with:\n{}\n", log.display(), tail(&log, 15))
}

/// Whether a GET is answered with 2xx.
pub(crate) async fn answers(http: &reqwest::Client, url: &str) -> bool {
    let reply = http.get(url).timeout(Duration::from_secs(2)).send().await;
    reply.is_ok_and(|reply| reply.status().is_success())
}

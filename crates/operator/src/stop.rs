//! Stopping when asked to: one token for the whole process.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::Error;

/// A token that is cancelled by the first SIGTERM or SIGINT. A second one ends the process at once.
pub fn on_signal() -> Result<CancellationToken, Error> {
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::Signals)?;
    let token = CancellationToken::new();
    let asked = token.clone();
    tokio::spawn(async move {
        for times in 0.. {
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
            if times > 0 {
                std::process::exit(130); // asked twice: the user does not want to wait
            }
            tracing::info!("asked to stop; finishing what is at hand");
            asked.cancel();
        }
    });
    Ok(token)
}

//! `/metrics`, `/healthz` and `/readyz` over plain HTTP. Serves nothing else and changes nothing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{Error, Metrics};

/// Whether the process is ready for work. Cheap to clone; starts as not ready.
#[derive(Debug, Clone, Default)]
pub struct Health(Arc<AtomicBool>);

impl Health {
    /// Ready, or not any more.
    pub fn set_ready(&self, ready: bool) {
        self.0.store(ready, Ordering::Relaxed);
    }

    /// Whether it is ready.
    pub fn is_ready(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Serves in the background until `stop`; gives the address that was taken (port 0 and `:0` take a free one).
pub async fn serve(
    address: &str,
    metrics: &Metrics,
    health: &Health,
    stop: CancellationToken,
) -> Result<SocketAddr, Error> {
    let address = listen_on(address)?;
    let failed = |source| Error::Serve { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    let (metrics, health) = (metrics.clone(), health.clone());
    let router = Router::new()
        .route("/metrics", get(move || std::future::ready(metrics.text())))
        .route("/healthz", get(|| std::future::ready("ok")))
        .route("/readyz", get(move || std::future::ready(ready(&health))));
    tokio::spawn(async move {
        let served = axum::serve(listener, router).with_graceful_shutdown(async move { stop.cancelled().await });
        if let Err(error) = served.await {
            tracing::error!(%error, "metrics and health are not served any more");
        }
    });
    Ok(bound)
}

fn ready(health: &Health) -> (StatusCode, &'static str) {
    if health.is_ready() { (StatusCode::OK, "ok") } else { (StatusCode::SERVICE_UNAVAILABLE, "not ready") }
}

/// `:port` means every address of this machine.
fn listen_on(text: &str) -> Result<SocketAddr, Error> {
    let full = if text.starts_with(':') { format!("0.0.0.0{text}") } else { text.replace("localhost:", "127.0.0.1:") };
    full.parse().map_err(|_| Error::Address(text.to_owned()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn addresses_are_taken_as_go_programs_take_them() {
        assert_eq!(listen_on(":8085").unwrap().to_string(), "0.0.0.0:8085");
        assert_eq!(listen_on("localhost:0").unwrap().to_string(), "127.0.0.1:0");
        assert_eq!(listen_on("[::1]:1").unwrap().to_string(), "[::1]:1");
        assert!(listen_on("8085").is_err());
    }
}

//! What our controllers share: telemetry, health and metrics, the client, status with its event, leases, and stopping
//! when asked to.
//!
//! The main types are [`Publisher`] (status, condition, event and metric from one reason) and [`Leases`] (who may work
//! on something, with a real take-over).
//!
//! ```no_run
//! # async fn main_loop() -> Result<(), operator::Error> {
//! operator::telemetry::init(operator::telemetry::Format::Text, "info")?;
//! let stop = operator::stop::on_signal()?;
//! let client = operator::client::connect(None).await?;
//! let metrics = operator::Metrics::new("backup-driver");
//! let health = operator::Health::default();
//! let address = operator::serve(":8085", &metrics, &health, stop.clone()).await?;
//! tracing::info!(%address, "serving metrics and health");
//! let leases = operator::Leases::leader(client.clone(), "velero", "backup-driver-0");
//! let lease = leases.wait_for("backup-driver", &stop).await?;
//! health.set_ready(true);
//! lease.lost().cancelled().await; // or the work, whichever ends first
//! # Ok(()) }
//! ```
//!
//! This crate decides nothing about backups; it knows `api` and Kubernetes only.

pub mod client;
pub mod core_dumps;
pub mod dying;
mod error;
mod health;
mod klog;
mod lease;
mod metrics;
mod namespace;
mod pace;
mod publish;
mod reported;
pub mod stop;
pub mod telemetry;
mod unused;
mod watches;

pub use error::Error;
pub use health::{Health, serve};
pub use klog::without_klog_flags;
pub use lease::{Lease, Leases, Taken};
pub use metrics::Metrics;
pub use namespace::or_veleros;
pub use pace::Pace;
pub use publish::{Guard, Note, Publisher};
pub use reported::{Reported, StatusPlace};
pub use unused::without_effect;
pub use watches::Watches;

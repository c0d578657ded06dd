//! Command line and environment, parsed once.

use std::path::PathBuf;

/// Moves disks between vSphere and the repository, one process a node.
#[derive(Debug, clap::Parser)]
#[command(name = "datamgr", version)]
pub enum Command {
    /// Runs until it is told to stop.
    Server(Config),
}

/// How the process runs. Names and defaults of flags are the original's; flags that steered what no longer exists are
/// accepted and ignored, so that old manifests start.
#[derive(Debug, Clone, clap::Args)]
pub struct Config {
    /// Namespace of Velero, where Uploads and Downloads live.
    #[arg(long, short = 'n', env = "VELERO_NAMESPACE", default_value = "velero")]
    pub namespace: String,
    /// Name of this node: holder of leases and `status.processingNode`.
    #[arg(long, env = "NODE_NAME")]
    pub node_name: String,
    /// Kubeconfig; in a pod the service account is used.
    #[arg(long, env = "KUBECONFIG")]
    pub kubeconfig: Option<PathBuf>,
    /// `panic fatal error warning info debug trace`.
    #[arg(long, default_value = "info")]
    pub log_level: String,
    /// `text` or `json`.
    #[arg(long, default_value = "text")]
    pub log_format: operator::telemetry::Format,
    /// Address for `/metrics`, `/healthz` and `/readyz`.
    #[arg(long, env = "METRICS_ADDRESS", default_value = ":8085")]
    pub metrics_address: String,
    /// Uploads that this node copies at once.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=32))]
    pub upload_slots: u16,
    /// Downloads that this node writes at once. They have slots of their own: a restore does not wait for backups.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=32))]
    pub download_slots: u16,
    /// Folder of VMware's VDDK, which the user supplies.
    #[arg(long, env = "VDDK_DIR", default_value = "/vddkLibs")]
    pub vddk_dir: PathBuf,
    /// Transport modes that VDDK may use, best first: of `nbdssl`, `nbd`, `hotadd`, `san`, joined by colons.
    #[arg(long, env = "VDDK_TRANSPORT_MODES", default_value_t)]
    pub vddk_transport_modes: vddk::TransportModes,
    /// Seconds that one call into VDDK may take before its process is ended.
    #[arg(long, env = "DISK_CALL_DEADLINE", default_value_t = 180, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub disk_call_deadline: u64,
    /// Folder for sockets.
    #[arg(long, env = "VELERO_SCRATCH_DIR", default_value = "/scratch")]
    pub scratch_dir: PathBuf,
    /// Accepted, ignored: requests are paced by what there is to do.
    #[arg(long, hide = true)]
    pub client_qps: Option<f32>,
    /// Accepted, ignored.
    #[arg(long, hide = true)]
    pub client_burst: Option<u32>,
    /// Accepted, ignored.
    #[arg(long, hide = true)]
    pub profiler_address: Option<String>,
    /// Accepted, ignored: vCenter's credentials always come from its Secret.
    #[arg(long, hide = true)]
    pub use_secret: Option<String>,
}

//! Command line and environment, parsed once.

use std::path::PathBuf;

use clap::builder::{NonEmptyStringValueParser, OsStringValueParser, StringValueParser, TypedValueParser as _};

use crate::given::Given;

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
    /// Namespace of Velero, where Uploads and Downloads live; an empty name is `velero`, as with the original.
    #[arg(
        long,
        short = 'n',
        env = "VELERO_NAMESPACE",
        default_value = "velero",
        value_parser = StringValueParser::new().map(operator::or_veleros)
    )]
    pub namespace: String,
    /// Name of this node: holder of leases and `status.processingNode`.
    #[arg(long, env = "NODE_NAME", value_parser = NonEmptyStringValueParser::new())]
    pub node_name: String,
    /// Kubeconfig; in a pod the service account is used. An empty name is none, as with the original.
    #[arg(long, env = "KUBECONFIG", value_parser = OsStringValueParser::new().map(PathBuf::from))]
    pub kubeconfig: Option<PathBuf>,
    /// `panic fatal error warning info debug trace`.
    #[arg(long, default_value = "info", value_parser = operator::telemetry::level)]
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
    /// TCP ports that VDDK may connect to besides vCenter's and that of name servers: a list joined by commas, or `any`.
    #[arg(long, env = "VDDK_PORTS", default_value_t)]
    pub vddk_ports: vddk::Ports,
    /// Seconds that one call into VDDK may take before its process is ended.
    #[arg(long, env = "DISK_CALL_DEADLINE", default_value_t = 180, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub disk_call_deadline: u64,
    /// Folder for sockets.
    #[arg(long, env = "VELERO_SCRATCH_DIR", default_value = "/scratch")]
    pub scratch_dir: PathBuf,
    /// The vCenter that takes the place of the one in the Secret.
    #[command(flatten)]
    pub given: Given,
    /// Flags of the original that have nothing to do here.
    #[command(flatten)]
    pub accepted: Accepted,
}

/// Flags of the original that are accepted and have no effect, so that its manifests start.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Accepted for old manifests, without effect")]
pub struct Accepted {
    // requests are paced by what there is to do
    #[arg(long, hide = true)]
    client_qps: Option<f32>,
    #[arg(long, hide = true)]
    client_burst: Option<u32>,
    #[arg(long, hide = true)]
    profiler_address: Option<String>,
    #[arg(long, hide = true)]
    kubecontext: Option<String>,
    #[arg(long, hide = true)]
    cluster_id: Option<String>,
}

impl Accepted {
    /// What a user would miss who gives these a value; a sentence for the log.
    pub fn missed(&self) -> Option<String> {
        operator::without_effect(&[
            ("--kubecontext", self.kubecontext.as_deref()),
            ("--profiler-address", self.profiler_address.as_deref()),
        ])
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use clap::Parser as _;

    fn server(line: &str) -> Config {
        let words = format!("datamgr server --node-name node-a {line}");
        let Command::Server(config) = Command::try_parse_from(words.split_whitespace()).unwrap();
        config
    }

    #[test]
    fn w15_a_node_copies_two_disks_of_each_kind_at_a_time_unless_it_is_told_otherwise() {
        let slots = |line| {
            let config = server(line);
            (config.upload_slots, config.download_slots)
        };
        assert_eq!(slots(""), (2, 2));
        assert_eq!(slots("--upload-slots 3"), (3, 2), "each kind has slots of its own");
        assert_eq!(slots("--download-slots 1"), (2, 1));
    }

    #[test]
    fn a_manifest_of_the_original_still_starts() {
        let all = "--namespace velero --kubecontext c --log-level debug --log-format text --client-qps 100.0 --client-burst 100 \
                   --profiler-address localhost:6060 --use-secret=false --vcenter-address vc.example --vcenter-port 443 \
                   --vcenter-user backup@vsphere.local --cluster-id lab --insecure-Flag=true";
        let config = server(all);
        assert_eq!((config.namespace.as_str(), config.log_level.as_str()), ("velero", "debug"));
        assert_eq!(server("--namespace=").namespace, "velero");
        for quiet in ["", "--kubeconfig= --profiler-address=", "--use-secret", "--use-secret=true --insecure-Flag", all]
        {
            assert_eq!(server(quiet).given.missed(), None, "{quiet}");
        }
        let missed = config.accepted.missed().unwrap();
        assert!(missed.ends_with(": --kubecontext, --profiler-address"), "{missed}");
        assert_eq!(server("--kubeconfig= --profiler-address= --log-level=").accepted.missed(), None);
    }

    #[test]
    fn what_would_find_nothing_or_log_nothing_is_refused_at_the_start() {
        for wrong in ["--node-name=", "--log-level=inof"] {
            let node = (!wrong.starts_with("--node-name")).then_some("--node-name=node-a");
            let words = ["datamgr", "server", wrong].into_iter().chain(node);
            let refused = Command::try_parse_from(words).unwrap_err().to_string();
            let (flag, _) = wrong.split_once('=').unwrap();
            assert!(refused.contains(flag), "{wrong}: {refused}");
        }
    }
}

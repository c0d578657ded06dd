//! The command line. The original's flags are taken, also where nothing is left for them to do.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{OsStringValueParser, StringValueParser, TypedValueParser as _};
use clap::{Args, Parser, Subcommand};

/// Turns backup and restore requests into disk snapshots, volumes and transfers.
#[derive(Debug, Parser)]
#[command(name = "backup-driver", version)]
pub struct Arguments {
    /// What to run.
    #[command(subcommand)]
    pub command: Command,
}

/// What can be run.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the controllers.
    Server(Server),
}

/// Settings of the server.
#[derive(Debug, Clone, Parser)]
pub struct Server {
    /// The Velero namespace; an empty name is `velero`, as with the original.
    #[arg(
        short,
        long,
        env = "VELERO_NAMESPACE",
        default_value = "velero",
        value_parser = StringValueParser::new().map(operator::or_veleros)
    )]
    pub namespace: String,
    /// Kubeconfig to use in place of the pod's account; an empty name is none, as with the original.
    #[arg(long, value_parser = OsStringValueParser::new().map(PathBuf::from))]
    pub kubeconfig: Option<PathBuf>,
    /// How much to log: panic fatal error warning info debug trace, or a filter such as `vsphere=debug`.
    #[arg(long, default_value = "info", value_parser = operator::telemetry::level)]
    pub log_level: String,
    /// How lines look: text or json.
    #[arg(long, default_value = "text")]
    pub log_format: operator::telemetry::Format,
    /// Where /metrics, /healthz and /readyz are served.
    #[arg(long, env = "METRICS_ADDRESS", default_value = ":8085")]
    pub metrics_address: String,
    /// Objects of one kind that are worked on at a time.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..))]
    pub backup_workers: u16,
    /// Name of this process in leases and events.
    #[arg(long, env = "POD_NAME", default_value = "backup-driver")]
    pub identity: String,
    /// How long the leader lease lasts after each renewal, in seconds.
    #[arg(long, default_value_t = 15, hide = true)]
    pub lease_seconds: u64,
    /// How often it is looked for what nobody owns.
    #[command(flatten)]
    pub sweeps: Sweeps,
    /// Flags of the original that have nothing to do here.
    #[command(flatten)]
    pub accepted: Accepted,
}

impl Server {
    /// How long the leader lease lasts after each renewal.
    pub fn lease(&self) -> Duration {
        Duration::from_secs(self.lease_seconds.max(3))
    }
}

/// How often it is looked for what nobody owns. The defaults are right for every cluster; tests have less time.
#[derive(Debug, Clone, Args)]
pub struct Sweeps {
    /// Pause between two sweeps of what deleted restores have left, in seconds. The deletion itself is seen at once.
    #[arg(long, env = "SWEEP_SECONDS", default_value_t = 60, hide = true)]
    sweep_seconds: u64,
    /// How long a disk snapshot must have been without an owner before it is deleted, in seconds.
    #[arg(long, env = "ORPHAN_GRACE_SECONDS", default_value_t = 20 * 60, hide = true)]
    orphan_grace_seconds: u64,
    /// Pause between two looks for what nobody owns in buckets and among BackupRepositories, in seconds.
    #[arg(long, env = "LEFTOVERS_SECONDS", default_value_t = 3600, hide = true)]
    leftovers_seconds: u64,
    /// In place of the setting `orphan-age`, in seconds.
    #[arg(long, env = "ORPHAN_AGE_SECONDS", hide = true)]
    orphan_age_seconds: Option<u64>,
}

impl Sweeps {
    /// Pause between two sweeps of what deleted restores have left.
    pub fn every(&self) -> Duration {
        Duration::from_secs(self.sweep_seconds.max(1))
    }

    /// How long a disk snapshot must have been without an owner before it is deleted.
    pub fn orphan_grace(&self) -> Duration {
        Duration::from_secs(self.orphan_grace_seconds.max(1))
    }

    /// Pause between two looks for what nobody owns in buckets and among BackupRepositories.
    pub fn leftovers(&self) -> Duration {
        Duration::from_secs(self.leftovers_seconds.max(1))
    }

    /// What takes the place of the setting `orphan-age`.
    pub fn orphan_age(&self) -> Option<Duration> {
        self.orphan_age_seconds.map(Duration::from_secs)
    }
}

/// Flags of the original that are accepted and have no effect.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Accepted for old manifests, without effect")]
pub struct Accepted {
    #[arg(long, hide = true)]
    client_qps: Option<f32>,
    #[arg(long, hide = true)]
    client_burst: Option<u32>,
    #[arg(long, hide = true)]
    profiler_address: Option<String>,
    #[arg(long, hide = true)]
    master: Option<String>,
    #[arg(long, hide = true)]
    kubecontext: Option<String>,
    #[arg(long, hide = true)]
    resync_period: Option<String>,
    #[arg(long, hide = true)]
    backup_retry_int_start: Option<String>,
    #[arg(long, hide = true)]
    backup_retry_int_max: Option<String>,
}

impl Accepted {
    /// What a user would miss who gives these a value; a sentence for the log.
    pub fn missed(&self) -> Option<String> {
        operator::without_effect(&[
            ("--master", self.master.as_deref()),
            ("--kubecontext", self.kubecontext.as_deref()),
            ("--profiler-address", self.profiler_address.as_deref()),
        ])
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_manifest_of_the_original_still_starts() {
        let started = |line: &str| {
            let words = format!("backup-driver server {line}");
            let Command::Server(server) = Arguments::try_parse_from(words.split_whitespace()).unwrap().command;
            server
        };
        let all = "--namespace backups --kubeconfig /etc/kubeconfig --kubecontext c --log-level debug --log-format json \
                   --client-qps 100.0 --client-burst 100 --profiler-address localhost:6060 --master https://10.0.0.1:6443 \
                   --resync-period 10m --backup-workers 2 --backup-retry-int-start 1s --backup-retry-int-max 5m0s";
        let server = started(all);
        assert_eq!((server.namespace.as_str(), server.kubeconfig), ("backups", Some(PathBuf::from("/etc/kubeconfig"))));
        assert_eq!((server.backup_workers, server.log_level.as_str()), (2, "debug"));
        assert_eq!(server.log_format, operator::telemetry::Format::Json);
        let missed = server.accepted.missed().unwrap();
        assert!(missed.ends_with(": --master, --kubecontext, --profiler-address"), "{missed}");
        assert_eq!(started("--namespace=").namespace, "velero");
        let empty = started("-n=backups --profiler-address= --master= --kubeconfig= --log-level=");
        assert_eq!(empty.accepted.missed(), None);
        assert_eq!((empty.namespace.as_str(), empty.kubeconfig), ("backups", Some(PathBuf::new())));
    }

    #[test]
    fn what_would_find_nothing_or_log_nothing_is_refused_at_the_start() {
        for wrong in ["--log-level=inof", "--log-level=vsphere=verbose", "--log-format=yaml"] {
            let refused = Arguments::try_parse_from(["backup-driver", "server", wrong]).unwrap_err().to_string();
            let (flag, _) = wrong.split_once('=').unwrap();
            assert!(refused.contains(flag), "{wrong}: {refused}");
        }
    }

    #[test]
    fn w19_ten_objects_of_a_kind_are_worked_on_at_a_time_unless_it_is_told_otherwise() {
        let Command::Server(server) = Arguments::try_parse_from(["backup-driver", "server"]).unwrap().command;
        assert_eq!(server.backup_workers, 10);
    }
}

//! The command line as a person types it. Says what may be asked for; does nothing.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser as _};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::place::Place;

const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    failed: the message names the cause, and what to do
  2    refused before anything was changed: arguments, a target that may not be overwritten, a missing key
  3    verify found a difference or damage, a restore skipped damage, a list of changes misses some, or there are restore
       points that cannot be read, so that nobody knows which one is the latest
  4    there is no such restore point, or `latest` could mean several disks
  10   there is no repository at that place
  11   the repository is locked by another program
  12   the key does not open the repository
  130  cancelled (Ctrl-C or SIGTERM; once more, two seconds later or after that, ends the program at once)

Environment:
  RESTIC_PASSWORD or RESTIC_PASSWORD_FILE        the repository's key
  AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION, AWS_CA_BUNDLE
                                                 for repositories in S3
  RUST_LOG                                       log more, for example RUST_LOG=debug

Found on PATH under the name kubectl-vsphere_backup, the same program is `kubectl vsphere-backup`.";

/// Backs up disks into restic repositories and brings them back.
#[derive(Debug, Parser)]
#[command(name = "vsphere-backup", version, about, after_help = EXIT_CODES)]
pub(crate) struct Arguments {
    /// How results are printed: for people, or one JSON document on standard output
    #[arg(long, value_enum, global = true, default_value = "text")]
    pub(crate) output: Output,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people; a progress bar on a terminal.
    Text,
    /// One JSON document on standard output, also for failures: what was found, with `error`, `fix` and `exitCode`.
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Back up a disk: a raw file, a block device, or an NBD URI
    ///
    /// The first backup makes the repository. Nothing is listed as a restore point before it was read back.
    Backup(BackupArguments),
    /// Bring a restore point back into a raw file, a block device, or an NBD URI
    ///
    /// A missing raw file is created sparse. A file of another size, or a disk smaller than the restore point, is refused.
    Restore(RestoreArguments),
    /// List restore points: of a repository, or with no repository given of everything the cluster knows
    List(ListArguments),
    /// Read every byte of a restore point again and check it; optionally compare it with a disk
    Verify(VerifyArguments),
    /// Free the space of what no restore point needs any more; no restore point is removed
    ///
    /// Data that is of no use goes when it has been of no use for the grace, so it takes two runs: the first one notes what is
    /// unused and since when, one after the grace removes it. The grace protects restores of restore points that are deleted
    /// meanwhile, and saves running backups from sending again what they found stored. Backups and restores may go on
    /// while it runs; other programs (restic) and other runs must not, and a lock keeps them away.
    Prune(PruneArguments),
    /// Show the cluster's snapshots and transfers: phase, how far, how fast, which node, why waiting
    Status(StatusArguments),
    /// Look for everything that keeps backups and restores from working, and say what helps
    ///
    /// Looks at definitions, programs, rights in the cluster, settings, vCenter and each privilege there, clocks, change tracking, the disk
    /// library, the repositories' key, storage locations, and what is left over. It changes nothing: with --probe-store it puts
    /// two small objects of its own into each bucket and deletes them again, and begins an upload in parts and aborts it. Exit
    /// code 1 when it finds a problem.
    Doctor(DoctorArguments),
    /// Whether vCenter tracks the changes of the cluster's disks, and switching that on or off
    #[command(subcommand)]
    Tracking(TrackingCommand),
}

/// What `tracking` is asked for.
#[derive(Debug, Subcommand)]
pub(crate) enum TrackingCommand {
    /// Show which nodes and disks have it on; changes nothing
    Status(ClusterArguments),
    /// Switch it on, so that backups read only what changed: first for the virtual machines of all nodes, then for the disks
    ///
    /// A disk that is tracked cannot be attached to a virtual machine that is not, and its pod does not start. So it takes two runs.
    /// The first one switches the virtual machines, all or none; it takes effect with their next stun: make and delete a snapshot of
    /// each, migrate it, or power-cycle it. The second one, once all of them have it, switches the disks that no pod uses;
    /// those that are in use follow by themselves when they are attached anew. Whatever has snapshots is refused. The template of
    /// nodes that are added by themselves needs it as well. A run that failed is run again.
    Enable(SwitchArguments),
    /// Switch it off again: first for the disks that no pod uses, then for the virtual machines
    ///
    /// A disk that a pod uses keeps its tracking, and as long as one does the virtual machines keep theirs.
    Disable(SwitchArguments),
}

#[derive(Debug, Args)]
pub(crate) struct SwitchArguments {
    /// Do it; without, only say what would be done
    #[arg(long)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) cluster: ClusterArguments,
}

/// The repository and how it is opened.
#[derive(Debug, Args)]
pub(crate) struct RepositoryArguments {
    /// A folder, or `s3:URL/bucket/prefix` as restic spells it
    #[arg(long, short, value_name = "REPO")]
    pub(crate) repository: String,
}

#[derive(Debug, Args)]
pub(crate) struct BackupArguments {
    /// Raw file, block device, or NBD URI (nbd://host:port/export, nbd+unix:///export?socket=PATH)
    pub(crate) source: Place,
    #[command(flatten)]
    pub(crate) repository: RepositoryArguments,
    /// Name of the disk in the repository; by default the file's absolute path, or the URI's host and export
    ///
    /// Of a disk behind a socket (nbd+unix) the default is the export's name alone, or `/nbd`: sockets change from run to run.
    /// Who backs up several such disks gives each a name.
    #[arg(long, value_name = "PATH", value_parser = disk_path)]
    pub(crate) path: Option<String>,
    /// Read only what this list calls changed since the restore point that --base names
    ///
    /// A JSON list of `{"offset": bytes, "length": bytes}`, as `nbdinfo --map=qemu:dirty-bitmap:NAME --json` writes it. The
    /// rest is taken over from that restore point, after a sample of it was read and found to be unchanged.
    #[arg(long, value_name = "FILE")]
    pub(crate) changed: Option<PathBuf>,
    /// The restore point that the list of --changed belongs to: its id or the beginning of it; scripts always say it
    ///
    /// Without, it is the latest restore point of this disk that this machine made, which is another one when somebody has
    /// removed the one that the list begins at. For a disk behind a socket either this or --path is needed.
    #[arg(long, value_name = "ID", requires = "changed", value_parser = point_id)]
    pub(crate) base: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct RestoreArguments {
    /// Id (or its beginning) of a restore point, or `latest`
    #[arg(value_parser = point_id)]
    pub(crate) restore_point: String,
    /// Raw file, block device, or NBD URI
    ///
    /// A file that is not there yet is written under its name and `.partial`, and gets its name when it is complete.
    pub(crate) target: Place,
    #[command(flatten)]
    pub(crate) repository: RepositoryArguments,
    /// Overwrite a target that exists; a restore that fails leaves it incomplete
    #[arg(long)]
    pub(crate) force: bool,
    /// Which disk `latest` means, when the repository holds several; an id of another disk is refused
    #[arg(long, value_name = "PATH", value_parser = disk_path)]
    pub(crate) path: Option<String>,
    /// Go on behind what is damaged in the repository: zeroes take its place, and exit code 3 says that some did
    #[arg(long)]
    pub(crate) skip_damaged: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ListArguments {
    /// A folder, or `s3:URL/bucket/prefix`; without it, the repositories that the cluster knows
    #[arg(long, short, value_name = "REPO")]
    pub(crate) repository: Option<String>,
    /// Only this disk
    #[arg(long, value_name = "PATH", value_parser = disk_path)]
    pub(crate) path: Option<String>,
    #[command(flatten)]
    pub(crate) cluster: ClusterArguments,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArguments {
    /// Id (or its beginning) of a restore point, or `latest`
    #[arg(value_parser = point_id)]
    pub(crate) restore_point: String,
    #[command(flatten)]
    pub(crate) repository: RepositoryArguments,
    /// Compare with this disk, byte for byte
    ///
    /// A shorter disk differs in what it lacks. A longer one differs where it holds anything but zeroes behind the
    /// restore point's end: a disk that was only enlarged is equal.
    #[arg(long, value_name = "SOURCE")]
    pub(crate) against: Option<Place>,
    /// Which disk `latest` means, when the repository holds several; an id of another disk is refused
    #[arg(long, value_name = "PATH", value_parser = disk_path)]
    pub(crate) path: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct PruneArguments {
    #[command(flatten)]
    pub(crate) repository: RepositoryArguments,
    /// Only say what would be freed: takes no lock, changes nothing, notes nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// How long data must have been of no use, such as 96h, 7d or 0s
    ///
    /// Below 72 hours --allow-short-grace is needed, and the run waits up to ten minutes until no backup or restore of ours
    /// holds a lock.
    #[arg(long, value_name = "TIME", default_value = "72h", value_parser = grace)]
    pub(crate) grace: Duration,
    /// Allow a grace below 72 hours: only while nothing else writes to the repository, such as the backups of a cluster
    #[arg(long)]
    pub(crate) allow_short_grace: bool,
}

#[derive(Debug, Args)]
pub(crate) struct StatusArguments {
    /// Only objects of this namespace (Snapshots and CloneFromSnapshots)
    #[arg(long, short)]
    pub(crate) namespace: Option<String>,
    #[command(flatten)]
    pub(crate) cluster: ClusterArguments,
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArguments {
    /// Also try out what each bucket can do: put, read, list, overwrite and delete objects in a folder of its own, which goes again
    #[arg(long)]
    pub(crate) probe_store: bool,
    #[command(flatten)]
    pub(crate) cluster: ClusterArguments,
}

/// Which cluster, and where in it Velero lives.
#[derive(Debug, Args)]
pub(crate) struct ClusterArguments {
    /// Path of a kubeconfig; by default KUBECONFIG, ~/.kube/config, or the pod's own account
    // an empty name is none, for scripts that pass on a variable
    #[arg(long, value_name = "FILE", value_parser = OsStringValueParser::new().map(PathBuf::from))]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Velero's namespace
    #[arg(long, env = "VELERO_NAMESPACE", default_value = "velero")]
    pub(crate) velero_namespace: String,
}

/// A number and `s`, `m`, `h` or `d`.
fn grace(text: &str) -> Result<Duration, String> {
    let parsed = text.char_indices().last().and_then(|(at, unit)| {
        let seconds: u64 = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 24 * 3600,
            _ => return None,
        };
        text[..at].parse::<u64>().ok()?.checked_mul(seconds)
    });
    parsed.map(Duration::from_secs).ok_or_else(|| "expected a number and s, m, h or d, such as 96h".to_owned())
}

/// Which restore point is meant; that there is one is found out later.
fn point_id(text: &str) -> Result<String, String> {
    match text.trim() {
        "" => Err("expected the id of a restore point or its beginning".to_owned()),
        id => Ok(id.to_ascii_lowercase()),
    }
}

/// The name of a disk is shown in one line and compared as text.
pub(crate) fn disk_path(text: &str) -> Result<String, String> {
    let plain = !text.is_empty() && !text.chars().any(char::is_control);
    plain
        .then(|| text.to_owned())
        .ok_or_else(|| "a disk's name in the repository is not empty and is one line".to_owned())
}

/// Whether a command line that cannot be parsed wants its failure as a document.
pub(crate) fn asks_for_json(args: impl IntoIterator<Item = OsString>) -> bool {
    let args: Vec<_> = args.into_iter().take_while(|arg| arg != "--").collect();
    args.iter().any(|arg| arg == "--output=json") || args.windows(2).any(|two| two[0] == "--output" && two[1] == "json")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_grace_is_what_was_typed_and_never_something_shorter() {
        let hours = |hours: u64| Ok(Duration::from_secs(hours * 3600));
        assert_eq!((grace("72h"), grace("4d"), grace("90m")), (hours(72), hours(96), Ok(Duration::from_secs(5400))));
        assert_eq!(grace("0s"), hours(0));
        for bad in ["", "h", "72", "-1h", "1.5h", "72 h", "1w", "99999999999999999999d", "9999999999999999999d"] {
            assert!(grace(bad).is_err(), "{bad:?}");
        }
        let default = Arguments::try_parse_from(["vsphere-backup", "prune", "--repository", "r"]).unwrap();
        let Command::Prune(default) = default.command else { panic!("prune was asked for") };
        assert_eq!(default.grace, repository::maintenance::GRACE);
    }

    #[test]
    fn no_id_is_not_any_restore_point_and_latest_is_no_id() {
        for none in ["", " "] {
            assert!(point_id(none).is_err(), "{none:?}");
        }
        assert_eq!((point_id("LATEST"), point_id("AB12")), (Ok("latest".to_owned()), Ok("ab12".to_owned())));
    }

    #[test]
    fn a_name_that_breaks_the_listing_is_refused() {
        assert!(disk_path("/disks/a").is_ok());
        for bad in ["", "/a\nb"] {
            assert!(disk_path(bad).is_err(), "{bad:?}");
        }
    }
}

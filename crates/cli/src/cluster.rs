//! `status`, and `list` without a repository: what the cluster's objects say. Reads only.

use anyhow::Result;
use api::entity::PvcSnapshotId;
use api::{BackupRepository, CloneFromSnapshot, Condition, Download, Progress, Reason, Snapshot, Upload, names};
use connections::leftovers::{Silent, called};
use connections::{Repositories, from_kube};
use disk::DiskSnapshot;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use lifecycle::Problem;
use repository::RestorePoint;
use serde::Serialize;

use crate::args::{ClusterArguments, ListArguments, Output, StatusArguments};
use crate::backup::short;
use crate::failure::{Refused, WithResult, exit};
use crate::list::{damage, when};
use crate::output;

/// One object, as a line of `status`.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    kind: &'static str,
    /// Whom it concerns: the claim's namespace.
    namespace: String,
    name: String,
    phase: String,
    progress: Progress,
    node: Option<String>,
    /// The reason of the moment, and its sentence.
    reason: Option<String>,
    message: Option<String>,
}

pub(crate) async fn status(arguments: &StatusArguments, output: Output) -> Result<()> {
    let client = connect(&arguments.cluster).await?;
    let mut lines = Vec::new();
    lines.extend(all::<Snapshot>(&client).await?.iter().map(of_snapshot));
    lines.extend(all::<Upload>(&client).await?.iter().map(of_upload));
    lines.extend(all::<CloneFromSnapshot>(&client).await?.iter().map(of_clone));
    lines.extend(all::<Download>(&client).await?.iter().map(of_download));
    lines.retain(|line| arguments.namespace.as_ref().is_none_or(|wanted| *wanted == line.namespace));
    output::result(output, &lines, || status_text(&lines))?;
    Ok(())
}

/// The cluster that the arguments name, or that the environment does.
pub(crate) async fn connect(arguments: &ClusterArguments) -> Result<Client, Refused> {
    let none_is_named = arguments.kubeconfig.as_ref().is_none_or(|file| file.as_os_str().is_empty());
    if none_is_named && !environment_names_a_cluster() {
        return Err(Refused::new("find the cluster: none was given", "name a cluster with --kubeconfig or KUBECONFIG"));
    }
    let connected = operator::client::connect(arguments.kubeconfig.as_deref()).await;
    connected.map_err(|error| {
        let fix = match error {
            operator::Error::Client(_) => {
                "log in to the cluster as kubectl does, or mend what is named in the kubeconfig, then start again"
            }
            _ => "let --kubeconfig or KUBECONFIG name a kubeconfig that can be read",
        };
        Refused { code: exit::FAILED, ..Refused::new(Problem::chain(&error), fix) }
    })
}

/// Whether the API server says that there is no such namespace. Where our account may not ask, nobody knows.
pub(crate) async fn lacks_namespace(client: &Client, name: &str) -> bool {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    matches!(namespaces.get_opt(name).await, Ok(None))
}

/// Alone among the commands on a cluster, `list` can do without one.
fn or_a_repository(refused: Refused) -> Refused {
    Refused { fix: format!("{}; `list` takes --repository instead", refused.fix).into(), ..refused }
}

/// Whether there is one of the places where a client looks: KUBECONFIG, ~/.kube/config, a pod's account.
fn environment_names_a_cluster() -> bool {
    let given = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let default = || std::env::home_dir().is_some_and(|home| home.join(".kube/config").exists());
    given("KUBECONFIG").is_some() || given("KUBERNETES_SERVICE_HOST").is_some() || default()
}

/// Every object of a kind.
pub(crate) async fn all<K>(client: &Client) -> Result<Vec<K>>
where
    K: kube::Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let listed = Api::<K>::all(client.clone()).list(&ListParams::default()).await;
    let act = format!("list {}", K::plural(&()));
    Ok(listed.map_err(|cause| Refused::by(&from_kube(&act, &cause)))?.items)
}

/// The parts of a status that all kinds have.
struct Common<'a> {
    phase: Option<&'a str>,
    progress: Progress,
    node: Option<&'a str>,
    message: Option<&'a str>,
    conditions: &'a [Condition],
}

fn line(kind: &'static str, namespace: Option<String>, name: String, status: Option<Common<'_>>) -> Line {
    let condition = status.as_ref().and_then(|status| api::conditions::get(status.conditions, api::conditions::READY));
    let said = condition.map(|condition| condition.message.as_str()).filter(|message| !message.is_empty());
    let message = said.or_else(|| status.as_ref().and_then(|status| status.message));
    Line {
        kind,
        namespace: namespace.unwrap_or_default(),
        name,
        phase: status.as_ref().and_then(|status| status.phase).unwrap_or("New").to_owned(),
        progress: status.as_ref().map(|status| status.progress).unwrap_or_default(),
        node: status.as_ref().and_then(|status| status.node).map(str::to_owned),
        reason: condition.map(|condition| condition.reason.clone()),
        message: message.map(str::to_owned),
    }
}

fn of_snapshot(object: &Snapshot) -> Line {
    let status = object.status.as_ref().map(|status| Common {
        phase: status.phase.as_ref().map(|phase| phase.as_str()),
        progress: status.progress,
        node: None,
        message: status.message.as_deref(),
        conditions: &status.conditions,
    });
    line("Snapshot", object.namespace(), object.name_any(), status)
}

fn of_upload(object: &Upload) -> Line {
    let status = object.status.as_ref().map(|status| Common {
        phase: status.phase.as_ref().map(|phase| phase.as_str()),
        progress: status.progress,
        node: status.processing_node.as_deref(),
        message: status.message.as_deref(),
        conditions: &status.conditions,
    });
    let namespace = object.spec.source_namespace.clone().or_else(|| object.namespace());
    line("Upload", namespace, object.name_any(), status)
}

fn of_clone(object: &CloneFromSnapshot) -> Line {
    let status = object.status.as_ref().map(|status| Common {
        phase: status.phase.as_ref().map(|phase| phase.as_str()),
        progress: status.progress.unwrap_or_default(),
        node: None,
        message: status.message.as_deref(),
        conditions: &status.conditions,
    });
    line("CloneFromSnapshot", object.namespace(), object.name_any(), status)
}

fn of_download(object: &Download) -> Line {
    let status = object.status.as_ref().map(|status| Common {
        phase: status.phase.as_ref().map(|phase| phase.as_str()),
        progress: status.progress,
        node: status.processing_node.as_deref(),
        message: status.message.as_deref(),
        conditions: &status.conditions,
    });
    let namespace = object.spec.source_namespace.clone().or_else(|| object.namespace());
    line("Download", namespace, object.name_any(), status)
}

fn status_text(lines: &[Line]) -> String {
    if lines.is_empty() {
        return "no snapshots and no transfers".to_owned();
    }
    let rows = lines.iter().map(|line| {
        let why = [line.reason.as_deref(), line.message.as_deref()];
        vec![
            line.kind.to_owned(),
            line.namespace.clone(),
            line.name.clone(),
            line.phase.clone(),
            done(&line.progress),
            rate(&line.progress),
            line.node.clone().unwrap_or_default(),
            why.into_iter().flatten().collect::<Vec<_>>().join(": "),
        ]
    });
    output::table(&["KIND", "NAMESPACE", "NAME", "PHASE", "DONE", "RATE", "NODE", "WHY"], rows)
}

fn done(progress: &Progress) -> String {
    match progress.total_bytes {
        0 => String::new(),
        total => format!("{} % of {}", u128::from(progress.bytes_done) * 100 / u128::from(total), output::bytes(total)),
    }
}

fn rate(progress: &Progress) -> String {
    match progress.bytes_per_second {
        0 => String::new(),
        bytes => format!("{}/s", output::bytes(bytes)),
    }
}

/// A restore point and the BackupRepository it was found through.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Found {
    backup_repository: String,
    /// What a CloneFromSnapshot or DeleteSnapshot names it by, spelt as their field; none for what is no claim's.
    #[serde(rename = "snapshotID")]
    snapshot_id: Option<String>,
    #[serde(flatten)]
    point: RestorePoint,
}

impl Found {
    fn new(described: &BackupRepository, namespace: &str, point: RestorePoint) -> Self {
        let snapshot_id = snapshot_id(namespace, &point.path, point.identity());
        Self { backup_repository: described.name_any(), snapshot_id, point }
    }
}

/// The id of a restore point that lies in the repository of `namespace`. The namespace in it says where it is looked for: what somebody
/// copied there from another one has none.
fn snapshot_id(namespace: &str, path: &str, disk_snapshot: Option<DiskSnapshot>) -> Option<String> {
    let claim = path.strip_prefix('/')?.strip_prefix(namespace)?.strip_prefix('/')?;
    let (namespace, claim) = (namespace.to_owned(), claim.to_owned());
    let id = PvcSnapshotId { namespace, disk_snapshot: disk_snapshot?, claim };
    names::is_object_name(&id.claim).then(|| id.to_string())
}

pub(crate) async fn list(arguments: &ListArguments, output: Output) -> Result<()> {
    let client = connect(&arguments.cluster).await.map_err(or_a_repository)?;
    let velero_namespace = &arguments.cluster.velero_namespace;
    if lacks_namespace(&client, velero_namespace).await {
        let message = format!("find the repositories' keys: there is no namespace {velero_namespace}");
        let fix = "let --velero-namespace or VELERO_NAMESPACE name Velero's namespace";
        return Err(Refused::new(message, fix).into());
    }
    let repositories = Repositories::new(client.clone(), velero_namespace);
    let mut silent = Silent::default();
    let (mut found, mut seen, mut failures) = (Vec::new(), std::collections::BTreeSet::new(), Failures::default());
    for described in all::<BackupRepository>(&client).await? {
        for namespace in described.namespaces() {
            let name = called(&described, namespace);
            if silent.knows(&described) {
                let reason = Reason::StoreUnreachable;
                failures.others.push(format!("{name}: {reason}: its store did not answer a moment ago"));
                continue;
            }
            let repository = match repositories.open(&described, namespace).await {
                Ok(repository) => repository,
                // nothing was ever backed up from this namespace
                Err(problem) if problem.reason == Reason::RepositoryMissing => continue,
                Err(problem) => {
                    silent.note(&described, &problem);
                    failures.others.push(format!("{name}: {problem}"));
                    continue;
                }
            };
            // several BackupRepository objects may describe one place
            if !seen.insert((repository.place(), repository.id().to_owned())) {
                continue;
            }
            match repository.points().await {
                Ok(points) => {
                    let damaged = points.damaged.iter().map(|(_, error)| damage(error));
                    failures
                        .unreadable
                        .extend(damaged.map(|damage| format!("{name}: {}: {damage}", repository.place())));
                    let found_here = points.readable.into_iter();
                    found.extend(found_here.map(|point| Found::new(&described, namespace, point)));
                }
                Err(error) => failures.others.push(format!("{name}: {:#}", anyhow::Error::from(error))),
            }
        }
    }
    found.retain(|found| arguments.path.as_ref().is_none_or(|wanted| is_meant(&found.point.path, wanted)));
    found.sort_by_key(|found| found.point.time);
    listed(found, failures, output)
}

/// Whether a disk is the one that was asked for: by its path, or as the table shows it, without the first `/`.
fn is_meant(path: &str, wanted: &str) -> bool {
    path == wanted || path.trim_start_matches('/') == wanted
}

/// What could not be listed, and why.
#[derive(Default)]
struct Failures {
    /// Restore points.
    unreadable: Vec<String>,
    /// Whole repositories.
    others: Vec<String>,
}

/// What could be listed, when some repositories could not.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    restore_points: Vec<Found>,
    failures: Vec<String>,
}

/// One document in every case: when some repositories failed, the restore points of the others are part of the failure's.
fn listed(found: Vec<Found>, failures: Failures, output: Output) -> Result<()> {
    let code = if failures.others.is_empty() { exit::DIFFERS } else { exit::FAILED };
    let failures = [failures.unreadable, failures.others].concat();
    // nobody knows that there are none where some could not be looked for
    if failures.is_empty() || (output == Output::Text && !found.is_empty()) {
        output::result(output, &found, || list_text(&found))?;
    }
    if failures.is_empty() {
        return Ok(());
    }
    let fix = if found.is_empty() { "mend what is named" } else { "mend what is named; the others are listed" };
    let failure = Refused { message: told(&failures), fix: fix.into(), code };
    Err(WithResult::new(failure, &Listed { restore_points: found, failures }).into())
}

/// One failure a line.
fn told(failures: &[String]) -> String {
    match failures {
        [one] => format!("list restore points: {one}"),
        several => format!("list restore points: {} failures:\n  {}", several.len(), several.join("\n  ")),
    }
}

fn list_text(found: &[Found]) -> String {
    if found.is_empty() {
        return "no restore points".to_owned();
    }
    let rows = found.iter().map(|found| {
        let tag = |name: &str| found.point.tags.get(name).cloned().unwrap_or_default();
        vec![
            short(&found.point),
            when(&found.point),
            found.point.path.trim_start_matches('/').to_owned(),
            tag("backup"),
            found.backup_repository.clone(),
        ]
    });
    output::table(&["ID", "TIME", "CLAIM", "BACKUP", "REPOSITORY"], rows)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use api::{UploadPhase, UploadSpec, UploadStatus};

    #[test]
    fn status_says_how_far_how_fast_where_and_why() {
        let mut upload =
            Upload::new("upload-1", UploadSpec { source_namespace: Some("shop".into()), ..Default::default() });
        upload.status = Some(UploadStatus {
            phase: Some(UploadPhase::InProgress),
            progress: Progress {
                total_bytes: 1 << 30,
                bytes_done: 1 << 29,
                bytes_per_second: 1 << 20,
                ..Default::default()
            },
            processing_node: Some("node-a".into()),
            message: Some("copying".into()),
            ..Default::default()
        });
        let text = status_text(&[of_upload(&upload)]);
        for part in ["Upload", "shop", "upload-1", "InProgress", "50 % of 1.00 GiB", "1.00 MiB/s", "node-a", "copying"]
        {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
    }

    #[test]
    fn an_object_without_status_is_new_and_breaks_nothing() {
        let line = of_snapshot(&Snapshot::new("a", Default::default()));
        assert_eq!(line.phase, "New");
        assert!(status_text(&[line]).contains("New"));
    }

    #[test]
    fn a_backup_that_nobody_keeps_the_id_of_can_be_deleted_and_no_other_one_with_it() {
        let taken = || Some("disk:snap".parse::<DiskSnapshot>().unwrap());
        let id = snapshot_id("shop", "/shop/data-0", taken()).unwrap();
        let read: PvcSnapshotId = id.parse().unwrap();
        assert_eq!((read.namespace.as_str(), read.claim.as_str()), ("shop", "data-0"));
        assert_eq!(Some(read.disk_snapshot), taken());
        for (situation, path, disk_snapshot) in [
            ("no disk snapshot of vSphere", "/shop/data-0", None),
            ("copied from the repository of another namespace", "/bar/data-0", taken()),
            ("a namespace that begins the same", "/shopping/data-0", taken()),
            ("the command line's, of a file", "/shop/disks/a.raw", taken()),
            ("no claim", "/shop/", taken()),
            ("nothing of ours", "shop", taken()),
        ] {
            assert_eq!(snapshot_id("shop", path, disk_snapshot), None, "{situation}");
        }
    }

    #[test]
    fn a_disk_is_found_by_what_the_table_shows() {
        for (wanted, meant) in [("/shop/data", true), ("shop/data", true), ("data", false), ("shop/data-2", false)] {
            assert_eq!(is_meant("/shop/data", wanted), meant, "{wanted}");
        }
    }

    #[test]
    fn each_failure_has_a_line_of_its_own() {
        let one = "br-1 (namespace shop): RepositoryPasswordWrong: open it".to_owned();
        assert_eq!(told(std::slice::from_ref(&one)), format!("list restore points: {one}"));
        let lines = told(&[one, "br-2 (namespace bank): BucketMissing: list it".to_owned()]);
        assert_eq!(lines.lines().filter(|line| line.starts_with("  br-")).count(), 2, "{lines}");
    }

    #[test]
    fn a_script_tells_restore_points_that_cannot_be_read_from_a_repository_that_cannot_be_opened() {
        let some = |what: &str| vec![what.to_owned()];
        let code = |unreadable, others| {
            let ended = listed(Vec::new(), Failures { unreadable, others }, Output::Json);
            ended.map_or_else(|error| crate::failure::meaning(&error).code, |()| 0)
        };
        assert_eq!(code(some("snapshots/1 is damaged"), vec![]), exit::DIFFERS);
        assert_eq!(code(vec![], some("the bucket does not exist")), exit::FAILED);
        assert_eq!(code(some("snapshots/1 is damaged"), some("the bucket does not exist")), exit::FAILED);
    }
}

#![allow(clippy::unwrap_used, reason = "tests")]
use super::*;
use api::{DownloadPhase, DownloadSpec, DownloadStatus, Time, UploadSpec, UploadStatus};
use k8s_openapi::api::storage::v1::VolumeAttachment;
use serde_json::json;

fn noon() -> Timestamp {
    "2026-01-02T12:00:00Z".parse().unwrap()
}

fn later() -> Time {
    Time("2026-01-02T12:30:00Z".parse().unwrap())
}

/// An Upload of a disk of the same name, made at this second after nine.
fn upload(name: &str, second: i64, datastore: Option<&str>, admitted: Option<bool>) -> Box<Upload> {
    let snapshot_id = Some(format!("ivd:{name}:s-1"));
    let spec = UploadSpec { snapshot_id, datastore: datastore.map(str::to_owned), admitted, ..UploadSpec::default() };
    let mut upload = Upload::new(name, spec);
    let nine: Timestamp = "2026-01-02T09:00:00Z".parse().unwrap();
    upload.metadata.creation_timestamp = Some(Time(nine + k8s_openapi::jiff::SignedDuration::from_secs(second)));
    upload.status = Some(UploadStatus { phase: Some(UploadPhase::New), ..UploadStatus::default() });
    Box::new(upload)
}

fn asks(name: &str, second: i64) -> Box<Upload> {
    upload(name, second, Some("datastore-1"), Some(false))
}

fn at(phase: UploadPhase, admitted: bool, next: Option<Time>) -> Box<Upload> {
    let mut upload = upload("first", 0, Some("datastore-1"), Some(admitted));
    upload.status = Some(UploadStatus { phase: Some(phase), next_retry_timestamp: next, ..UploadStatus::default() });
    upload
}

fn reads(name: &str) -> Box<Upload> {
    let mut upload = upload(name, 0, Some("datastore-1"), Some(true));
    upload.status.as_mut().unwrap().phase = Some(UploadPhase::InProgress);
    upload
}

/// A Download into a disk of the same name.
fn restore(disk: &str, phase: DownloadPhase) -> Box<Download> {
    let spec = DownloadSpec { protected_entity_id: Some(format!("ivd:{disk}")), ..DownloadSpec::default() };
    let mut download = Download::new(disk, spec);
    download.status = Some(DownloadStatus { phase: Some(phase), ..DownloadStatus::default() });
    Box::new(download)
}

/// Disks and the hosts that serve them, as `disk@host`, and those that lie on datastore-1.
fn places(hosts: &[&str], on_datastore_1: &[&str]) -> Places {
    let host = |name: &str| Host { id: format!("host-{name}"), name: format!("esx-{name}") };
    let served = hosts.iter().map(|text| text.split_once('@').unwrap());
    Places {
        hosts: served.map(|(disk, name)| (disk.parse().unwrap(), host(name))).collect(),
        datastores: on_datastore_1.iter().map(|disk| (disk.parse().unwrap(), "datastore-1".to_owned())).collect(),
        hosts_unknown_since: None,
    }
}

fn budgets(datastore: u32, host: u32) -> Budgets {
    Budgets { datastore: NonZeroU32::new(datastore), host: NonZeroU32::new(host) }
}

/// What becomes of Uploads beside restores.
fn among(
    uploads: &[Box<Upload>],
    downloads: &[Box<Download>],
    budgets: Budgets,
    places: &Places,
) -> Vec<(String, Verdict)> {
    let all = verdicts(uploads, downloads, budgets, places, |_| false, noon());
    all.into_iter().map(|(upload, verdict)| (upload.metadata.name.clone().unwrap(), verdict)).collect()
}

fn of(uploads: &[Box<Upload>], datastore: u32) -> Vec<(String, Verdict)> {
    among(uploads, &[], budgets(datastore, 0), &Places::default())
}

/// On `datastore-1`, which may have so many.
fn waits(budget: u32) -> Verdict {
    datastore_busy(&format!(
        "datastore datastore-1 has as many uploads and restores as uploads-per-datastore allows ({budget})"
    ))
}

fn waits_for_host_1(budget: u32) -> Verdict {
    host_busy(&format!("host esx-1 has as many uploads as uploads-per-host allows ({budget})"))
}

fn waits_behind(place: &str) -> String {
    format!("the room that {place} has is kept for an upload that waits longer")
}

fn datastore_busy(why: &str) -> Verdict {
    Verdict::HoldBack { reason: Reason::DatastoreBusy, why: why.to_owned() }
}

fn host_busy(why: &str) -> Verdict {
    Verdict::HoldBack { reason: Reason::HostBusy, why: why.to_owned() }
}

fn named<const N: usize>(all: [(&str, Verdict); N]) -> Vec<(String, Verdict)> {
    all.map(|(name, verdict)| (name.to_owned(), verdict)).to_vec()
}

#[test]
fn who_waits_longest_goes_first_and_no_more_than_the_setting_says() {
    let uploads = [asks("c", 3), asks("a", 1), asks("b", 2)];
    assert_eq!(of(&uploads, 2), named([("a", Verdict::Admit), ("b", Verdict::Admit), ("c", waits(2))]));
    assert_eq!(of(&uploads, 1), named([("a", Verdict::Admit), ("b", waits(1)), ("c", waits(1))]));
    assert!(of(&uploads, 0).iter().all(|(_, verdict)| *verdict == Verdict::Admit), "the setting was taken away");
}

#[test]
fn what_takes_room_from_another_upload_of_its_datastore() {
    let mut cancelled = at(UploadPhase::New, true, None);
    cancelled.spec.upload_cancel = true;
    let mut cancelled_while_it_reads = at(UploadPhase::InProgress, true, None);
    cancelled_while_it_reads.spec.upload_cancel = true;
    let cases = [
        ("it reads", at(UploadPhase::InProgress, true, None), true),
        ("it reads and is to stop", cancelled_while_it_reads, true),
        ("it may begin", at(UploadPhase::New, true, None), true),
        ("made before the setting", upload("first", 0, Some("datastore-1"), None), true),
        ("of another datastore", upload("first", 0, Some("datastore-2"), Some(true)), false),
        ("nobody knows its datastore", upload("first", 0, None, Some(true)), false),
        ("it is to stop before it began", cancelled, false),
        ("it has ended", at(UploadPhase::Completed, true, None), false),
        ("only its disk snapshot is left", at(UploadPhase::CleanupFailed, true, None), false),
        ("it failed", at(UploadPhase::UploadError, true, Some(later())), false),
        ("it failed and is not due", at(UploadPhase::UploadError, false, Some(later())), false),
        ("it failed and was admitted again", at(UploadPhase::UploadError, true, Some(Time(noon()))), true),
        ("it failed and asks again", at(UploadPhase::UploadError, false, Some(Time(noon()))), true),
    ];
    for (case, first, takes_room) in cases {
        let verdicts = of(&[first, asks("second", 9)], 1);
        let second = verdicts.iter().find(|(name, _)| name == "second").unwrap();
        assert_eq!(second.1, if takes_room { waits(1) } else { Verdict::Admit }, "{case}");
    }
}

#[test]
fn uploads_of_one_host_take_turns_wherever_their_disks_lie() {
    let far = |name: &str, second, datastore| upload(name, second, Some(datastore), Some(false));
    let uploads =
        [reads("a"), far("b", 1, "datastore-2"), far("c", 2, "datastore-3"), upload("d", 3, None, Some(false))];
    let host_is_full = || waits_for_host_1(1);
    let cases = [
        ("only that host's", places(&["a@1", "b@1", "c@2"], &[]), [host_is_full(), Verdict::Admit, Verdict::Admit]),
        ("a move gives room", places(&["a@2", "b@1", "c@3"], &[]), [Verdict::Admit, Verdict::Admit, Verdict::Admit]),
        (
            "one that was admitted in this round counts for the next",
            places(&["a@2", "b@1", "c@1", "d@1"], &[]),
            [Verdict::Admit, host_is_full(), host_is_full()],
        ),
        ("attached nowhere, or nothing is known", Places::default(), [Verdict::Admit, Verdict::Admit, Verdict::Admit]),
    ];
    for (case, places, [b, c, d]) in cases {
        assert_eq!(among(&uploads, &[], budgets(0, 1), &places), named([("b", b), ("c", c), ("d", d)]), "{case}");
    }
}

#[test]
fn an_upload_starts_when_both_budgets_have_room() {
    let two_read = [reads("a"), reads("b"), asks("c", 1)];
    let on_one_host = places(&["a@1", "b@1", "c@1"], &[]);
    let both = "datastore datastore-1 has as many uploads and restores as uploads-per-datastore allows (2), \
                and host esx-1 has as many uploads as uploads-per-host allows (2)";
    let cases = [
        ("no budget", budgets(0, 0), Verdict::Admit),
        ("room in both", budgets(3, 3), Verdict::Admit),
        ("the datastore is full", budgets(2, 3), waits(2)),
        ("the host is full", budgets(3, 2), waits_for_host_1(2)),
        ("more read than may, since it was lowered", budgets(3, 1), waits_for_host_1(1)),
        ("both are: raising one alone would not help", budgets(2, 2), datastore_busy(both)),
    ];
    for (case, budgets, want) in cases {
        assert_eq!(among(&two_read, &[], budgets, &on_one_host), named([("c", want)]), "{case}");
    }
}

#[test]
fn who_waits_longest_for_two_places_is_not_overtaken_for_good_by_those_that_need_one_of_them() {
    let on = |name: &str, second, datastore| upload(name, second, Some(datastore), Some(false));
    let may_begin = |name: &str, datastore| upload(name, 0, Some(datastore), Some(true));
    let (x, crossing) = (|| on("x", 1, "datastore-1"), || on("y", 2, "datastore-1"));
    let hosts = places(&["r@1", "x@1", "y@2", "z@1", "v@2"], &[]);
    let cases = [
        (
            "its host is full: it keeps its datastore",
            vec![may_begin("r", "datastore-2"), x(), crossing()],
            budgets(1, 1),
            vec![("x", waits_for_host_1(1)), ("y", datastore_busy(&waits_behind("datastore datastore-1")))],
        ),
        (
            "its datastore is full: it keeps its host",
            vec![may_begin("r", "datastore-1"), x(), on("z", 3, "datastore-2")],
            budgets(1, 2),
            vec![("x", waits(1)), ("z", host_busy(&waits_behind("host esx-1")))],
        ),
        (
            "both have room at last: it goes before both",
            vec![x(), crossing(), on("z", 3, "datastore-2")],
            budgets(1, 1),
            vec![("x", Verdict::Admit), ("y", waits(1)), ("z", waits_for_host_1(1))],
        ),
        (
            "it keeps no more than it needs",
            vec![may_begin("r", "datastore-2"), x(), crossing()],
            budgets(2, 1),
            vec![("x", waits_for_host_1(1)), ("y", Verdict::Admit)],
        ),
        (
            "whoever waits behind it keeps nothing: that would stand idle",
            vec![may_begin("r", "datastore-2"), x(), crossing(), on("v", 3, "datastore-3")],
            budgets(1, 1),
            vec![
                ("x", waits_for_host_1(1)),
                ("y", datastore_busy(&waits_behind("datastore datastore-1"))),
                ("v", Verdict::Admit),
            ],
        ),
    ];
    for (case, uploads, budgets, want) in cases {
        let want: Vec<_> = want.into_iter().map(|(name, verdict)| (name.to_owned(), verdict)).collect();
        assert_eq!(among(&uploads, &[], budgets, &hosts), want, "{case}");
    }
}

#[test]
fn a_driver_that_has_just_started_lets_not_all_start_before_it_knows_the_hosts() {
    let seconds_ago = |seconds| Some(noon() - k8s_openapi::jiff::SignedDuration::from_secs(seconds));
    let held = || host_busy("which hosts serve the disks is not known yet; it is waited for a minute at the longest");
    let cases = [
        ("it asks", budgets(0, 1), seconds_ago(0), held()),
        ("still within a minute", budgets(0, 1), seconds_ago(59), held()),
        ("nothing holds a backup up for longer", budgets(0, 1), seconds_ago(60), Verdict::Admit),
        ("known", budgets(0, 1), None, Verdict::Admit),
        ("hosts have no budget", budgets(9, 0), seconds_ago(0), Verdict::Admit),
    ];
    for (case, budgets, hosts_unknown_since, want) in cases {
        let places = Places { hosts_unknown_since, ..Places::default() };
        assert_eq!(among(&[asks("a", 1)], &[], budgets, &places), named([("a", want)]), "{case}");
    }
}

#[test]
fn a_restore_that_is_written_takes_room_of_its_datastore_and_of_no_host() {
    let cases = [
        ("it writes", DownloadPhase::InProgress, true),
        ("it waits for a node", DownloadPhase::New, false),
        ("its attempt failed", DownloadPhase::Retry, false),
        ("it is done", DownloadPhase::Completed, false),
        ("it failed", DownloadPhase::Failed, false),
    ];
    for (case, phase, takes_room) in cases {
        let (asking, restores) = ([asks("second", 9)], [restore("r", phase)]);
        let on_datastore = among(&asking, &restores, budgets(1, 1), &places(&[], &["r"]));
        let want = if takes_room { waits(1) } else { Verdict::Admit };
        assert_eq!(on_datastore, named([("second", want)]), "{case}");
        let on_host = among(&asking, &restores, budgets(1, 1), &places(&["r@1", "second@1"], &[]));
        assert_eq!(on_host, named([("second", Verdict::Admit)]), "{case}");
    }
    let beside = |restores: &[Box<Download>]| {
        among(&[reads("a"), asks("second", 9)], restores, budgets(2, 0), &places(&[], &["r", "q"]))
    };
    let (r, q) = (restore("r", DownloadPhase::InProgress), restore("q", DownloadPhase::InProgress));
    let one = beside(std::slice::from_ref(&r));
    assert_eq!(one, named([("second", waits(2))]));
    assert_eq!(beside(&[r, q]), one, "one more restore writes nothing to those that wait");
}

#[test]
fn an_attempt_that_failed_gives_its_room_back_where_there_is_a_budget() {
    let failed = || [at(UploadPhase::UploadError, true, Some(later()))];
    let after = |uploads: &[Box<Upload>], budgets| among(uploads, &[], budgets, &Places::default());
    for of_either in [budgets(1, 0), budgets(0, 1)] {
        assert_eq!(after(&failed(), of_either), named([("first", Verdict::TakeBack)]));
        let asks_again = [at(UploadPhase::UploadError, false, Some(Time(noon())))];
        assert_eq!(after(&asks_again, of_either), named([("first", Verdict::Admit)]));
        let admitted_again = [at(UploadPhase::UploadError, true, Some(Time(noon())))];
        assert_eq!(after(&admitted_again, of_either), [], "it would never start if that was taken back at once");
    }
    assert_eq!(after(&failed(), budgets(0, 0)), []);
    let mut made_before_any_setting = failed();
    made_before_any_setting[0].spec.admitted = None;
    assert_eq!(after(&made_before_any_setting, budgets(0, 1)), []);
}

#[test]
fn an_upload_that_was_admitted_a_moment_ago_is_not_admitted_twice() {
    let uploads = [asks("first", 1), asks("second", 2)];
    let granted = |u: &Upload| u.metadata.name.as_deref() == Some("first");
    let restores: [Box<Download>; 0] = [];
    let all = verdicts(&uploads, &restores, budgets(1, 0), &Places::default(), granted, noon());
    assert_eq!(all, [(&*uploads[1], waits(1))]);
    assert!(anyone_asks(&uploads, granted, noon()) && !anyone_asks(&uploads[..1], granted, noon()));
}

#[test]
fn a_new_upload_waits_for_its_turn_only_where_a_budget_concerns_it() {
    let known = || Some("datastore-1".to_owned());
    let when_admitted = |datastore| Turn::WhenAdmitted { datastore };
    assert_eq!(turn(budgets(0, 0), known()), Turn::AtOnce);
    assert_eq!(turn(budgets(1, 0), known()), when_admitted(known()));
    assert_eq!(turn(budgets(1, 0), None), Turn::AtOnce, "what is not known holds no backup up");
    assert_eq!(turn(budgets(0, 1), known()), when_admitted(None), "its host is looked up when it is to start");
    assert_eq!(turn(budgets(1, 1), None), when_admitted(None));
}

#[test]
fn only_what_is_attached_now_by_our_driver_counts() {
    let attachment = |attacher: &str, source: serde_json::Value, attached: Option<bool>| -> VolumeAttachment {
        let spec = json!({"attacher": attacher, "nodeName": "node-a", "source": source});
        let status = attached.map(|attached| json!({"attached": attached}));
        serde_json::from_value(json!({"metadata": {"name": "csi-1"}, "spec": spec, "status": status})).unwrap()
    };
    let (ours, volume) = ("csi.vsphere.vmware.com", json!({"persistentVolumeName": "pv-1"}));
    let cases = [
        ("attached", attachment(ours, volume.clone(), Some(true)), Some(("pv-1", "node-a"))),
        ("on its way", attachment(ours, volume.clone(), Some(false)), None),
        ("nobody has begun", attachment(ours, volume.clone(), None), None),
        ("another driver's", attachment("ebs.csi.aws.com", volume, Some(true)), None),
        ("inline in a pod", attachment(ours, json!({}), Some(true)), None),
    ];
    for (case, attachment, want) in cases {
        assert_eq!(attached_to(&attachment), want, "{case}");
    }
}

#[test]
fn a_setting_that_cannot_be_followed_bounds_nothing() {
    assert_eq!(budget("3"), NonZeroU32::new(3));
    for text in ["", "0", "-1", "two", "1.5"] {
        assert_eq!(budget(text), None, "{text}");
    }
}

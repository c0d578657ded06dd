//! Replies in the spelling of a real vCenter, and connections that break in ways that the double's do not.

use std::sync::atomic::{AtomicUsize, Ordering};

use disk::{ByteRange, ChangeId};
use vsphere::{Cause, ReasonKind, Recovery};

use crate::double::MINUTE;
use crate::wire::{Answer, Received, Wire};

const CONTENT: &str = include_str!("../../testdata/service-content.xml");
const LOGIN: &str = include_str!("../../testdata/login.xml");
const VSLM: &str = include_str!("../../testdata/vslm-content.xml");
const DISK: &str = include_str!("../../testdata/retrieve-disk.xml");
const NO_PERMISSION: &str = include_str!("../../testdata/no-permission.xml");
const COOKIE: &str = "Set-Cookie: vmware_soap_session=\"52f0-11\"; Path=/; HttpOnly; Secure;\r\n";

pub(crate) fn ok(body: &str) -> Answer {
    Answer::Http(200, String::new(), body.to_owned())
}

/// What every conversation begins with. Like a real server it sets the cookie with its first reply, not at the login.
pub(crate) fn begin(request: &Received) -> Option<Answer> {
    let asks = |method: &str| request.body.contains(&format!("<{method} "));
    if asks("RetrieveServiceContent") {
        return Some(Answer::Http(200, COOKIE.to_owned(), CONTENT.to_owned()));
    }
    (asks("Login").then(|| ok(LOGIN))).or_else(|| asks("RetrieveContent").then(|| ok(VSLM)))
}

#[tokio::test]
async fn a_real_servers_spelling_is_understood_and_its_session_carried_as_each_service_wants_it() {
    let wire = Wire::start(|request| begin(request).unwrap_or_else(|| ok(DISK))).await;
    let vcenter = wire.client().for_operation("upload-1");
    let about = vcenter.about().await.unwrap();
    assert_eq!((about.api_version.as_str(), about.instance_uuid.as_str()), ("9.9.0.0", "0f1e-77"));
    let disk = vcenter.retrieve_disk(&"2b6d0f5e".parse().unwrap()).await.unwrap();
    assert_eq!((disk.name.as_str(), disk.attached), ("pvc-5e0c & co", true));

    let login = &wire.received("Login")[0];
    assert_eq!(login.header("cookie"), Some("vmware_soap_session=\"52f0-11\""));
    assert_eq!(login.header("soapaction"), Some("urn:vim25/9.1.0.0"), "the newest we know, not the server's 9.9");
    let read = &wire.received("VslmRetrieveVStorageObject")[0];
    assert!(read.head.starts_with("POST /vslm/sdk "), "{}", read.head);
    assert!(read.body.contains("<vcSessionCookie>52f0-11</vcSessionCookie>"), "{}", read.body);
    assert!(read.body.contains("<operationID>upload-1</operationID>"), "{}", read.body);
    assert!(
        read.body.contains(
            "<_this type=\"VslmVStorageObjectManager\">VStorageObjectManager</_this><id><id>2b6d0f5e</id></id>"
        )
    );
}

/// What VSLM answers: its envelope around `returnval`.
fn vslm(method: &str, returnval: &str) -> Answer {
    ok(&format!(
        r#"<e:Envelope xmlns:e="http://schemas.xmlsoap.org/soap/envelope/"><e:Body><{method}Response xmlns="urn:vslm">
        {returnval}</{method}Response></e:Body></e:Envelope>"#
    ))
}

/// Some servers say only that a task succeeded, and are asked for its result by a call of its own.
#[tokio::test]
async fn a_session_that_ends_before_the_tasks_result_is_told_costs_no_second_snapshot_and_no_error() {
    const ENDED: &str = r#"<e:Envelope xmlns:e="http://schemas.xmlsoap.org/soap/envelope/"><e:Body><e:Fault>
        <faultcode>ServerFaultCode</faultcode><faultstring>The session is not authenticated.</faultstring>
        <detail><NotAuthenticatedFault xmlns="urn:vim25"/></detail></e:Fault></e:Body></e:Envelope>"#;
    let results = AtomicUsize::new(0);
    let wire = Wire::start(move |request| {
        let asks = |method: &str| request.body.contains(&format!("<{method} "));
        if let Some(answer) = begin(request) {
            answer
        } else if asks("VslmRetrieveSnapshotInfo") {
            vslm("VslmRetrieveSnapshotInfo", "<returnval/>")
        } else if asks("VslmCreateSnapshot_Task") {
            vslm("VslmCreateSnapshot_Task", r#"<returnval type="VslmTask">task-7</returnval>"#)
        } else if asks("VslmQueryInfo") {
            vslm("VslmQueryInfo", "<returnval><key>task-7</key><state>success</state></returnval>")
        } else if asks("VslmQueryTaskResult") && results.fetch_add(1, Ordering::Relaxed) == 0 {
            Answer::Http(500, String::new(), ENDED.to_owned())
        } else {
            vslm("VslmQueryTaskResult", "<returnval><id>c9f1d7aa</id></returnval>")
        }
    })
    .await;
    let taken = wire.client().create_snapshot(&"2b6d0f5e".parse().unwrap(), "token", MINUTE).await.unwrap();
    assert_eq!(taken.as_str(), "c9f1d7aa");
    let asked = |method| wire.received(method).len();
    assert_eq!((asked("VslmCreateSnapshot_Task"), asked("VslmQueryTaskResult"), asked("Login")), (1, 2, 2));
}

#[tokio::test]
async fn the_privileges_that_newer_servers_list_are_named() {
    let refuse = || Answer::Http(500, String::new(), NO_PERMISSION.to_owned());
    let wire = Wire::start(move |request| begin(request).unwrap_or_else(refuse)).await;
    let error = wire.client().retrieve_disk(&"2b6d0f5e".parse().unwrap()).await.unwrap_err();
    let want = ReasonKind::NoPermission {
        object: "Datastore:datastore-12".to_owned(),
        privilege: "Datastore.FileManagement, Cns.Searchable".to_owned(),
    };
    assert_eq!((error.reason_kind(), error.recovery()), (want, Recovery::GiveUp));
}

#[tokio::test]
async fn a_reply_that_is_cut_or_is_no_soap_is_an_error_of_its_kind() {
    type Case = (fn() -> Answer, ReasonKind, Recovery);
    let cases: [Case; 8] = [
        (|| Answer::CutInTheMiddle, ReasonKind::Unreachable, Recovery::Retry),
        (
            || Answer::Http(503, String::new(), "<html>starting</html>".to_owned()),
            ReasonKind::Unreachable,
            Recovery::Retry,
        ),
        (|| Answer::Http(500, String::new(), "oops".to_owned()), ReasonKind::Unreachable, Recovery::Retry),
        (|| Answer::Http(404, String::new(), String::new()), ReasonKind::Unreachable, Recovery::GiveUp),
        (
            || Answer::Http(302, "Location: /ui\r\n".to_owned(), String::new()),
            ReasonKind::Unreachable,
            Recovery::GiveUp,
        ),
        (|| ok("<html/>"), ReasonKind::Failed, Recovery::GiveUp),
        (|| ok("not xml"), ReasonKind::Failed, Recovery::GiveUp),
        (|| ok("<Envelope><Body/></Envelope>"), ReasonKind::Failed, Recovery::GiveUp),
    ];
    for (number, (answer, kind, recovery)) in cases.into_iter().enumerate() {
        let wire = Wire::start(move |request| begin(request).unwrap_or_else(answer)).await;
        let error = wire.client().retrieve_disk(&"2b6d0f5e".parse().unwrap()).await.unwrap_err();
        assert_eq!((error.reason_kind(), error.recovery()), (kind, recovery), "case {number}: {error:?}");
        assert_eq!(wire.received("VslmRetrieveVStorageObject").len(), 1, "case {number}: one layer retries, not this");
    }
}

#[tokio::test]
async fn a_server_that_grants_no_session_is_not_taken_for_a_login() {
    let wire = Wire::start(|request| match begin(request) {
        Some(Answer::Http(status, _, body)) => Answer::Http(status, String::new(), body),
        other => other.unwrap_or_else(|| ok(DISK)),
    })
    .await;
    let error = wire.client().log_in().await.unwrap_err();
    assert!(matches!(error.cause(), Cause::BadReply { .. }), "{error:?}");
}

/// One page of changed areas, as (start, length) pairs.
fn changes(offset: u64, length: u64, areas: &[(u64, u64)]) -> Answer {
    let areas: String = areas
        .iter()
        .map(|(start, length)| format!("<changedArea><start>{start}</start><length>{length}</length></changedArea>"))
        .collect();
    ok(&format!(
        r#"<e:Envelope xmlns:e="http://schemas.xmlsoap.org/soap/envelope/"><e:Body><VslmQueryChangedDiskAreasResponse
        xmlns="urn:vslm"><returnval><startOffset>{offset}</startOffset><length>{length}</length>{areas}</returnval>
        </VslmQueryChangedDiskAreasResponse></e:Body></e:Envelope>"#
    ))
}

async fn changed(answer: fn(&str) -> Answer) -> Result<Vec<ByteRange>, vsphere::Error> {
    let wire = Wire::start(move |request| {
        begin(request).unwrap_or_else(|| {
            let (_, rest) = request.body.split_once("<startOffset>").unwrap();
            answer(rest.split_once('<').unwrap().0)
        })
    })
    .await;
    let snapshot = "2b6d0f5e:c9f1d7aa".parse().unwrap();
    let areas = wire.client().changed_areas(&snapshot, &ChangeId::new("52 05/5"), 1000).await?;
    Ok(areas.iter().collect())
}

#[tokio::test]
async fn changed_areas_are_read_to_the_end_of_the_disk_and_no_further() {
    let areas = changed(|offset| match offset {
        "0" => changes(0, 400, &[(10, 20), (390, 10)]),
        "400" => changes(300, 300, &[]), // an overlap and nothing changed: both are legal
        "600" => changes(600, 9000, &[(600, 1), (990, 500)]),
        other => panic!("asked from {other}"),
    });
    let want = [ByteRange::new(10, 20), ByteRange::new(390, 10), ByteRange::new(600, 1), ByteRange::new(990, 10)];
    assert_eq!(areas.await.unwrap(), want);
}

#[tokio::test]
async fn a_gap_in_the_changed_areas_is_an_error_not_unchanged_data() {
    let gaps: [fn(&str) -> Answer; 3] =
        [|_| changes(1, 999, &[]), |_| changes(0, 0, &[]), |_| changes(0, 1000, &[(u64::MAX, 2)])];
    for gap in gaps {
        let error = changed(gap).await.unwrap_err();
        assert!(matches!(error.cause(), Cause::BadReply { .. }), "{error:?}");
    }
}

//! Replies in the spelling of a real vCenter, and connections that break in ways that the double's do not.

use vsphere::{Cause, ReasonKind, Recovery};

use crate::wire::{Answer, Received, Wire};

const CONTENT: &str = include_str!("../../testdata/service-content.xml");
const LOGIN: &str = include_str!("../../testdata/login.xml");
const VSLM: &str = include_str!("../../testdata/vslm-content.xml");
const DISK: &str = include_str!("../../testdata/retrieve-disk.xml");
const NO_PERMISSION: &str = include_str!("../../testdata/no-permission.xml");
const COOKIE: &str = "Set-Cookie: vmware_soap_session=\"52f0-11\"; Path=/; HttpOnly; Secure;\r\n";

fn ok(body: &str) -> Answer {
    Answer::Http(200, String::new(), body.to_owned())
}

/// What every conversation begins with. Like a real server it sets the cookie with its first reply, not at the login.
fn begin(request: &Received) -> Option<Answer> {
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
    let cases: [(fn() -> Answer, ReasonKind, Recovery); 8] = [
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

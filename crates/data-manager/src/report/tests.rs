//! What is said, and what is not, when somebody else may speak: against a double of the API server that knows one Upload.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::Upload;
use k8s_openapi::serde_json::{Value, json};
use lifecycle::transfer::upload as says;
use operator::Metrics;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use super::*;

/// Longest wait for anything in these tests.
const DEADLINE: Duration = Duration::from_secs(30);

/// One Upload on a server that refuses writes to what has changed since, as the real one does.
#[derive(Clone)]
struct Server {
    upload: Arc<Mutex<Value>>,
    /// Told of each write, which is answered unless `falls_silent`.
    asked: Arc<Notify>,
    falls_silent: bool,
    /// A phase that its definition does not list.
    unlisted: Arc<Mutex<Option<&'static str>>>,
    /// Reason and note of each event.
    events: Arc<Mutex<Vec<(String, String)>>>,
}

impl Server {
    async fn start(falls_silent: bool) -> (Self, Report<Upload>, CancellationToken) {
        let _ = rustls::crypto::ring::default_provider().install_default(); // another test may have done it
        let upload = json!({
            "apiVersion": "datamover.cnsdp.vmware.com/v1alpha1", "kind": "Upload",
            "metadata": {"name": "upload-a", "namespace": "velero", "uid": "u", "resourceVersion": "1"}, "spec": {},
        });
        let object: Upload = k8s_openapi::serde_json::from_value(upload.clone()).unwrap();
        let server = Self {
            upload: Arc::new(Mutex::new(upload)),
            asked: Arc::default(),
            falls_silent,
            unlisted: Arc::default(),
            events: Arc::default(),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = server.clone();
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                let server = serving.clone();
                tokio::spawn(async move { server.answer(connection).await });
            }
        });
        let client = Client::try_from(kube::Config::new(format!("http://{address}").parse().unwrap())).unwrap();
        let publisher = Publisher::new(client.clone(), "data-manager", "node-a", Metrics::new("test"));
        let lost = CancellationToken::new();
        (server, Report::new(publisher, client, object, lost.clone()), lost)
    }

    /// Changes the Upload as another client would.
    fn changed(&self, patch: &Value) {
        let mut upload = self.upload.lock().unwrap();
        merge(&mut upload, patch);
        let next = upload["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap() + 1;
        upload["metadata"]["resourceVersion"] = next.to_string().into();
    }

    fn status(&self) -> Value {
        self.upload.lock().unwrap()["status"].clone()
    }

    /// One request a connection.
    async fn answer(&self, mut connection: TcpStream) {
        let mut request = Vec::new();
        let (head, body) = loop {
            if connection.read_buf(&mut request).await.unwrap_or(0) == 0 {
                return;
            }
            let text = String::from_utf8_lossy(&request);
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let length =
                head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                break (head.to_owned(), body.to_owned());
            }
        };
        let (code, answer) = match head.split(' ').next().unwrap() {
            "GET" => ("200 OK", self.upload.lock().unwrap().clone()),
            "PATCH" => {
                self.asked.notify_one();
                if self.falls_silent {
                    return std::future::pending().await;
                }
                self.patched(&k8s_openapi::serde_json::from_str(&body).unwrap())
            }
            _ => {
                let event: Value = k8s_openapi::serde_json::from_str(&body).unwrap();
                let told = ["reason", "note"].map(|field| event[field].as_str().unwrap_or_default().to_owned());
                self.events.lock().unwrap().push(told.into());
                ("201 Created", event)
            }
        };
        let answer = answer.to_string();
        let head = format!("HTTP/1.1 {code}\r\ncontent-type: application/json\r\ncontent-length: {}", answer.len());
        let _ = connection.write_all(format!("{head}\r\nconnection: close\r\n\r\n{answer}").as_bytes()).await;
    }

    fn patched(&self, patch: &Value) -> (&'static str, Value) {
        let version = self.upload.lock().unwrap()["metadata"]["resourceVersion"].clone();
        let read = &patch["metadata"]["resourceVersion"];
        if !read.is_null() && *read != version {
            let refusal = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                "message": "the object has been modified", "reason": "Conflict", "code": 409});
            return ("409 Conflict", refusal);
        }
        let unlisted = *self.unlisted.lock().unwrap();
        if unlisted.is_some_and(|phase| patch["status"]["phase"] == phase) {
            let refusal = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                "message": "status.phase: Unsupported value", "reason": "Invalid", "code": 422});
            return ("422 Unprocessable Entity", refusal);
        }
        self.changed(patch);
        ("200 OK", self.upload.lock().unwrap().clone())
    }
}

/// A JSON merge patch.
fn merge(into: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else { return *into = patch.clone() };
    if !into.is_object() {
        *into = json!({});
    }
    for (key, value) in patch {
        merge(&mut into[key.as_str()], value);
    }
}

async fn started(report: &Report<Upload>) -> Said {
    let saying = report.say(|status, now| says::started(status, "node-a", now));
    tokio::time::timeout(DEADLINE, saying).await.expect("it is said or given up")
}

#[tokio::test]
async fn a_late_word_does_not_take_the_place_of_the_new_holders() {
    let (server, report, lost) = Server::start(false).await;
    server.changed(&json!({"status": {"phase": "InProgress", "processingNode": "node-b"}}));
    assert_eq!(started(&report).await, Said::NotOurs);
    assert_eq!(server.status()["processingNode"], "node-b");
    assert!(lost.is_cancelled(), "the copy stops as well");
}

#[tokio::test]
async fn who_has_lost_its_lease_is_not_taken_for_heard() {
    let (server, report, lost) = Server::start(false).await;
    lost.cancel();
    assert_eq!(started(&report).await, Said::NotOurs);
    assert!(report.is_silenced());
    assert_eq!(server.status(), Value::Null, "nothing was written");
}

#[tokio::test]
async fn a_word_under_way_is_given_up_when_the_lease_is_lost() {
    let (server, report, lost) = Server::start(true).await;
    let (said, ()) = tokio::join!(started(&report), async {
        server.asked.notified().await;
        lost.cancel();
    });
    assert_eq!(said, Said::NotOurs);
}

#[tokio::test]
async fn a_cancellation_or_a_label_does_not_silence_a_transfer() {
    let (server, report, lost) = Server::start(false).await;
    assert_eq!(started(&report).await, Said::Taken);
    server.changed(&json!({"spec": {"uploadCancel": true}, "metadata": {"labels": {"a": "b"}}}));
    let said =
        report.say(|status, _| says::progressed(status, api::Progress { bytes_done: 7, ..status.progress })).await;
    assert_eq!(said, Said::Taken);
    assert_eq!(server.status()["progress"]["bytesDone"], 7);
    assert_eq!(server.upload.lock().unwrap()["spec"]["uploadCancel"], true, "it is still asked for");
    assert!(!lost.is_cancelled());
}

#[tokio::test]
async fn another_object_of_the_same_name_gets_nothing() {
    let (server, report, _lost) = Server::start(false).await;
    server.changed(&json!({"metadata": {"uid": "another"}}));
    assert_eq!(started(&report).await, Said::Gone);
    assert_eq!(server.status(), Value::Null);
}

#[test]
fn what_an_earlier_attempt_did_makes_nobody_faster() {
    let counts = data_path::Counts { total: 100, settled: 100, resumed: 80, ..data_path::Counts::default() };
    let end = at_the_end(&counts, Duration::from_secs(2));
    assert_eq!((end.bytes_done, end.bytes_per_second), (100, 10));
}

#[tokio::test]
async fn w30_a_word_that_the_definition_does_not_list_is_not_said_for_ever() {
    let (server, report, lost) = Server::start(false).await;
    *server.unlisted.lock().unwrap() = Some("InProgress");
    assert_eq!(started(&report).await, Said::Refused);
    assert!(report.was_refused() && !lost.is_cancelled(), "the lease is given back, not lost");
    let events = server.events.lock().unwrap().clone();
    let [(reason, note)] = &events[..] else { panic!("one event: {events:?}") };
    assert_eq!(reason, Reason::StatusRefused.as_str());
    assert!(note.contains("Unsupported value") && note.contains("deploy/crds"), "{note}");
    *server.unlisted.lock().unwrap() = None; // the definitions of this version were applied
    assert_eq!(started(&report).await, Said::Taken);
    assert!(!report.was_refused());
}

//! An API server with the objects of one namespace: who watches sees nothing change, and whoever should write does not.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use http::{Method, Request, Response, StatusCode};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

/// The objects, by their paths.
#[derive(Clone, Default)]
pub(super) struct ApiServer(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Value>,
    /// What the next requests about these plurals hear.
    faults: Vec<(String, StatusCode)>,
    /// Somebody changes objects of these plurals before each of our patches.
    changing: Vec<String>,
    /// The answers to the next patches of these plurals are lost.
    losing: Vec<String>,
    /// What a driver that runs writes into each new claim of a repository.
    repository: Option<String>,
}

impl ApiServer {
    /// A client of it.
    pub(super) fn client(&self) -> Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let server = server.clone();
            async move { Ok::<_, Infallible>(server.answer(request).await) }
        });
        Client::new(service, "velero")
    }

    /// Puts an object there.
    pub(super) fn put(&self, path: &str, object: Value) {
        self.0.lock().unwrap().objects.insert(path.to_owned(), object);
    }

    /// The objects of that plural.
    pub(super) fn all(&self, plural: &str) -> Vec<Value> {
        let within = format!("/{plural}/");
        let state = self.0.lock().unwrap();
        state.objects.iter().filter(|(path, _)| path.contains(&within)).map(|(_, object)| object.clone()).collect()
    }

    /// Lets the next request about that plural fail; may be said several times.
    pub(super) fn fails(&self, plural: &str, code: StatusCode) {
        self.0.lock().unwrap().faults.push((plural.to_owned(), code));
    }

    /// From now on somebody changes objects of that plural before each patch of ours.
    pub(super) fn changes_always(&self, plural: &str) {
        self.0.lock().unwrap().changing.push(plural.to_owned());
    }

    /// The next patch of that plural is carried out, and its answer lost.
    pub(super) fn loses_an_answer(&self, plural: &str) {
        self.0.lock().unwrap().losing.push(plural.to_owned());
    }

    /// Faults that no request has met yet.
    pub(super) fn faults_left(&self) -> usize {
        self.0.lock().unwrap().faults.len()
    }

    /// From now on a driver answers each new claim of a repository with this name.
    pub(super) fn driver_answers(&self, repository: &str) {
        self.0.lock().unwrap().repository = Some(repository.to_owned());
    }

    async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let (head, body) = request.into_parts();
        if head.uri.query().unwrap_or_default().split('&').any(|word| word == "watch=true") {
            return std::future::pending().await; // nothing ever changes
        }
        let body = body.collect_bytes().await.unwrap();
        let mut state = self.0.lock().unwrap();
        if let Some(at) = state.faults.iter().position(|(plural, _)| head.uri.path().contains(plural)) {
            let (_, code) = state.faults.remove(at);
            return refused(code, "as the test wants it");
        }
        match head.method {
            Method::GET => state.read(head.uri.path(), head.uri.query().unwrap_or_default()),
            Method::POST => state.create(head.uri.path(), serde_json::from_slice(&body).unwrap()),
            Method::PATCH => state.patch(head.uri.path(), &serde_json::from_slice(&body).unwrap()),
            other => panic!("nobody was to {other} {}", head.uri),
        }
    }
}

impl State {
    /// A path ends with a plural, or with a plural and a name.
    fn read(&self, path: &str, query: &str) -> Response<Body> {
        let (_, below) = path.split_once("/namespaces/velero/").expect("all is in one namespace");
        if below.contains('/') {
            return match self.objects.get(path) {
                Some(object) => answered(StatusCode::OK, object),
                None => refused(StatusCode::NOT_FOUND, "NotFound"),
            };
        }
        let one = query.split('&').find_map(|word| word.strip_prefix("fieldSelector=metadata.name%3D"));
        let is_named = |object: &Value| one.is_none_or(|name| object["metadata"]["name"] == name);
        let wanted = |object: &&Value| is_named(object) && is_selected(object, query);
        let below = self.objects.range(format!("{path}/")..).take_while(|(at, _)| at.starts_with(&format!("{path}/")));
        let items: Vec<&Value> = below.map(|(_, object)| object).filter(wanted).collect();
        answered(StatusCode::OK, &json!({"kind": "List", "metadata": {"resourceVersion": "1"}, "items": items}))
    }

    fn patch(&mut self, path: &str, patch: &Value) -> Response<Body> {
        if self.changing.iter().any(|plural| path.contains(plural)) {
            return refused(StatusCode::CONFLICT, "the object has been modified");
        }
        let answer = self.annotate(path, patch);
        match self.losing.iter().position(|plural| path.contains(plural)) {
            Some(at) => {
                self.losing.remove(at);
                refused(StatusCode::GATEWAY_TIMEOUT, "the answer was lost")
            }
            None => answer,
        }
    }

    /// A merge patch of annotations, and of nothing else. Refused when it is of an older version, and makes a new one.
    fn annotate(&mut self, path: &str, patch: &Value) -> Response<Body> {
        let Some(object) = self.objects.get_mut(path) else { return refused(StatusCode::NOT_FOUND, "NotFound") };
        let (version, asked) = (&object["metadata"]["resourceVersion"], &patch["metadata"]["resourceVersion"]);
        if !asked.is_null() && asked != version {
            return refused(StatusCode::CONFLICT, "the object has been modified");
        }
        let next = version.as_str().and_then(|version| version.parse::<u64>().ok()).unwrap_or_default() + 1;
        object["metadata"]["resourceVersion"] = json!(next.to_string());
        for (key, value) in patch["metadata"]["annotations"].as_object().expect("annotations") {
            object["metadata"]["annotations"][key] = value.clone();
        }
        answered(StatusCode::OK, object)
    }

    fn create(&mut self, path: &str, mut object: Value) -> Response<Body> {
        if path.ends_with("/backuprepositoryclaims")
            && let Some(repository) = &self.repository
        {
            object["backupRepository"] = json!(repository);
        }
        object["metadata"]["resourceVersion"] = json!("1");
        let name = object["metadata"]["name"].as_str().expect("we name what we make").to_owned();
        match self.objects.insert(format!("{path}/{name}"), object.clone()) {
            None => answered(StatusCode::CREATED, &object),
            Some(before) => {
                self.objects.insert(format!("{path}/{name}"), before);
                refused(StatusCode::CONFLICT, "AlreadyExists")
            }
        }
    }
}

/// Whether an object has the labels that a query asks for: `key`, or `key=value`, with commas between.
fn is_selected(object: &Value, query: &str) -> bool {
    let Some(asked) = query.split('&').find_map(|word| word.strip_prefix("labelSelector=")) else { return true };
    let asked = asked.replace("%2F", "/").replace("%3D", "=").replace("%2C", ",");
    let labels = &object["metadata"]["labels"];
    asked.split(',').all(|asked| match asked.split_once('=') {
        Some((key, value)) => labels[key] == value,
        None => !labels[asked].is_null(),
    })
}

fn answered(code: StatusCode, object: &Value) -> Response<Body> {
    Response::builder().status(code).body(Body::from(object.to_string().into_bytes())).unwrap()
}

fn refused(code: StatusCode, reason: &str) -> Response<Body> {
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": reason, "reason": reason,
        "code": code.as_u16()});
    answered(code, &status)
}

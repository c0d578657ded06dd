//! One call of the server: find the action, run it in a task of its own, and put what comes out into the server's words.

use std::time::Duration;

use prost::Message;
use serde_json::Value;
use tonic::{Code, Response, Status};
use tracing::Instrument;

use super::kinds::{ActionError, Progress};
use super::registry::{Action, Registry};
use super::wire::generated::{OperationProgress, Stack, StackFrame};
use super::wire::status;
use crate::Item;

/// Longest time for questions that every action can answer at once. Velero would wait for ever.
const SHORT: Duration = Duration::from_secs(60);

/// One call: what was asked, of whom, about what.
pub(super) struct Call {
    kind: &'static str,
    method: &'static str,
    name: String,
    span: tracing::Span,
}

impl Call {
    pub(super) fn new(kind: &'static str, method: &'static str, name: String) -> Self {
        // every line that the action writes carries these; the server puts errors together from the last three
        let span = tracing::error_span!(
            target: "velero_plugin::call", "call", action = %name, method,
            namespace = tracing::field::Empty, resource = tracing::field::Empty, name = tracing::field::Empty,
            operation = tracing::field::Empty,
        );
        Self { kind, method, name, span }
    }

    /// The action that was asked.
    pub(super) fn action<T>(&self, registry: &Registry, pick: impl Fn(&Action) -> Option<T>) -> Result<T, Status> {
        registry.find(&self.name, pick).ok_or_else(|| {
            let text = format!("{} plugin: {} was not found or has an invalid name format", self.kind, self.name);
            Status::unknown(text)
        })
    }

    /// The item that the call is about.
    #[track_caller]
    pub(super) fn item(&self, bytes: &[u8]) -> Result<Item, Status> {
        let item = Item::parse(bytes).map_err(|e| self.failed(&e.into()))?;
        self.span.record("namespace", item.namespace());
        self.span.record("resource", item.resource());
        self.span.record("name", item.name());
        Ok(item)
    }

    /// The backup or restore; nothing at all is one without fields.
    #[track_caller]
    pub(super) fn run(&self, bytes: &[u8]) -> Result<Value, Status> {
        if bytes.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(bytes)
            .map_err(|e| self.failed(&ActionError::new(format!("read the backup or restore: {e}"))))
    }

    /// The operation that the call is about.
    #[track_caller]
    pub(super) fn operation(&self, id: String) -> Result<String, Status> {
        if id.is_empty() {
            return Err(self.failed(&ActionError::new(format!("operation \"\" of {}: the id is empty", self.name))));
        }
        self.span.record("operation", id.as_str());
        Ok(id)
    }

    /// Lets the action work for as long as it likes.
    pub(super) async fn work<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, ActionError>> + Send + 'static,
    ) -> Result<T, Status> {
        match tokio::spawn(work.instrument(self.span.clone())).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(error)) => Err(self.failed(&error)),
            Err(ended) => Err(Status::aborted(format!("plugin panicked: {}", last_words(ended)))),
        }
    }

    /// Lets the action answer within [`SHORT`].
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, ActionError>> + Send + 'static,
    ) -> Result<T, Status> {
        let what = format!("{} of {}", self.method, self.name);
        self.work(async move {
            let late = ActionError::new(format!("{what} had no answer within {} s", SHORT.as_secs()));
            tokio::time::timeout(SHORT, work).await.unwrap_or(Err(late))
        })
        .await
    }

    /// The same for the state of an operation. A question that failed is answered with "still running": Velero gives an
    /// operation up for good when the answer is an error (P-15), and asks again in ten seconds when it is not.
    pub(super) async fn progress(
        &self,
        work: impl Future<Output = Result<Progress, ActionError>> + Send + 'static,
    ) -> Result<OperationProgress, Status> {
        let absorbed = self.ask(async move { Ok(work.await.unwrap_or_else(|e| unknown(&e.to_string()))) }).await;
        match absorbed {
            Ok(progress) => Ok(progress.into()),
            Err(late) if late.code() == Code::Unknown => Ok(unknown(late.message()).into()),
            Err(panicked) => Err(panicked),
        }
    }

    /// The error as Velero shows it: a sentence, and the first frame of where it came from.
    fn failed(&self, error: &ActionError) -> Status {
        let (file, line) = error.place();
        let frame = StackFrame {
            file: file.to_owned(),
            line: i32::try_from(line).unwrap_or_default(),
            function: format!("{}.{} {}", self.kind, self.method, self.name),
        };
        let stack = prost_types::Any {
            type_url: "type.googleapis.com/generated.Stack".to_owned(),
            value: Stack { frames: vec![frame] }.encode_to_vec(),
        };
        let message = error.message().to_owned();
        let details = status::Status { code: Code::Unknown as i32, message: message.clone(), details: vec![stack] };
        Status::with_details(Code::Unknown, message, details.encode_to_vec().into())
    }
}

/// A progress that says why nobody knows better.
fn unknown(why: &str) -> Progress {
    tracing::info!(error = why, "the state of the operation is not known now; Velero will ask again");
    Progress::running(format!("not known at the moment: {why}"))
}

fn last_words(ended: tokio::task::JoinError) -> String {
    match ended.try_into_panic() {
        Ok(payload) => match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
            (Some(text), _) => (*text).to_owned(),
            (_, Some(text)) => text.clone(),
            _ => "for a reason that is no text".to_owned(),
        },
        Err(stopped) => stopped.to_string(),
    }
}

/// An answer on the wire.
pub(super) fn answer<T, M: From<T>>(value: T) -> Result<Response<M>, Status> {
    Ok(Response::new(value.into()))
}

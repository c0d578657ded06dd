//! What an asynchronous operation says of itself.

use jiff::Timestamp;

/// Where an operation is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It has not ended.
    Running,
    /// It ended well.
    Completed,
    /// It ended without what it was for; the text names the cause and the fix.
    Failed(String),
}

/// What `velero backup describe --details` shows of an operation.
///
/// Every answer repeats `started` and `updated` once they are known: Velero overwrites them with what it is told. `None`
/// says "not yet" in the one way that Velero understands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// Where it is.
    pub outcome: Outcome,
    /// How much is done, in `units`.
    pub done: u64,
    /// How much there is to do, in `units`; 0 while that is not known.
    pub total: u64,
    /// What is counted.
    pub units: &'static str,
    /// The phase, for people.
    pub description: String,
    /// When work began.
    pub started: Option<Timestamp>,
    /// When it last moved.
    pub updated: Option<Timestamp>,
}

impl Progress {
    /// An operation that goes on, with nothing moved yet.
    pub fn running(description: impl Into<String>) -> Self {
        Self {
            outcome: Outcome::Running,
            done: 0,
            total: 0,
            units: "Bytes",
            description: description.into(),
            started: None,
            updated: None,
        }
    }
}

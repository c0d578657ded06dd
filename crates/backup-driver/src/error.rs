//! Why a look at an object ended early. The object says it where it can; then it is looked at again.

use lifecycle::Problem;

/// A failure that a later look may overcome.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refused or failed.
    #[error("{act}")]
    Cluster {
        /// What was being done.
        act: String,
        /// What the API server said.
        #[source]
        source: Box<kube::Error>,
    },
    /// A status or lease could not be written.
    #[error(transparent)]
    Shared(#[from] operator::Error),
    /// Something outside the cluster.
    #[error("{0}")]
    Problem(Problem),
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

impl Error {
    /// An error of the API server while doing `act`.
    pub fn cluster(act: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        let act = act.into();
        move |source| Self::Cluster { act, source: Box::new(source) }
    }

    /// As an object says it, when the API server does not let our account do that: somebody has to act.
    pub fn forbidden(&self) -> Option<Problem> {
        let Self::Cluster { act, source } = self else { return None };
        is_code(source, 403).then(|| connections::from_kube(act, source))
    }

    /// Whether the object changed since it was read.
    pub fn is_conflict(&self) -> bool {
        match self {
            Self::Cluster { source, .. } => is_code(source, 409),
            Self::Shared(shared) => shared.is_conflict(),
            Self::Problem(_) => false,
        }
    }
}

/// Whether the API server answered with this code.
pub(crate) fn is_code(error: &kube::Error, code: u16) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == code)
}

/// Whether repeating the request cannot help: the API server understood and refused it. Not 403, which is also what one says that has
/// just started and knows nobody yet, and what a quota says that somebody may raise.
pub(crate) fn is_refusal(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if matches!(status.code, 400 | 404 | 422))
}

//! What can go wrong between a controller and its cluster.

use std::net::SocketAddr;

/// A failure of what controllers share.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The logger could not be set up.
    #[error("set up the log: {0}")]
    Telemetry(String),
    /// Signals cannot be watched.
    #[error("watch for signals")]
    Signals(#[source] std::io::Error),
    /// The address cannot be understood.
    #[error("`{0}` is not an address to serve on: expected `host:port` or `:port`")]
    Address(String),
    /// The address is taken.
    #[error("serve metrics and health on {address}")]
    Serve {
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// No way to the API server is configured.
    #[error("find the API server: {0}")]
    Config(String),
    /// What is configured was read, and makes no client: a login that has expired, a plugin that is not there.
    #[error("make a client of the API server: {0}")]
    Client(String),
    /// The API server refused or failed.
    #[error("{act}")]
    Api {
        /// What was being done.
        act: String,
        /// What the API server said.
        #[source]
        source: Box<kube::Error>,
    },
    /// A status could not be turned into JSON.
    #[error("write the status as JSON")]
    Json(#[from] serde_json::Error),
    /// It was asked to stop.
    #[error("asked to stop")]
    Stopped,
}

impl Error {
    /// An error of the API server while doing `act`.
    pub fn api(act: impl Into<String>, source: kube::Error) -> Self {
        Self::Api { act: act.into(), source: Box::new(source) }
    }

    /// The status code of the API server's answer, and what it says to what was being done; `None` where it gave none.
    pub fn answer(&self) -> Option<(u16, String)> {
        let Self::Api { act, source } = self else { return None };
        let kube::Error::Api(status) = &**source else { return None };
        Some((status.code, format!("{act}: {}", status.message)))
    }

    /// Whether the object changed in between: read it again and decide anew.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Api { source, .. } if is_code(source, 409))
    }

    /// Whether the object is not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Api { source, .. } if is_code(source, 404))
    }
}

pub(crate) fn is_code(error: &kube::Error, code: u16) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == code)
}

/// An error and its causes in one line, for the log.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.map(|cause| cause.to_string()).fold(error.to_string(), |text, cause| {
        // kube's errors say what their sources say
        if text.contains(&cause) { text } else { format!("{text}: {cause}") }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_that_was_said_already_is_not_said_again_and_every_other_one_is() {
        let refused = || std::io::Error::other("connection refused");
        let repeats = || kube::Error::ReadEvents(refused());
        assert_eq!(chain(&repeats()), "Error reading events stream: connection refused");
        assert_eq!(chain(&Error::Signals(refused())), "watch for signals: connection refused");
        let both = Error::api("read lease l", repeats());
        assert_eq!(chain(&both), "read lease l: Error reading events stream: connection refused");
    }
}

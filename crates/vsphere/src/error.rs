//! What went wrong, said so that a person can act on it and a program can decide. Decides nothing itself beyond that.

use std::fmt;
use std::time::Duration;

use crate::config::Thumbprint;
use crate::fault::{self, Act, Fault, FaultKind, Recovery};

/// An act that failed, and why. The chain of sources reads as one sentence:
/// `take a snapshot of disk 2b6d…: the disk or its VM is busy (InvalidState: …)`.
#[derive(Debug)]
pub struct Error {
    act: Act,
    subject: String,
    cause: Box<Cause>,
}

/// Why an act failed.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// vCenter says that the account or its password is wrong.
    #[error("vCenter {server} refused the login of `{user}`")]
    LoginRefused {
        /// `host:port`.
        server: String,
        /// The account.
        user: String,
    },
    /// Not tried: earlier refusals, and another one could lock the account.
    #[error("the login of `{user}` to vCenter {server} is not tried {}: it was refused {}", until(.next_try), times(.refusals))]
    LoginHeldBack {
        /// `host:port`.
        server: String,
        /// The account.
        user: String,
        /// How often the present credentials were refused.
        refusals: u32,
        /// Time until the next try; `None`: not before the credentials change.
        next_try: Option<Duration>,
    },
    /// The server's certificate is not one that the configuration trusts. Nothing was sent.
    #[error("the certificate of {server} is not trusted{}{}", thumbprint_shown(.presented), pin_shown(*.is_pinned))]
    CertificateUntrusted {
        /// `host:port`.
        server: String,
        /// SHA-1 thumbprint of the certificate that the server presented, where it got that far.
        presented: Option<Thumbprint>,
        /// Whether a `thumbprint` is set: then it is another one than the server's.
        is_pinned: bool,
        /// What the check said.
        source: rustls::Error,
    },
    /// No connection: the call did not start.
    #[error("connect to {server}")]
    Unreachable {
        /// `host:port`.
        server: String,
        /// What the network said.
        source: reqwest::Error,
    },
    /// The connection broke after the call was sent: it may have been carried out.
    #[error("wait for the reply of {server}")]
    ReplyLost {
        /// `host:port`.
        server: String,
        /// What the network said.
        source: reqwest::Error,
    },
    /// No reply within the deadline: the call may have been carried out.
    #[error("{waiting_for} took longer than {} s", .after.as_secs())]
    DeadlinePassed {
        /// The deadline.
        after: Duration,
        /// What was waited for.
        waiting_for: &'static str,
    },
    /// Tried again until the caller's time was over.
    #[error("did not succeed within {} s; the last try said", .within.as_secs())]
    TimeIsOver {
        /// The caller's time.
        within: Duration,
        /// Why the last try failed.
        source: Box<Cause>,
    },
    /// Asked in more than one way and more than once, vCenter knows no such disk.
    #[error("the disk is gone")]
    DiskGone {
        /// What vCenter said last.
        source: Box<Cause>,
    },
    /// vCenter says that it is gone, and lists it.
    #[error("it is still listed, though vCenter said that it is gone")]
    StillThere {
        /// What vCenter said.
        source: Box<Cause>,
    },
    /// Something between us and the API answered, or the service is starting.
    #[error("{server} answered with HTTP status {status}")]
    HttpStatus {
        /// `host:port`.
        server: String,
        /// The status code.
        status: u16,
    },
    /// A reply that does not say what it must.
    #[error("understand the reply: {what}")]
    BadReply {
        /// What is wrong with it.
        what: String,
    },
    /// The configuration cannot be used.
    #[error("use the configuration: {what}")]
    BadConfig {
        /// What is wrong with it.
        what: String,
    },
    /// vCenter refused, at once or at the end of a task.
    #[error(transparent)]
    Fault(#[from] Fault),
}

impl Cause {
    /// It and its sources in one line, for the log: a `Display` of ours never repeats its source.
    pub(crate) fn chain(&self) -> String {
        let first: &(dyn std::error::Error + 'static) = self;
        let parts = std::iter::successors(Some(first), |cause| cause.source()).map(ToString::to_string);
        parts.collect::<Vec<_>>().join(": ")
    }
}

fn until(next_try: &Option<Duration>) -> String {
    match next_try {
        Some(wait) => format!("for another {} s, unless the credentials change", wait.as_secs()),
        None => "again before the credentials change".to_owned(),
    }
}

fn times(refusals: &u32) -> String {
    if *refusals == 1 { "once".to_owned() } else { format!("{refusals} times") }
}

fn thumbprint_shown(thumbprint: &Option<Thumbprint>) -> String {
    thumbprint.map(|t| format!(" (its SHA-1 thumbprint is {t})")).unwrap_or_default()
}

fn pin_shown(is_pinned: bool) -> &'static str {
    if is_pinned { ", since the `thumbprint` that is set is another one than the server's" } else { "" }
}

/// The name of the section that a server stands under: what is before its port.
fn section(server: &str) -> &str {
    server.rsplit_once(':').map_or(server, |(host, _)| host)
}

/// What kind of trouble it is: the word that status, events and metrics share is chosen from this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReasonKind {
    /// Account or password wrong, or no longer tried.
    LoginRefused,
    /// The certificate is not trusted.
    CertificateUntrusted,
    /// No connection, no reply, or the service is restarting.
    Unreachable,
    /// The account lacks a privilege.
    NoPermission {
        /// The object it is missing on, as `Type:id`.
        object: String,
        /// The privilege's id, for example `Datastore.FileManagement`.
        privilege: String,
    },
    /// The disk, snapshot or volume is not there.
    NotFound,
    /// The disk or its VM is busy with something else.
    Busy,
    /// No room left where the disk lies.
    NoSpace,
    /// Datastore or host cannot be reached by vCenter.
    StorageUnavailable,
    /// This vCenter cannot do it.
    Unsupported,
    /// Change tracking gives no answer for this pair: everything must be read.
    ChangesUnknown,
    /// The configuration cannot be used.
    BadConfig,
    /// Anything else that vCenter said.
    Failed,
}

impl Error {
    pub(crate) fn new(act: Act, subject: impl fmt::Display, cause: impl Into<Cause>) -> Self {
        Self { act, subject: subject.to_string(), cause: Box::new(cause.into()) }
    }

    /// What was being done.
    pub fn act(&self) -> Act {
        self.act
    }

    /// Why it failed.
    pub fn cause(&self) -> &Cause {
        &self.cause
    }

    /// Try again, give up, done already, or look first what became of it.
    pub fn recovery(&self) -> Recovery {
        self.cause.recovery(self.act)
    }

    /// What kind of trouble it is.
    pub fn reason_kind(&self) -> ReasonKind {
        self.cause.reason_kind(self.act)
    }

    /// What a person can change, where there is something.
    pub fn fix(&self) -> Option<String> {
        self.cause.fix()
    }

    /// The whole chain on one line, with the fix at its end: for a status message or an event.
    pub fn describe(&self) -> String {
        let mut text = self.to_string();
        let mut next = std::error::Error::source(self);
        while let Some(source) = next {
            text.push_str(": ");
            text.push_str(&source.to_string());
            next = source.source();
        }
        if let Some(fix) = self.fix() {
            text.push_str("; ");
            text.push_str(&fix);
        }
        text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.act.phrase(), self.subject)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.cause)
    }
}

impl Cause {
    /// The same question for a cause alone: the answer depends on what was being done.
    pub(crate) fn recovery(&self, act: Act) -> Recovery {
        let outcome_unknown = if act.is_repeatable() { Recovery::Retry } else { Recovery::Reconcile };
        match self {
            Self::LoginRefused { .. }
            | Self::LoginHeldBack { .. }
            | Self::CertificateUntrusted { .. }
            | Self::BadConfig { .. }
            | Self::DiskGone { .. }
            | Self::BadReply { .. } => Recovery::GiveUp,
            Self::Unreachable { .. } => Recovery::Retry,
            Self::ReplyLost { .. } | Self::DeadlinePassed { .. } => outcome_unknown,
            // Called again it starts over with a look at what is there, so another try is always safe.
            Self::TimeIsOver { source, .. } => match source.recovery(act) {
                Recovery::Retry | Recovery::Reconcile | Recovery::AlreadyDone => Recovery::Retry,
                Recovery::GiveUp => Recovery::GiveUp,
            },
            Self::StillThere { .. } => Recovery::Retry,
            Self::HttpStatus { status: 500 | 502 | 503 | 504 | 408 | 429, .. } => outcome_unknown,
            Self::HttpStatus { .. } => Recovery::GiveUp,
            Self::Fault(fault) => fault::recovery(act, fault),
        }
    }

    fn reason_kind(&self, act: Act) -> ReasonKind {
        match self {
            Self::LoginRefused { .. } | Self::LoginHeldBack { .. } => ReasonKind::LoginRefused,
            Self::CertificateUntrusted { .. } => ReasonKind::CertificateUntrusted,
            Self::Unreachable { .. }
            | Self::ReplyLost { .. }
            | Self::DeadlinePassed { .. }
            | Self::HttpStatus { .. } => ReasonKind::Unreachable,
            Self::TimeIsOver { source, .. } => source.reason_kind(act),
            Self::DiskGone { .. } => ReasonKind::NotFound,
            Self::BadReply { .. } | Self::StillThere { .. } => ReasonKind::Failed,
            Self::BadConfig { .. } => ReasonKind::BadConfig,
            Self::Fault(fault) => fault::reason_kind(act, fault),
        }
    }

    fn fix(&self) -> Option<String> {
        Some(match self {
            Self::LoginRefused { server, user } | Self::LoginHeldBack { server, user, .. } => format!(
                "check `user` and `password` of `{user}` under [VirtualCenter \"{}\"] in the vCenter Secret, and that the account is not locked",
                section(server)
            ),
            Self::CertificateUntrusted { server, presented, is_pinned, .. } => {
                let pin = presented.map(|t| format!(" = \"{t}\"")).unwrap_or_default();
                let section = section(server);
                if *is_pinned {
                    format!(
                        "if the certificate was replaced, set `thumbprint`{pin} under [VirtualCenter \"{section}\"] in the vCenter Secret, after comparing it with the server's; if not, somebody else answers in its place"
                    )
                } else {
                    format!(
                        "set `ca-file` (the CA that signed it) or, after comparing it with the server's, `thumbprint`{pin} under [VirtualCenter \"{section}\"] in the vCenter Secret; `insecure-flag = true` would let anybody in its place have the password"
                    )
                }
            }
            Self::Unreachable { server, .. } => {
                format!(
                    "check the address and `port` in the vCenter Secret, and that {server} can be reached from this pod"
                )
            }
            Self::HttpStatus { status: 404, .. } => {
                "check that the address in the vCenter Secret is a vCenter 6.7 U3 or newer, not a single ESXi host"
                    .to_owned()
            }
            Self::TimeIsOver { source, .. } => return source.fix(),
            Self::Fault(fault) => return fault_fix(&fault.kind),
            Self::ReplyLost { .. }
            | Self::DeadlinePassed { .. }
            | Self::DiskGone { .. }
            | Self::StillThere { .. }
            | Self::HttpStatus { .. }
            | Self::BadReply { .. }
            | Self::BadConfig { .. } => return None,
        })
    }
}

fn fault_fix(kind: &FaultKind) -> Option<String> {
    match kind {
        FaultKind::NoPermission { object, privilege } => {
            Some(format!("grant the account the privilege `{privilege}` on {object}"))
        }
        FaultKind::NoSpace => Some("free space on the datastore, or delete old snapshots of the disk".to_owned()),
        FaultKind::InvalidDatastore | FaultKind::HostUnavailable => Some(
            "check in vCenter that the datastore and its hosts are connected and not in maintenance mode".to_owned(),
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_in_the_log_says_why_the_last_try_failed() {
        let last = Cause::HttpStatus { server: "vc.lab:443".to_owned(), status: 503 };
        let over = Cause::TimeIsOver { within: Duration::from_secs(5), source: Box::new(last) };
        assert_eq!(
            over.chain(),
            "did not succeed within 5 s; the last try said: vc.lab:443 answered with HTTP status 503"
        );
    }

    #[test]
    fn a_login_that_is_held_back_says_how_long_and_that_other_credentials_are_not() {
        let held = |refusals: u32, next_try: Option<Duration>| {
            let (server, user) = ("vc.lab:443".to_owned(), "backup".to_owned());
            Cause::LoginHeldBack { server, user, refusals, next_try }.to_string()
        };
        let first = held(1, Some(Duration::from_secs(200)));
        assert!(
            first.ends_with("not tried for another 200 s, unless the credentials change: it was refused once"),
            "{first}"
        );
        let last = held(3, None);
        assert!(last.ends_with("not tried again before the credentials change: it was refused 3 times"), "{last}");
    }

    #[test]
    fn of_several_vcenters_the_one_whose_section_is_to_be_corrected_is_named() {
        for (server, section) in [("vc.lab:443", "vc.lab"), ("[fd00::10]:8443", "[fd00::10]")] {
            let (server, user) = (server.to_owned(), "backup".to_owned());
            let refused = Cause::LoginRefused { server: server.clone(), user: user.clone() };
            let held = Cause::LoginHeldBack { server: server.clone(), user, refusals: 3, next_try: None };
            let source = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
            let untrusted =
                Cause::CertificateUntrusted { server: server.clone(), presented: None, is_pinned: false, source };
            for cause in [refused, held, untrusted] {
                assert!(cause.to_string().contains(&server), "{cause}");
                let fix = cause.fix().unwrap_or_default();
                assert!(fix.contains(&format!("[VirtualCenter \"{section}\"] in the vCenter Secret")), "{fix}");
            }
        }
    }
}

//! Leases of transfers that nobody works on any more. Ours carry our label. Those that the original has left, which deletes none, carry
//! nothing that says whose they are: so one goes only where everything about it is as the original makes it.

use api::{Timestamp, labels, names};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::jiff::SignedDuration;

/// How long nobody must have renewed a lease of the original: a node that works does so every few seconds, and no clock is so wrong.
const UNRENEWED: SignedDuration = SignedDuration::from_hours(24);
/// For how many seconds the original takes a lease.
const LASTS: i32 = 60;

/// The transfer that a lease is named after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transfer {
    /// It may still be worked on.
    GoesOn,
    /// It is in a terminal phase.
    Ended,
    /// There is none of that name.
    Gone,
}

impl Transfer {
    /// From whether it has ended; `None` when it is not there.
    pub fn of(has_ended: Option<bool>) -> Self {
        match has_ended {
            Some(false) => Self::GoesOn,
            Some(true) => Self::Ended,
            None => Self::Gone,
        }
    }
}

/// Who has made a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Made {
    /// One of our nodes.
    ByUs,
    /// A node of the original, long ago.
    ByTheOriginal,
}

/// Who has made a lease that may be left over; `None`: it is somebody else's, or nobody can tell.
pub fn made(lease: &Lease, now: Timestamp) -> Option<Made> {
    let of_lease =
        |(key, value): (String, String)| lease.metadata.labels.as_ref().and_then(|l| l.get(&key)) == Some(&value);
    if labels::ours().into_iter().all(of_lease) {
        return Some(Made::ByUs);
    }
    is_of_the_original(lease, now).then_some(Made::ByTheOriginal)
}

/// Whether a lease is left over. One that is held stays even when its transfer is gone: its holder has not stopped yet. One that
/// has run out stays while its transfer goes on: the next node takes it. One of the original stays as long as there is a transfer of the
/// name: it goes after that.
pub fn goes(made: Made, transfer: Transfer, is_held: bool) -> bool {
    let nobody_takes_it = match made {
        Made::ByUs => transfer != Transfer::GoesOn,
        Made::ByTheOriginal => transfer == Transfer::Gone,
    };
    nobody_takes_it && !is_held
}

/// Whether everything about a lease is as the original makes it for a transfer, and nobody has renewed it for long.
fn is_of_the_original(lease: &Lease, now: Timestamp) -> bool {
    let (metadata, Some(spec)) = (&lease.metadata, &lease.spec) else { return false };
    let bare = metadata.labels.as_ref().is_none_or(|all| all.is_empty())
        && metadata.annotations.as_ref().is_none_or(|all| all.is_empty())
        && metadata.owner_references.as_ref().is_none_or(|all| all.is_empty())
        && metadata.finalizers.as_ref().is_none_or(|all| all.is_empty());
    let held_by_somebody = spec.holder_identity.as_deref().is_some_and(|holder| !holder.is_empty());
    let renewed = spec.renew_time.as_ref().map(|renewed| renewed.0);
    let unrenewed = renewed.and_then(|at| at.checked_add(UNRENEWED).ok()).is_some_and(|until| until <= now);
    let named = metadata.name.as_deref().is_some_and(is_named_as_the_originals);
    named && bare && held_by_somebody && spec.lease_duration_seconds == Some(LASTS) && unrenewed
}

/// `upload-lease.upload-<disk snapshot>` or `download-lease.download-<disk snapshot>-<random>`, both ids UUIDs.
fn is_named_as_the_originals(lease: &str) -> bool {
    let upload = names::upload_lease("upload-");
    let download = names::download_lease("download-");
    match (lease.strip_prefix(&upload), lease.strip_prefix(&download)) {
        (Some(id), _) => is_uuid(id),
        (None, Some(ids)) => {
            let (snapshot, random) = (ids.get(..UUID), ids.get(UUID..));
            let random = random.and_then(|random| random.strip_prefix('-'));
            snapshot.is_some_and(is_uuid) && random.is_some_and(is_uuid)
        }
        (None, None) => false,
    }
}

/// Length of a UUID in text.
const UUID: usize = 36;

fn is_uuid(text: &str) -> bool {
    let fits = |(at, byte): (usize, u8)| match at {
        8 | 13 | 18 | 23 => byte == b'-',
        _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
    };
    text.len() == UUID && text.bytes().enumerate().all(fits)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use k8s_openapi::api::coordination::v1::LeaseSpec;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, OwnerReference};

    const UPLOAD: &str = "upload-lease.upload-c9f1d7aa-60b2-4c1e-8f3d-5e2b9a714c06";
    const DOWNLOAD: &str =
        "download-lease.download-c9f1d7aa-60b2-4c1e-8f3d-5e2b9a714c06-0e2b5a17-9a57-4d52-8a0b-f2d3c4b5a697";

    fn noon() -> Timestamp {
        "2026-01-02T12:00:00Z".parse().unwrap()
    }

    /// As the original has left it so long ago.
    fn unrenewed(name: &str, hours: i64) -> Lease {
        let mut lease = Lease::default();
        lease.metadata.name = Some(name.to_owned());
        lease.spec = Some(LeaseSpec {
            holder_identity: Some("worker-1".to_owned()),
            lease_duration_seconds: Some(60),
            renew_time: Some(MicroTime(noon() - SignedDuration::from_hours(hours))),
            ..LeaseSpec::default()
        });
        lease
    }

    fn with(change: impl FnOnce(&mut Lease)) -> Lease {
        let mut lease = unrenewed(UPLOAD, 48);
        change(&mut lease);
        lease
    }

    #[test]
    fn a_lease_goes_only_when_nobody_holds_it_and_nobody_will_take_it() {
        use Made::{ByTheOriginal, ByUs};
        let cases = [
            (Some(false), true, [false, false]),
            (Some(false), false, [false, false]),
            (Some(true), true, [false, false]),
            (Some(true), false, [true, false]),
            (None, true, [false, false]),
            (None, false, [true, true]),
        ];
        for (has_ended, is_held, want) in cases {
            let found = [ByUs, ByTheOriginal].map(|made| goes(made, Transfer::of(has_ended), is_held));
            assert_eq!(found, want, "{has_ended:?}, held {is_held}");
        }
    }

    #[test]
    fn a_lease_of_another_program_is_never_taken_for_the_originals() {
        let theirs = [
            ("of an Upload", unrenewed(UPLOAD, 48)),
            ("of a Download", unrenewed(DOWNLOAD, 48)),
            ("a day old", unrenewed(UPLOAD, 24)),
        ];
        for (situation, lease) in theirs {
            assert_eq!(made(&lease, noon()), Some(Made::ByTheOriginal), "{situation}");
        }
        let ours = with(|lease| lease.metadata.labels = Some(labels::ours()));
        assert_eq!(made(&ours, noon()), Some(Made::ByUs));
        let (snapshot, random) = (&UPLOAD["upload-lease.upload-".len()..], "0e2b5a17-9a57-4d52-8a0b-f2d3c4b5a697");
        let names = [
            "backup-driver".to_owned(),
            "upload-lease.upload-".to_owned(),
            "upload-lease.upload-nightly".to_owned(),
            format!("upload-lease.{snapshot}"),
            format!("upload-lease.upload-{snapshot}-{random}"),
            format!("upload-lease.upload-{}", snapshot.to_uppercase()),
            format!("upload-lease.upload-{}", snapshot.replace('-', "0")),
            format!("download-lease.download-{snapshot}"),
            format!("download-lease.download-{snapshot}-"),
            format!("download-lease.download-{snapshot}{random}"),
            format!("download-lease.download-{snapshot}-{random}-2"),
            format!("download-lease.upload-{snapshot}"),
            format!("their-upload-lease.upload-{snapshot}"),
            format!("download-lease.download-{}", "\u{e4}".repeat(36)),
        ];
        for name in names {
            assert_eq!(made(&unrenewed(&name, 48), noon()), None, "{name}");
        }
        let owner = OwnerReference { kind: "Deployment".to_owned(), ..OwnerReference::default() };
        let mark = || Some([("app".to_owned(), "theirs".to_owned())].into());
        let others = [
            ("renewed today", unrenewed(UPLOAD, 23)),
            ("renewed by a clock that is ahead", unrenewed(UPLOAD, -48)),
            ("never renewed", with(|lease| lease.spec.as_mut().unwrap().renew_time = None)),
            ("nobody's", with(|lease| lease.spec.as_mut().unwrap().holder_identity = Some(String::new()))),
            ("lasts longer", with(|lease| lease.spec.as_mut().unwrap().lease_duration_seconds = Some(15))),
            ("empty", with(|lease| lease.spec = None)),
            ("labelled", with(|lease| lease.metadata.labels = mark())),
            ("annotated", with(|lease| lease.metadata.annotations = mark())),
            ("owned", with(|lease| lease.metadata.owner_references = Some(vec![owner]))),
            ("kept by a finalizer", with(|lease| lease.metadata.finalizers = Some(vec!["theirs/it".to_owned()]))),
        ];
        for (situation, lease) in others {
            assert_eq!(made(&lease, noon()), None, "{situation}");
        }
    }
}

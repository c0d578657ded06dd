//! Whether VMware's disk library is on the nodes: as their transfers tell it, and as the DaemonSet would bring it. No node says it
//! by itself before it has opened a disk.

use std::collections::BTreeMap;

use api::{Condition, Download, Reason, Timestamp, Upload, conditions};

use super::{Finding, Matter};

/// How the DaemonSet brings the library to its pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Brought {
    /// From an image, a folder of the node, or a claim.
    By(&'static str),
    /// Not at all: the folder is empty unless somebody fills it.
    ByNobody,
    /// There is no DaemonSet to look at.
    Unknown,
}

/// What a transfer said of the library on its node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// When.
    at: Timestamp,
    /// The disk was open, or why the library is of no use.
    outcome: Result<String, (Reason, String)>,
}

/// Of each node the latest word of a transfer.
pub fn words(uploads: &[Upload], downloads: &[Download]) -> BTreeMap<String, Word> {
    let of_upload = |u: &Upload| u.status.as_ref().and_then(|s| word(s.processing_node.as_deref(), &s.conditions));
    let of_download = |d: &Download| d.status.as_ref().and_then(|s| word(s.processing_node.as_deref(), &s.conditions));
    let mut latest: BTreeMap<String, Word> = BTreeMap::new();
    for (node, word) in uploads.iter().filter_map(of_upload).chain(downloads.iter().filter_map(of_download)) {
        if latest.get(&node).is_none_or(|before| before.at < word.at) {
            latest.insert(node, word);
        }
    }
    latest
}

fn word(node: Option<&str>, all: &[Condition]) -> Option<(String, Word)> {
    let node = node.filter(|node| !node.is_empty())?.to_owned();
    let ready = conditions::get(all, conditions::READY);
    let library = [Reason::VddkLibraryMissing, Reason::VddkLibraryBroken];
    let refused = ready.and_then(|c| Some((c, library.into_iter().find(|reason| c.reason == reason.as_str())?)));
    if let Some((condition, reason)) = refused {
        let outcome = Err((reason, condition.message.clone()));
        return Some((node, Word { at: condition.last_transition_time.0, outcome }));
    }
    let opened = conditions::get(all, conditions::TRANSPORT).filter(|condition| condition.status == "True")?;
    Some((node, Word { at: opened.last_transition_time.0, outcome: Ok(opened.message.clone()) }))
}

/// A finding for each node.
pub fn judge(nodes: &[String], words: &BTreeMap<String, Word>, brought: Brought) -> Vec<Finding> {
    nodes.iter().map(|node| of_node(node, words.get(node), brought)).collect()
}

fn of_node(node: &str, word: Option<&Word>, brought: Brought) -> Finding {
    match word {
        Some(Word { outcome: Ok(message), at }) => {
            Finding::ok(Matter::Library, format!("node {node} opened a disk at {at}: {message}"))
        }
        Some(Word { outcome: Err((reason, message)), at }) => {
            let seen = format!("node {node} at {at}: {message}");
            Finding::problem(Matter::Library, seen, reason.meaning(), reason.fix()).because(*reason)
        }
        None => untold(node, brought),
    }
}

fn untold(node: &str, brought: Brought) -> Finding {
    let reason = Reason::VddkLibraryMissing;
    match brought {
        Brought::By(what) => Finding::ok(
            Matter::Library,
            format!("node {node} has opened no disk yet, so it cannot be seen; the chart brings the library by {what}"),
        ),
        Brought::ByNobody => {
            let seen = format!("node {node} has opened no disk yet, and the chart brings no disk library");
            Finding::warning(Matter::Library, seen, reason.meaning(), reason.fix()).because(reason)
        }
        Brought::Unknown => {
            let seen = format!("node {node} has opened no disk yet, and there is no DaemonSet: it cannot be seen");
            Finding::warning(Matter::Library, seen, reason.meaning(), "Install the chart.")
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::super::Verdict;
    use super::*;
    use api::{UploadSpec, UploadStatus};

    fn upload(node: &str, type_: &str, reason: Reason, minute: u8) -> Upload {
        let now = format!("2026-01-01T00:{minute:02}:00Z").parse().unwrap();
        let mut status = UploadStatus { processing_node: Some(node.to_owned()), ..UploadStatus::default() };
        conditions::set(&mut status.conditions, type_, conditions::Status::True, reason, "by nbdssl", now);
        Upload { status: Some(status), ..Upload::new("u", UploadSpec::default()) }
    }

    #[test]
    fn the_latest_word_of_a_node_counts() {
        let opened = |minute| upload("a", conditions::TRANSPORT, Reason::DiskOpened, minute);
        let missing = |minute| upload("a", conditions::READY, Reason::VddkLibraryMissing, minute);
        let verdict = |uploads: &[Upload], brought| judge(&["a".to_owned()], &words(uploads, &[]), brought)[0].verdict;
        let cases = [
            ("installed since", vec![missing(1), opened(2)], Brought::ByNobody, Verdict::Ok),
            ("gone since", vec![opened(1), missing(2)], Brought::By("image"), Verdict::Problem),
            ("no word, brought", vec![], Brought::By("image"), Verdict::Ok),
            ("no word, not brought", vec![], Brought::ByNobody, Verdict::Warning),
            ("no word, nothing installed", vec![], Brought::Unknown, Verdict::Warning),
        ];
        for (situation, uploads, brought, want) in cases {
            assert_eq!(verdict(&uploads, brought), want, "{situation}");
        }
    }
}

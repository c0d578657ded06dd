//! By which way the disk library moves a disk's data, as its transfer says.

use api::conditions::{self, Status, TRANSPORT};
use api::{Reason, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

/// What the disk library chose when it opened a disk, and out of what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transport {
    /// Its word for it, such as `nbdssl`; empty when it does not say.
    pub in_use: String,
    /// What the setting allows, best first, joined by colons.
    pub allowed: String,
}

impl Transport {
    /// Notes it among the conditions of a transfer, where it stays when the disk is closed.
    pub(super) fn note(&self, conditions: &mut Vec<Condition>, now: Timestamp) {
        let known = if self.in_use.is_empty() { Status::Unknown } else { Status::True };
        conditions::set(conditions, TRANSPORT, known, Reason::DiskOpened, &self.sentence(), now);
    }

    fn sentence(&self) -> String {
        let moves = match self.in_use.as_str() {
            "" => "the disk library does not say how it moves the data".to_owned(),
            "nbd" => "the disk library moves the data by nbd, which is not encrypted".to_owned(),
            mode => format!("the disk library moves the data by {mode}"),
        };
        format!("{moves}; allowed, best first: {}", self.allowed.replace(':', ", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_sees_what_is_in_use_and_whether_it_is_encrypted() {
        let cases = [
            ("nbdssl", "True", "moves the data by nbdssl; allowed, best first: nbdssl, nbd"),
            ("nbd", "True", "by nbd, which is not encrypted; allowed"),
            ("hotadd", "True", "by hotadd; allowed"),
            ("", "Unknown", "does not say"),
        ];
        for (in_use, known, words) in cases {
            let mut conditions = Vec::new();
            let transport = Transport { in_use: in_use.to_owned(), allowed: "nbdssl:nbd".to_owned() };
            transport.note(&mut conditions, Timestamp::UNIX_EPOCH);
            let noted = conditions::get(&conditions, TRANSPORT).expect("it was just noted");
            assert_eq!((noted.status.as_str(), noted.reason.as_str()), (known, "DiskOpened"), "{in_use}");
            assert!(noted.message.contains(words), "{}", noted.message);
        }
    }
}

//! Decides about one transfer on one node: claim, copy, clean up, wait or stop; and what its status then says.
//!
//! [`Upload`](api::Upload) and [`Download`](api::Download) become one [`Transfer`]; [`plan`] needs nothing else of them.
//! The statuses are in [`upload`] and [`download`]; what the original leaves where it cancels is in [`cancelled`]. Nothing here knows
//! how bytes move.

pub mod cancelled;
pub mod download;
mod leftover;
pub mod of_the_original;
mod read;
mod transport;
pub mod upload;

use std::time::Duration;

use api::Timestamp;

pub use leftover::{Leftover, leftover};
pub use transport::Transport;

/// How long a node may go on with a transfer that is to stop, and whose object is gone or does not count any more, before somebody is told.
/// One that died loses its lease within a minute.
pub const STOPPING: Duration = Duration::from_secs(90);

/// One Upload or Download, as far as the decision needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transfer {
    /// Where it stands.
    pub state: State,
    /// Somebody asked it to stop.
    pub cancel_requested: bool,
    /// The object is being deleted.
    pub deleting: bool,
    /// The driver lets it start.
    pub admitted: bool,
}

/// Where a transfer stands, whatever its phase is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Nobody has started it. An object without a phase counts from `from` on.
    Waiting {
        /// When it may start.
        from: Timestamp,
    },
    /// A node copies, or did when it died.
    Copying,
    /// An attempt failed.
    Failed {
        /// When the next attempt is due.
        retry_at: Timestamp,
    },
    /// The copy has ended for good or bad; the disk snapshot could not be deleted yet.
    Cleaning {
        /// When the next attempt is due.
        retry_at: Timestamp,
    },
    /// It is being cancelled, or was when the node died.
    Cancelling {
        /// When the next attempt is due.
        retry_at: Timestamp,
    },
    /// It has ended, or no node may touch it ([`of_the_original`]).
    Finished,
}

/// Who holds the lease of the transfer, as this node sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    /// Nobody, or somebody who has not renewed it in time.
    Nobody,
    /// This node.
    Us,
    /// Another node; worth another look then.
    Other {
        /// When the lease would be free if it were not renewed.
        until: Timestamp,
    },
}

/// The node that asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Transfers it may still start.
    pub free_slots: usize,
    /// Whether it is at work on this very transfer.
    pub at_work: bool,
    /// Who holds the lease.
    pub holder: Holder,
}

/// What to do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// Nothing, until something changes.
    Rest,
    /// Nothing until then.
    WakeAt(Timestamp),
    /// Wait for a free slot of this node.
    WaitForSlot,
    /// Take the lease, then [`Work`].
    Claim(Work),
    /// Stop what this node is doing with it, and clean up.
    Stop,
}

/// What to do once the lease is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Copy. `resumed` when another process had begun.
    Copy {
        /// It was begun before.
        resumed: bool,
    },
    /// The copy has ended: delete the disk snapshot; then [`upload::cleaned`] with whether the restore point exists. Also for one that is
    /// cancelled by now, which is too late: what is stored stays.
    CleanUp,
    /// Nobody is copying and it should stop: remove what there is, then it is cancelled.
    Cancel,
}

/// Decides what this node does with a transfer.
pub fn plan(transfer: &Transfer, node: &Node, now: Timestamp) -> Plan {
    if node.at_work {
        let stop = transfer.cancel_requested || transfer.deleting || transfer.state == State::Finished;
        return if stop { Plan::Stop } else { Plan::Rest };
    }
    if transfer.state == State::Finished || transfer.deleting {
        return Plan::Rest;
    }
    if let Holder::Other { until } = node.holder {
        // look again when it would expire: a dead holder renews nothing and no event tells us
        return Plan::WakeAt(until.max(now));
    }
    let work = match (&transfer.state, transfer.cancel_requested) {
        (State::Finished, _) => return Plan::Rest,
        (State::Cancelling { retry_at }, _) if *retry_at > now => {
            return Plan::WakeAt(*retry_at);
        }
        (State::Cleaning { retry_at }, _) if *retry_at > now => return Plan::WakeAt(*retry_at),
        (State::Cleaning { .. }, _) => Work::CleanUp,
        (State::Cancelling { .. }, _) | (_, true) => Work::Cancel,
        (State::Waiting { .. } | State::Failed { .. }, false) if !transfer.admitted => return Plan::Rest, // admission is an event
        (State::Waiting { from }, false) if *from > now => return Plan::WakeAt(*from),
        (State::Waiting { .. }, false) => Work::Copy { resumed: false },
        (State::Copying, false) => Work::Copy { resumed: true },
        (State::Failed { retry_at }, false) if *retry_at > now => return Plan::WakeAt(*retry_at),
        (State::Failed { .. }, false) => Work::Copy { resumed: false },
    };
    // only copying needs a slot: cancelling and cleaning up must not wait for other disks
    if matches!(work, Work::Copy { .. }) && node.free_slots == 0 { Plan::WaitForSlot } else { Plan::Claim(work) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn nine() -> Timestamp {
        "2026-01-02T09:00:00Z".parse().unwrap()
    }

    fn noon() -> Timestamp {
        "2026-01-02T12:00:00Z".parse().unwrap()
    }

    fn transfer(state: State) -> Transfer {
        Transfer { state, cancel_requested: false, deleting: false, admitted: true }
    }

    fn cancelled(state: State) -> Transfer {
        Transfer { cancel_requested: true, ..transfer(state) }
    }

    fn free() -> Node {
        Node { free_slots: 1, at_work: false, holder: Holder::Nobody }
    }

    fn full() -> Node {
        Node { free_slots: 0, ..free() }
    }

    fn held() -> Node {
        Node { holder: Holder::Other { until: noon() }, ..free() }
    }

    fn ours() -> Node {
        Node { holder: Holder::Us, ..free() }
    }

    fn busy() -> Node {
        Node { at_work: true, holder: Holder::Us, ..free() }
    }

    #[test]
    fn what_a_node_does_with_a_transfer() {
        let fresh = || State::Waiting { from: nine() };
        let copy = Plan::Claim(Work::Copy { resumed: false });
        let resume = Plan::Claim(Work::Copy { resumed: true });
        let cancel = Plan::Claim(Work::Cancel);
        let unadmitted = Transfer { admitted: false, ..transfer(fresh()) };
        let failed_unadmitted = Transfer { admitted: false, ..transfer(State::Failed { retry_at: nine() }) };
        let cancelled_unadmitted = Transfer { admitted: false, ..cancelled(fresh()) };
        let deleted = Transfer { deleting: true, ..transfer(fresh()) };
        let cases = [
            ("fresh, a slot is free", transfer(fresh()), free(), copy.clone()),
            ("fresh, no slot is free", transfer(fresh()), full(), Plan::WaitForSlot),
            ("not admitted yet", unadmitted, free(), Plan::Rest),
            ("failed, due, and not admitted again", failed_unadmitted, free(), Plan::Rest),
            ("cancelled before it was admitted", cancelled_unadmitted, full(), cancel.clone()),
            ("being deleted", deleted, free(), Plan::Rest),
            ("too young to have a phase", transfer(State::Waiting { from: noon() }), free(), Plan::WakeAt(noon())),
            ("held by another node", transfer(State::Copying), held(), Plan::WakeAt(noon())),
            ("its node died", transfer(State::Copying), free(), resume.clone()),
            ("we restarted", transfer(State::Copying), ours(), resume),
            ("we are copying", transfer(State::Copying), busy(), Plan::Rest),
            ("cancelled while we copy", cancelled(State::Copying), busy(), Plan::Stop),
            ("ended by somebody while we copy", transfer(State::Finished), busy(), Plan::Stop),
            ("cancelled before anybody took it", cancelled(fresh()), full(), cancel.clone()),
            ("cancelled in back-off", cancelled(State::Failed { retry_at: noon() }), free(), cancel.clone()),
            ("cancelled while another node copies", cancelled(State::Copying), held(), Plan::WakeAt(noon())),
            ("the node that was cancelling died", transfer(State::Cancelling { retry_at: nine() }), free(), cancel),
            (
                "cancelling could not remove everything and backs off",
                cancelled(State::Cancelling { retry_at: noon() }),
                free(),
                Plan::WakeAt(noon()),
            ),
            ("failed, backing off", transfer(State::Failed { retry_at: noon() }), free(), Plan::WakeAt(noon())),
            ("failed, due", transfer(State::Failed { retry_at: nine() }), free(), copy),
            (
                "stored, snapshot stays",
                transfer(State::Cleaning { retry_at: nine() }),
                full(),
                Plan::Claim(Work::CleanUp),
            ),
            (
                "cancelled when it is stored and only its disk snapshot is left",
                cancelled(State::Cleaning { retry_at: nine() }),
                full(),
                Plan::Claim(Work::CleanUp),
            ),
            (
                "the same, while vCenter is away",
                cancelled(State::Cleaning { retry_at: noon() }),
                free(),
                Plan::WakeAt(noon()),
            ),
            ("finished", transfer(State::Finished), free(), Plan::Rest),
        ];
        for (situation, transfer, node, want) in cases {
            assert_eq!(plan(&transfer, &node, nine()), want, "{situation}");
        }
    }
}

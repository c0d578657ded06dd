//! How long something that may pass is waited for: from when the object said it first, in a condition of its own. The object may be as old
//! as it likes by then: it may have waited for others, or nobody may have looked at it.

use api::conditions::{self, Status};
use api::{Condition, Timestamp};
use k8s_openapi::jiff::SignedDuration;

use crate::Problem;

/// A look that comes so long after it was due shows that nobody has looked meanwhile.
const LATE: SignedDuration = SignedDuration::from_mins(5);

/// What may pass, and how long that is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// The type of the condition that says it, False and since when.
    pub condition: &'static str,
    /// How long it is waited for.
    pub within: SignedDuration,
}

impl Patience {
    /// Until when it is tried again after an attempt that was `begun` then has failed, however long it took; `None`: long enough. If the
    /// time ran out while no driver was trying, it starts again: `due` is when this process was to try again, if it has tried before and
    /// failed.
    pub fn until(&self, conditions: &[Condition], due: Option<Timestamp>, begun: Timestamp) -> Option<Timestamp> {
        let said = conditions::get(conditions, self.condition).map_or(begun, |said| said.last_transition_time.0);
        let left = said.checked_add(self.within).ok().filter(|at| *at > begun);
        let has_tried = due.is_some_and(|due| begun.duration_since(due) < LATE);
        left.or_else(|| (!has_tried).then_some(begun + self.within))
    }

    /// Says why an attempt that was `begun` then has failed. A time that had run out before it and ended nothing starts again.
    pub fn note(&self, conditions: &mut Vec<Condition>, problem: &Problem, begun: Timestamp) {
        let ran_out = |said: &Condition| begun.duration_since(said.last_transition_time.0) >= self.within;
        conditions.retain(|said| said.type_ != self.condition || !ran_out(said));
        conditions::set(conditions, self.condition, Status::False, problem.reason, &problem.message(), begun);
    }

    /// It goes on.
    pub fn over(&self, conditions: &mut Vec<Condition>) {
        conditions.retain(|said| said.type_ != self.condition);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use api::Reason;
    use api::conditions::PROCEEDS;

    const TEN: Patience = Patience { condition: PROCEEDS, within: SignedDuration::from_mins(10) };

    fn noon() -> Timestamp {
        "2026-01-02T12:00:00Z".parse().unwrap()
    }

    fn minutes(minutes: i64) -> SignedDuration {
        SignedDuration::from_mins(minutes)
    }

    /// An object that waited an hour for others must not end at the first word of a store that starts anew.
    #[test]
    fn the_time_counts_from_the_first_failure_that_was_said_and_not_while_nobody_tries() {
        let cases = [
            ("nothing has failed yet, however old the object is", None, None, Some(10)),
            ("said three minutes ago", Some(3), Some(0), Some(7)),
            ("said ten minutes ago, and tried ever since", Some(10), Some(0), None),
            ("said an hour ago, and this driver has just started", Some(60), None, Some(10)),
            ("said an hour ago, and this driver hung", Some(60), Some(-6), Some(10)),
            ("said nine minutes ago, and this driver has just started", Some(9), None, Some(1)),
        ];
        let away = Problem::passing(Reason::StoreUnreachable, "away");
        for (situation, said_ago, due, left) in cases {
            let mut conditions = Vec::new();
            if let Some(ago) = said_ago {
                TEN.note(&mut conditions, &away, noon() - minutes(ago));
            }
            let until = TEN.until(&conditions, due.map(|due| noon() + minutes(due)), noon());
            assert_eq!(until.map(|at| at.duration_since(noon()).as_mins()), left, "{situation}");
            let Some(until) = until else { continue };
            TEN.note(&mut conditions, &away, noon());
            let since = conditions::get(&conditions, PROCEEDS).unwrap().last_transition_time.0;
            assert_eq!(since + minutes(10), until, "{situation}: the next look goes by it");
            let at_its_end = until + minutes(1);
            assert_eq!(
                TEN.until(&conditions, Some(at_its_end), at_its_end),
                None,
                "{situation}: what took long ends too"
            );
            TEN.over(&mut conditions);
            assert!(conditions.is_empty(), "{situation}");
        }
    }
}

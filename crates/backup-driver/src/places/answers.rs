//! What was asked, what was answered, and when to ask again: what failed is not asked for with each change, and an answer
//! that is old is better than none. Asks nobody itself.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::time::{Duration, Instant};

use lifecycle::Problem;

/// Answers by what was asked for.
pub(super) struct Answers<K, V> {
    all: HashMap<K, Answer<V>>,
    /// How long an answer is good for; `None` is for good.
    good_for: Option<Duration>,
    /// Pause after a question that failed or was cut off.
    pause: Duration,
}

struct Answer<V> {
    value: Option<V>,
    /// When to ask again.
    again: Option<Instant>,
    /// Why the last question has no answer.
    hidden: Option<String>,
}

impl<K: Eq + Hash + Clone, V> Answers<K, V> {
    pub(super) fn new(good_for: Option<Duration>, pause: Duration) -> Self {
        Self { all: HashMap::new(), good_for, pause }
    }

    /// Forgets what is not in `wanted`, and gives what is to be asked now. One that is never [taken](Self::take), because it
    /// was cut off, counts as failed for the reason `late`.
    pub(super) fn begin(&mut self, wanted: &HashSet<K>, late: &str, now: Instant) -> Vec<K> {
        self.all.retain(|key, _| wanted.contains(key));
        let due = |key: &&K| self.all.get(*key).is_none_or(|answer| answer.again.is_some_and(|at| at <= now));
        let due: Vec<_> = wanted.iter().filter(due).cloned().collect();
        for key in &due {
            let answer = self.all.entry(key.clone()).or_insert(Answer { value: None, again: None, hidden: None });
            (answer.again, answer.hidden) = (Some(now + self.pause), Some(late.to_owned()));
        }
        due
    }

    /// Notes an answer. One that failed leaves the earlier one.
    pub(super) fn take(&mut self, key: K, answer: Result<V, Problem>, now: Instant) {
        let Some(noted) = self.all.get_mut(&key) else { return };
        match answer {
            Ok(value) => {
                let again = self.good_for.map(|good_for| now + good_for);
                *noted = Answer { value: Some(value), again, hidden: None };
            }
            Err(problem) => (noted.again, noted.hidden) = (Some(now + self.pause), Some(problem.to_string())),
        }
    }

    /// Notes of all these that they failed.
    pub(super) fn fail(&mut self, keys: impl IntoIterator<Item = K>, problem: &Problem, now: Instant) {
        keys.into_iter().for_each(|key| self.take(key, Err(problem.clone()), now));
    }

    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.all.get(key)?.value.as_ref()
    }

    /// Asks for all anew.
    pub(super) fn forget(&mut self) {
        self.all.clear();
    }

    /// All answers.
    pub(super) fn known(&self) -> impl Iterator<Item = (&K, &V)> {
        self.all.iter().filter_map(|(key, answer)| Some((key, answer.value.as_ref()?)))
    }

    /// What could not be found out the last time it was asked for, in words that stay the same while the same is missing.
    pub(super) fn hidden(&self) -> Option<String> {
        let all = || self.all.values().filter_map(|answer| answer.hidden.as_ref());
        let first = all().min()?;
        Some(match all().count() {
            1 => first.clone(),
            many => format!("{first} (and {} more)", many - 1),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use api::Reason;

    const PAUSE: Duration = Duration::from_secs(10);
    const GOOD_FOR: Duration = Duration::from_secs(300);

    fn failed() -> Result<u32, Problem> {
        Err(Problem::passing(Reason::VCenterUnreachable, "vCenter is away"))
    }

    #[test]
    fn what_failed_is_asked_again_after_a_pause_and_not_with_each_change() {
        let (start, wanted) = (Instant::now(), HashSet::from(["disk"]));
        let mut answers = Answers::new(None, PAUSE);
        assert_eq!(answers.begin(&wanted, "late", start), ["disk"]);
        answers.take("disk", failed(), start);
        assert_eq!(answers.begin(&wanted, "late", start + PAUSE / 2), [""; 0]);
        assert!(answers.hidden().unwrap().contains("vCenter is away"), "said until it is known");
        assert_eq!(answers.begin(&wanted, "late", start + PAUSE), ["disk"]);
        answers.take("disk", Ok(7), start + PAUSE);
        assert_eq!((answers.get(&"disk"), answers.hidden()), (Some(&7), None));
        assert_eq!(answers.begin(&wanted, "late", start + 100 * GOOD_FOR), [""; 0], "that does not change");
        answers.begin(&HashSet::new(), "late", start + PAUSE);
        assert_eq!(answers.known().count(), 0, "nobody needs it any more");
    }

    #[test]
    fn what_was_cut_off_failed_and_what_was_answered_beside_it_stays() {
        let (start, wanted) = (Instant::now(), HashSet::from(["a", "b", "c"]));
        let mut answers = Answers::new(None, PAUSE);
        assert_eq!(answers.begin(&wanted, "late", start).len(), 3);
        answers.take("b", Ok(7), start);
        assert_eq!(answers.begin(&wanted, "late", start), [""; 0]);
        assert_eq!((answers.get(&"b"), answers.hidden().as_deref()), (Some(&7), Some("late (and 1 more)")));
    }

    #[test]
    fn an_answer_that_is_old_is_asked_for_again_and_stays_when_that_fails() {
        let (start, wanted) = (Instant::now(), HashSet::from(["node"]));
        let mut answers = Answers::new(Some(GOOD_FOR), PAUSE);
        answers.begin(&wanted, "late", start);
        answers.take("node", Ok(7), start);
        assert_eq!(answers.begin(&wanted, "late", start + GOOD_FOR / 2), [""; 0]);
        assert_eq!(answers.begin(&wanted, "late", start + GOOD_FOR), ["node"]);
        answers.take("node", failed(), start + GOOD_FOR);
        assert_eq!(answers.get(&"node"), Some(&7));
        answers.forget();
        assert_eq!(answers.begin(&wanted, "late", start + GOOD_FOR), ["node"]);
    }
}

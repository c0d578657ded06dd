//! Decides when the space of deleted backups is freed: a day after something was deleted, again when what that run marked
//! may go, and at once when somebody asks.
//!
//! Everything that a restart of the driver must not forget stands in annotations of the BackupRepository: [`Noted`] reads
//! them, [`after_run`] says how they change. A pack is marked by one run and removed by a later one, once nobody has
//! needed it for the grace.

use std::collections::BTreeMap;

use api::labels::{MAINTAIN, MAINTENANCE_DELETED, MAINTENANCE_DUE, MAINTENANCE_RAN};
use api::{BackupRepository, Timestamp};
use k8s_openapi::jiff::SignedDuration;

/// Least time between two runs that nobody asked for: `maintenance-interval`.
pub const INTERVAL: SignedDuration = SignedDuration::from_hours(24);
/// How long a pack must have been of no use before it goes: `maintenance-grace`.
pub const GRACE: SignedDuration = SignedDuration::from_hours(72);

/// What the user has set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Least time between two runs; zero: only when somebody asks.
    pub interval: SignedDuration,
    /// How long a pack must have been of no use before it goes.
    pub grace: SignedDuration,
    /// Whether [`Self::grace`] is shorter than [`GRACE`], with the user's word for it.
    pub short_grace: bool,
    /// What was set and is not followed, and why.
    pub refused: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { interval: INTERVAL, grace: GRACE, short_grace: false, refused: Vec::new() }
    }
}

impl Settings {
    /// Reads `maintenance-interval`, `maintenance-grace` (such as `36h` or `1h30m`) and `allow-short-grace`.
    pub fn read(interval: Option<&str>, grace: Option<&str>, allow_short_grace: bool) -> Self {
        let mut settings = Self::default();
        let mut span = |key: &str, text: Option<&str>, default| match text.map(str::parse::<SignedDuration>) {
            None => default,
            Some(Ok(span)) if !span.is_negative() => span,
            Some(_) => {
                let text = text.unwrap_or_default();
                settings.refused.push(format!("{key} is `{text}`, which is no time such as `36h`; the default counts"));
                default
            }
        };
        settings.interval = span("maintenance-interval", interval, INTERVAL);
        settings.grace = span("maintenance-grace", grace, GRACE);
        settings.short_grace = settings.grace < GRACE && allow_short_grace;
        if settings.grace < GRACE && !allow_short_grace {
            let hours = GRACE.as_hours();
            settings.refused.push(format!(
                "maintenance-grace is shorter than {hours}h and allow-short-grace is not `true`; {hours}h count"
            ));
            settings.grace = GRACE;
        }
        settings
    }
}

/// What the annotations of a BackupRepository say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Noted {
    /// When a backup was last deleted, until a run that began later has ended.
    pub deleted: Option<Timestamp>,
    /// When the last run that ended well had begun; before the first one, when the repository was made.
    pub ran: Option<Timestamp>,
    /// When the first of what is marked may go.
    pub due: Option<Timestamp>,
    /// Somebody asks for a run now, in these words.
    pub asked: Option<String>,
}

impl Noted {
    /// Reads them. A time that cannot be read counts as long ago: better a run too many than space that is never freed.
    pub fn of(repository: &BackupRepository) -> Self {
        let said = |key: &str| repository.metadata.annotations.as_ref()?.get(key).filter(|text| !text.is_empty());
        let time = |key: &str| said(key).map(|text| text.parse().unwrap_or(Timestamp::UNIX_EPOCH));
        let made = repository.metadata.creation_timestamp.as_ref().map(|t| t.0);
        Self {
            deleted: time(MAINTENANCE_DELETED),
            ran: time(MAINTENANCE_RAN).or(made),
            due: time(MAINTENANCE_DUE),
            asked: said(MAINTAIN).cloned(),
        }
    }

    /// Whether there is anything to decide.
    pub fn is_nothing(&self) -> bool {
        self.deleted.is_none() && self.due.is_none() && self.asked.is_none()
    }
}

/// What to do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// Nothing, until something is deleted or somebody asks.
    Rest,
    /// Nothing until then.
    WakeAt(Timestamp),
    /// A run.
    Run,
}

/// Decides. `retry_at` is when the next attempt is due after one that failed.
pub fn plan(noted: &Noted, settings: &Settings, retry_at: Option<Timestamp>, now: Timestamp) -> Plan {
    let due = match (&noted.asked, settings.interval.is_zero()) {
        (Some(_), _) => Some(now),
        (None, true) => None,
        (None, false) => {
            let again = noted.ran.unwrap_or(Timestamp::UNIX_EPOCH).checked_add(settings.interval).unwrap_or(now);
            let for_deleted = noted.deleted.map(|deleted| deleted.max(again));
            for_deleted.into_iter().chain(noted.due).min()
        }
    };
    match due.map(|due| retry_at.map_or(due, |retry_at| retry_at.max(due))) {
        None => Plan::Rest,
        Some(due) if due > now => Plan::WakeAt(due),
        Some(_) => Plan::Run,
    }
}

/// The annotation that something was deleted. It is written each time: a run that is under way may have looked before.
pub fn deletion(now: Timestamp) -> (&'static str, String) {
    (MAINTENANCE_DELETED, now.to_string())
}

/// A run in the repository of one namespace that ended well, where a BackupRepository has several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// When it began.
    pub began: Timestamp,
    /// What was noted then.
    pub noted: Noted,
    /// What was set then.
    pub settings: Settings,
    /// When the first of what it marked may go.
    pub next_due: Option<Timestamp>,
}

impl Part {
    /// Whether it need not run again when what failed beside it is tried again: all is as it was, but for what was deleted since, perhaps
    /// in another namespace, which waits for its day as ever.
    pub fn counts(&self, noted: &Noted, settings: &Settings, now: Timestamp) -> bool {
        let but_for_deletions = |noted: &Noted| Noted { deleted: None, ..noted.clone() };
        let is_as_it_was = but_for_deletions(&self.noted) == but_for_deletions(noted) && self.settings == *settings;
        let is_seen = noted.deleted.is_none_or(|deleted| seen(deleted, self.began));
        let has_time = self.began.checked_add(settings.interval).is_ok_and(|again| now < again);
        is_as_it_was && (is_seen || has_time) && self.next_due.is_none_or(|due| due > now)
    }
}

/// Whether a run that began then has seen what was deleted. A second of clemency: whoever deleted and noted it at this moment may have
/// come too late for the run.
fn seen(deleted: Timestamp, began: Timestamp) -> bool {
    began.duration_since(deleted) > SignedDuration::from_secs(1)
}

/// How the annotations change after a run that began at `began` on what `noted` said; `now_noted` is what they say now,
/// and `next_due` when the first of what is marked may go. `None` removes one.
pub fn after_run(
    noted: &Noted,
    now_noted: &Noted,
    began: Timestamp,
    next_due: Option<Timestamp>,
) -> BTreeMap<&'static str, Option<String>> {
    let mut changes = BTreeMap::from([
        (MAINTENANCE_RAN, Some(began.to_string())),
        (MAINTENANCE_DUE, next_due.map(|due| due.to_string())),
    ]);
    if now_noted.deleted.is_none_or(|deleted| seen(deleted, began)) {
        changes.insert(MAINTENANCE_DELETED, None);
    }
    if now_noted.asked == noted.asked {
        changes.insert(MAINTAIN, None);
    }
    changes
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use api::Time;

    fn noon() -> Timestamp {
        "2026-01-02T12:00:00Z".parse().unwrap()
    }

    fn hours_ago(hours: i64) -> Timestamp {
        noon() - SignedDuration::from_hours(hours)
    }

    fn noted(annotations: &[(&str, Timestamp)], made_hours_ago: i64) -> Noted {
        let mut repository = BackupRepository::new("br-1");
        repository.metadata.creation_timestamp = Some(Time(hours_ago(made_hours_ago)));
        let text = annotations.iter().map(|(key, at)| ((*key).to_owned(), at.to_string()));
        repository.metadata.annotations = Some(text.collect());
        Noted::of(&repository)
    }

    fn asked(noted: Noted) -> Noted {
        Noted { asked: Some("now".to_owned()), ..noted }
    }

    #[test]
    fn space_is_freed_a_day_after_the_last_run_and_when_what_is_marked_may_go() {
        let (deleted, ran, due) = (MAINTENANCE_DELETED, MAINTENANCE_RAN, MAINTENANCE_DUE);
        let in_hours = |hours| Plan::WakeAt(noon() + SignedDuration::from_hours(hours));
        let daily = Settings::default();
        let never = Settings { interval: SignedDuration::ZERO, ..Settings::default() };
        let cases = [
            ("nothing was ever deleted", noted(&[], 500), &daily, None, Plan::Rest),
            ("nothing was deleted since", noted(&[(ran, hours_ago(100))], 500), &daily, None, Plan::Rest),
            (
                "the first deletion, of an old repository",
                noted(&[(deleted, hours_ago(0))], 500),
                &daily,
                None,
                Plan::Run,
            ),
            ("… of a young one", noted(&[(deleted, hours_ago(0))], 3), &daily, None, in_hours(21)),
            (
                "an hour after a run",
                noted(&[(deleted, hours_ago(0)), (ran, hours_ago(1))], 500),
                &daily,
                None,
                in_hours(23),
            ),
            (
                "a day after a run",
                noted(&[(deleted, hours_ago(5)), (ran, hours_ago(24))], 500),
                &daily,
                None,
                Plan::Run,
            ),
            (
                "marked, in its grace",
                noted(&[(due, hours_ago(-40)), (ran, hours_ago(32))], 500),
                &daily,
                None,
                in_hours(40),
            ),
            (
                "marked, its grace is over",
                noted(&[(due, hours_ago(0)), (ran, hours_ago(72))], 500),
                &daily,
                None,
                Plan::Run,
            ),
            (
                "marked, and something else is deleted",
                noted(&[(due, hours_ago(-40)), (ran, hours_ago(20)), (deleted, hours_ago(1))], 500),
                &daily,
                None,
                in_hours(4),
            ),
            ("somebody asks", asked(noted(&[(ran, hours_ago(0))], 500)), &daily, None, Plan::Run),
            ("only when asked", noted(&[(deleted, hours_ago(90)), (due, hours_ago(9))], 500), &never, None, Plan::Rest),
            ("… and asked", asked(noted(&[], 500)), &never, None, Plan::Run),
            ("the last attempt failed", asked(noted(&[], 500)), &daily, Some(hours_ago(-1)), in_hours(1)),
            ("… and it is time again", asked(noted(&[], 500)), &daily, Some(hours_ago(0)), Plan::Run),
        ];
        for (situation, noted, settings, retry_at, want) in cases {
            assert_eq!(plan(&noted, settings, retry_at, noon()), want, "{situation}");
        }
    }

    #[test]
    fn a_restart_forgets_nothing_and_a_deletion_during_a_run_is_not_lost() {
        let began = hours_ago(1);
        let before = asked(noted(&[(MAINTENANCE_DELETED, hours_ago(30))], 500));
        let changes = |now: &Noted| after_run(&before, now, began, Some(noon()));
        let after = changes(&before);
        assert_eq!(after[MAINTENANCE_RAN], Some(began.to_string()));
        assert_eq!(after[MAINTENANCE_DUE], Some(noon().to_string()));
        assert_eq!((&after[MAINTENANCE_DELETED], &after[MAINTAIN]), (&None, &None), "done and answered");
        let meanwhile = Noted { deleted: Some(noon()), asked: Some("again".to_owned()), ..before.clone() };
        let after = changes(&meanwhile);
        assert!(!after.contains_key(MAINTENANCE_DELETED) && !after.contains_key(MAINTAIN), "{after:?}");
        let (key, value) = deletion(noon());
        assert_eq!((key, value.parse().ok()), (MAINTENANCE_DELETED, Some(noon())), "what is written is read back");
        assert_eq!(after_run(&before, &before, began, None)[MAINTENANCE_DUE], None, "nothing is marked any more");
    }

    /// Reading all trees of forty namespaces each hour since the forty first is broken would cost more than it frees.
    #[test]
    fn a_run_that_ended_well_is_made_again_only_where_something_has_changed_since() {
        let on = noted(&[(MAINTENANCE_DELETED, hours_ago(30)), (MAINTENANCE_RAN, hours_ago(40))], 500);
        let settings = Settings::default();
        let part = |began, next_due| Part { began, noted: on.clone(), settings: settings.clone(), next_due };
        let (done, deleted) = (part(hours_ago(5), None), Noted { deleted: Some(hours_ago(1)), ..on.clone() });
        let short = Settings { grace: SignedDuration::from_hours(1), ..settings.clone() };
        let cases = [
            ("nothing has changed", done.clone(), on.clone(), &settings, true),
            ("more was deleted", done.clone(), deleted.clone(), &settings, true),
            ("… and it is a day ago that it ran", part(hours_ago(25), None), deleted, &settings, false),
            ("somebody asks", done.clone(), asked(on.clone()), &settings, false),
            ("the grace is another", done, on.clone(), &short, false),
            ("what it marked is in its grace", part(hours_ago(5), Some(hours_ago(-1))), on.clone(), &settings, true),
            ("its grace is over", part(hours_ago(5), Some(hours_ago(0))), on.clone(), &settings, false),
            ("something was deleted when it began, a day ago", part(hours_ago(30), None), on.clone(), &settings, false),
        ];
        for (situation, part, noted, settings, want) in cases {
            assert_eq!(part.counts(&noted, settings, noon()), want, "{situation}");
        }
    }

    #[test]
    fn a_short_grace_needs_the_users_word() {
        let hour = SignedDuration::from_hours(1);
        let short = Settings::read(Some("36h"), Some("1h"), true);
        assert_eq!((short.interval, short.grace, short.short_grace), (hour * 36, hour, true));
        let refused = Settings::read(None, Some("1h"), false);
        assert_eq!((refused.grace, refused.short_grace, refused.refused.len()), (GRACE, false, 1));
        assert!(!Settings::read(None, Some("100h"), true).short_grace);
        assert_eq!(Settings::read(None, None, true), Settings::default());
        for nonsense in ["often", "-3h", "5"] {
            let read = Settings::read(Some(nonsense), None, false);
            assert_eq!((read.interval, read.refused.len()), (INTERVAL, 1), "{nonsense}");
        }
    }
}

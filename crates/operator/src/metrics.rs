//! Metrics in Prometheus' text format. One registry per process; names begin with `vsphere_backup_`.

use std::time::Duration;

use prometheus::{CounterVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};

use api::Reason;

/// The metrics of one process. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Registry,
    reasons: IntCounterVec,
    errors: IntCounterVec,
    watch_errors: IntCounterVec,
    contents: IntCounterVec,
    transports: IntCounterVec,
    waits: CounterVec,
    leader: IntGauge,
    orphans: IntGaugeVec,
    orphans_removed: IntCounterVec,
}

impl Metrics {
    /// Metrics with a constant label `component`.
    pub fn new(component: &str) -> Self {
        let labels = std::iter::once(("component".to_owned(), component.to_owned())).collect();
        let registry = Registry::new_custom(Some("vsphere_backup".to_owned()), Some(labels))
            .expect("the prefix is a valid metric name");
        let reasons =
            counter("transitions_total", "Changes of phase or reason, by kind.", &["kind", "phase", "reason"]);
        let errors = counter("errors_total", "Failed looks at an object, by kind.", &["kind"]);
        let watch_errors =
            counter("watch_errors_total", "Errors of watches, by kind of what is watched.", &["kind", "reason"]);
        let contents =
            counter("contents_total", "Disks backed up, by how their content was found.", &["source", "why"]);
        let transports = counter("disks_opened_total", "Disks opened, by the transport of their data.", &["transport"]);
        let waits = Opts::new("transfer_wait_seconds_total", "What finished transfers waited for, by kind.");
        let waits = CounterVec::new(waits, &["kind", "on"]).expect("a valid metric");
        let leader = IntGauge::new("leader", "1 while this process is the active one.").expect("a valid metric");
        let orphans = Opts::new("orphans", "What nobody owns any more, as the last look found it, by kind.");
        let orphans = IntGaugeVec::new(orphans, &["kind"]).expect("a valid metric");
        let orphans_removed =
            counter("orphans_removed_total", "What nobody owned and was removed, by kind.", &["kind"]);
        let collectors: [Box<dyn prometheus::core::Collector>; 9] = [
            Box::new(reasons.clone()),
            Box::new(errors.clone()),
            Box::new(watch_errors.clone()),
            Box::new(contents.clone()),
            Box::new(transports.clone()),
            Box::new(waits.clone()),
            Box::new(leader.clone()),
            Box::new(orphans.clone()),
            Box::new(orphans_removed.clone()),
        ];
        for collector in collectors {
            registry.register(collector).expect("each name is registered once");
        }
        Self { registry, reasons, errors, watch_errors, contents, transports, waits, leader, orphans, orphans_removed }
    }

    /// An object changed its phase or reason.
    pub fn transition(&self, kind: &str, phase: &str, reason: Reason) {
        self.reasons.with_label_values(&[kind, phase, reason.as_str()]).inc();
    }

    /// A look at an object failed and will be repeated.
    pub fn error(&self, kind: &str) {
        self.errors.with_label_values(&[kind]).inc();
    }

    /// A watch of such objects has failed, and is begun anew: a few are nothing, and where they go on, nobody hears of changes.
    pub fn watch_error(&self, kind: &str, reason: Reason) {
        self.watch_errors.with_label_values(&[kind, reason.as_str()]).inc();
    }

    /// A disk was backed up, and how its content was found: from changes, or why not.
    pub fn content(&self, source: &str, why: &str) {
        self.contents.with_label_values(&[source, why]).inc();
    }

    /// A disk was opened, and its data moves by this transport.
    pub fn disk_opened(&self, transport: &str) {
        let known = ["nbdssl", "nbd", "hotadd", "san", "file"].contains(&transport);
        self.transports.with_label_values(&[if known { transport } else { "other" }]).inc();
    }

    /// A transfer took so long, of which these shares (of 1) went by with waiting for something.
    pub fn waited(&self, kind: &str, took: Duration, shares: &[(&str, f64)]) {
        for (on, share) in shares {
            self.waits.with_label_values(&[kind, on]).inc_by(took.as_secs_f64() * share.max(0.0));
        }
    }

    /// Whether this process is the active one.
    pub fn set_leader(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    /// A look found so many that nobody owns.
    pub fn orphans_found(&self, kind: &str, count: usize) {
        self.orphans.with_label_values(&[kind]).set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// So many that nobody owned were removed.
    pub fn orphans_removed(&self, kind: &str, count: usize) {
        self.orphans_removed.with_label_values(&[kind]).inc_by(count as u64);
    }

    /// All metrics as text.
    pub fn text(&self) -> String {
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_default()
    }
}

fn counter(name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    IntCounterVec::new(Opts::new(name, help), labels).expect("a valid metric")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_metric_is_in_the_documentation() {
        let metrics = Metrics::new("backup-driver");
        metrics.transition("Snapshot", "New", Reason::Queued);
        metrics.error("Snapshot");
        metrics.watch_error("Snapshot", Reason::ClusterUnreachable);
        metrics.content("all", "");
        metrics.disk_opened("nbd");
        metrics.waited("Upload", Duration::from_secs(1), &[("disk", 1.0)]);
        metrics.set_leader(true);
        metrics.orphans_found("lease", 1);
        metrics.orphans_removed("lease", 1);
        let text = metrics.text();
        let names: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
        assert_eq!(names.len(), 9, "{text}");
        for name in names {
            assert!(include_str!("../../../docs/velero.md").contains(&format!("`{name}`")), "{name}");
        }
    }

    #[test]
    fn a_reason_in_a_condition_is_the_reason_in_the_metric() {
        let metrics = Metrics::new("backup-driver");
        metrics.transition("Snapshot", "SnapshotFailed", Reason::BucketMissing);
        let text = metrics.text();
        assert!(text.contains(r#"transitions_total{kind="Snapshot",phase="SnapshotFailed",reason="BucketMissing",component="backup-driver"} 1"#), "{text}");
    }
}

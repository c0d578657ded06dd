//! How findings are told: a line each with why and fix below it, or one document.

use anyhow::Result;
use lifecycle::doctor::{Finding, Verdict};
use serde::Serialize;

use crate::args::Output;
use crate::failure::{Refused, WithResult, exit};
use crate::output;

/// All findings, in the order of their matters.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    ok: usize,
    warnings: usize,
    problems: usize,
    findings: Vec<Finding>,
}

impl Report {
    pub(super) fn new(mut findings: Vec<Finding>) -> Self {
        findings.sort_by_key(|finding| finding.matter);
        findings.dedup(); // two repositories of one bucket fail in the same words
        let count = |verdict| findings.iter().filter(|finding| finding.verdict == verdict).count();
        Self { ok: count(Verdict::Ok), warnings: count(Verdict::Warning), problems: count(Verdict::Problem), findings }
    }

    /// Prints it, and fails where there is a problem.
    pub(super) fn print(self, output: Output) -> Result<()> {
        if self.problems == 0 || output == Output::Text {
            output::result(output, &self, || self.text())?;
        }
        if self.problems == 0 {
            return Ok(());
        }
        let message = format!("look for what keeps backups from working: {} found", self.problems);
        let failure =
            Refused { message, fix: "mend what is called a problem, then run doctor again".into(), code: exit::FAILED };
        Err(WithResult::new(failure, &self).into())
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for Finding { matter, verdict, reason, seen, why, fix } in &self.findings {
            let word = reason.map(|reason| format!(" [{reason}]")).unwrap_or_default();
            text.push_str(&format!("{:<8} {:<12} {seen}{word}\n", verdict.as_str(), matter.as_str()));
            for (label, words) in [("why:", why), ("fix:", fix)] {
                if !words.is_empty() {
                    text.push_str(&format!("{:21} {label} {words}\n", ""));
                }
            }
        }
        text.push_str(&format!("\n{} ok, {} warnings, {} problems", self.ok, self.warnings, self.problems));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lifecycle::doctor::Matter;

    #[test]
    fn a_person_reads_what_was_found_why_it_matters_and_what_helps() {
        let found = vec![
            Finding::problem(Matter::Storage, "the bucket is missing", "No backup can be stored.", "Create it."),
            Finding::ok(Matter::Cluster, "the API server answers"),
        ];
        let report = Report::new(found);
        let text = report.text();
        assert!(text.starts_with("ok       cluster      the API server answers\nproblem  storage"), "{text}");
        assert!(text.contains(" why: No backup can be stored.\n") && text.contains(" fix: Create it.\n"), "{text}");
        assert!(text.ends_with("1 ok, 0 warnings, 1 problems"), "{text}");
        assert!(report.print(Output::Text).is_err(), "a script stops there");
    }
}

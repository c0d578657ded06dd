//! What is printed: results on standard output, everything else on standard error.

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::error::ErrorKind;
use data_path::Progress;
use disk::Ranges;
use indicatif::{HumanBytes, HumanDuration, ProgressBar, ProgressStyle};
use serde::Serialize;
use serde_json::{Map, Value};
use tokio_util::task::AbortOnDropHandle;

use crate::args::Output;
use crate::failure::{Meaning, WithResult, exit};

/// Ranges of a disk that people are shown.
const SHOWN: usize = 20;

/// Between two looks at the counters.
const REFRESH: Duration = Duration::from_millis(100);

/// Prints one result: `value` for scripts, `text` for people. A reader that went away is no failure of ours; a full disk
/// is, as a script would take an empty file for the answer.
pub(crate) fn result(output: Output, value: &impl Serialize, text: impl FnOnce() -> String) -> Result<()> {
    let printed = match output {
        Output::Json => serde_json::to_string_pretty(value).expect("results are strings, numbers and times"),
        Output::Text => text(),
    };
    let mut out = io::stdout();
    match writeln!(out, "{}", printed.trim_end()).and_then(|()| out.flush()) {
        Err(cause) if cause.kind() != io::ErrorKind::BrokenPipe => Err(cause).context("write the result"),
        _ => Ok(()),
    }
}

/// Prints how far it is, for people: what stands there stays when the program is cut short.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr(), "{text}"); // nobody may be looking
}

/// Prints a failure: for people always, for scripts as the one document, together with what was found all the same.
pub(crate) fn failure(output: Output, error: &anyhow::Error, meaning: &Meaning) {
    let message = format!("{error:#}");
    if output == Output::Json {
        let found = error.chain().find_map(|cause| cause.downcast_ref::<WithResult>());
        document(&message, meaning, found.map(|found| found.result.clone()).unwrap_or_default());
    }
    let _ = writeln!(io::stderr(), "vsphere-backup: {message}");
    if let Some(fix) = &meaning.fix {
        let _ = writeln!(io::stderr(), "  to do: {fix}");
    }
}

/// Prints for scripts that the command line was not understood; clap tells people.
pub(crate) fn usage_failure(error: &clap::Error) {
    let text = error.to_string();
    let message = match error.kind() {
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => "a command is missing",
        _ => text.split("\n\n").next().unwrap_or_default().trim_start_matches("error: ").trim(),
    };
    document(message, &Meaning { code: exit::REFUSED, fix: Some("see --help".into()) }, Map::new());
}

fn document(message: &str, meaning: &Meaning, found: Map<String, Value>) {
    let mut document = found;
    document.insert("error".to_owned(), message.into());
    document.insert("fix".to_owned(), meaning.fix.as_deref().into());
    document.insert("exitCode".to_owned(), meaning.code.into());
    let _ = writeln!(io::stdout(), "{:#}", Value::Object(document));
}

/// Bytes for people.
pub(crate) fn bytes(bytes: u64) -> String {
    HumanBytes(bytes).to_string()
}

/// Ranges of a disk for people, a line each, the first ones at least.
pub(crate) fn spans(word: &str, ranges: &Ranges) -> String {
    let shown = ranges.iter().take(SHOWN).map(|span| format!("{word}: {} bytes at {}\n", span.length, span.offset));
    let mut text: String = shown.collect();
    if let Some(more) = ranges.iter().count().checked_sub(SHOWN).filter(|more| *more > 0) {
        text.push_str(&format!("{word}: {more} more ranges; --output json lists them all\n"));
    }
    text
}

/// Seconds for people.
pub(crate) fn seconds(elapsed: Duration) -> String {
    if elapsed < Duration::from_secs(100) {
        format!("{:.1} s", elapsed.as_secs_f64())
    } else {
        HumanDuration(elapsed).to_string()
    }
}

/// A bar on the terminal that follows `progress` until it is dropped; nothing where nobody looks.
pub(crate) struct Bar {
    bar: ProgressBar,
    _following: Option<AbortOnDropHandle<()>>,
}

impl Bar {
    /// `verb` says what is going on.
    pub(crate) fn follow(output: Output, verb: &'static str, progress: &Arc<Progress>) -> Self {
        if output == Output::Json || !io::stderr().is_terminal() {
            return Self { bar: ProgressBar::hidden(), _following: None };
        }
        let bar = ProgressBar::new(0).with_prefix(verb);
        let style = "{prefix} {wide_bar} {percent:>3} %  {bytes}/{total_bytes}  {bytes_per_sec}  {eta}  {msg}";
        bar.set_style(ProgressStyle::with_template(style).expect("the template is ours and right"));
        let (shown, progress) = (bar.clone(), progress.clone());
        let following = tokio::spawn(async move {
            loop {
                let counts = progress.counts();
                shown.set_length(counts.total);
                shown.set_position(counts.settled);
                shown.set_message(format!("stored {}", HumanBytes(counts.stored)));
                tokio::time::sleep(REFRESH).await;
            }
        });
        Self { bar, _following: Some(AbortOnDropHandle::new(following)) }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// A plain table: no lines, so that it can be cut with the usual tools.
pub(crate) fn table(head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = comfy_table::Table::new();
    table.load_preset(comfy_table::presets::NOTHING).set_header(head);
    for row in rows {
        table.add_row(row);
    }
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

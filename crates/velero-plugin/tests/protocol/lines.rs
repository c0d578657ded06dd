//! The log on stderr, as the server will read it.

use anyhow::{Context as _, Result};
use serde_json::{Map, Value};

use crate::calls::{execute, item};
use crate::host::{End, Plugin, Start};

crate::scenes!(
    p07_p08_every_value_of_every_line_is_a_string,
    p09_only_our_own_errors_make_a_backup_partially_failed,
    every_line_of_a_call_says_which_item_it_is_about,
    a_line_is_never_longer_than_the_server_reads_at_once,
    lines_of_tasks_that_speak_at_once_do_not_mix,
    the_level_that_velero_was_started_with_counts,
);

/// The log of one call.
async fn log_of(todo: &str, arguments: &str) -> Result<End> {
    let plugin = Plugin::start(&Start::rehearsal().arguments(arguments))?;
    plugin.connect().await?.backup().execute(execute(item(todo))).await?;
    let end = plugin.shut_down().await?;
    end.expect_clean();
    Ok(end)
}

fn line<'a>(lines: &'a [Map<String, Value>], message: &str) -> Result<&'a Map<String, Value>> {
    lines.iter().find(|l| l["@message"] == message).with_context(|| format!("no line {message:?} in {lines:?}"))
}

async fn p07_p08_every_value_of_every_line_is_a_string() -> Result<()> {
    let lines = log_of("log", "--log-level trace").await?.lines();
    for line in &lines {
        for (name, value) in line {
            assert!(value.is_string(), "{name} of {line:?}");
        }
        assert!(["trace", "debug", "info", "warn", "error"].contains(&line["@level"].as_str().unwrap()));
        assert!(!line.contains_key("@timestamp") && !line.contains_key("time") && !line.contains_key("level"));
        assert_eq!(line["@logSourceSetBy"], "plugin");
    }
    let numbers = line(&lines, "numbers")?;
    let read = ["name", "namespace", "resource", "nothing"].map(|field| numbers[field].as_str().unwrap());
    assert_eq!(read, ["7", "true", "1.5", "None"]);
    let coped = line(&lines, "coped")?;
    assert_eq!((&coped["error"], &coped["level_"]), (&"read the disk: no disk".into(), &"3".into()));
    assert!(coped["logSource"].as_str().unwrap().contains("rehearsal.rs:"), "{coped:?}");
    line(&lines, "two\nlines")?;
    Ok(())
}

async fn p09_only_our_own_errors_make_a_backup_partially_failed() -> Result<()> {
    let lines = log_of("log", "").await?.lines();
    let loud: Vec<&str> =
        lines.iter().filter(|l| l["@level"] == "error").filter_map(|l| l["@message"].as_str()).collect();
    assert_eq!(loud, ["two\nlines"], "what a library calls an error is ours to judge");
    assert_eq!(line(&lines, "failed with status 503")?["@level"], "info");
    assert_eq!(line(&lines, "coped")?["@level"], "warn", "not `warning`, which the server does not know");
    Ok(())
}

async fn every_line_of_a_call_says_which_item_it_is_about() -> Result<()> {
    let lines = log_of("log", "").await?.lines();
    for message in ["coped", "two\nlines"] {
        let line = line(&lines, message)?;
        let read = ["namespace", "resource", "name", "action"].map(|field| line[field].as_str().unwrap());
        assert_eq!(read, ["app", "configmaps", "part", crate::rehearsal::NAME]);
    }
    Ok(())
}

async fn a_line_is_never_longer_than_the_server_reads_at_once() -> Result<()> {
    let end = log_of("log long", "").await?;
    assert!(end.log.lines().all(|l| l.len() < 60_000));
    let lines = end.lines();
    assert!(line(&lines, "long")?["dump"].as_str().unwrap().ends_with("bytes cut)"));
    Ok(())
}

async fn lines_of_tasks_that_speak_at_once_do_not_mix() -> Result<()> {
    let lines = log_of("log much", "").await?.lines(); // each line is read as one object
    assert_eq!(lines.iter().filter(|l| l["@message"] == "much").count(), 8 * 50);
    Ok(())
}

async fn the_level_that_velero_was_started_with_counts() -> Result<()> {
    let count = |end: End| end.lines().len();
    assert_eq!(count(log_of("log", "--log-level=error").await?), 2, "a library's error is there, and is no error");
    assert_eq!(count(log_of("log", "--log-level warning").await?), 3);
    let all = log_of("log", "--log-level=debug").await?.lines();
    line(&all, "quiet")?;
    line(&all, "plugin started")?;
    assert!(line(&log_of("log", "").await?.lines(), "quiet").is_err());
    Ok(())
}

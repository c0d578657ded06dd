//! Calls of the actions: what goes in, what comes out, and how errors look.

use anyhow::Result;
use prost::Message;
use tonic::{Code, Status};
use velero_plugin::protocol::wire::generated::{
    self, CreateSnapshotRequest, CreateVolumeRequest, DeleteItemActionExecuteRequest, DeleteSnapshotRequest,
    GetVolumeIdRequest, GetVolumeInfoRequest, OperationProgress, ResourceIdentifier, SetVolumeIdRequest,
    VolumeSnapshotterInitRequest,
};
use velero_plugin::protocol::wire::status;
use velero_plugin::protocol::wire::v2;

use crate::host::{Connection, Plugin, Start};
use crate::rehearsal::{NAME, STATE};

crate::scenes!(
    a_selector_arrives_whole,
    p06_an_item_of_12_mib_passes_both_ways,
    p10_an_unchanged_item_comes_back_byte_for_byte_and_a_changed_one_keeps_its_numbers,
    p10_what_is_no_object_is_refused_with_a_sentence,
    p03_an_operation_is_followed_and_cancelled_by_later_processes,
    p12_no_operation_starts_while_the_backup_is_finalizing,
    p15_a_question_that_failed_does_not_fail_the_operation,
    p16_every_progress_is_there_with_its_times,
    p13_a_restore_action_sees_both_items_and_its_wishes_arrive,
    an_error_is_a_sentence_with_its_place,
    a_panic_is_an_error_of_one_item_and_the_others_go_on,
    p14_a_delete_action_says_whether_the_duty_is_written_down,
    the_volume_snapshotter_speaks_all_its_methods,
    a_name_that_nobody_has_is_told_by_its_kind,
);

pub(crate) const BACKUP: &str = r#"{"metadata":{"name":"b1"},"spec":null,"status":{"phase":"InProgress"},"new":[1]}"#;

/// Of white space, an order of keys and a number that a round trip through a tree would not survive.
pub(crate) fn item(todo: &str) -> String {
    format!(
        r#"{{"kind":"ConfigMap",  "apiVersion":"v1","metadata":{{"namespace":"app","name":"part","annotations":{{"z":"","example.io/do":"{todo}"}}}},"data":{{"b":1.00,"a":123456789012345678901234567890}}}}"#
    )
}

pub(crate) fn execute(item: impl Into<Vec<u8>>) -> v2::ExecuteRequest {
    v2::ExecuteRequest { plugin: NAME.to_owned(), item: item.into(), backup: BACKUP.into() }
}

fn question(operation: &str) -> v2::BackupItemActionProgressRequest {
    v2::BackupItemActionProgressRequest {
        plugin: NAME.to_owned(),
        operation_id: operation.to_owned(),
        backup: BACKUP.into(),
    }
}

async fn progress(connection: &mut Connection, operation: &str) -> Result<OperationProgress, Status> {
    let answer = connection.backup().progress(question(operation)).await?.into_inner();
    Ok(answer.progress.expect("P-16: without it the server crashes"))
}

async fn a_selector_arrives_whole() -> Result<()> {
    let plugin = Plugin::start(&Start::rehearsal())?;
    let request = v2::BackupItemActionAppliesToRequest { plugin: NAME.to_owned() };
    let selector = plugin.connect().await?.backup().applies_to(request).await?.into_inner().resource_selector;
    let want = generated::ResourceSelector {
        included_resources: vec!["configmaps".to_owned(), "things.example.io".to_owned()],
        selector: "app=shop".to_owned(),
        ..Default::default()
    };
    assert_eq!(selector, Some(want));
    plugin.shut_down().await?.expect_clean();
    Ok(())
}

async fn p06_an_item_of_12_mib_passes_both_ways() -> Result<()> {
    let plugin = Plugin::start(&Start::rehearsal())?;
    let large = item("echo").replace("1.00", &format!("\"{}\"", "x".repeat(12 << 20)));
    let answer = plugin.connect().await?.backup().execute(execute(large.clone())).await?.into_inner();
    assert!(answer.item == large.as_bytes(), "{} bytes", answer.item.len());
    plugin.shut_down().await?.expect_clean();
    Ok(())
}

async fn p10_an_unchanged_item_comes_back_byte_for_byte_and_a_changed_one_keeps_its_numbers() -> Result<()> {
    let plugin = Plugin::start(&Start::rehearsal())?;
    let mut connection = plugin.connect().await?;
    let same = connection.backup().execute(execute(item("echo"))).await?.into_inner();
    assert_eq!(String::from_utf8(same.item)?, item("echo"));
    let changed = connection.backup().execute(execute(item("change"))).await?.into_inner();
    let want = item("change")
        .replace(":  ", ":")
        .replace(",  ", ",")
        .replace(r#""example.io/do":"change""#, r#""example.io/do":"change","example.io/done":"yes""#);
    assert_eq!(String::from_utf8(changed.item)?, want);
    plugin.shut_down().await?.expect_clean();
    Ok(())
}

async fn p10_what_is_no_object_is_refused_with_a_sentence() -> Result<()> {
    let plugin = Plugin::start(&Start::rehearsal())?;
    let mut connection = plugin.connect().await?;
    for (bytes, want) in [("", "read the item"), ("[1]", "read the item"), (r#"{"apiVersion":"v1"}"#, "no `kind`")] {
        let error = connection.backup().execute(execute(bytes)).await.unwrap_err();
        assert_eq!(error.code(), Code::Unknown);
        assert!(error.message().contains(want), "{error}");
    }
    // a Backup of which nothing at all is known is still one
    let request = v2::ExecuteRequest { backup: Vec::new(), ..execute(item("echo")) };
    assert_eq!(connection.backup().execute(request).await?.into_inner().item, item("echo").as_bytes());
    plugin.shut_down().await?.expect_clean();
    Ok(())
}

async fn p03_an_operation_is_followed_and_cancelled_by_later_processes() -> Result<()> {
    let state = tempfile::tempdir()?;
    let start = Start::rehearsal().variable(STATE, state.path());

    let first = Plugin::start(&start)?;
    let answer = first.connect().await?.backup().execute(execute(item("operate"))).await?.into_inner();
    assert_eq!(answer.operation_id, "app.part");
    let work = ResourceIdentifier {
        group: "example.io".to_owned(),
        resource: "works".to_owned(),
        namespace: "velero".to_owned(),
        name: "app.part".to_owned(),
    };
    assert_eq!((answer.post_operation_items, answer.additional_items), (vec![work], vec![]));
    first.shut_down().await?.expect_clean();

    let second = Plugin::start(&start)?;
    let mut connection = second.connect().await?;
    let under_way = progress(&mut connection, "app.part").await?;
    assert_eq!((under_way.completed, under_way.n_completed, under_way.description.as_str()), (false, 7, "under way"));
    let cancel = v2::BackupItemActionCancelRequest {
        plugin: NAME.to_owned(),
        operation_id: "app.part".to_owned(),
        backup: BACKUP.into(),
    };
    connection.backup().cancel(cancel).await?;
    second.shut_down().await?.expect_clean();

    let third = Plugin::start(&start)?;
    let ended = progress(&mut third.connect().await?, "app.part").await?;
    assert_eq!((ended.completed, ended.err.as_str()), (true, "it was cancelled; start another backup"));
    third.shut_down().await?.expect_clean();
    Ok(())
}

async fn p12_no_operation_starts_while_the_backup_is_finalizing() -> Result<()> {
    let state = tempfile::tempdir()?;
    let plugin = Plugin::start(&Start::rehearsal().variable(STATE, state.path()))?;
    for (phase, operates) in [("Finalizing", false), ("FinalizingPartiallyFailed", false), ("InProgress", true)] {
        let backup = BACKUP.replace("InProgress", phase).into_bytes();
        let request = v2::ExecuteRequest { backup, ..execute(item("operate")) };
        let answer = plugin.connect().await?.backup().execute(request).await?.into_inner();
        assert_eq!(answer.operation_id.is_empty(), !operates, "{phase}");
        assert_eq!(String::from_utf8(answer.item)?, item("operate"));
    }
    plugin.shut_down().await?.expect_clean();
    Ok(())
}

async fn p15_a_question_that_failed_does_not_fail_the_operation() -> Result<()> {
    let state = tempfile::tempdir()?;
    let plugin = Plugin::start(&Start::rehearsal().variable(STATE, state.path()))?;
    let mut connection = plugin.connect().await?;
    let answer = progress(&mut connection, "app.lost").await?;
    assert!(!answer.completed && answer.err.is_empty(), "{answer:?}");
    assert!(answer.description.contains("No such file"), "the user sees why: {}", answer.description);
    // these are no accidents of the moment, and say so
    let empty = progress(&mut connection, "").await.unwrap_err();
    assert_eq!(empty.code(), Code::Unknown);
    assert!(empty.message().contains(r#"operation """#), "{empty}");
    assert_eq!(progress(&mut connection, "panic").await.unwrap_err().code(), Code::Aborted);
    plugin.shut_down().await?.expect_clean();
    Ok(())
}

async fn p16_every_progress_is_there_with_its_times() -> Result<()> {
    let state = tempfile::tempdir()?;
    std::fs::write(state.path().join("app.part"), "Copying")?;
    let plugin = Plugin::start(&Start::rehearsal().variable(STATE, state.path()))?;
    let mut connection = plugin.connect().await?;
    let never = Some(prost_types::Timestamp { seconds: -62_135_596_800, nanos: 0 });
    let known = progress(&mut connection, "app.part").await?;
    assert_eq!(known.started, Some(prost_types::Timestamp { seconds: 1_795_248_000, nanos: 0 }));
    assert_eq!(known.updated, never);
    assert_eq!((known.n_total, known.operation_units.as_str()), (10_737_418_240, "Bytes"));
    let lost = progress(&mut connection, "app.lost").await?;
    assert_eq!((lost.started, lost.updated), (never, never), "not 1970, which would count as started");
    let request = v2::RestoreItemActionProgressRequest {
        plugin: NAME.to_owned(),
        operation_id: "app.lost".to_owned(),
        restore: Vec::new(),
    };
    assert!(connection.restore().progress(request).await?.into_inner().progress.is_some());
    plugin.shut_down().await?.expect_clean();
    Ok(())
}

async fn p13_a_restore_action_sees_both_items_and_its_wishes_arrive() -> Result<()> {
    let plugin = Plugin::start(&Start::rehearsal())?;
    let mut connection = plugin.connect().await?;
    let request = |todo: &str| v2::RestoreItemActionExecuteRequest {
        plugin: NAME.to_owned(),
        item: item("stripped").replace("part", "renamed").into(),
        restore: r#"{"spec":{"backupName":"b1"}}"#.into(),
        item_from_backup: item(todo).into(),
    };
    let skipped = connection.restore().execute(request("skip")).await?.into_inner();
    assert!(skipped.skip_restore && skipped.operation_id == "app.skipped");
    assert_eq!(skipped.item, request("").item, "P-10: also of a skipped item");
    let waits = connection.restore().execute(request("wait")).await?.into_inner();
    assert!(String::from_utf8(waits.item)?.contains(r#""example.io/was":"part""#));
    assert!(waits.wait_for_additional_items && !waits.skip_restore);
    assert_eq!(waits.additional_items_ready_timeout, Some(prost_types::Duration { seconds: 90, nanos: 500_000_000 }));
    let ready = v2::RestoreItemActionItemsReadyRequest {
        plugin: NAME.to_owned(),
        restore: request("").restore,
        additional_items: waits.additional_items,
    };
    assert!(connection.restore().are_additional_items_ready(ready).await?.into_inner().ready);
    let cancel = v2::RestoreItemActionCancelRequest {
        plugin: NAME.to_owned(),
        operation_id: "app.part".to_owned(),
        restore: Vec::new(),
    };
    let refused = connection.restore().cancel(cancel).await.unwrap_err();
    assert!(refused.message().contains("app.part"), "{refused}");
    plugin.shut_down().await?.expect_clean();
    Ok(())
}

async fn an_error_is_a_sentence_with_its_place() -> Result<()> {
    let plugin = Plugin::start(&Start::rehearsal())?;
    let error = plugin.connect().await?.backup().execute(execute(item("fail"))).await.unwrap_err();
    assert_eq!(error.code(), Code::Unknown);
    assert_eq!(error.message(), "read the disk: No such file or directory (os error 2)");
    let details = status::Status::decode(error.details())?;
    assert_eq!((details.code, details.message.as_str()), (2, error.message()));
    assert_eq!(details.details[0].type_url, "type.googleapis.com/generated.Stack");
    let stack = generated::Stack::decode(details.details[0].value.as_slice())?;
    let frame = &stack.frames[0];
    assert!(frame.file.ends_with("tests/protocol/rehearsal.rs") && frame.line > 0, "{frame:?}");
    assert_eq!(frame.function, format!("BackupItemActionV2.Execute {NAME}"));
    plugin.shut_down().await?.expect_clean();
    Ok(())
}

async fn a_panic_is_an_error_of_one_item_and_the_others_go_on() -> Result<()> {
    let plugin = Plugin::start(&Start::rehearsal())?;
    let mut connection = plugin.connect().await?;
    let error = connection.backup().execute(execute(item("panic"))).await.unwrap_err();
    assert_eq!((error.code(), error.message()), (Code::Aborted, "plugin panicked: the action tripped over part"));
    assert!(connection.backup().execute(execute(item("echo"))).await.is_ok());
    let end = plugin.shut_down().await?;
    end.expect_clean();
    let lines = end.lines();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!((&lines[0]["@level"], &lines[0]["name"]), (&"error".into(), &"part".into()));
    assert!(lines[0]["logSource"].as_str().unwrap().contains("rehearsal.rs:"));
    Ok(())
}

async fn p14_a_delete_action_says_whether_the_duty_is_written_down() -> Result<()> {
    let plugin = Plugin::start(&Start::rehearsal())?;
    let request = |todo| DeleteItemActionExecuteRequest {
        plugin: NAME.to_owned(),
        item: item(todo).into(),
        backup: BACKUP.into(),
    };
    let mut client = plugin.connect().await?.delete();
    client.execute(request("echo")).await?;
    let error = client.execute(request("fail")).await.unwrap_err();
    assert_eq!((error.code(), error.message()), (Code::Unknown, "the duty could not be written down"));
    let request = generated::DeleteItemActionAppliesToRequest { plugin: NAME.to_owned() };
    assert!(client.applies_to(request).await?.into_inner().resource_selector.is_some(), "absent would mean everything");
    plugin.shut_down().await?.expect_clean();
    Ok(())
}

async fn the_volume_snapshotter_speaks_all_its_methods() -> Result<()> {
    let plugin = Plugin::start(&Start::rehearsal())?;
    let mut client = plugin.connect().await?.snapshotter();
    let (plugin_name, text) = (|| NAME.to_owned(), str::to_owned);
    let init = |config: &[(&str, &str)]| VolumeSnapshotterInitRequest {
        plugin: plugin_name(),
        config: config.iter().map(|(k, v)| (text(k), text(v))).collect(),
    };
    client.init(init(&[("region", "here")])).await?;
    assert_eq!(client.init(init(&[])).await.unwrap_err().message(), "the location names no region");
    let create = |iops| CreateVolumeRequest {
        plugin: plugin_name(),
        snapshot_id: text("s"),
        volume_type: text("fast"),
        volume_az: text("z"),
        iops,
    };
    assert_eq!(client.create_volume_from_snapshot(create(0)).await?.get_ref().volume_id, "s z fast None");
    assert_eq!(client.create_volume_from_snapshot(create(9)).await?.get_ref().volume_id, "s z fast Some(9)");
    let info = GetVolumeInfoRequest { plugin: plugin_name(), volume_id: text("v"), volume_az: text("z") };
    let info = client.get_volume_info(info).await?.into_inner();
    assert_eq!((info.volume_type.as_str(), info.iops), ("v z", 100));
    let tags = [(text("a"), text("b"))].into();
    let snapshot = CreateSnapshotRequest { plugin: plugin_name(), volume_id: text("v"), volume_az: text("z"), tags };
    assert_eq!(client.create_snapshot(snapshot).await?.get_ref().snapshot_id, "v z b");
    let delete = DeleteSnapshotRequest { plugin: plugin_name(), snapshot_id: text("s") };
    assert_eq!(client.delete_snapshot(delete).await.unwrap_err().message(), "snapshot s is in use");
    let volume = |spec: &str| format!(r#"{{"kind":"PersistentVolume","apiVersion":"v1","spec":{spec}}}"#).into_bytes();
    let whose = |spec| GetVolumeIdRequest { plugin: plugin_name(), persistent_volume: volume(spec) };
    assert_eq!(client.get_volume_id(whose(r#"{"nfs":{}}"#)).await?.get_ref().volume_id, "", "not ours");
    assert_eq!(client.get_volume_id(whose(r#"{"csi":{"volumeHandle":"h"}}"#)).await?.get_ref().volume_id, "h");
    let set = SetVolumeIdRequest {
        plugin: plugin_name(),
        persistent_volume: volume(r#"{"csi":{"volumeHandle":"h"}}"#),
        volume_id: text("i"),
    };
    let want = volume(r#"{"csi":{"volumeHandle":"i"}}"#);
    assert_eq!(client.set_volume_id(set).await?.get_ref().persistent_volume, want);
    plugin.shut_down().await?.expect_clean();
    Ok(())
}

async fn a_name_that_nobody_has_is_told_by_its_kind() -> Result<()> {
    let plugin = Plugin::start(&Start::rehearsal())?;
    let mut connection = plugin.connect().await?;
    let stranger = || "example.io/stranger".to_owned();
    let backup = v2::BackupItemActionAppliesToRequest { plugin: stranger() };
    let error = connection.backup().applies_to(backup).await.unwrap_err();
    assert_eq!(error.code(), Code::Unknown);
    let want = "BackupItemActionV2 plugin: example.io/stranger was not found or has an invalid name format";
    assert_eq!(error.message(), want);
    let delete = generated::DeleteItemActionAppliesToRequest { plugin: stranger() };
    let error = connection.delete().applies_to(delete).await.unwrap_err();
    assert!(error.message().starts_with("DeleteItemAction plugin: "), "{error}");
    plugin.shut_down().await?.expect_clean();
    Ok(())
}

//! The program that we ship, as it is.

use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context as _, Result};
use velero_plugin::protocol::wire::generated::{
    CreateSnapshotRequest, CreateVolumeRequest, DeleteSnapshotRequest, Empty, GetVolumeIdRequest, GetVolumeInfoRequest,
    SetVolumeIdRequest, VolumeSnapshotterInitRequest,
};

use crate::host::{Plugin, Start};

crate::scenes!(
    a_person_who_starts_the_plugin_reads_what_it_is,
    p01_install_puts_exactly_one_executable_into_the_folder,
    p02_the_shipped_listing_starts_every_velero,
    v08_no_action_is_listed_twice,
    a_snapshot_location_gets_no_snapshot_that_is_not_there,
    an_old_snapshot_location_takes_only_ids_of_its_own_and_names_the_restored_disk,
    the_start_is_cheap_and_touches_nothing,
);

/// Most memory of a plugin that was asked for its list: 30 MB, in KiB.
const RESIDENT_KIB: u64 = 30_000_000 / 1024;
/// From the start of the process to its line on stdout.
const STARTED_IN: Duration = Duration::from_millis(100);
/// Starts that are looked at.
const STARTS: usize = 5;
/// Starts until one has to be fast enough: what others take from two cores says nothing about the plugin, while a wait of
/// its own shows in each.
const MOST_STARTS: usize = 40;

pub(crate) fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_velero-plugin-for-vsphere"))
}

fn run(words: &[&std::ffi::OsStr]) -> Result<Output> {
    Ok(Command::new(program()).env_remove("VELERO_PLUGIN").args(words).output()?)
}

async fn a_person_who_starts_the_plugin_reads_what_it_is() -> Result<()> {
    for words in [&[][..], &["--log-level".as_ref(), "debug".as_ref()], &["install".as_ref()]] {
        let output = run(words)?;
        let said = String::from_utf8(output.stderr)?;
        assert_eq!(output.status.code(), Some(1));
        assert!(said.starts_with("this is a plugin of Velero, started by the Velero server itself"), "{said}");
        assert!(said.contains("velero plugin add"), "{said}");
        assert!(output.stdout.is_empty(), "a host reads stdout");
    }
    Ok(())
}

async fn p01_install_puts_exactly_one_executable_into_the_folder() -> Result<()> {
    let folder = tempfile::tempdir()?;
    for _ in 0..2 {
        // an init container runs again whenever the pod starts anew
        let output = run(&["install".as_ref(), folder.path().as_os_str()])?;
        assert!(output.status.success(), "{output:?}");
        let files: Vec<_> = std::fs::read_dir(folder.path())?.collect::<Result<_, _>>()?;
        assert_eq!(files.len(), 1, "{files:?}");
        assert_eq!(files[0].file_name(), "velero-plugin-for-vsphere");
        assert_eq!(files[0].metadata()?.permissions().mode() & 0o7777, 0o755);
        assert!(std::fs::read(files[0].path())? == std::fs::read(program())?, "the very program");
    }
    Plugin::start(&Start::of(&folder.path().join("velero-plugin-for-vsphere")))?.shut_down().await?.expect_clean();

    let nowhere = run(&["install".as_ref(), folder.path().join("nowhere").as_os_str()])?;
    let said = String::from_utf8(nowhere.stderr)?;
    assert!(nowhere.status.code() == Some(1) && said.contains("nowhere") && said.contains("No such file"), "{said}");
    Ok(())
}

/// V-08: of a name that is there as v1 and as v2, the second runs twice for each claim and the first never.
async fn v08_no_action_is_listed_twice() -> Result<()> {
    let plugin = Plugin::start(&Start::of(program()))?;
    let listed = plugin.connect().await?.lister().list_plugins(Empty {}).await?.into_inner().plugins;
    let names: std::collections::BTreeSet<_> = listed.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names.len(), listed.len(), "{listed:?}");
    assert_eq!(names.len(), 7, "{listed:?}");
    plugin.shut_down().await?.expect_clean();
    Ok(())
}

async fn p02_the_shipped_listing_starts_every_velero() -> Result<()> {
    let known = ["BackupItemActionV2", "RestoreItemActionV2", "DeleteItemAction", "VolumeSnapshotter"];
    let plugin = Plugin::start(&Start::of(program()))?;
    let listed = plugin.connect().await?.lister().list_plugins(Empty {}).await?.into_inner().plugins;
    for one in &listed {
        assert!(known.contains(&one.kind.as_str()), "{} would stop a server before 1.15", one.kind);
        assert_eq!(one.command, program().to_string_lossy());
    }
    plugin.shut_down().await?.expect_clean();
    Ok(())
}

/// An empty id without an error would be a completed snapshot to Velero, and its backup *Completed* with nothing in it.
async fn a_snapshot_location_gets_no_snapshot_that_is_not_there() -> Result<()> {
    let plugin = Plugin::start(&Start::of(program()))?;
    let mut client = plugin.connect().await?.snapshotter();
    let (name, volume) = ("velero.io/vsphere".to_owned(), br#"{"kind":"PersistentVolume","apiVersion":"v1"}"#);
    client.init(VolumeSnapshotterInitRequest { plugin: name.clone(), config: HashMap::new() }).await?;
    let whose = GetVolumeIdRequest { plugin: name.clone(), persistent_volume: volume.to_vec() };
    let id = client.get_volume_id(whose).await?.into_inner().volume_id;
    assert_eq!(id, "", "with an id Velero would snapshot the volume, and the claim's action once more");
    let asked = CreateSnapshotRequest { plugin: name.clone(), volume_id: "disk-1".to_owned(), ..Default::default() };
    let refused = client.create_snapshot(asked).await.unwrap_err();
    assert!(refused.message().contains("disk-1") && refused.message().contains("claim's own action"), "{refused}");
    plugin.shut_down().await?.expect_clean();
    Ok(())
}

/// What Velero asks of it for backups of plugin 1.0.2, as far as that needs no cluster: ids of others are refused before anything is
/// made or deleted.
async fn an_old_snapshot_location_takes_only_ids_of_its_own_and_names_the_restored_disk() -> Result<()> {
    let plugin = Plugin::start(&Start::of(program()).variable("KUBECONFIG", "/nowhere/kubeconfig"))?;
    let mut client = plugin.connect().await?.snapshotter();
    let name = "velero.io/vsphere".to_owned();
    client.init(VolumeSnapshotterInitRequest { plugin: name.clone(), config: HashMap::new() }).await?;
    for id in ["", "snap-0a1b", "ivd:disk", "ivd:disk:snap:more", "pvc:shop/data-0:aXZkOmRpc2s6c25hcA"] {
        let asked = CreateVolumeRequest { plugin: name.clone(), snapshot_id: id.to_owned(), ..Default::default() };
        let refused = client.create_volume_from_snapshot(asked).await.unwrap_err();
        let asked = DeleteSnapshotRequest { plugin: name.clone(), snapshot_id: id.to_owned() };
        for refused in [refused, client.delete_snapshot(asked).await.unwrap_err()] {
            let said = refused.message();
            assert!(
                said.contains(&format!("`{id}`")) && said.contains("1.0.2") && said.contains("InvalidSpec"),
                "{said}"
            );
        }
    }
    let info = GetVolumeInfoRequest { plugin: name.clone(), volume_id: "disk-1".to_owned(), ..Default::default() };
    let info = client.get_volume_info(info).await?.into_inner();
    assert_eq!((info.volume_type.as_str(), info.iops), ("ivd", 100));
    let named = |source: &'static str| SetVolumeIdRequest {
        plugin: name.clone(),
        persistent_volume: format!(
            r#"{{"kind":"PersistentVolume","apiVersion":"v1","metadata":{{"name":"pv-1"}},"spec":{{{source}}}}}"#
        )
        .into_bytes(),
        volume_id: "disk-2".to_owned(),
    };
    let volume = client.set_volume_id(named(r#""csi":{"driver":"d","volumeHandle":"disk-1"}"#)).await?.into_inner();
    let volume = String::from_utf8(volume.persistent_volume)?;
    assert!(volume.contains(r#""csi":{"driver":"d","volumeHandle":"disk-2"}"#), "{volume}");
    let refused = client.set_volume_id(named(r#""hostPath":{"path":"/"}"#)).await.unwrap_err();
    assert!(refused.message().contains("pv-1") && refused.message().contains("no CSI source"), "{refused}");
    plugin.shut_down().await?.expect_clean();
    Ok(())
}

/// Under 100 ms and 30 MB, and nothing is done before it is asked.
async fn the_start_is_cheap_and_touches_nothing() -> Result<()> {
    // a cluster that could only be reached in vain: whoever asked it now would fail, or take his time
    let start = Start::of(program()).variable("KUBECONFIG", "/nowhere/kubeconfig");
    let (mut fastest, mut least_work) = (Duration::MAX, Duration::MAX);
    let mut resident = 0;
    for tries in 1..=MOST_STARTS {
        let plugin = Plugin::start(&start)?;
        plugin.connect().await?.lister().list_plugins(Empty {}).await?;
        fastest = fastest.min(plugin.started_in);
        least_work = least_work.min(plugin.worked()?);
        let status = std::fs::read_to_string(format!("/proc/{}/status", plugin.id()))?;
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).context("VmRSS")?;
        resident = resident.max(line.trim().trim_end_matches(" kB").parse::<u64>()?);
        let end = plugin.shut_down().await?;
        end.expect_clean();
        assert_eq!(end.log, "");
        if tries >= STARTS && fastest < STARTED_IN {
            break;
        }
    }
    eprintln!("start to handshake {fastest:?}, listing included {least_work:?} of CPU (best), {resident} KiB resident");
    assert!(fastest < STARTED_IN, "{fastest:?}");
    assert!(least_work < STARTED_IN, "{least_work:?} of CPU");
    assert!(resident < RESIDENT_KIB, "{resident} KiB");
    Ok(())
}

//! What happens before the first call: who is served, where, and what is told.

use std::os::unix::fs::PermissionsExt;

use anyhow::{Context as _, Result};
use velero_plugin::protocol::wire::generated::Empty;

use crate::host::{Plugin, Start};
use crate::rehearsal::NAME;

crate::scenes!(
    p05_the_first_and_only_line_on_stdout_says_where_to_connect,
    p02_the_listing_holds_kinds_that_every_velero_knows_and_our_own_path,
    a_command_line_of_any_velero_starts_the_plugin,
    a_host_that_cannot_be_served_is_told_why,
    the_health_question_of_other_hosts_is_answered,
);

async fn p05_the_first_and_only_line_on_stdout_says_where_to_connect() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let plugin = Plugin::start(&Start::rehearsal().variable("PLUGIN_UNIX_SOCKET_DIR", folder.path()))?;
    let fields: Vec<&str> = plugin.handshake.split('|').collect();
    assert_eq!((fields.len(), &fields[..3], &fields[4..]), (6, &["1", "2", "unix"][..], &["grpc", ""][..]));
    let socket = plugin.socket();
    assert_eq!(socket.parent(), Some(folder.path()));
    assert_eq!(std::fs::metadata(&socket)?.permissions().mode() & 0o777, 0o600, "for our user alone");
    plugin.shut_down().await?.expect_clean();
    assert_eq!(std::fs::read_dir(folder.path())?.count(), 0, "nothing is left in the folder");
    Ok(())
}

async fn p02_the_listing_holds_kinds_that_every_velero_knows_and_our_own_path() -> Result<()> {
    let start = Start::rehearsal();
    let plugin = Plugin::start(&start)?;
    let listed = plugin.connect().await?.lister().list_plugins(Empty {}).await?.into_inner().plugins;
    let kinds: Vec<&str> = listed.iter().map(|p| p.kind.as_str()).collect();
    assert_eq!(kinds, ["BackupItemActionV2", "RestoreItemActionV2", "DeleteItemAction", "VolumeSnapshotter"]);
    for plugin in &listed {
        assert_eq!(plugin.name, NAME);
        assert_eq!(plugin.command, start.program.to_string_lossy(), "what the server starts again");
    }
    plugin.shut_down().await?.expect_clean();
    Ok(())
}

async fn a_command_line_of_any_velero_starts_the_plugin() -> Result<()> {
    let lines = [
        "--log-level debug --features EnableCSI,Other",
        "--features=EnableCSI --uploader-type=kopia --client-qps=100 --log-level=debug -n elsewhere",
        "--log-level=debug --features --wrong=--namespace -- x=y= --features EnableCSI",
    ];
    for line in lines {
        let plugin = Plugin::start(&Start::rehearsal().arguments(line))?;
        let end = plugin.shut_down().await?;
        end.expect_clean();
        let lines = end.lines();
        let said = lines.iter().find(|l| l["@message"] == "rehearsal").context(line)?;
        assert_eq!(said["csi"], "true", "{line}");
        assert_eq!(said["host.namespace"], if line.contains("elsewhere") { "elsewhere" } else { "velero" });
    }
    Ok(())
}

async fn a_host_that_cannot_be_served_is_told_why() -> Result<()> {
    let cases = [
        ("PLUGIN_PROTOCOL_VERSIONS", "1,3", "versions 1,3"),
        ("PLUGIN_CLIENT_CERT", "-----BEGIN CERTIFICATE-----", "TLS"),
        ("VELERO_PLUGIN", "hola", "plugin of Velero"),
    ];
    for (name, value, want) in cases {
        let output = Start::rehearsal().variable(name, value).command().output()?;
        let said = String::from_utf8(output.stderr)?;
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(want), "{said}");
        assert!(output.stdout.is_empty());
    }
    Ok(())
}

async fn the_health_question_of_other_hosts_is_answered() -> Result<()> {
    use velero_plugin::protocol::wire::health::health_client::HealthClient;
    use velero_plugin::protocol::wire::health::{HealthCheckRequest, health_check_response::ServingStatus};

    let plugin = Plugin::start(&Start::rehearsal())?;
    let mut health = HealthClient::new(plugin.connect().await?.0);
    for service in ["", "plugin"] {
        let request = || HealthCheckRequest { service: service.to_owned() };
        assert_eq!(health.check(request()).await?.get_ref().status(), ServingStatus::Serving);
        let first = health.watch(request()).await?.into_inner().message().await?.context("an answer")?;
        assert_eq!(first.status(), ServingStatus::Serving);
    }
    let stranger = health.check(HealthCheckRequest { service: "other".to_owned() }).await.unwrap_err();
    assert_eq!(stranger.code(), tonic::Code::NotFound);
    plugin.shut_down().await?.expect_clean();
    Ok(())
}

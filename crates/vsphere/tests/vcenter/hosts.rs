//! On which hosts machines run: of many at once, where they are now, and to the last page.

use std::collections::HashMap;

use serde_json::{Value, json};
use vsphere::{Cause, Fault, FaultKind};

use crate::double::Double;
use crate::recorded::{begin, ok};
use crate::wire::{Answer, Wire};

const READ: &str = "RetrievePropertiesEx";

fn texts(machines: &Value, field: &str) -> Vec<String> {
    machines.as_array().unwrap().iter().map(|machine| machine[field].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn the_host_of_every_machine_is_one_question_and_a_move_shows_at_once() {
    let double = Double::start().await;
    let vcenter = double.client();
    let shown = double.tell("GET", "/machines", None).await;
    let mut machines = Vec::new();
    for uuid in texts(&shown, "uuid") {
        machines.append(&mut vcenter.machine_ids_with_uuid(&uuid).await.unwrap());
    }
    assert_eq!(machines, texts(&shown, "id"));

    let before = double.calls(READ).await;
    let hosts = vcenter.hosts_of(&machines).await.unwrap();
    assert_eq!(double.calls(READ).await, before + 1);
    let [a, b] = [&hosts[&machines[0]], &hosts[&machines[1]]];
    let names = vcenter.host_names(&[a.clone(), b.clone()]).await.unwrap();
    assert_eq!([names[a].clone(), names[b].clone()].to_vec(), texts(&shown, "host"));

    double.tell("POST", "/machines", Some(json!({"vm": "node-b", "host": names[a]}))).await;
    assert_eq!(vcenter.hosts_of(&machines).await.unwrap()[&machines[1]], *a, "it has moved");
    assert_eq!(vcenter.hosts_of(&[]).await.unwrap(), HashMap::new());
    assert_eq!(vcenter.machine_ids_with_uuid("42303f6c-0d4b-9b3c-3f2e-1a2b3c4d5e6f").await.unwrap(), [""; 0]);
    let gone = vcenter.hosts_of(&[machines[0].clone(), "vm-0".to_owned()]).await.unwrap_err();
    assert!(
        matches!(gone.cause(), Cause::Fault(Fault { kind: FaultKind::ManagedObjectNotFound, .. })),
        "{}",
        gone.describe()
    );
}

/// A page as a real server writes it.
fn page(method: &str, objects: &str, token: &str) -> Answer {
    ok(&format!(
        r#"<e:Envelope xmlns:e="http://schemas.xmlsoap.org/soap/envelope/" xmlns:x="http://www.w3.org/2001/XMLSchema-instance">
        <e:Body><{method}Response xmlns="urn:vim25"><returnval>{token}{objects}</returnval></{method}Response></e:Body></e:Envelope>"#
    ))
}

fn runs_on(machine: &str, host: &str) -> String {
    format!(
        r#"<objects><obj type="VirtualMachine">{machine}</obj><propSet><name>runtime.host</name>
        <val type="HostSystem" x:type="ManagedObjectReference">{host}</val></propSet></objects>"#
    )
}

#[tokio::test]
async fn an_answer_in_pages_is_read_to_its_end_and_what_is_hidden_is_left_out() {
    let hidden = "<objects><obj type=\"VirtualMachine\">vm-3</obj><missingSet><path>runtime.host</path><fault>
        <fault x:type=\"NoPermission\"/><localizedMessage/></fault></missingSet></objects>";
    let wire = Wire::start(move |request| {
        begin(request).unwrap_or_else(|| match request.body.contains("<token>1</token>") {
            false => page(READ, &runs_on("vm-1", "host-7"), "<token>1</token>"),
            true => page("ContinueRetrievePropertiesEx", &format!("{hidden}{}", runs_on("vm-2", "host-8")), ""),
        })
    })
    .await;
    let machines = ["vm-1", "vm-2", "vm-3"].map(str::to_owned);
    let hosts = wire.client().hosts_of(&machines).await.unwrap();
    let want = [("vm-1", "host-7"), ("vm-2", "host-8")].map(|(machine, host)| (machine.to_owned(), host.to_owned()));
    assert_eq!(hosts, HashMap::from(want));
    let asked = &wire.received(READ)[0].body;
    assert!(asked.contains("<type>VirtualMachine</type><pathSet>runtime.host</pathSet>"), "{asked}");
}

#[tokio::test]
async fn a_disk_for_all_nodes_lies_where_all_their_hosts_can_reach_it() {
    let mounts = |host: &str, datastores: &[&str]| {
        let all = datastores
            .iter()
            .map(|id| format!(r#"<ManagedObjectReference type="Datastore">{id}</ManagedObjectReference>"#));
        format!(
            r#"<objects><obj type="HostSystem">{host}</obj><propSet><name>datastore</name>
            <val x:type="ArrayOfManagedObjectReference">{}</val></propSet></objects>"#,
            all.collect::<String>()
        )
    };
    let is_of_type = |id: &str, kind: &str| {
        format!(
            r#"<objects><obj type="Datastore">{id}</obj><propSet><name>summary.type</name><val x:type="xsd:string">{kind}</val></propSet></objects>"#
        )
    };
    let wire = Wire::start(move |request| {
        begin(request).unwrap_or_else(|| {
            let objects = match request.body.contains("<type>HostSystem</type>") {
                true => mounts("host-1", &["ds-4", "ds-1", "ds-2"]) + &mounts("host-2", &["ds-2", "ds-3", "ds-4"]),
                false => is_of_type("ds-2", "vsan") + &is_of_type("ds-4", "NFS41"),
            };
            page(READ, &objects, "")
        })
    })
    .await;
    let vcenter = wire.client();
    let shared = async |hosts: &[&str]| {
        let hosts: Vec<_> = hosts.iter().map(|host| (*host).to_owned()).collect();
        vcenter.shared_datastores(&hosts).await.unwrap()
    };
    assert_eq!(shared(&["host-1", "host-2"]).await, ["ds-2"], "CNS takes no volume on NFS 4.1");
    assert_eq!(shared(&["host-1", "host-9"]).await, [""; 0], "a host that may not be read shares nothing");
    assert_eq!(shared(&[]).await, [""; 0]);

    let double = Double::start().await;
    let vcenter = double.client();
    let mut machines = Vec::new();
    for uuid in texts(&double.tell("GET", "/machines", None).await, "uuid") {
        machines.append(&mut vcenter.machine_ids_with_uuid(&uuid).await.unwrap());
    }
    let hosts: Vec<_> = vcenter.hosts_of(&machines).await.unwrap().into_values().collect();
    assert!(!vcenter.shared_datastores(&hosts).await.unwrap().is_empty(), "the lab's hosts share one");
}

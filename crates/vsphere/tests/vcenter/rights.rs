//! Asking what our account may do, before anything is refused; and what time it is at vCenter.

use serde_json::json;
use vsphere::Entity;

use crate::double::Double;

#[tokio::test]
async fn a_lacking_privilege_is_named_on_the_object_where_it_is_lacking() {
    let double = Double::start().await;
    let vcenter = double.client();
    let disk = double.disk(&vcenter).await;
    let datastore = vcenter.retrieve_disk(&disk).await.unwrap().datastore;
    let needed = ["Datastore.FileManagement", "Datastore.AllocateSpace"];
    let on_datastore = Entity::Datastore(datastore.clone());
    assert_eq!(vcenter.lacking(&on_datastore, &needed).await.unwrap(), Vec::<String>::new());

    let lacks = json!([{"privilege": needed[0], "entity": datastore}, {"privilege": "Global.Licenses"}]);
    double.tell("POST", "/lacks", Some(lacks)).await;
    assert_eq!(vcenter.lacking(&on_datastore, &needed).await.unwrap(), [needed[0]]);
    assert_eq!(vcenter.lacking(&Entity::Root, &["Global.Licenses", needed[0]]).await.unwrap(), ["Global.Licenses"]);
    // the privileges asked for are those of the session that asks, also after it was renewed
    double.tell("POST", "/sessions/expire", None).await;
    assert_eq!(vcenter.lacking(&on_datastore, &needed).await.unwrap(), [needed[0]]);

    let gone = vcenter.lacking(&Entity::Machine("vm-4711".to_owned()), &needed).await.unwrap_err();
    assert!(gone.describe().contains("ManagedObjectNotFound"), "{}", gone.describe());
    let names = vcenter.datastore_names(std::slice::from_ref(&datastore)).await.unwrap();
    assert!(names[&datastore].starts_with("LocalDS"), "{names:?}");
    vcenter.logout().await;
}

#[tokio::test]
async fn the_clock_of_vcenter_is_read() {
    let double = Double::start().await;
    let vcenter = double.client();
    let (before, there) = (jiff::Timestamp::now(), vcenter.current_time().await.unwrap());
    let apart = there.duration_since(before).abs();
    assert!(apart.as_secs() < 60, "it runs on the same machine: {apart}");
    vcenter.logout().await;
}

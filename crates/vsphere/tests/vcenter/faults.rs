//! Faults by which a whole vCenter is ill, seen through every call.

use vsphere::{ReasonKind, Recovery};

use crate::double::{Double, MINUTE, fault, volume};

#[tokio::test]
async fn a_vcenter_whose_services_restart_is_worth_another_try() {
    let double = Double::start().await;
    let vcenter = double.client();
    let disk = double.disk(&vcenter).await;
    double.rule(serde_json::json!({"method": "*", "httpStatus": 503})).await;
    let errors = [
        vcenter.retrieve_disk(&disk).await.unwrap_err(),
        vcenter.query_volume(&disk).await.unwrap_err(),
        vcenter.about().await.unwrap_err(),
        double.client().log_in().await.unwrap_err(),
    ];
    for error in errors {
        assert_eq!((error.reason_kind(), error.recovery()), (ReasonKind::Unreachable, Recovery::Retry), "{error:?}");
    }
    double.tell("DELETE", "/faults", None).await;
    vcenter.retrieve_disk(&disk).await.unwrap();
}

#[tokio::test]
async fn a_call_that_the_server_does_not_know_is_said_to_be_unsupported() {
    let double = Double::start().await;
    let vcenter = double.client();
    for kind in ["MethodNotFound", "NotImplemented", "NotSupported"] {
        double.rule(fault("CnsQueryVolume", "call", kind, 1)).await;
        let error = vcenter.create_volume(&volume("pvc-1", 1 << 20), MINUTE).await.unwrap_err();
        assert_eq!((error.reason_kind(), error.recovery()), (ReasonKind::Unsupported, Recovery::GiveUp), "{error:?}");
    }
}

//! Which certificates are accepted, and what is said about the others. Every refusal comes before a password is sent.

use vsphere::{Cause, ReasonKind, Recovery, Thumbprint, Trust, Vcenter};

use crate::double::{Double, Identity};

async fn log_in(double: &Double, trust: Trust) -> Result<(), vsphere::Error> {
    let mut config = double.config();
    config.trust = trust;
    Vcenter::new(config)?.log_in().await
}

#[tokio::test]
async fn an_untrusted_certificate_is_refused_with_a_way_out() {
    let double = Double::start().await;
    let sha1 = Thumbprint::sha1_of(double.identity.certificate.der());
    for trust in [Trust::SystemRoots, Trust::CaFile(Identity::new().ca)] {
        let error = log_in(&double, trust.clone()).await.unwrap_err();
        assert!(matches!(error.cause(), Cause::CertificateUntrusted { .. }), "{trust:?}: {error:?}");
        assert_eq!((error.reason_kind(), error.recovery()), (ReasonKind::CertificateUntrusted, Recovery::GiveUp));
        let text = error.describe();
        for part in ["ca-file", "thumbprint", "insecure-flag", &sha1.to_string()] {
            assert!(text.contains(part), "{text}");
        }
    }
    assert_eq!(double.calls("Login").await, 0, "no password was sent");
}

#[tokio::test]
async fn a_thumbprint_of_either_kind_is_enough_and_a_wrong_one_is_not() {
    let double = Double::start().await;
    let der = double.identity.certificate.der();
    log_in(&double, Trust::Thumbprint(Thumbprint::sha1_of(der))).await.unwrap();
    log_in(&double, Trust::Thumbprint(Thumbprint::sha256_of(der))).await.unwrap();
    let logins = double.calls("Login").await;
    for wrong in [Thumbprint::sha1_of(b"other"), Thumbprint::sha256_of(b"other")] {
        let error = log_in(&double, Trust::Thumbprint(wrong)).await.unwrap_err();
        assert_eq!(error.reason_kind(), ReasonKind::CertificateUntrusted, "{error:?}");
        let (text, sha1) = (error.describe(), Thumbprint::sha1_of(der).to_string());
        for part in ["`thumbprint` that is set is another one than the server's", "in the vCenter Secret", &sha1] {
            assert!(text.contains(part), "{text}");
        }
    }
    assert_eq!(double.calls("Login").await, logins);
}

#[tokio::test]
async fn a_bundle_may_hold_other_cas_or_the_servers_own_certificate() {
    let double = Double::start().await;
    log_in(&double, Trust::CaFile(format!("{}{}", Identity::new().ca, double.identity.ca))).await.unwrap();
    log_in(&double, Trust::CaFile(double.identity.certificate.pem())).await.unwrap();
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused_even_from_the_right_ca() {
    let double = Double::start().await;
    let mut config = double.config();
    config.host = "127.0.0.2".to_owned(); // loopback too, but not in the certificate
    let forwarded = tokio::net::TcpListener::bind(("127.0.0.2", 0)).await.unwrap();
    config.port = forwarded.local_addr().unwrap().port();
    let target = double.address;
    tokio::spawn(async move {
        let (mut from, _) = forwarded.accept().await.unwrap();
        let mut to = tokio::net::TcpStream::connect(target).await.unwrap();
        let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
    });
    let error = Vcenter::new(config).unwrap().log_in().await.unwrap_err();
    assert_eq!(error.reason_kind(), ReasonKind::CertificateUntrusted, "{error:?}");
}

#[tokio::test]
async fn insecure_accepts_any_certificate_when_asked() {
    let double = Double::start().await;
    log_in(&double, Trust::Insecure).await.unwrap();
}

#[tokio::test]
async fn ipv6_literals_work_with_and_without_brackets() {
    let double = Double::start_on_ipv6().await;
    for host in ["::1", "[::1]"] {
        let mut config = double.config();
        config.host = host.to_owned();
        let vcenter = Vcenter::new(config).unwrap();
        vcenter.log_in().await.unwrap();
        vcenter.logout().await;
    }
}

#[tokio::test]
async fn vddk_gets_the_thumbprint_of_the_certificate_that_was_verified() {
    let double = Double::start().await;
    let want = Thumbprint::sha1_of(double.identity.certificate.der()).to_string();
    assert_eq!(double.client().server_thumbprint().await.unwrap(), want);
    let mut config = double.config();
    config.trust = Trust::CaFile(Identity::new().ca);
    let error = Vcenter::new(config).unwrap().server_thumbprint().await.unwrap_err();
    assert_eq!(error.reason_kind(), ReasonKind::CertificateUntrusted, "never over an unverified connection");
}

#[tokio::test]
async fn a_configuration_that_cannot_be_used_says_so_before_connecting() {
    let double = Double::start().await;
    let cases = [("no pem", "holds no certificate"), ("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----", "")];
    for (pem, part) in cases {
        let mut config = double.config();
        config.trust = Trust::CaFile(pem.to_owned());
        let error = Vcenter::new(config).unwrap_err();
        assert_eq!(error.reason_kind(), ReasonKind::BadConfig);
        assert!(error.describe().contains(part), "{}", error.describe());
    }
    for host in ["", "a b", "host/path", "user@host", "host?x"] {
        let mut config = double.config();
        config.host = host.to_owned();
        assert_eq!(Vcenter::new(config).unwrap_err().reason_kind(), ReasonKind::BadConfig, "{host}");
    }
}

#[tokio::test]
async fn a_vcenter_that_is_not_there_is_named_with_its_port() {
    let mut double = Double::start().await;
    double.stop();
    let error = double.client().log_in().await.unwrap_err();
    assert_eq!((error.reason_kind(), error.recovery()), (ReasonKind::Unreachable, Recovery::Retry));
    let text = error.describe();
    assert!(text.contains(&double.address.to_string()) && text.contains("refused"), "{text}");
}

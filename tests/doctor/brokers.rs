//! What is broken with brokers and certificates.

use std::path::Path;

use jiff::SignedDuration;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use crate::case::{all, case, find};
use crate::mosquitto::Mosquitto;
use crate::setup::Setup;

#[tokio::test]
async fn brokers() {
    all(vec![
        case(
            "a broker that is down",
            "mqtt.1 mqtt.relay",
            "fail",
            "connection refused",
            "sudo systemctl start mosquitto",
            |setup| setup.broker.kill(),
        ),
        case(
            "a broker that wants a password",
            "mqtt.1 mqtt.relay",
            "fail",
            "not authorized",
            "mqtt://USER:PASSWORD@HOST:PORT",
            |setup| setup.broker = Mosquitto::start_with("allow_anonymous false\n"),
        ),
        case(
            "a broker that speaks no TLS",
            "mqtt.relay",
            "fail",
            "closed the connection",
            "openssl s_client -connect",
            |setup| {
                let url = setup.broker.url().replace("mqtt://", "mqtts://");
                setup.set(
                    "[relay]\nurl = \"{broker}\"",
                    &format!("[relay]\nurl = \"{url}\""),
                );
            },
        ),
        case(
            "a certificate's file that is not there",
            "mqtt.files mqtt.relay",
            "fail",
            "No such file",
            "ls -l /nonexistent/ca.pem",
            |setup| secured(setup, "/nonexistent/ca.pem"),
        ),
        case(
            "a broker whose authority nobody trusts",
            "mqtt.relay",
            "fail",
            "certificate not trusted",
            "ca = ",
            |setup| {
                let folder = setup.path("tls");
                issue(&folder, 2060);
                issue(&setup.path("other"), 2060);
                setup.broker = tls(&folder);
                let ca = setup.path("other/ca.pem").display().to_string();
                secured(setup, &ca);
            },
        ),
        case(
            "a broker whose certificate has ended",
            "mqtt.relay",
            "fail",
            "xpired",
            "-dates",
            |setup| {
                let folder = setup.path("tls");
                issue(&folder, 2020);
                setup.broker = tls(&folder);
                let ca = setup.path("tls/ca.pem").display().to_string();
                secured(setup, &ca);
            },
        ),
        case(
            "a certificate of our own that has ended",
            "mqtt.files",
            "fail",
            "has ended on 2020-03-04",
            "openssl x509",
            |setup| {
                let folder = setup.path("tls");
                issue(&folder, 2060);
                setup.broker = tls(&folder);
                issue(&setup.path("own"), 2020);
                let own = |file: &str| setup.path("own").join(file).display().to_string();
                let (certificate, key) = (own("broker.pem"), own("broker.key"));
                let ca = setup.path("tls/ca.pem").display().to_string();
                secured(setup, &ca);
                setup.mode("own/broker.key", 0o600);
                setup.set(
                    "[ssm]",
                    &format!("certificate = \"{certificate}\"\nkey = \"{key}\"\n[ssm]"),
                );
            },
        ),
        case(
            "a private key for everybody's eyes",
            "mqtt.files",
            "warn",
            "others than its owner may read the private key",
            "sudo chmod 600",
            |setup| {
                let folder = setup.path("tls");
                issue(&folder, 2060);
                setup.broker = tls(&folder);
                let own = |file: &str| setup.path("tls").join(file).display().to_string();
                let (ca, certificate, key) = (own("ca.pem"), own("broker.pem"), own("broker.key"));
                secured(setup, &ca);
                setup.mode("tls/broker.key", 0o644);
                setup.set(
                    "[ssm]",
                    &format!("certificate = \"{certificate}\"\nkey = \"{key}\"\n[ssm]"),
                );
            },
        ),
    ])
    .await;
}

#[tokio::test]
async fn a_certificate_that_soon_ends_is_told_before_it_does() {
    let mut setup = Setup::new().await;
    let folder = setup.path("tls");
    issue_until(
        &folder,
        jiff::Timestamp::now() + SignedDuration::from_hours(10 * 24),
    );
    setup.broker = tls(&folder);
    let ca = setup.path("tls/ca.pem").display().to_string();
    secured(&mut setup, &ca);
    let (_, found) = setup.examine().await;
    let check = find(&found, "mqtt.relay");
    assert_eq!(check["state"], "warn", "{check:#}");
    let says = check["says"].as_str().unwrap_or_default();
    assert!(
        says.contains("a certificate that it shows ends in 9 d"),
        "{says}"
    );
}

/// Has the relay go by TLS, and trust this file.
fn secured(setup: &mut Setup, ca: &str) {
    let url = setup
        .broker
        .url()
        .replace("mqtt://127.0.0.1", "mqtts://localhost");
    let relay = format!("[relay]\nurl = \"{url}\"\nca = \"{ca}\"");
    setup.set("[relay]\nurl = \"{broker}\"", &relay);
    // The camera source's broker is another one, which speaks plainly.
    setup.set(
        "[[cameras.source]]\nkind = \"frigate\"\nurl = \"{broker}\"\n",
        "",
    );
}

/// A broker with TLS, of a certificate that lies in a folder.
fn tls(folder: &Path) -> Mosquitto {
    let folder = folder.display();
    Mosquitto::start_with(&format!(
        "allow_anonymous true\ncertfile {folder}/broker.pem\nkeyfile {folder}/broker.key\nuser root\n"
    ))
}

/// An authority and a certificate of its for `localhost`, good until the fourth of March of a year.
fn issue(folder: &Path, year: i32) {
    let until = format!("{year}-03-04T00:00:00Z").parse().expect("a time");
    issue_until(folder, until);
}

fn issue_until(folder: &Path, until: jiff::Timestamp) {
    std::fs::create_dir_all(folder).expect("a folder");
    let write = |file: &str, text: String| std::fs::write(folder.join(file), text).expect("a file");
    let key = KeyPair::generate().expect("a key");
    let mut authority = CertificateParams::new(Vec::new()).expect("no names");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let signed = authority.self_signed(&key).expect("a certificate");
    write("ca.pem", signed.pem());
    let issuer = Issuer::new(authority, key);
    let key = KeyPair::generate().expect("a key");
    let mut own = CertificateParams::new(["localhost".to_owned()]).expect("a name");
    own.not_before = rcgen::date_time_ymd(2019, 1, 1);
    let day = until.to_zoned(jiff::tz::TimeZone::UTC);
    let (month, date) = (day.month().unsigned_abs(), day.day().unsigned_abs());
    own.not_after = rcgen::date_time_ymd(day.year().into(), month, date);
    let signed = own.signed_by(&key, &issuer).expect("a certificate");
    write("broker.pem", signed.pem());
    write("broker.key", key.serialize_pem());
}

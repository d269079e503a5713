//! `sideline doctor --bundle`: whole, readable by its owner alone, and without a secret wherever one was planted.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::setup::{Setup, shown};

/// Planted everywhere; none may leave the machine.
const SECRETS: [&str; 10] = [
    "br0ker-s3cret",
    "upstr3am-s3cret",
    "secret-key-of-the-field",
    "0paque",
    "a-token-of-the-field",
    "ASIAFIELD",
    "AKIAIOSFODNN7EXAMPLE",
    "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    "pl4nted-in-a-check",
    "MHcCAQEEIplanted",
];

const JOURNAL: &str = "#!/bin/sh
cat <<'END'
mqtt://viewer:br0ker-s3cret@h: connection refused
the program said {\"SecretAccessKey\": \"wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY\"}
signed by AKIAIOSFODNN7EXAMPLE with a-token-of-the-field
AWS_SECRET_ACCESS_KEY=secret-key-of-the-field ASIAFIELD
-----BEGIN EC PRIVATE KEY-----
MHcCAQEEIplanted
-----END EC PRIVATE KEY-----
NVRM: Xid (PCI:0000:01:00): 79, pid='<unknown>'
END
";

/// The members of a bundle.
fn unpack(file: &Path) -> BTreeMap<String, String> {
    let zipped = File::open(file).expect("it was written");
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(zipped));
    let entries = archive.entries().expect("an archive");
    let member = |entry: std::io::Result<tar::Entry<'_, _>>| {
        let mut entry = entry.expect("a whole archive");
        let path = shown(&entry.path().expect("a path"));
        let name = path
            .strip_prefix("sideline/")
            .expect("all in one folder")
            .to_owned();
        let mut text = String::new();
        entry.read_to_string(&mut text).expect("a text");
        (name, text)
    };
    entries.map(member).collect()
}

#[tokio::test]
async fn a_bundle_holds_everything_but_secrets() {
    let mut setup = Setup::new().await;
    let broker = setup.broker.url().replace("mqtt://", "");
    setup.set(
        "kind = \"frigate\"\nurl = \"{broker}\"",
        &format!("kind = \"frigate\"\nurl = \"mqtt://viewer:br0ker-s3cret@{broker}\""),
    );
    setup.set(
        "[relay]\nurl = \"{broker}\"",
        &format!("[relay]\nurl = \"mqtt://node:upstr3am-s3cret@{broker}\""),
    );
    setup.config +=
        "[[check]]\nname = \"c\"\ncommand = [\"/bin/true\", \"--password=pl4nted-in-a-check\"]\n";
    setup.program("journalctl", JOURNAL);
    setup.write(
        "state/settings.json",
        "{\"version\":1,\"good\":[{\"name\":\"/a\",\"version\":1,\"value\":\"# 0paque\"}],\"trial\":null,\"refused\":[]}",
    );
    setup.unit(
        "SubState=running",
        "Environment=AWS_SESSION_TOKEN=a-token-of-the-field\nSubState=running",
    );
    setup.write(
        "root/units/sideline",
        "[Service]\nEnvironment=AWS_SECRET_ACCESS_KEY=secret-key-of-the-field\n",
    );
    let _agent = setup.start_agent().await;

    let file = setup.path("node.tar.gz");
    let name = shown(&file);
    let (_, out, err) = setup.doctor(&["--json", "--bundle", &name]).await;
    assert!(err.contains("without secrets"), "{err}");
    assert!(
        serde_json::from_str::<serde_json::Value>(&out).is_ok(),
        "{out}"
    );
    let mode = fs::metadata(&file)
        .expect("it was written")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let members = unpack(&file);
    let names: Vec<&str> = members.keys().map(String::as_str).collect();
    let expected = "config.toml doctor.json inventory.json journal.txt kernel.txt outbox.json settings.json \
                    status.json unit-properties.txt unit.txt versions.json";
    assert_eq!(names.join(" "), expected);
    for (name, text) in &members {
        for secret in SECRETS {
            assert!(!text.contains(secret), "{secret} is in {name}:\n{text}");
        }
        assert!(!text.starts_with("not to be had"), "{name}: {text}");
    }
    for (name, part) in [
        ("config.toml", "site = \"north\""),
        ("doctor.json", "\"aws.cloudwatch\""),
        ("status.json", "\"verdict\""),
        ("journal.txt", "NVRM: Xid (PCI:0000:01:00): 79"),
        ("inventory.json", "GPU-00000001-5ced-4e11-8e5c-000000000001"),
        ("versions.json", "550.90.07"),
        ("versions.json", "3.3.1345.0"),
        ("versions.json", "Amazon ECS Agent - v1.105.1"),
        ("unit.txt", "[Service]"),
        ("settings.json", "\"8 bytes\""),
    ] {
        assert!(
            members[name].contains(part),
            "no {part} in {name}:\n{}",
            members[name]
        );
    }

    let (status, _, err) = setup.doctor(&["--bundle", &name]).await;
    assert_eq!(status, 3);
    assert_eq!(
        err,
        format!("sideline: {name} is there already; name another file\n")
    );
}

#[tokio::test]
async fn what_cannot_be_had_says_why() {
    let mut setup = Setup::new().await;
    setup.remove("root/usr");
    setup.config = "[relay]\nurl = \"mqtts://n:upstr3am-s3cret@h\"\nnonsense = 1\n".to_owned();
    let file = setup.path("node.tar.gz");
    let (status, ..) = setup.doctor(&["--bundle", &shown(&file)]).await;
    assert_eq!(status, 1);
    let members = unpack(&file);
    assert_eq!(
        members["journal.txt"],
        "not to be had: there is no journalctl\n"
    );
    assert!(
        members["status.json"].starts_with("not to be had: "),
        "{}",
        members["status.json"]
    );
    assert!(
        members["config.toml"].contains("unknown key \"nonsense\""),
        "{}",
        members["config.toml"]
    );
    assert!(
        members
            .values()
            .all(|text| !text.contains("upstr3am-s3cret"))
    );
}

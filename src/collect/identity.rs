//! Who this node is: to the cloud, to the broker, and to the ECS agent that runs beside it.

pub mod ecs;
pub mod watch;

use std::io::Read;
use std::path::Path;

use serde_json::Value;

use super::host;
use crate::config::Config;

/// A registration is some 70 bytes; more than this is something else.
const LONGEST_FILE: u64 = 64 * 1024;

/// CloudWatch takes 255 characters in a dimension, ECS and MQTT more.
const LONGEST_ID: usize = 128;

/// Who this node is. Read once, at the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Name of the node: a dimension of its metrics and a level of its topics, printable ASCII without `/`, `+`, `#`.
    pub node_id: String,
    /// The host name.
    pub hostname: String,
    /// What tells this boot from every other.
    pub boot: String,
    /// The AWS Region, where one is known.
    pub region: Option<String>,
    /// The SSM managed-instance id (`mi-…`), where the node is registered.
    pub managed_instance: Option<String>,
}

/// What the machine says of itself.
struct Machine {
    hostname: String,
    boot: String,
    machine_id: Option<String>,
}

/// Reads who this node is, and returns it with what is wrong and worth a warning.
///
/// `env` looks up an environment variable. The name of the node is `node.id`, else the managed-instance id, else the
/// host name, else the machine id. The Region is `aws.region`, else that of `AWS_REGION`, `AWS_DEFAULT_REGION` or the
/// registration.
#[must_use]
pub fn read(config: &Config, env: impl Fn(&str) -> Option<String>) -> (Identity, Vec<String>) {
    let machine_id = std::fs::read_to_string("/etc/machine-id").ok();
    let machine = Machine {
        hostname: host::hostname(),
        boot: host::boot_id(),
        machine_id: machine_id.map(|id| id.trim().to_owned()),
    };
    assemble(config, env, machine)
}

fn assemble(
    config: &Config,
    env: impl Fn(&str) -> Option<String>,
    machine: Machine,
) -> (Identity, Vec<String>) {
    let mut problems = Vec::new();
    let registration = registration(&config.aws.registration).unwrap_or_else(|problem| {
        problems.push(problem);
        Registration::default()
    });
    problems.extend(registration.problem);
    let managed_instance = registration.managed_instance;

    let mut region = None;
    for (source, candidate) in [
        ("aws.region", Some(config.aws.region.clone())),
        ("AWS_REGION", env("AWS_REGION")),
        ("AWS_DEFAULT_REGION", env("AWS_DEFAULT_REGION")),
        ("the SSM registration", registration.region),
    ] {
        let Some(candidate) = candidate.filter(|text| !text.is_empty() && region.is_none()) else {
            continue;
        };
        if is_region(&candidate) {
            region = Some(candidate);
        } else {
            problems.push(format!(
                "{source} names no Region: {}; right would be eu-west-1",
                shorten(&candidate)
            ));
        }
    }

    let hostname = Some(machine.hostname.as_str())
        .filter(|name| !name.is_empty() && *name != "localhost")
        .or(machine.machine_id.as_deref())
        .unwrap_or("localhost");
    let wanted = config.node.id.as_deref().filter(|id| !id.trim().is_empty());
    let name = wanted.or(managed_instance.as_deref()).unwrap_or(hostname);
    let node_id = sanitise(name);
    if wanted.is_some_and(|wanted| wanted != node_id) {
        problems.push(format!(
            "node.id must be at most {LONGEST_ID} printable ASCII characters without /, + and #; \
             this node is called {node_id}"
        ));
    }
    let identity = Identity {
        node_id,
        hostname: machine.hostname,
        boot: machine.boot,
        region,
        managed_instance,
    };
    (identity, problems)
}

/// What the SSM agent has written down of this node.
#[derive(Debug, Default, PartialEq)]
struct Registration {
    managed_instance: Option<String>,
    region: Option<String>,
    problem: Option<String>,
}

/// Reads `{"ManagedInstanceID":"mi-…","Region":"…"}`; a node without the file is not registered, which is fine.
fn registration(path: &Path) -> Result<Registration, String> {
    let shown = path.display();
    let wrong = |why: &str| format!("the SSM registration {shown} {why}");
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(Registration::default());
        }
        Err(error) => return Err(wrong(&format!("can't be read: {error}"))),
    };
    // Opening a pipe would wait for its writer.
    if !metadata.is_file() {
        return Err(wrong("is not a file"));
    }
    let mut text = Vec::new();
    let file = std::fs::File::open(path);
    file.and_then(|file| file.take(LONGEST_FILE + 1).read_to_end(&mut text))
        .map_err(|error| wrong(&format!("can't be read: {error}")))?;
    if text.len() as u64 > LONGEST_FILE {
        return Err(wrong("is too long to be one"));
    }
    let json: Value = serde_json::from_slice(&text)
        .map_err(|_| wrong("holds no JSON; register the node again"))?;

    let text_at = |key: &str| json.get(key).and_then(Value::as_str).map(str::to_owned);
    let managed_instance = text_at("ManagedInstanceID").filter(|id| is_managed_instance(id));
    let problem = managed_instance
        .is_none()
        .then(|| wrong("names no managed instance; right would be mi- and 17 hexadecimal digits"));
    Ok(Registration {
        managed_instance,
        region: text_at("Region"),
        problem,
    })
}

/// `mi-` and 17 hexadecimal digits today; any other number of them tomorrow.
fn is_managed_instance(id: &str) -> bool {
    id.strip_prefix("mi-").is_some_and(|digits| {
        (1..=40).contains(&digits.len()) && digits.bytes().all(|digit| digit.is_ascii_hexdigit())
    })
}

/// The Region becomes part of a host name, so nothing else may be in it.
fn is_region(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=32).contains(&text.len()) && text.bytes().all(allowed)
}

/// What both CloudWatch (printable ASCII that does not start with a colon) and MQTT (no `/`, `+`, `#`) take as a name.
fn sanitise(name: &str) -> String {
    let allowed = |letter: char| letter.is_ascii_graphic() && !"/+#".contains(letter);
    let mut name: String = name
        .trim()
        .chars()
        .map(|letter| if allowed(letter) { letter } else { '-' })
        .take(LONGEST_ID)
        .collect();
    if name.starts_with(':') {
        name.replace_range(..1, "-");
    }
    if name.is_empty() {
        name.push_str("localhost");
    }
    name
}

/// Text of unknown origin as a warning may show it.
fn shorten(text: &str) -> String {
    let start: String = text.chars().take(40).collect();
    format!("{start:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(hostname: &str, machine_id: Option<&str>) -> Machine {
        Machine {
            hostname: hostname.into(),
            boot: "b".into(),
            machine_id: machine_id.map(str::to_owned),
        }
    }

    const GOOD: &str = r#"{"ManagedInstanceID":"mi-0123456789abcdef0","Region":"eu-west-1"}"#;

    #[test]
    fn the_nearest_name_wins() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("registration");
        // node.id, registration, host name, machine id → node id, problems
        for (id, registered, hostname, machine_id, expected, problems) in [
            (Some("n1"), Some(GOOD), "h", None, "n1", 0),
            (None, Some(GOOD), "h", None, "mi-0123456789abcdef0", 0),
            (Some(" "), Some(GOOD), "h", None, "mi-0123456789abcdef0", 0),
            (None, None, "h", Some("m"), "h", 0),
            (None, None, "localhost", Some("m"), "m", 0),
            (None, None, "", Some("m"), "m", 0),
            (None, None, "", None, "localhost", 0),
            (None, Some("{"), "h", None, "h", 1),
            (Some("a/b+c#d\né"), None, "h", None, "a-b-c-d--", 1),
            (Some(":x"), None, "h", None, "-x", 1),
            (Some("two words"), None, "h", None, "two-words", 1),
        ] {
            let _ = std::fs::remove_file(&file);
            if let Some(registered) = registered {
                std::fs::write(&file, registered).unwrap();
            }
            let mut config = Config::default();
            config.node.id = id.map(str::to_owned);
            config.aws.registration = file.clone();
            let (identity, found) = assemble(&config, |_| None, machine(hostname, machine_id));
            assert_eq!(identity.node_id, expected);
            assert_eq!(found.len(), problems, "{found:?}");
        }
        assert_eq!(sanitise(&"x".repeat(500)).len(), LONGEST_ID);
    }

    #[test]
    fn the_nearest_region_wins() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("registration");
        std::fs::write(&file, GOOD).unwrap();
        // aws.region, AWS_REGION, AWS_DEFAULT_REGION, registered → region, problems
        for (set, first, second, registered, expected, problems) in [
            (
                "us-east-1",
                Some("b"),
                Some("c"),
                true,
                Some("us-east-1"),
                0,
            ),
            ("", Some("us-east-2"), Some("c"), true, Some("us-east-2"), 0),
            ("", Some(""), Some("us-west-1"), true, Some("us-west-1"), 0),
            ("", None, None, true, Some("eu-west-1"), 0),
            ("", None, None, false, None, 0),
            ("evil.example/", None, None, true, Some("eu-west-1"), 1),
            ("EU", Some("eu west 1"), None, false, None, 2),
        ] {
            let mut config = Config::default();
            config.aws.region = set.into();
            config.aws.registration = if registered {
                file.clone()
            } else {
                folder.path().join("none")
            };
            let env = |name: &str| match name {
                "AWS_REGION" => first.map(str::to_owned),
                "AWS_DEFAULT_REGION" => second.map(str::to_owned),
                _ => None,
            };
            let (identity, found) = assemble(&config, env, machine("h", None));
            assert_eq!(identity.region.as_deref(), expected);
            assert_eq!(found.len(), problems, "{found:?}");
        }
    }

    #[test]
    fn a_broken_registration_is_a_problem_and_no_panic() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("registration");
        let deep = "[".repeat(50_000);
        let huge = format!("{GOOD}{}", " ".repeat(100_000));
        for (text, says) in [
            ("", "holds no JSON"),
            ("not JSON", "holds no JSON"),
            (deep.as_str(), "holds no JSON"),
            (huge.as_str(), "too long"),
            ("null", "names no managed instance"),
            ("[]", "names no managed instance"),
            (
                r#"{"ManagedInstanceID":7,"Region":["x"]}"#,
                "names no managed instance",
            ),
            (
                r#"{"ManagedInstanceID":"mi-","Region":"r"}"#,
                "names no managed instance",
            ),
            (
                r#"{"ManagedInstanceID":"i-0123456789abcdef0"}"#,
                "names no managed instance",
            ),
            (
                r#"{"ManagedInstanceID":"mi-../../etc"}"#,
                "names no managed instance",
            ),
        ] {
            std::fs::write(&file, text).unwrap();
            let problem = match registration(&file) {
                Ok(read) => {
                    assert_eq!(read.managed_instance, None);
                    read.problem.unwrap()
                }
                Err(problem) => problem,
            };
            assert!(problem.contains(says), "{problem}");
        }
        std::fs::write(&file, [0xff, 0xfe, 0x00]).unwrap();
        assert!(registration(&file).is_err());
        assert!(
            registration(folder.path())
                .unwrap_err()
                .contains("is not a file")
        );
        assert_eq!(
            registration(&folder.path().join("none")),
            Ok(Registration::default())
        );
    }

    #[test]
    fn this_machine_has_a_name() {
        let (identity, _) = read(&Config::default(), |_| None);
        assert!(!identity.node_id.is_empty());
    }
}

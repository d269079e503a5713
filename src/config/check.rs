//! What the schema cannot say: texts with a form of their own, and values that depend on one another.

use std::net::SocketAddr;
use std::path::Path;

use super::address::{self, Broker};
use super::problem::{join, nearest, quote};
use super::shape::Seen;
use super::units::format_duration;
use super::{Check, CloudWatch, Config, Fields, Relay, Source, SourceKind, codes};

/// A name is a level of MQTT topics, of which AWS IoT Core takes 256 bytes, and a CloudWatch dimension.
const LONGEST_NAME: usize = 128;
/// GetParameters takes no more names in one call.
const MOST_PARAMETERS: usize = 10;
/// A check's name is part of a finding's.
const LONGEST_CHECK: usize = 40;
/// A Unix socket's path has room for 107 bytes.
const LONGEST_SOCKET: usize = 107;

/// Notes the problems of a configuration whose every value has the right type and range.
pub(super) fn check(config: &Config, seen: &mut Seen<'_, '_>) {
    let Config {
        node,
        paths,
        host: _,
        gpu: _,
        kernel_log,
        ups,
        check,
        cameras,
        judge,
        aws,
        cloudwatch,
        relay,
        outbox: _,
        ssm,
        failover: _,
        status,
    } = config;

    if let Some(id) = &node.id {
        name(seen, "node.id", id);
    }
    name(seen, "node.site", &node.site);

    for (path, folder) in [("paths.state", &paths.state), ("paths.run", &paths.run)] {
        if !folder.is_absolute() {
            seen.wrong(&[path], || format!("{path} must start with /"));
        }
    }
    if paths.run.join("status.sock").as_os_str().len() > LONGEST_SOCKET {
        seen.wrong(&["paths.run"], || {
            let most = LONGEST_SOCKET - "/status.sock".len();
            format!("paths.run must have at most {most} bytes: it holds a Unix socket")
        });
    }
    if kernel_log.path == Path::new("") {
        seen.wrong(&["kernel_log.path"], || {
            "kernel_log.path must name a file, such as /dev/kmsg".into()
        });
    }

    if !is_host_and_port(&ups.address) {
        seen.wrong(&["ups.address"], || {
            let is = quote(&ups.address);
            format!("ups.address must be a host and a port, such as 127.0.0.1:3493, is \"{is}\"")
        });
    }
    checks(seen, check);

    for camera in cameras.expect.keys() {
        level(
            seen,
            &join("cameras.expect", camera),
            "a camera's id",
            camera,
        );
    }
    sources(seen, &cameras.source);

    if judge.disk_degraded_percent > judge.disk_failing_percent {
        seen.wrong(&["judge.disk_degraded_percent", "judge.disk_failing_percent"], || {
            format!(
                "judge.disk_degraded_percent must be at most judge.disk_failing_percent, {}, is {}",
                judge.disk_failing_percent, judge.disk_degraded_percent
            )
        });
    }
    for code in judge.rules.keys().filter(|code| !codes::known(code)) {
        seen.wrong(&[&join("judge.rules", code)], || unknown_code(code));
    }

    if !aws
        .region
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || c == '-')
    {
        seen.wrong(&["aws.region"], || {
            "aws.region must be a region's code, such as eu-west-1".into()
        });
    }
    if !aws.ecs_agent.is_empty()
        && let Err(error) = address::http(&aws.ecs_agent)
    {
        seen.wrong(&["aws.ecs_agent"], || format!("aws.ecs_agent {error}"));
    }

    namespace(seen, cloudwatch);
    relay_to(seen, relay);

    if ssm.parameters.len() > MOST_PARAMETERS {
        seen.wrong(&["ssm.parameters"], || {
            let are = ssm.parameters.len();
            format!("ssm.parameters must be at most {MOST_PARAMETERS} names, are {are}")
        });
    }
    for (at, parameter) in ssm.parameters.iter().enumerate() {
        let path = format!("ssm.parameters[{at}]");
        let usual = |c: char| c.is_ascii_alphanumeric() || "_.-/:".contains(c);
        if parameter.is_empty() || !parameter.chars().all(usual) {
            seen.wrong(&[&path], || {
                format!("{path} must be a parameter's name, such as /sideline/fleet")
            });
        }
        if ssm.parameters[..at].contains(parameter) {
            seen.wrong(&[&path], || format!("{path} is in the list already"));
        }
    }

    let listen = &status.metrics_listen;
    if !listen.is_empty() && listen.parse::<SocketAddr>().is_err() {
        seen.wrong(&["status.metrics_listen"], || {
            format!(
                "status.metrics_listen must be an IP address and a port, such as 127.0.0.1:9105, is \"{}\"",
                quote(listen)
            )
        });
    }
}

/// `localhost:3493`, `127.0.0.1:3493`, `[::1]:3493`.
fn is_host_and_port(address: &str) -> bool {
    let usual = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
    address
        .parse::<SocketAddr>()
        .is_ok_and(|address| address.port() != 0)
        || address.rsplit_once(':').is_some_and(|(host, port)| {
            let port = port.parse::<u16>().is_ok_and(|port| port != 0);
            port && !host.is_empty() && host.chars().all(usual)
        })
}

fn checks(seen: &mut Seen<'_, '_>, checks: &[Check]) {
    for (at, check) in checks.iter().enumerate() {
        let path = format!("check[{at}]");
        let [name, command, timeout, every, user] =
            ["name", "command", "timeout", "every", "user"].map(|key| join(&path, key));
        let usual = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-".contains(c);
        if !(1..=LONGEST_CHECK).contains(&check.name.len()) || !check.name.chars().all(usual) {
            seen.wrong(&[&name], || {
                let is = quote(&check.name);
                format!("{name} must be 1 to {LONGEST_CHECK} of a-z, 0-9, _ and -, is \"{is}\"")
            });
        }
        if checks[..at].iter().any(|other| other.name == check.name) {
            seen.wrong(&[&name], || {
                format!("{name} is the name of a check above it")
            });
        }
        let program = check.command.first().map_or("", String::as_str);
        if !program.starts_with('/') || check.command.iter().any(|word| word.contains('\0')) {
            seen.wrong(&[&command], || {
                format!("{command} must start with a program's whole path, as in [\"/usr/lib/nagios/plugins/check_load\"]")
            });
        }
        if check.timeout > check.every {
            seen.wrong(&[&timeout, &every], || {
                let most = format_duration(check.every);
                let is = format_duration(check.timeout);
                format!("{timeout} must be at most {every}, \"{most}\", is \"{is}\"")
            });
        }
        if check.user.is_empty() || check.user.contains(|c: char| c == ':' || c.is_control()) {
            seen.wrong(&[&user], || {
                format!("{user} must be a user's name, such as nobody")
            });
        }
    }
}

fn sources(seen: &mut Seen<'_, '_>, sources: &[Source]) {
    for (at, source) in sources.iter().enumerate() {
        let path = format!("cameras.source[{at}]");
        let key = |name: &str| join(&path, name);
        broker(
            seen,
            &key("url"),
            &source.url,
            &[(key("ca"), source.ca.is_some())],
        );
        match source.kind {
            SourceKind::Frigate => frigate(seen, &path, source),
            SourceKind::Mqtt => mqtt(seen, &path, source),
        }
        let same = |other: &&Source| {
            (&other.url, &other.topic) == (&source.url, &source.topic)
                && other.kind == source.kind
                && other.prefix.as_deref().unwrap_or("frigate")
                    == source.prefix.as_deref().unwrap_or("frigate")
        };
        if sources[..at].iter().any(|other| same(&other)) {
            let read = ["url", "kind", "prefix", "topic"].map(key);
            seen.wrong(&read.each_ref().map(String::as_str), || {
                format!("{path} listens to the same topics as a source above it")
            });
        }
    }
}

fn frigate(seen: &mut Seen<'_, '_>, path: &str, source: &Source) {
    let kind = join(path, "kind");
    for (name, there) in [
        ("topic", source.topic.is_some()),
        ("fields", source.fields.is_some()),
    ] {
        let key = join(path, name);
        if there {
            seen.wrong(&[&key, &kind], || {
                format!("{key} is for kind = \"mqtt\"; frigate takes a prefix")
            });
        }
    }
    if let Some(prefix) = &source.prefix {
        let key = join(path, "prefix");
        let wrong = |c: char| "+#".contains(c) || c.is_control();
        if prefix.is_empty() || prefix.contains(wrong) || prefix.ends_with('/') {
            seen.wrong(&[&key], || {
                format!("{key} must be Frigate's mqtt.topic_prefix, without + and # and without / at its end")
            });
        }
    }
}

fn mqtt(seen: &mut Seen<'_, '_>, path: &str, source: &Source) {
    let [kind, topic, fields, prefix] =
        ["kind", "topic", "fields", "prefix"].map(|name| join(path, name));
    if source.prefix.is_some() {
        seen.wrong(&[&prefix, &kind], || {
            format!("{prefix} is for kind = \"frigate\"; mqtt takes topic and fields")
        });
    }
    match &source.topic {
        None => seen.wrong(&[&kind, &topic], || {
            format!("{path} needs topic: kind = \"mqtt\" listens to it")
        }),
        Some(text) => {
            let levels = || text.split('/');
            let names = levels().filter(|level| *level == "+").count();
            let wrong = |c: char| "+#".contains(c) || c.is_control();
            if names != 1 || levels().any(|level| level != "+" && level.contains(wrong)) {
                seen.wrong(&[&topic, &kind], || {
                    format!(
                        "{topic} must have exactly one level + for the camera's name, \
                         as in \"cameras/+/status\", is \"{}\"",
                        quote(text)
                    )
                });
            }
        }
    }
    let Some(pointers) = &source.fields else {
        seen.wrong(&[&kind, &fields], || {
            format!("{path} needs fields: kind = \"mqtt\" finds the values by them")
        });
        return;
    };
    let Fields {
        state,
        fps,
        expected_fps,
        last_frame,
    } = pointers;
    let all = [
        ("state", state),
        ("fps", fps),
        ("expected_fps", expected_fps),
        ("last_frame", last_frame),
    ];
    let keys = all.map(|(name, _)| join(&fields, name));
    if [state, fps, last_frame].iter().all(|field| field.is_none()) {
        let read = [&fields, &keys[0], &keys[1], &keys[3]];
        seen.wrong(&read.map(String::as_str), || {
            format!("{fields} must have state, fps or last_frame")
        });
    }
    for (key, (_, pointer)) in keys.iter().zip(all) {
        if let Some(text) = pointer
            && !is_pointer(text)
        {
            seen.wrong(&[key], || {
                format!(
                    "{key} must be a JSON pointer, such as \"/stream/fps\", is \"{}\"",
                    quote(text)
                )
            });
        }
    }
}

/// RFC 6901: empty, or starting with a slash; `~` only as `~0` and `~1`.
fn is_pointer(text: &str) -> bool {
    (text.is_empty() || text.starts_with('/'))
        && text
            .split('~')
            .skip(1)
            .all(|rest| rest.starts_with(['0', '1']))
}

fn relay_to(seen: &mut Seen<'_, '_>, relay: &Relay) {
    name(seen, "relay.prefix", &relay.prefix);
    if relay.prefix.starts_with('$') {
        seen.wrong(&["relay.prefix"], || {
            "relay.prefix must not start with $: those topics are the broker's own".into()
        });
    }
    if relay.certificate.is_empty() != relay.key.is_empty() {
        seen.wrong(&["relay.certificate", "relay.key"], || {
            "relay.certificate and relay.key must be set together".into()
        });
    }
    let files = [
        ("relay.ca", &relay.ca),
        ("relay.certificate", &relay.certificate),
        ("relay.key", &relay.key),
    ];
    if !relay.url.is_empty() {
        let files = files.map(|(key, file)| (key.to_owned(), !file.is_empty()));
        broker(seen, "relay.url", &relay.url, &files);
        if Broker::parse(&relay.url).is_ok_and(|to| !to.tls && !to.is_this_machine())
            && !relay.insecure
        {
            seen.wrong(&["relay.url", "relay.insecure"], || {
                "relay.url must start with mqtts:// to leave this machine; relay.insecure = true allows it \
                 unencrypted"
                    .into()
            });
        }
    }
}

/// A broker's URL, and the files (key, whether it is set) that need it to be encrypted.
fn broker(seen: &mut Seen<'_, '_>, path: &str, url: &str, files: &[(String, bool)]) {
    match Broker::parse(url) {
        Err(error) => seen.wrong(&[path], || format!("{path} {error}, is \"{}\"", quote(url))),
        Ok(broker) if !broker.tls => {
            for (key, _) in files.iter().filter(|(_, set)| *set) {
                seen.wrong(&[key, path], || {
                    format!("{key} needs an encrypted connection: {path} must start with mqtts://")
                });
            }
        }
        Ok(_) => {}
    }
}

/// The form that the API asks for: <https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutMetricData.html>.
fn namespace(seen: &mut Seen<'_, '_>, cloudwatch: &CloudWatch) {
    let namespace = &cloudwatch.namespace;
    let usual = |c: char| c.is_ascii_alphanumeric() || ".-_/#: ".contains(c);
    let wrong = if namespace.starts_with("AWS/") {
        "must not start with AWS/: those are Amazon's own"
    } else if namespace.starts_with(':') {
        "must not start with a colon"
    } else if !(1..=255).contains(&namespace.len())
        || !namespace.chars().all(usual)
        || namespace.trim().is_empty()
    {
        "must be 1 to 255 letters, digits, spaces and . - _ / # :"
    } else {
        return;
    };
    seen.wrong(&["cloudwatch.namespace"], || {
        format!("cloudwatch.namespace {wrong}, is \"{}\"", quote(namespace))
    });
}

/// A name that is both a level of a topic and a CloudWatch dimension.
fn name(seen: &mut Seen<'_, '_>, path: &str, name: &str) {
    if !name.is_ascii() || name.starts_with(':') || name.trim() != name {
        seen.wrong(&[path], || {
            format!(
                "{path} must be ASCII, without a colon at its start and spaces at its ends, is \"{}\"",
                quote(name)
            )
        });
    } else {
        level(seen, path, path, name);
    }
}

/// A name that is a level of a topic.
fn level(seen: &mut Seen<'_, '_>, path: &str, what: &str, name: &str) {
    let wrong = |c: char| "/+#".contains(c) || c.is_control();
    let characters = name.chars().count();
    if !(1..=LONGEST_NAME).contains(&characters) {
        seen.wrong(&[path], || {
            format!("{what} must have 1 to {LONGEST_NAME} characters, has {characters}")
        });
    } else if name.contains(wrong) {
        seen.wrong(&[path], || {
            format!(
                "{what} must be without / + # and control characters, is \"{}\"",
                quote(name)
            )
        });
    }
}

fn unknown_code(code: &str) -> String {
    let shown = quote(code);
    if code.starts_with(codes::XID) || code == codes::XID.trim_end_matches('.') {
        return format!("unknown finding code \"{shown}\"; write gpu.xid.79 or gpu.xid.*");
    }
    if code.ends_with('*') {
        return format!(
            "no finding code starts like \"{shown}\"; codes start with gpu. host. camera. ingest. agent."
        );
    }
    match nearest(code, codes::CODES.into_iter()) {
        Some(near) => format!("unknown finding code \"{shown}\"; did you mean \"{near}\"?"),
        None => format!(
            "unknown finding code \"{shown}\"; codes start with gpu. host. camera. ingest. agent."
        ),
    }
}

impl Seen<'_, '_> {
    /// Notes a problem between the values at these paths, at the first of them that the file sets;
    /// nothing if one of them was not to be read, for then it would be its echo.
    pub(super) fn wrong(&mut self, paths: &[&str], message: impl FnOnce() -> String) {
        if paths.iter().any(|path| self.is_spoilt(path)) {
            return;
        }
        let place = paths.iter().find_map(|path| self.places.get(*path));
        self.found.add(place.copied().unwrap_or(0), message);
    }

    /// Whether the value at a path, or a table around it, was taken out.
    fn is_spoilt(&self, path: &str) -> bool {
        let ends = path.char_indices().filter(|(_, c)| matches!(c, '.' | '['));
        let ends = ends.map(|(at, _)| at).chain([path.len()]);
        ends.into_iter()
            .any(|end| self.spoilt.contains(&path[..end]))
    }
}

//! MQTT: the brokers of the camera sources and the one upstream, and the certificates on both sides.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use jiff::{SignedDuration, Timestamp};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::time::timeout;

use super::certificates::{SOON, end};
use super::check::{Check, Found, on_disk, timed, together};
use super::identity::length;
use super::scene::{AS_ROOT, Scene, is_hidden};
use crate::clients::mqtt::{Broker, Connection, ConnectionError, Incoming, random_client_id};
use crate::config::{Config, Relay, Source, SourceKind};

/// A broker that is well lets us in in this time.
const PATIENCE: Duration = Duration::from_secs(6);

/// And shows its certificate in this.
const SHOWS: Duration = Duration::from_secs(3);

pub(super) async fn look(scene: Arc<Scene>) -> Vec<Check> {
    let sources = (1..).zip(&scene.config.cameras.source);
    let names: Vec<String> = sources
        .clone()
        .map(|(number, _)| format!("mqtt.{number}"))
        .collect();
    let mut asked = Vec::new();
    for (name, (number, source)) in names.iter().zip(sources) {
        asked.push(timed(name, ask_source(number, source).boxed()).boxed());
    }
    asked.push(timed("mqtt.relay", ask_relay(&scene).boxed()).boxed());
    asked.push(files(Arc::clone(&scene)).boxed());
    together(asked).await
}

async fn ask_source(number: usize, source: &Source) -> Found {
    let broker = match Broker::parse(&source.url, source.ca.as_deref(), None) {
        Ok(broker) => broker,
        Err(error) => {
            return Found::fail(
                error.to_string(),
                line(number, "url", "mqtt://127.0.0.1:1883"),
            );
        }
    };
    let (topics, what) = match source.kind {
        SourceKind::Frigate => {
            let prefix = source.prefix.as_deref().unwrap_or("frigate");
            (
                vec![format!("{prefix}/stats"), format!("{prefix}/available")],
                prefix,
            )
        }
        SourceKind::Mqtt => {
            let topic = source.topic.as_deref().unwrap_or_default();
            (vec![topic.to_owned()], topic)
        }
    };
    match enter(&broker, &random_client_id(), &topics).await {
        Ok(0) => shown(&broker, format!("{broker} lets us in and read {what}")).await,
        Ok(_) => Found::fail(
            format!("{broker} lets us in, but not read {what}"),
            format!("topic read {what}/#   # in the broker's ACL file, under this user"),
        ),
        Err(error) => {
            let set = line(number, "url", "mqtt://USER:PASSWORD@HOST:PORT");
            refused(&broker, &error, &set)
        }
    }
}

/// A line of a source's settings.
fn line(number: usize, key: &str, value: &str) -> String {
    format!("{key} = \"{value}\"   # in [[cameras.source]] no. {number}")
}

async fn ask_relay(scene: &Scene) -> Found {
    let relay = &scene.config.relay;
    if relay.url.is_empty() {
        return Found::unused("relay.url is empty");
    }
    let path =
        |text: &'static str, value: &str| (!value.is_empty()).then(|| (text, value.to_owned()));
    let ca = path("ca", &relay.ca).map(|(_, path)| path);
    let identity = path("certificate", &relay.certificate).zip(path("key", &relay.key));
    let identity = identity
        .as_ref()
        .map(|((_, certificate), (_, key))| (Path::new(certificate), Path::new(key)));
    let broker = match Broker::parse(&relay.url, ca.as_deref().map(Path::new), identity) {
        Ok(broker) => broker,
        Err(error) => {
            return Found::fail(error.to_string(), "[relay] url = \"mqtts://BROKER:8883\"");
        }
    };
    // The agent's own name would throw the agent out.
    let name = format!("{}-doctor", scene.identity.node_id);
    let error = match enter(&broker, &name, &[]).await {
        Ok(_) => return shown(&broker, format!("{broker} lets us in")).await,
        Err(error) => error,
    };
    if agent_is_in(scene) && !error.unreachable {
        return Found::ok(format!(
            "{broker} has let the agent in; doctor's own name it refuses"
        ));
    }
    let set =
        "[relay] url = \"mqtts://USER:PASSWORD@BROKER:8883\"   # or: certificate = …, key = …";
    refused(&broker, &error, set)
}

/// Whether the running agent's relay works: brokers may let in no other name (AWS IoT Core).
fn agent_is_in(scene: &Scene) -> bool {
    let outlets = scene
        .report
        .as_ref()
        .ok()
        .and_then(|report| report["outlets"].as_array());
    let mut outlets = outlets.into_iter().flatten();
    outlets.any(|outlet| outlet["name"] == "relay" && outlet["state"] == "ok")
}

/// Connects, subscribes, and says goodbye. Returns how many topics the broker refuses.
async fn enter(broker: &Broker, name: &str, topics: &[String]) -> Result<usize, ConnectionError> {
    let late = || ConnectionError {
        broker: broker.to_string(),
        why: format!("no answer within {PATIENCE:?}"),
        rejected: false,
        unreachable: true,
    };
    let mut connection = Connection::open(broker, name, None)?;
    let talk = async {
        loop {
            match connection.next().await? {
                Incoming::Connected if topics.is_empty() => return Ok(0),
                Incoming::Connected => {
                    if connection.subscribe(topics).is_err() {
                        return Ok(topics.len());
                    }
                }
                Incoming::Subscribed { refused } => return Ok(refused),
                Incoming::Message(_) | Incoming::Acked(_) => {}
            }
        }
    };
    let talked = timeout(PATIENCE, talk).await;
    let refused = talked.unwrap_or_else(|_| Err(late()))?;
    connection.disconnect(Duration::ZERO).await;
    Ok(refused)
}

/// The certificates of a broker, once they were asked for.
type Answer = Box<dyn FnOnce() -> anyhow::Result<Vec<CertificateDer<'static>>> + Send>;

/// A broker that lets us in: good, unless its certificate soon ends.
async fn shown(broker: &Broker, says: String) -> Found {
    let asked = broker.clone();
    let chain: Answer = Box::new(move || asked.certificates(SHOWS));
    let Ok(Ok(Ok(chain))) = timeout(SHOWS, tokio::task::spawn_blocking(chain)).await else {
        return Found::ok(says);
    };
    let ends = chain
        .iter()
        .filter_map(|certificate| end(certificate))
        .min();
    let Some(ends) = ends else {
        return Found::ok(says);
    };
    let left = ends.duration_since(Timestamp::now());
    let day = ends.strftime("%Y-%m-%d");
    match left < SOON {
        true => Found::warn(
            format!(
                "{says}; a certificate that it shows ends in {}, on {day}",
                length(left)
            ),
            format!(
                "openssl s_client -connect {broker} -showcerts </dev/null   # renew it at the broker"
            ),
        ),
        false => Found::ok(format!("{says}; its certificate is good until {day}")),
    }
}

/// A broker that can't be reached, or does not let us in. `set` is the line that holds its address and login.
fn refused(broker: &Broker, error: &ConnectionError, set: &str) -> Found {
    let why = error.why.as_str();
    let address = broker.to_string();
    let (host, port) = address.rsplit_once(':').unwrap_or((&address, ""));
    let says = |part: &str| why.contains(part);
    let tls = format!("openssl s_client -connect {address} </dev/null");
    let mend = if why.starts_with('/') {
        let file = why.split(": ").next().unwrap_or_default();
        format!("ls -l {file}   # mqtt.files says more")
    } else if says("not trusted") && (says("xpired") || says("NotValidYet")) {
        format!(
            "{tls} | openssl x509 -noout -dates   # renew it; or is this machine's clock wrong?"
        )
    } else if says("not trusted") && says("NotValidForName") {
        format!("{tls} | openssl x509 -noout -ext subjectAltName   # it names other hosts")
    } else if says("not trusted") {
        "ca = \"/etc/sideline/ca.pem\"   # the authority that has signed the broker's certificate"
            .into()
    } else if says("does not speak TLS") || says("closed the connection before") {
        format!("{tls}   # does it speak TLS? then mqtts://, else mqtt://")
    } else if says("TLS: the broker refuses") {
        "certificate = \"/etc/sideline/node.pem\"   # and key = …, of a node that the broker knows"
            .into()
    } else if says("can't be resolved") {
        format!("getent hosts {host}; cat /etc/resolv.conf")
    } else if error.rejected {
        set.to_owned()
    } else if broker.is_local() {
        format!("sudo systemctl start mosquitto; ss -tlnp | grep ':{port} '")
    } else {
        format!("nc -vz -w 5 {host} {port}   # is the broker up, and the port open on the way?")
    };
    Found::fail(format!("{address}: {why}"), mend)
}

/// The certificate files that the configuration names.
pub(super) async fn files(scene: Arc<Scene>) -> Check {
    on_disk("mqtt.files", Box::new(move || all_files(&scene.config))).await
}

fn all_files(config: &Config) -> Found {
    let Relay {
        ca,
        certificate,
        key,
        ..
    } = &config.relay;
    let sources = config
        .cameras
        .source
        .iter()
        .filter_map(|source| source.ca.as_deref());
    let named = [ca, certificate]
        .into_iter()
        .filter(|path| !path.is_empty())
        .map(Path::new);
    let certificates: Vec<&Path> = sources.chain(named).collect();
    if certificates.is_empty() && key.is_empty() {
        return Found::unused("no certificates are configured");
    }
    let mut soonest: Option<(Timestamp, &Path)> = None;
    for path in certificates {
        match file(path) {
            Err(found) => return found,
            Ok(None) => {}
            Ok(Some(ends)) => {
                if soonest.is_none_or(|(at, _)| ends < at) {
                    soonest = Some((ends, path));
                }
            }
        }
    }
    if !key.is_empty()
        && let Some(found) = private(Path::new(key))
    {
        return found;
    }
    let Some((ends, path)) = soonest else {
        return Found::ok("the private key can be read");
    };
    let left = ends.duration_since(Timestamp::now());
    let (shown, day) = (path.display(), ends.strftime("%Y-%m-%d"));
    let renew = format!("openssl x509 -noout -subject -dates -in {shown}   # have it renewed");
    if left <= SignedDuration::ZERO {
        Found::fail(format!("{shown} has ended on {day}"), renew)
    } else if left < SOON {
        Found::warn(format!("{shown} ends in {}, on {day}", length(left)), renew)
    } else {
        Found::ok(format!(
            "all can be read; the first to end is {shown} on {day}"
        ))
    }
}

/// The earliest end of the certificates in a file.
fn file(path: &Path) -> Result<Option<Timestamp>, Found> {
    let shown = path.display();
    let text = std::fs::read(path).map_err(|error| {
        if is_hidden(&error) {
            return Found::warn(format!("{shown} can't be read: {error}"), AS_ROOT);
        }
        Found::fail(
            format!("{shown}: {error}"),
            format!("ls -l {shown}   # and right its path"),
        )
    })?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let certificates = certificates.unwrap_or_default();
    if certificates.is_empty() {
        return Err(Found::fail(
            format!("{shown} holds no certificate in PEM"),
            format!(
                "openssl x509 -in {shown} -out {shown}.pem   # PEM begins with -----BEGIN CERTIFICATE-----"
            ),
        ));
    }
    Ok(certificates.iter().filter_map(|one| end(one)).min())
}

/// What is wrong with a private key's file.
fn private(path: &Path) -> Option<Found> {
    let shown = path.display();
    match std::fs::File::open(path).and_then(|file| file.metadata()) {
        Err(error) if is_hidden(&error) => Some(Found::warn(
            format!("{shown} can't be read: {error}"),
            AS_ROOT,
        )),
        Err(error) => Some(Found::fail(
            format!("{shown}: {error}"),
            format!("ls -l {shown}   # and right its path"),
        )),
        Ok(file) if file.mode() & 0o077 != 0 => Some(Found::warn(
            format!("others than its owner may read the private key {shown}"),
            format!("sudo chmod 600 {shown}"),
        )),
        Ok(_) => None,
    }
}

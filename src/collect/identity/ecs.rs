//! What the ECS agent on this machine says of its cluster and container instance.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::header::HOST;
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::domain::ecs::Place;

/// The agent is on this machine: it answers at once or not at all.
const DEADLINE: Duration = Duration::from_secs(2);

/// Where it is, is some 300 bytes; a task is a thousand.
const LONGEST_ANSWER: usize = 1 << 20;

/// The agent changes its container instance only when it is registered anew.
const WHILE_KNOWN: Duration = Duration::from_secs(300);

/// The agent starts after Docker, and may start long after this program.
const WHILE_UNKNOWN: Duration = Duration::from_secs(30);

/// Between two looks at the tasks.
const WHILE_TASKS_COUNT: Duration = Duration::from_secs(10);

/// Asks the ECS agent's introspection endpoint once; `base_url` is `http://127.0.0.1:51678`. Its tasks are counted only
/// where `tasks` says so.
///
/// # Errors
/// No agent there, one that is not registered yet, or an answer that is not its.
pub async fn ask(base_url: &str, tasks: bool) -> anyhow::Result<Place> {
    let mut place = parse(&page(base_url, "/v1/metadata").await?)?;
    if tasks {
        place.tasks = Some(count(&page(base_url, "/v1/tasks").await?)?);
    }
    Ok(place)
}

/// Keeps `out` at what the ECS agent says. A machine without an ECS agent is normal, so nothing is logged of it;
/// an agent that is restarting keeps what it said before.
///
/// # Errors
/// None.
pub async fn follow(
    base_url: &str,
    tasks: bool,
    out: watch::Sender<Option<Place>>,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    loop {
        let answer = tokio::select! {
            () = cancel.cancelled() => return Ok(()),
            answer = ask(base_url, tasks) => answer,
        };
        match answer {
            Ok(place) => {
                out.send_if_modified(|known| {
                    let before = known.replace(place);
                    let arn = |place: &Option<Place>| {
                        place.as_ref().map(|place| place.container_instance.clone())
                    };
                    if let Some(arn) = arn(known).filter(|now| Some(now) != arn(&before).as_ref()) {
                        tracing::info!("container instance {arn}");
                    }
                    *known != before
                });
            }
            Err(error) => tracing::debug!("ECS agent at {base_url}: {error:#}"),
        }
        let known = out.borrow().is_some();
        let wait = match (tasks, known) {
            (true, _) => WHILE_TASKS_COUNT,
            (false, true) => WHILE_KNOWN,
            (false, false) => WHILE_UNKNOWN,
        };
        tokio::select! {
            () = cancel.cancelled() => return Ok(()),
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// What the ECS agent answers to a GET of `path`, such as `/v1/metadata`.
///
/// # Errors
/// As for [`ask`].
pub async fn page(base_url: &str, path: &str) -> anyhow::Result<Bytes> {
    let answer = tokio::time::timeout(DEADLINE, get(base_url, path)).await;
    answer.with_context(|| format!("no answer within {DEADLINE:?}"))?
}

async fn get(base_url: &str, path: &str) -> anyhow::Result<Bytes> {
    let base: Uri = base_url.parse().context("aws.ecs_agent is no URL")?;
    let authority = base.authority().map(|authority| authority.as_str());
    let (Some("http"), Some(authority)) = (base.scheme_str(), authority) else {
        bail!("aws.ecs_agent must be like http://127.0.0.1:51678, is {base_url}");
    };
    let port = base.port_u16().unwrap_or(80);
    let host = base.host().unwrap_or_default();
    let stream = TcpStream::connect(format!("{host}:{port}")).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get(path)
        .header(HOST, authority)
        .body(Empty::<Bytes>::new())?;
    // The connection ends when `sender` does, which the question owns.
    let question = async move {
        let response = sender.send_request(request).await?;
        ensure!(
            response.status().is_success(),
            "the ECS agent says {}",
            response.status()
        );
        let body = Limited::new(response.into_body(), LONGEST_ANSWER).collect();
        let body = body.await.map_err(anyhow::Error::from_boxed)?;
        Ok(body.to_bytes())
    };
    let (answer, _closed) = tokio::join!(question, connection);
    answer
}

fn parse(answer: &[u8]) -> anyhow::Result<Place> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Metadata {
        cluster: String,
        container_instance_arn: Option<String>,
    }
    let metadata: Metadata =
        serde_json::from_slice(answer).context("the answer is not an ECS agent's")?;
    let arn = metadata
        .container_instance_arn
        .context("the ECS agent is not registered yet")?;
    ensure!(
        is_name(&metadata.cluster) && is_name(&arn) && arn.starts_with("arn:"),
        "the answer is not an ECS agent's: no cluster or no ARN in it"
    );
    Ok(Place {
        cluster: metadata.cluster,
        container_instance: arn,
        tasks: None,
    })
}

/// How many tasks there are that have not stopped.
fn count(answer: &[u8]) -> anyhow::Result<u32> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Listing {
        tasks: Vec<Task>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Task {
        known_status: String,
    }
    let listing: Listing =
        serde_json::from_slice(answer).context("the list of tasks is not an ECS agent's")?;
    let tasks = listing.tasks.iter();
    let here = tasks.filter(|task| task.known_status != "STOPPED").count();
    Ok(u32::try_from(here)?)
}

fn is_name(text: &str) -> bool {
    (1..=1_024).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    const ARN: &str = "arn:aws:ecs:eu-west-1:123456789012:container-instance/yard/0a1b";

    fn known() -> Place {
        Place {
            cluster: "yard".into(),
            container_instance: ARN.into(),
            tasks: None,
        }
    }

    fn body() -> String {
        format!(r#"{{"Cluster":"yard","ContainerInstanceArn":"{ARN}","Version":"v1"}}"#)
    }

    #[test]
    fn answers() {
        let good = body();
        let long = format!(
            r#"{{"Cluster":"yard","ContainerInstanceArn":"arn:{}"}}"#,
            "x".repeat(2_000)
        );
        for (answer, right) in [
            (good.as_str(), true),
            (r#"{"Cluster":"yard","ContainerInstanceArn":null}"#, false),
            (r#"{"Cluster":"yard"}"#, false),
            (r#"{"Cluster":"","ContainerInstanceArn":"arn:x"}"#, false),
            (r#"{"Cluster":"yard","ContainerInstanceArn":"x"}"#, false),
            (r#"{"Cluster":7,"ContainerInstanceArn":"arn:x"}"#, false),
            (long.as_str(), false),
            ("<html>", false),
            ("", false),
        ] {
            assert_eq!(parse(answer.as_bytes()).is_ok(), right, "{answer}");
        }
        assert_eq!(parse(good.as_bytes()).unwrap(), known());
    }

    /// Answers each connection with the next of `answers`, then hangs up.
    async fn serve(listener: TcpListener, answers: &[String]) {
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1_024];
            let read = stream.read(&mut request).await.unwrap();
            let asked = String::from_utf8_lossy(&request[..read]).into_owned();
            let page = if answer.contains("Tasks") {
                "tasks"
            } else {
                "metadata"
            };
            let expected = format!("GET /v1/{page} HTTP/1.1\r\n");
            assert!(asked.starts_with(&expected), "{asked}");
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    }

    fn http(status: &str, body: &str) -> String {
        format!(
            "HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
    }

    #[tokio::test]
    async fn asks_over_http_and_bounds_the_answer() {
        for (answer, expected) in [
            (http("200 OK", &body()), Ok(known())),
            (http("500 Oh", &body()), Err("500")),
            (
                http("200 OK", &" ".repeat(LONGEST_ANSWER + 1)),
                Err("length limit"),
            ),
            ("nonsense\r\n\r\n".to_owned(), Err("")),
            (String::new(), Err("")),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("http://{}", listener.local_addr().unwrap());
            let answers = [answer];
            let (asked, ()) = tokio::join!(ask(&url, false), serve(listener, &answers));
            match (asked, expected) {
                (Ok(ecs), Ok(expected)) => assert_eq!(ecs, expected),
                (Err(error), Err(says)) => {
                    assert!(format!("{error:#}").contains(says), "{error:#}");
                }
                (asked, expected) => panic!("{asked:?}, expected {expected:?}"),
            }
        }
        for url in [
            "https://127.0.0.1",
            "127.0.0.1:1",
            "",
            "http://",
            "http://127.0.0.1:1",
        ] {
            assert!(ask(url, false).await.is_err(), "{url}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_agent_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let error = ask(&url, false).await.unwrap_err();
        assert!(error.to_string().contains("no answer within 2s"), "{error}");
    }

    #[tokio::test]
    async fn follows_until_cancelled() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (out, mut seen) = watch::channel(None);
        let cancel = CancellationToken::new();
        let tasks = r#"{"Tasks":[{"KnownStatus":"RUNNING"},{"KnownStatus":"CREATED"},{"KnownStatus":"STOPPED"}]}"#;
        let answers = [http("200 OK", &body()), http("200 OK", tasks)];
        let watching = async {
            let seen = seen.wait_for(Option::is_some).await.unwrap().clone();
            cancel.cancel();
            seen
        };
        let (followed, seen, ()) = tokio::join!(
            follow(&url, true, out, cancel.clone()),
            watching,
            serve(listener, &answers)
        );
        followed.unwrap();
        let tasks = Some(2);
        assert_eq!(seen, Some(Place { tasks, ..known() }));
    }
}

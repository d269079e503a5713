//! The configuration: the file, and what SSM's parameters lay over it.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use futures_util::FutureExt;
use serde_json::Value;

use super::check::{Check, Found, on_disk, together};
use super::scene::{AS_ROOT, Scene, is_hidden, read};
use crate::config::Config;

/// The copy of what SSM said last, in `paths.state`.
const COPY: &str = "settings.json";

/// What is to be done about what was refused.
const RIGHT: &str =
    "sideline explain agent.config_rejected   # then put the parameter or the file right";

pub(super) async fn look(scene: Arc<Scene>) -> Vec<Check> {
    let other = Arc::clone(&scene);
    together(vec![
        on_disk("config", Box::new(move || file(&scene))).boxed(),
        on_disk("config.layers", Box::new(move || layers(&other))).boxed(),
    ])
    .await
}

fn file(scene: &Scene) -> Found {
    if let Some(wrong) = &scene.wrong {
        let mend = match &scene.file {
            Some(file) if std::fs::metadata(file).is_ok() => {
                format!("sudoedit {0} && sideline config check {0}", file.display())
            }
            Some(_) | None => AS_ROOT.to_owned(),
        };
        return Found::fail(
            format!("{wrong}\nthe rest is checked with the defaults"),
            mend,
        );
    }
    let Some(file) = &scene.file else {
        return Found::ok("no file: the defaults and the environment");
    };
    let shown = file.display();
    let mode = std::fs::metadata(file).map_or(0, |file| file.mode());
    if mode & 0o004 != 0 && holds_password(&scene.config) {
        return Found::warn(
            format!("{shown} holds a password, and every user may read it"),
            format!("sudo chmod o-rwx {shown}"),
        );
    }
    if mode & 0o022 != 0 {
        return Found::warn(
            format!("others than its owner may write {shown}, and so say what runs as root"),
            format!("sudo chmod go-w {shown}"),
        );
    }
    Found::ok(format!("{shown} is right"))
}

fn holds_password(config: &Config) -> bool {
    let sources = config.cameras.source.iter().map(|source| &source.url);
    sources
        .chain([&config.relay.url])
        .any(|url| url.contains('@'))
}

/// What SSM's parameters have come to: the agent says what it refused, its copy what is in force.
fn layers(scene: &Scene) -> Found {
    if let Some(finding) = scene.findings("agent.config_rejected").first() {
        let evidence = finding["evidence"]
            .as_str()
            .unwrap_or("it does not say why");
        return Found::fail(evidence.to_owned(), RIGHT);
    }
    if scene.config.ssm.parameters.is_empty() {
        return Found::unused("ssm.parameters is empty");
    }
    let names = scene.config.ssm.parameters.join(" ");
    let path = scene.config.paths.state.join(COPY);
    match read(&path) {
        Ok(text) => copy(&text, &path),
        Err(error) if is_hidden(&error) => Found::warn(
            format!("{} can't be read: {error}", path.display()),
            AS_ROOT,
        ),
        Err(_) => Found::warn(
            format!("nothing has been fetched yet of {names}"),
            "sudo sideline status --json | jq '.outlets[] | select(.name == \"ssm\")'",
        ),
    }
}

fn copy(text: &str, path: &Path) -> Found {
    let Ok(copy) = serde_json::from_str::<Value>(text) else {
        return Found::fail(
            format!(
                "the last copy of the parameters, {}, is damaged",
                path.display()
            ),
            format!(
                "sudo rm {} && sudo systemctl reload sideline",
                path.display()
            ),
        );
    };
    let layer = |layer: &Value| {
        let name = layer["name"].as_str().unwrap_or("?");
        format!("{name} version {}", layer["version"])
    };
    let list = |layers: &Value| {
        let layers = layers.as_array().map_or(&[][..], Vec::as_slice);
        let layers: Vec<String> = layers.iter().map(layer).collect();
        layers.join(", ")
    };
    let refused = copy["refused"].as_array().map_or(&[][..], Vec::as_slice);
    if let Some(why) = refused.iter().find_map(|refused| refused["why"].as_str()) {
        return Found::fail(format!("refused: {why}"), RIGHT);
    }
    let good = list(&copy["good"]);
    let trial = list(&copy["trial"]["parameters"]);
    match (good.is_empty(), trial.is_empty()) {
        (true, true) => Found::ok("no parameter has a value"),
        (false, true) => Found::ok(good),
        (_, false) => Found::ok(format!("on trial: {trial}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::check::State;

    #[test]
    fn a_copy_says_what_is_in_force() {
        let path = Path::new("/s/settings.json");
        for (text, state, says) in [
            (
                r#"{"version":1,"good":[{"name":"/a","version":7,"value":""}],"trial":null}"#,
                State::Ok,
                "/a version 7",
            ),
            (
                r#"{"good":[],"trial":{"parameters":[{"name":"/a","version":8}]}}"#,
                State::Ok,
                "on trial: /a version 8",
            ),
            (
                r#"{"good":[],"refused":[{"why":"parameter /a (version 9):1:1: no","more":0,"digest":null}]}"#,
                State::Fail,
                "refused: parameter /a (version 9):1:1: no",
            ),
            (r#"{"good":[]}"#, State::Ok, "no parameter has a value"),
            (
                "{",
                State::Fail,
                "the last copy of the parameters, /s/settings.json, is damaged",
            ),
        ] {
            let found = copy(text, path);
            assert_eq!((found.state, &*found.says), (state, says));
        }
    }
}

//! A configuration file: what is wrong with it is told on lines of its own; what is right can be shown, read again
//! and lived with.

use sideline::collect::cameras::json::Json;
use sideline::config::address::{Broker, http};
use sideline::config::cost::{Bill, Fleet};
use sideline::config::effective::{Effective, Environment};
use sideline::config::layers::{Base, Parameter};
use sideline::config::{Config, Parsed, Problems, SourceKind, decode, parse};

/// The text of a file.
pub(super) fn run(input: &[u8]) {
    let lines = 1 + input.iter().filter(|byte| **byte == b'\n').count();
    match decode(input).and_then(|text| Ok((text, parse(text)?))) {
        Ok((text, parsed)) => {
            usable(&parsed.config);
            shown(text, parsed, lines);
            over(text, lines);
        }
        Err(problems) => told(&problems, lines),
    }
}

/// The same as a parameter over a file: a configuration again, or told where it is wrong.
fn over(text: &str, lines: usize) {
    let file = "ssm.parameters = ['/a']\n[relay]\nurl = 'mqtts://h'\nca = '/c'\n";
    let base = Base::of_file("file".into(), file.to_owned(), Environment::default());
    let base = base.expect("the file is right");
    let parameter = Parameter {
        name: "/a".to_owned(),
        version: 1,
        value: text.to_owned(),
    };
    let laid = base.lay(&[parameter], &[]);
    match laid.refused.as_slice() {
        [] => {
            usable(&laid.effective.config);
            let shown = laid.effective.toml();
            assert!(parse(&shown).is_ok(), "{shown}");
        }
        [(_, problems), ..] => {
            told(problems, lines);
            assert_eq!(laid.effective.config, base.config);
        }
    }
}

fn told(problems: &Problems, lines: usize) {
    assert!(!problems.list.is_empty(), "refused without a reason");
    for problem in &problems.list {
        assert!((1..=lines).contains(&problem.line), "{problem:?}");
        assert!(problem.column >= 1, "{problem:?}");
        let message = &problem.message;
        assert!(!message.is_empty() && message.len() <= 4096, "{message}");
        assert!(!message.contains(char::is_control), "{message:?}");
    }
    assert!(problems.lines("file").lines().count() <= 51);
}

/// What `config show` prints is a configuration, and the same one.
fn shown(text: &str, parsed: Parsed, lines: usize) {
    let config = parsed.config.clone();
    assert!(parsed.lines.values().all(|line| (1..=lines).contains(line)));
    let effective = Effective::of_file("file".into(), parsed, &Environment::default());
    assert!(effective.json().is_object());
    let shown = effective.toml();
    let again = parse(&shown)
        .unwrap_or_else(|problems| panic!("{shown}\n{}", problems.lines("what is shown")));
    // Logins of URLs are not shown.
    if !text.contains('@') {
        assert_eq!(again.config, config, "{shown}");
    }
}

/// What the checks let pass, the parts that it is meant for take.
fn usable(config: &Config) {
    for source in &config.cameras.source {
        broker(&source.url);
        match source.kind {
            SourceKind::Frigate => {}
            SourceKind::Mqtt => {
                let topic = source.topic.as_deref().expect("the topic is checked");
                let fields = source.fields.as_ref().expect("the fields are checked");
                Json::new(topic, fields, config.cameras.max).expect("both are checked");
            }
        }
    }
    if !config.relay.url.is_empty() {
        broker(&config.relay.url);
    }
    if !config.aws.ecs_agent.is_empty() {
        http(&config.aws.ecs_agent).expect("the address is checked");
    }
    let fleet = Fleet {
        nodes: u32::MAX,
        gpus: u32::MAX,
        cameras: u32::MAX,
    };
    let bill = Bill::of(&config.cloudwatch, fleet);
    assert!(bill.node_monthly <= bill.monthly);
}

/// A broker's name in the log leads back to it.
fn broker(url: &str) {
    let broker = Broker::parse(url).expect("the URL is checked");
    let again = Broker::parse(&broker.to_string()).expect("a broker's name is a URL");
    assert_eq!(
        (again.tls, again.host, again.port, again.user),
        (broker.tls, broker.host, broker.port, None)
    );
}

//! What lies under a configuration: the file and the environment; and the parameters of SSM that are laid over them.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::effective::{Effective, Environment};
use super::parse::{parse, parse_over};
use super::problem::join;
use super::shape::Seen;
use super::{Config, Parsed, Problems};

/// What no parameter sets: where parameters come from, and what they may do.
const NEVER: [&str; 3] = ["ssm.parameters", "ssm.allow_commands", "aws.region"];

/// What parameters set only where the file allows it: what runs, what is read and written as root, who this node is
/// to AWS, and what opens a door to others.
const GUARDED: [&str; 14] = [
    "check",
    "paths.state",
    "paths.run",
    "gpu.library",
    "kernel_log.path",
    "aws.registration",
    "aws.credentials",
    "aws.ecs_agent",
    "aws.restart_ssm_agent",
    "relay.ca",
    "relay.certificate",
    "relay.key",
    "relay.insecure",
    "status.metrics_listen",
];

/// A parameter of SSM, decrypted: a part of a configuration, as TOML.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Parameter {
    /// Its name as `ssm.parameters` has it: `/sideline/fleet`.
    pub name: String,
    /// Its version, which SSM counts up with every change, from 1.
    pub version: i64,
    /// Its text. It may hold secrets, so `Debug` does not show it.
    pub value: String,
}

/// As messages name it.
impl fmt::Display for Parameter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "parameter {} (version {})", self.name, self.version)
    }
}

impl fmt::Debug for Parameter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What the file and the environment say, with all that is needed to lay parameters over it.
#[derive(Debug, Clone, PartialEq)]
pub struct Base {
    /// The configuration without parameters.
    pub config: Config,
    file: Option<PathBuf>,
    text: String,
    environment: Environment,
}

/// Parameters laid over the rest.
#[derive(Debug, Clone, PartialEq)]
pub struct Laid {
    /// The configuration that came of it.
    pub effective: Effective,
    /// The parameters in it, in their order.
    pub used: Vec<Parameter>,
    /// What was left out, and why.
    pub refused: Vec<(Parameter, Problems)>,
}

impl Base {
    /// What a file says, completed by the environment.
    ///
    /// # Errors
    /// Every problem of the text.
    pub fn of_file(
        file: PathBuf,
        text: String,
        environment: Environment,
    ) -> Result<Self, Problems> {
        let parsed = parse(&text)?;
        let effective = Effective::of_file(file.clone(), parsed, &environment);
        Ok(Base {
            config: effective.config,
            file: Some(file),
            text,
            environment,
        })
    }

    /// The defaults, completed by the environment.
    #[must_use]
    pub fn without_file(environment: Environment) -> Self {
        Base {
            config: Effective::without_file(&environment).config,
            file: None,
            text: String::new(),
            environment,
        }
    }

    /// Lays the parameters that the file names over it, in the file's order. One that is wrong is left out whole, and
    /// the one of its name among `good` stands in for it.
    #[must_use]
    pub fn lay(&self, parameters: &[Parameter], good: &[Parameter]) -> Laid {
        let mut refused = Vec::new();
        let mut texts = vec![self.text.as_str()];
        let mut used: Vec<(&Parameter, Parsed)> = Vec::new();
        for name in &self.config.ssm.parameters {
            let named = |one: &&Parameter| one.name == *name;
            let new = parameters.iter().find(named);
            // One that has gone takes its old version along.
            let old = good
                .iter()
                .find(named)
                .filter(|old| new.is_some_and(|new| new != *old));
            for parameter in [new, old].into_iter().flatten() {
                match self.try_over(&texts, &parameter.value) {
                    Ok(parsed) => {
                        texts.push(&parameter.value);
                        used.push((parameter, parsed));
                        break;
                    }
                    Err(problems) => refused.push((parameter.clone(), problems)),
                }
            }
        }
        let parameters = used
            .iter()
            .map(|(parameter, _)| (*parameter).clone())
            .collect();
        let parts = used.into_iter().map(|(parameter, parsed)| {
            let name = (parameter.name.clone(), parameter.version);
            (name, parsed)
        });
        Laid {
            effective: self.effective(parts),
            used: parameters,
            refused,
        }
    }

    /// What is wrong with texts that are laid over the file, each over those before it that are right: the place of
    /// each that is wrong, and its problems.
    #[must_use]
    pub fn check_over(&self, texts: &[&str]) -> Vec<(usize, Problems)> {
        let mut below = vec![self.text.as_str()];
        let mut wrong = Vec::new();
        for (at, text) in texts.iter().enumerate() {
            match self.try_over(&below, text) {
                Ok(_) => below.push(text),
                Err(problems) => wrong.push((at, problems)),
            }
        }
        wrong
    }

    /// What tells these parameters over this file in this version of the program from all others.
    #[must_use]
    pub fn digest(&self, parameters: &[Parameter]) -> String {
        let mut hasher = DefaultHasher::new();
        (env!("CARGO_PKG_VERSION"), &self.text, parameters).hash(&mut hasher);
        format!("{:016x}", hasher.finish())
    }

    fn try_over(&self, below: &[&str], text: &str) -> Result<Parsed, Problems> {
        let allowed = self.config.ssm.allow_commands;
        parse_over(below, text, |config, seen| guard(config, seen, allowed))
    }

    fn effective(&self, parts: impl Iterator<Item = ((String, i64), Parsed)>) -> Effective {
        match &self.file {
            None => Effective::without_file(&self.environment),
            Some(file) => {
                // It was right when it was read.
                let parsed = parse(&self.text).unwrap_or_default();
                Effective::of_layers(file.clone(), parsed, parts, &self.environment)
            }
        }
    }
}

/// Notes what a parameter must not set.
fn guard(config: &Config, seen: &mut Seen<'_, '_>, allowed: bool) {
    for path in NEVER {
        if seen.places.contains_key(path) {
            seen.wrong(&[path], || {
                format!("{path} must not be set by a parameter, only in the file")
            });
        }
    }
    if allowed {
        return;
    }
    let sources = &config.cameras.source;
    let key = |at: usize, name: &str| join(&format!("cameras.source[{at}]"), name);
    let authorities = (0..sources.len()).map(|at| key(at, "ca"));
    for path in GUARDED.into_iter().map(str::to_owned).chain(authorities) {
        if seen.places.contains_key(&path) {
            seen.wrong(&[&path], || {
                format!("{path} must not be set by a parameter unless the file has ssm.allow_commands = true")
            });
        }
    }
    let urls = sources
        .iter()
        .enumerate()
        .map(|(at, source)| (key(at, "url"), &source.url));
    for (path, url) in urls.chain([("relay.url".to_owned(), &config.relay.url)]) {
        if url.contains('@') && seen.places.contains_key(&path) {
            seen.wrong(&[&path], || {
                format!("{path} must not hold a login in a parameter unless the file has ssm.allow_commands = true")
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::config::effective::Origin;

    fn base(text: &str) -> Base {
        let text = format!("ssm.parameters = ['/a', '/b', '/c']\n{text}");
        Base::of_file("f".into(), text, Environment::default()).unwrap()
    }

    fn parameter(name: &str, version: i64, value: &str) -> Parameter {
        Parameter {
            name: name.to_owned(),
            version,
            value: value.to_owned(),
        }
    }

    /// The problems of one text over another.
    fn told(file: &str, text: &str) -> String {
        let laid = base(file).lay(&[parameter("/a", 7, text)], &[]);
        let refused = laid.refused.iter();
        let lines = refused.map(|(parameter, problems)| problems.lines(&parameter.to_string()));
        lines
            .collect::<Vec<_>>()
            .join("\n")
            .replace("parameter /a (version 7):", "")
    }

    #[test]
    fn later_ones_win_key_by_key_and_each_value_says_where_it_comes_from() {
        let base = base(
            "\
[node]
site = 'file'
slots = 9
[[check]]
name = 'load'
command = ['/bin/true']
every = '5m'
[cameras.expect]
hole01 = { fps = 5 }
[judge.rules]
'gpu.hot' = 'off'
",
        );
        let a = parameter(
            "/a",
            1,
            "[node]\nsite = 'a'\n[judge]\nrules = { 'host.memory' = 'off' }",
        );
        let c = parameter("/c", 3, "node.site = 'c'\ncameras.expect.hole02 = {}\n");
        // The order is the file's.
        let laid = base.lay(
            &[c.clone(), parameter("/x", 1, "node.site = 'x'"), a.clone()],
            &[],
        );
        assert_eq!(laid.refused, []);
        assert_eq!(laid.used, [a, c]);
        let effective = laid.effective;
        let config = &effective.config;
        assert_eq!(
            (config.node.site.as_str(), config.node.slots),
            ("c", Some(9))
        );
        assert_eq!(config.cameras.expect.len(), 2);
        assert_eq!(config.judge.rules.len(), 2);
        for (path, origin) in [
            ("node.site", Origin::Parameter(1, 1)),
            ("node.slots", Origin::File(4)),
            ("judge.rules.\"gpu.hot\"", Origin::File(12)),
            ("judge.rules.\"host.memory\"", Origin::Parameter(0, 4)),
            ("cameras.expect.hole01.fps", Origin::File(10)),
            ("check[0].every", Origin::File(8)),
            ("host.every", Origin::Default),
        ] {
            assert_eq!(effective.origin(path), origin, "{path}");
        }
        let shown = effective.toml();
        assert!(shown.contains("# parameter /c:1\n"), "{shown}");
        assert!(
            shown.contains("\n# parameter /a version 1\n# parameter /c version 3\n"),
            "{shown}"
        );
        let json = effective.json();
        assert_eq!(json["origins"]["node.site"], "parameter /c:1");
        assert_eq!(json["parameters"][1]["version"], 3);
    }

    #[test]
    fn a_list_is_replaced_with_all_that_was_known_of_it() {
        let base = base(
            "\
ssm.allow_commands = true
[[check]]
name = 'load'
command = ['/bin/true']
every = '5m'
[[check]]
name = 'more'
command = ['/bin/true']
",
        );
        let check = parameter("/b", 1, "[[check]]\nname = 'b'\ncommand = ['/bin/b']");
        let effective = base.lay(&[check], &[]).effective;
        assert_eq!(effective.config.check.len(), 1);
        assert_eq!(effective.origin("check[0].name"), Origin::Parameter(0, 2));
        assert_eq!(effective.origin("check[0].every"), Origin::Default);
        assert_eq!(effective.origin("check[1].name"), Origin::Default);
    }

    #[test]
    fn the_environment_fills_what_nobody_sets() {
        let environment = Environment {
            aws_region: Some("eu-west-1".to_owned()),
            ..Environment::default()
        };
        let text = "ssm.parameters = ['/a']".to_owned();
        let base = Base::of_file("f".into(), text, environment).unwrap();
        let laid = base.lay(&[parameter("/a", 1, "node.site = 'a'")], &[]);
        assert_eq!(laid.effective.config.node.site, "a");
        assert_eq!(laid.effective.config.aws.region, "eu-west-1");
    }

    #[test]
    fn one_that_is_wrong_is_left_out_whole() {
        let base = base("judge.disk_failing_percent = 95");
        let good = [
            parameter("/a", 1, "node.site = 'a1'"),
            parameter("/b", 1, "judge.disk_degraded_percent = 94"),
        ];
        for (a, b, used, refused) in [
            ("node.site = 'a2'", "node.slots = 2", "a2 b2", ""),
            ("node.site = ''", "node.slots = 2", "a1 b2", "a2"),
            ("node.sight = 'a2'", "node.slots = 0", "a1 b1", "a2 b2"),
            // What was good is wrong over the new one below it.
            (
                "judge.disk_failing_percent = 93",
                "node.slots = 0",
                "a2",
                "b2 b1",
            ),
            // And the new one only over the new one.
            (
                "judge.disk_failing_percent = 99",
                "judge.disk_degraded_percent = 98",
                "a2 b2",
                "",
            ),
        ] {
            let laid = base.lay(&[parameter("/a", 2, a), parameter("/b", 2, b)], &good);
            let name = |one: &Parameter| format!("{}{}", &one.name[1..], one.version);
            let names = laid.used.iter().map(name).collect::<Vec<_>>().join(" ");
            let wrong = laid.refused.iter().map(|(one, _)| name(one));
            let wrong = wrong.collect::<Vec<_>>().join(" ");
            assert_eq!((names.as_str(), wrong.as_str()), (used, refused), "{a} {b}");
        }
        // One that SSM has no more is gone.
        let laid = base.lay(&good[1..], &good);
        assert_eq!(laid.used, &good[1..]);
        let over = base.check_over(&["x", "node.slots = 2", "node.slots = 0"]);
        assert_eq!(over.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [0, 2]);
    }

    #[test]
    fn problems_are_told_to_the_letter() {
        let tls = "relay = { url = 'mqtts://h', ca = '/ca' }";
        for (file, text, wanted) in [
            (
                "",
                "\n[hots]",
                "2:2: unknown section [hots]; did you mean [host]?",
            ),
            (
                "",
                "[host]\nevery = '2h'",
                "2:9: host.every must be a duration from \"1s\" to \"5m\", is '2h'",
            ),
            // What is wrong only over the file.
            (
                tls,
                "[relay]\nurl = 'mqtt://127.0.0.1'",
                "2:7: relay.ca needs an encrypted connection: relay.url must start with mqtts://",
            ),
            (
                "",
                "relay.url = 'mqtt://h'",
                "1:13: relay.url must start with mqtts:// to leave this machine; relay.insecure = true allows it unencrypted",
            ),
            (
                "",
                "ssm = { parameters = [], allow_commands = true }",
                "1:22: ssm.parameters must not be set by a parameter, only in the file\n\
                 1:43: ssm.allow_commands must not be set by a parameter, only in the file",
            ),
            (
                "",
                "[paths]\nstate = '/x'",
                "2:9: paths.state must not be set by a parameter unless the file has ssm.allow_commands = true",
            ),
            (
                "",
                "check = []",
                "1:9: check must not be set by a parameter unless the file has ssm.allow_commands = true",
            ),
            (
                "",
                "cameras.source = [{ kind = 'frigate', url = 'mqtts://u:secret@h', ca = '/x' }]",
                "1:45: cameras.source[0].url must not hold a login in a parameter unless the file has ssm.allow_commands = true\n\
                 1:72: cameras.source[0].ca must not be set by a parameter unless the file has ssm.allow_commands = true",
            ),
            // A login that the file has is the file's.
            ("relay.url = 'mqtts://u:secret@h'", "relay.prefix = 'x'", ""),
            (
                "relay.url = 'mqtts://u:secret@h'",
                "relay.url = 5",
                "1:13: relay.url must be a text in quotes, is 5",
            ),
            // Somebody's password, in a parameter with the wrong name.
            (
                "",
                "c2VjcmV0cGFzc3dvcmQ=",
                "1:21: string values must be quoted",
            ),
            ("", "hunter2", "1:8: key with no value, expected `=`"),
        ] {
            let told = told(file, text);
            assert_eq!(told, wanted, "{text}");
            assert!(!told.contains("secret"), "{told}");
        }
    }

    #[test]
    fn the_file_may_allow_more_but_never_all() {
        let all = "\
[paths]
state = '/s'
run = '/r'
[gpu]
library = '/l'
[kernel_log]
path = '/k'
[aws]
registration = '/x'
credentials = '/c'
ecs_agent = ''
restart_ssm_agent = true
[relay]
url = 'mqtts://u:p@h'
ca = '/ca'
certificate = '/c'
key = '/k'
insecure = true
[[cameras.source]]
kind = 'frigate'
url = 'mqtts://u:p@h'
ca = '/x'
[[check]]
name = 'a'
command = ['/a']
";
        // 13 keys, a source's ca, and two logins.
        assert_eq!(told("", all).lines().count(), 16, "{}", told("", all));
        assert_eq!(told("ssm.allow_commands = true", all), "");
        let wanted = "1:22: ssm.parameters must not be set by a parameter, only in the file";
        assert_eq!(
            told("ssm.allow_commands = true", "ssm = { parameters = [] }"),
            wanted
        );
    }

    /// Every key is one that a parameter may set, or one that it may not: who adds a key decides.
    #[test]
    fn what_parameters_may_set() {
        let defaults = toml::Table::try_from(Config::default()).unwrap();
        let mut free: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (section, keys) in &defaults {
            for key in keys.as_table().into_iter().flat_map(toml::Table::keys) {
                let path = format!("{section}.{key}");
                if !NEVER.contains(&path.as_str()) && !GUARDED.contains(&path.as_str()) {
                    free.entry(section).or_default().push(key);
                }
            }
        }
        let free = free
            .into_iter()
            .map(|(section, keys)| format!("{section}: {}", keys.join(" ")));
        insta::assert_snapshot!(free.collect::<Vec<_>>().join("\n"), @r"
        cameras: source expect down_after max
        cloudwatch: enabled namespace profile period detail_budget
        failover: mode hold probation max_unfit_share max_drains_a_day changes
        gpu: enabled every deadline expected
        host: every
        judge: recover_after forget_after gpu_hot_after disk_degraded_percent disk_failing_percent disk_ignore memory_percent camera_fps_ratio camera_degraded_after rules
        node: site
        outbox: max_bytes max_age
        relay: url prefix retain
        ssm: every inventory compliance
        ups: enabled address every
        ");
    }

    #[test]
    fn a_digest_tells_sets_apart() {
        let sets = [
            base("").digest(&[]),
            base("node.slots = 1").digest(&[]),
            base("").digest(&[parameter("/a", 1, "")]),
            base("").digest(&[parameter("/a", 2, "")]),
            base("").digest(&[parameter("/b", 1, "")]),
            base("").digest(&[parameter("/a", 1, "x")]),
        ];
        for (at, one) in sets.iter().enumerate() {
            assert_eq!(sets.iter().position(|other| other == one), Some(at));
        }
    }
}

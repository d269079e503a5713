//! What counts: the defaults, the file and the environment together, and where each value came from.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::path::PathBuf;

use serde_json::json;
use toml::{Table, Value};

use super::problem::join;
use super::schema::Schema;
use super::{Config, Parsed, address};

/// Comments behind longer lines are not aligned.
const WIDEST: usize = 52;

/// What the configuration needs to know of the process it runs in; read outside.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Environment {
    /// `AWS_REGION`.
    pub aws_region: Option<String>,
    /// `AWS_DEFAULT_REGION`.
    pub aws_default_region: Option<String>,
    /// `AWS_SHARED_CREDENTIALS_FILE`.
    pub aws_shared_credentials_file: Option<String>,
    /// `XDG_STATE_HOME`.
    pub xdg_state_home: Option<PathBuf>,
    /// `XDG_RUNTIME_DIR`.
    pub xdg_runtime_dir: Option<PathBuf>,
    /// `HOME`.
    pub home: Option<PathBuf>,
    /// Whether the user is root.
    pub root: bool,
}

/// Where a value came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// It is the default.
    Default,
    /// This line of the file, from 1.
    File(usize),
    /// The parameter at this place of [`Effective::parameters`], and its line, from 1.
    Parameter(usize, usize),
    /// This variable of the environment.
    Environment(&'static str),
    /// It follows from paths.state, for an ordinary user without a file.
    State,
}

/// The configuration that counts.
#[derive(Debug, Clone, PartialEq)]
pub struct Effective {
    /// Its values.
    pub config: Config,
    /// The file they were read from, if there is one.
    pub file: Option<PathBuf>,
    /// The parameters that were laid over it, in their order: name and version.
    pub parameters: Vec<(String, i64)>,
    /// What else is worth telling of how this came about, a line each.
    pub notes: Vec<String>,
    origins: BTreeMap<String, Origin>,
}

impl Effective {
    /// What a file says, completed by the environment.
    #[must_use]
    pub fn of_file(file: PathBuf, parsed: Parsed, environment: &Environment) -> Self {
        Effective::of_layers(file, parsed, std::iter::empty(), environment)
    }

    /// The same with parameters over it: each one's name, its version, and what was read of it over all before it.
    #[must_use]
    pub(super) fn of_layers(
        file: PathBuf,
        parsed: Parsed,
        parameters: impl Iterator<Item = ((String, i64), Parsed)>,
        environment: &Environment,
    ) -> Self {
        let lines = parsed.lines.into_iter();
        let mut effective = Effective {
            config: parsed.config,
            file: Some(file),
            parameters: Vec::new(),
            notes: Vec::new(),
            origins: lines.map(|(key, line)| (key, Origin::File(line))).collect(),
        };
        for (at, (parameter, parsed)) in parameters.enumerate() {
            effective.parameters.push(parameter);
            effective.config = parsed.config;
            for path in parsed.lines.keys() {
                // A list is replaced: what its elements were says nothing of the new ones.
                let element = format!("{path}[");
                effective
                    .origins
                    .retain(|path, _| !path.starts_with(&element));
            }
            let lines = parsed.lines.into_iter();
            let origins = lines.map(|(key, line)| (key, Origin::Parameter(at, line)));
            effective.origins.extend(origins);
        }
        effective.aws(environment);
        effective
    }

    /// The defaults, completed by the environment; an ordinary user's are kept in the user's own folders.
    #[must_use]
    pub fn without_file(environment: &Environment) -> Self {
        let mut effective = Effective {
            config: Config::default(),
            file: None,
            parameters: Vec::new(),
            notes: Vec::new(),
            origins: BTreeMap::new(),
        };
        effective.aws(environment);
        if !environment.root {
            effective.own_folders(environment);
        }
        effective
    }

    /// Where the value of a key came from, by its path: `aws.region`, `cameras.source[0].url`.
    #[must_use]
    pub fn origin(&self, path: &str) -> Origin {
        self.origins.get(path).copied().unwrap_or(Origin::Default)
    }

    fn aws(&mut self, environment: &Environment) {
        let aws = &mut self.config.aws;
        let regions = [
            ("AWS_REGION", &environment.aws_region),
            ("AWS_DEFAULT_REGION", &environment.aws_default_region),
        ];
        let file = [(
            "AWS_SHARED_CREDENTIALS_FILE",
            &environment.aws_shared_credentials_file,
        )];
        for (path, value, variables) in [
            ("aws.region", &mut aws.region, regions.as_slice()),
            ("aws.credentials", &mut aws.credentials, file.as_slice()),
        ] {
            let set = |(name, text): &(_, &Option<String>)| {
                let text = text.as_ref().filter(|text| !text.is_empty())?;
                Some((*name, text.clone()))
            };
            if value.is_empty()
                && let Some((name, text)) = variables.iter().find_map(set)
            {
                *value = text;
                self.origins.insert(path.into(), Origin::Environment(name));
            }
        }
    }

    fn own_folders(&mut self, environment: &Environment) {
        // The XDG rules: a path that is not absolute does not count.
        let absolute = |path: &Option<PathBuf>| path.clone().filter(|path| path.is_absolute());
        let state = match (
            absolute(&environment.xdg_state_home),
            absolute(&environment.home),
        ) {
            (Some(folder), _) => Some((folder, "XDG_STATE_HOME")),
            (None, Some(home)) => Some((home.join(".local/state"), "HOME")),
            (None, None) => None,
        };
        let paths = &mut self.config.paths;
        if let Some((folder, variable)) = state {
            paths.state = folder.join("sideline");
            let origin = Origin::Environment(variable);
            self.origins.insert("paths.state".into(), origin);
        }
        let (run, origin) = match absolute(&environment.xdg_runtime_dir) {
            Some(folder) => (
                folder.join("sideline"),
                Origin::Environment("XDG_RUNTIME_DIR"),
            ),
            None => (paths.state.clone(), Origin::State),
        };
        paths.run = run;
        self.origins.insert("paths.run".into(), origin);
    }

    /// The configuration as TOML, with a comment behind each key that tells where its value came from.
    /// Passwords in URLs are `***`.
    #[must_use]
    pub fn toml(&self) -> String {
        let mut text = match &self.file {
            Some(file) => format!("# {}, the environment and the defaults\n", file.display()),
            None => "# no file: the environment and the defaults\n".into(),
        };
        for (name, version) in &self.parameters {
            let _ = writeln!(text, "# parameter {name} version {version}");
        }
        for note in &self.notes {
            let _ = writeln!(text, "# {note}");
        }
        let schema = Schema::new();
        for (section, value) in self.table() {
            let Value::Table(table) = value else {
                self.elements(&mut text, &section, &value);
                continue;
            };
            let (inner, own): (Vec<_>, Vec<_>) =
                table.iter().partition(|(_, value)| is_section(value));
            self.section(&mut text, &format!("[{section}]"), &section, own);
            if let Some(keys) = schema.table(&schema.root()["properties"][&section]) {
                for (key, node) in keys.iter().filter(|(key, _)| !table.contains_key(*key)) {
                    let manual = node["description"].as_str().unwrap_or_default();
                    let default = manual.split_once("Default: ").map_or("none", |(_, it)| it);
                    let _ = writeln!(text, "# {key}: {}", default.trim_end_matches('.'));
                }
            }
            for (key, value) in inner {
                let path = join(&section, key);
                self.elements(&mut text, &path, value);
                if let Value::Table(keys) = value {
                    self.section(
                        &mut text,
                        &format!("[{path}]"),
                        &path,
                        keys.iter().collect(),
                    );
                }
            }
        }
        text
    }

    /// The tables of a list, each under its header.
    fn elements(&self, text: &mut String, path: &str, list: &Value) {
        let elements = list.as_array().map_or(&[][..], Vec::as_slice);
        for (at, element) in elements.iter().enumerate() {
            let keys = element.as_table().into_iter().flatten().collect();
            self.section(text, &format!("[[{path}]]"), &format!("{path}[{at}]"), keys);
        }
    }

    /// A header and its keys, a line each.
    fn section(&self, text: &mut String, header: &str, path: &str, keys: Vec<(&String, &Value)>) {
        let lines = keys.into_iter().map(|(key, value)| {
            let origin = self.tell(self.origin(&join(path, key)));
            (format!("{} = {value}", join("", key)), origin)
        });
        let lines: Vec<_> = lines.collect();
        let widths = lines.iter().map(|(line, _)| line.chars().count());
        let width = widths.max().unwrap_or(0).min(WIDEST);
        let _ = write!(text, "\n{header}\n");
        for (line, origin) in &lines {
            let _ = writeln!(text, "{line:width$}  # {origin}");
        }
    }

    /// The same as JSON: `{"file", "parameters": [{"name", "version"}], "notes": ["…"], "config",
    /// "origins": {"host.every": "default", "cloudwatch.profile": "parameter /sideline/fleet:3", …}}`.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        let table = self.table();
        let mut origins = serde_json::Map::new();
        each_leaf("", &Value::Table(table.clone()), &mut |path| {
            origins.insert(path.to_owned(), json!(self.tell(self.origin(path))));
        });
        let parameters = self.parameters.iter();
        let parameters =
            parameters.map(|(name, version)| json!({"name": name, "version": version}));
        json!({
            "file": self.file,
            "parameters": parameters.collect::<Vec<_>>(),
            "notes": self.notes,
            "config": table,
            "origins": origins,
        })
    }

    /// The values, without passwords.
    fn table(&self) -> Table {
        let mut table = Table::try_from(&self.config).unwrap_or_default();
        table.iter_mut().for_each(|(_, value)| hide(value));
        table
    }

    fn tell(&self, origin: Origin) -> String {
        match (origin, &self.file) {
            (Origin::File(line), Some(file)) => format!("{}:{line}", file.display()),
            (Origin::Parameter(at, line), _) => {
                let name = self.parameters.get(at).map_or("?", |(name, _)| name);
                format!("parameter {name}:{line}")
            }
            (origin, _) => origin.to_string(),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File(line) => write!(f, "line {line}"),
            Origin::Parameter(_, line) => write!(f, "line {line} of a parameter"),
            Origin::Environment(name) => write!(f, "environment {name}"),
            Origin::State => f.write_str("paths.state"),
        }
    }
}

/// Whether a value is written under a header of its own.
fn is_section(value: &Value) -> bool {
    match value {
        Value::Table(_) => true,
        Value::Array(list) => list.first().is_some_and(Value::is_table),
        Value::String(_)
        | Value::Integer(_)
        | Value::Float(_)
        | Value::Boolean(_)
        | Value::Datetime(_) => false,
    }
}

/// Tells the path of every value that is no table.
fn each_leaf(path: &str, value: &Value, tell: &mut dyn FnMut(&str)) {
    match value {
        Value::Table(table) => {
            for (key, value) in table {
                each_leaf(&join(path, key), value, tell);
            }
        }
        Value::Array(list) if is_section(value) => {
            for (at, value) in list.iter().enumerate() {
                each_leaf(&format!("{path}[{at}]"), value, tell);
            }
        }
        Value::Array(_)
        | Value::String(_)
        | Value::Integer(_)
        | Value::Float(_)
        | Value::Boolean(_)
        | Value::Datetime(_) => tell(path),
    }
}

/// Takes the passwords out of all URLs.
fn hide(value: &mut Value) {
    match value {
        Value::String(text) if text.contains("://") => *text = address::redact(text).into_owned(),
        Value::Table(table) => table.iter_mut().for_each(|(_, value)| hide(value)),
        Value::Array(list) => list.iter_mut().for_each(hide),
        Value::String(_)
        | Value::Integer(_)
        | Value::Float(_)
        | Value::Boolean(_)
        | Value::Datetime(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    fn environment(root: bool, variables: &[(&str, &str)]) -> Environment {
        let get = |name: &str| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        Environment {
            aws_region: get("AWS_REGION"),
            aws_default_region: get("AWS_DEFAULT_REGION"),
            aws_shared_credentials_file: get("AWS_SHARED_CREDENTIALS_FILE"),
            xdg_state_home: get("XDG_STATE_HOME").map(PathBuf::from),
            xdg_runtime_dir: get("XDG_RUNTIME_DIR").map(PathBuf::from),
            home: get("HOME").map(PathBuf::from),
            root,
        }
    }

    #[test]
    fn an_ordinary_user_without_a_file_has_folders_of_their_own() {
        let home = ("HOME", "/home/u");
        for (root, variables, wanted) in [
            (true, vec![home], "/var/lib/sideline /run/sideline"),
            (
                false,
                vec![home, ("XDG_STATE_HOME", "/s"), ("XDG_RUNTIME_DIR", "/r")],
                "/s/sideline /r/sideline",
            ),
            (
                false,
                vec![home],
                "/home/u/.local/state/sideline /home/u/.local/state/sideline",
            ),
            (
                false,
                vec![home, ("XDG_STATE_HOME", "s"), ("XDG_RUNTIME_DIR", "")],
                "/home/u/.local/state/sideline /home/u/.local/state/sideline",
            ),
            (false, vec![], "/var/lib/sideline /var/lib/sideline"),
        ] {
            let config = Effective::without_file(&environment(root, &variables)).config;
            let seen = format!(
                "{} {}",
                config.paths.state.display(),
                config.paths.run.display()
            );
            assert_eq!(seen, wanted, "{variables:?}");
        }
    }

    #[test]
    fn the_file_goes_before_the_environment() {
        let variables = [("AWS_REGION", "eu-west-1"), ("AWS_DEFAULT_REGION", "x")];
        for (text, variables, wanted, origin) in [
            (
                "",
                &variables[..],
                "eu-west-1",
                Origin::Environment("AWS_REGION"),
            ),
            (
                "",
                &variables[1..],
                "x",
                Origin::Environment("AWS_DEFAULT_REGION"),
            ),
            ("", &[("AWS_REGION", "")], "", Origin::Default),
            ("[aws]\nregion = 'r'", &variables, "r", Origin::File(2)),
            (
                "[aws]\nregion = ''",
                &variables,
                "eu-west-1",
                Origin::Environment("AWS_REGION"),
            ),
        ] {
            let environment = environment(true, variables);
            let seen = Effective::of_file("f".into(), parse(text).unwrap(), &environment);
            assert_eq!(seen.config.aws.region, wanted, "{text}");
            assert_eq!(seen.origin("aws.region"), origin, "{text}");
        }
    }

    #[test]
    fn show_tells_where_values_came_from_and_hides_passwords() {
        let text = "\
[node]
id = 'n'

[[cameras.source]]
kind = 'mqtt'
url = 'mqtt://u:secret@h'
topic = 'c/+'
fields = { fps = '/fps' }

[cameras.expect]
'hole 7' = { fps = 25 }

[judge.rules]
'gpu.xid.79' = 'off'

[relay]
url = 'mqtts://secret@broker'

[[check]]
name = 'load'
command = ['/bin/true']
";
        let environment = environment(true, &[("AWS_SHARED_CREDENTIALS_FILE", "/c")]);
        let seen = Effective::of_file("/f".into(), parse(text).unwrap(), &environment);
        let shown = seen.toml();
        assert!(!shown.contains("secret"), "{shown}");
        // Without the alignment of the comments.
        let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        let shown: Vec<_> = shown.lines().map(words).collect();
        for line in [
            "id = \"n\" # /f:2",
            "site = \"default\" # default",
            "# slots: the number of cameras under [cameras.expect], else of GPUs, else 1",
            "[[check]]",
            "command = [\"/bin/true\"] # /f:21",
            "every = \"1m\" # default",
            "[[cameras.source]]",
            "url = \"mqtt://u:***@h\" # /f:6",
            "fields = { fps = \"/fps\" } # /f:8",
            "\"hole 7\" = { fps = 25.0 } # /f:11",
            "\"gpu.xid.79\" = \"off\" # /f:14",
            "credentials = \"/c\" # environment AWS_SHARED_CREDENTIALS_FILE",
        ] {
            assert!(
                shown.iter().any(|shown| shown == line),
                "{line}\n{shown:#?}"
            );
        }
        let json = seen.json();
        assert!(!json.to_string().contains("secret"));
        assert_eq!(
            json["config"]["cameras"]["source"][0]["url"],
            "mqtt://u:***@h"
        );
        assert_eq!(json["origins"]["cameras.source[0].fields.fps"], "/f:8");
        assert_eq!(json["origins"]["host.every"], "default");
    }

    #[test]
    fn what_show_prints_is_a_configuration() {
        for text in [
            "",
            "[[cameras.source]]\nkind = 'frigate'\nurl = 'mqtt://h'\n",
            // Keys that Rust would escape in another way than TOML, and a size between the units.
            "[cameras.expect]\n'a\u{200b}\\\"' = {}\n\"cafe\u{301}\" = { fps = 5 }\n",
            "[outbox]\nmax_bytes = '100000001'\n",
        ] {
            let parsed = parse(text).unwrap();
            let config = parsed.config.clone();
            let seen = Effective::of_file("f".into(), parsed, &Environment::default());
            assert_eq!(parse(&seen.toml()).unwrap().config, config);
        }
    }
}

//! A small SSM for the double: parameters that can be set and taken away, and what nodes say of their compliance.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::wire::Refusal;

/// What `X-Amz-Target` begins with.
pub(super) const TARGET: &str = "AmazonSSM.";

/// What SSM takes, by its reference.
const MOST_NAMES: usize = 10;
const LONGEST_PARAMETER: usize = 4_096;
const MOST_ITEMS: usize = 10_000;
const MOST_TYPES: usize = 10;
const LONGEST_RESOURCE: usize = 100;
const LONGEST_TYPE: usize = 100;
const LONGEST_TITLE: usize = 500;
const LONGEST_DETAIL_NAME: usize = 64;
const LONGEST_DETAIL: usize = 4_096;

const SEVERITIES: [&str; 6] = [
    "CRITICAL",
    "HIGH",
    "MEDIUM",
    "LOW",
    "INFORMATIONAL",
    "UNSPECIFIED",
];

/// One Region's SSM, to be scripted.
#[derive(Clone, Debug, Default)]
pub struct Ssm {
    parameters: BTreeMap<String, Parameter>,
    compliance: BTreeMap<(String, String), Compliance>,
}

#[derive(Clone, Debug)]
struct Parameter {
    value: String,
    version: i64,
    is_secret: bool,
}

/// What a node has said of itself last.
#[derive(Clone, Debug, PartialEq)]
pub struct Compliance {
    /// When it was found, in seconds of the Unix epoch.
    pub found_at: f64,
    /// In the node's order.
    pub items: Vec<Item>,
}

/// One `ComplianceItemEntry`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Item {
    /// What it is about.
    pub id: String,
    /// For people.
    #[serde(default)]
    pub title: String,
    /// `CRITICAL`, `HIGH`, …
    pub severity: String,
    /// `COMPLIANT` or `NON_COMPLIANT`.
    pub status: String,
    /// The rest.
    #[serde(default)]
    pub details: BTreeMap<String, String>,
}

impl Ssm {
    /// Sets a parameter and returns its version, which is 1 for a new one and then one more each time.
    ///
    /// # Panics
    ///
    /// Where SSM would not take it: a standard parameter holds 1 to 4,096 characters.
    pub fn put(&mut self, name: &str, value: &str) -> i64 {
        self.set(name, value, false)
    }

    /// As [`Ssm::put`], a `SecureString`: what is answered without `WithDecryption` is no use to anybody.
    pub fn put_secret(&mut self, name: &str, value: &str) -> i64 {
        self.set(name, value, true)
    }

    fn set(&mut self, name: &str, value: &str, is_secret: bool) -> i64 {
        let length = value.chars().count();
        assert!((1..=LONGEST_PARAMETER).contains(&length), "{length}");
        let version = self.parameters.get(name).map_or(1, |old| old.version + 1);
        let parameter = Parameter {
            value: value.to_owned(),
            version,
            is_secret,
        };
        self.parameters.insert(name.to_owned(), parameter);
        version
    }

    /// Takes a parameter away; one that comes back starts at version 1, as at SSM.
    pub fn delete(&mut self, name: &str) {
        self.parameters.remove(name);
    }

    /// What the node has said last under this type (`Custom:Sideline`).
    pub fn compliance(&self, node: &str, of_type: &str) -> Option<Compliance> {
        let key = (node.to_owned(), of_type.to_owned());
        self.compliance.get(&key).cloned()
    }

    /// Answers a call.
    pub(super) fn call(&mut self, operation: &str, input: &Value) -> Result<Value, Refusal> {
        match operation {
            "GetParameters" => self.get(&read(input)?),
            "PutComplianceItems" => self.comply(read(input)?),
            _ => Err(Refusal::unknown_operation()),
        }
    }

    fn get(&self, input: &Names) -> Result<Value, Refusal> {
        if !(1..=MOST_NAMES).contains(&input.names.len()) {
            return Err(invalid("names", "must have length between 1 and 10"));
        }
        let mut found = Vec::new();
        let mut missing = Vec::new();
        for name in &input.names {
            match self.parameters.get(name) {
                Some(parameter) => found.push(parameter.shown(name, input.with_decryption)),
                None => missing.push(name),
            }
        }
        Ok(json!({ "Parameters": found, "InvalidParameters": missing }))
    }

    fn comply(&mut self, input: Comply) -> Result<Value, Refusal> {
        if input.resource_type != "ManagedInstance" {
            return Err(Refusal::ssm("InvalidResourceType", ""));
        }
        let is_node = input.resource_id.starts_with("mi-") || input.resource_id.starts_with("i-");
        if !is_node || LONGEST_RESOURCE < input.resource_id.len() {
            return Err(Refusal::ssm("InvalidResourceId", ""));
        }
        if !is_custom_type(&input.compliance_type) {
            return Err(invalid("complianceType", "must match Custom:name"));
        }
        if MOST_ITEMS < input.items.len() {
            return Err(invalid("items", "must have length at most 10000"));
        }
        input.items.iter().try_for_each(check)?;
        let others = self.compliance.keys().filter(|(node, of_type)| {
            *node == input.resource_id && *of_type != input.compliance_type
        });
        if MOST_TYPES <= others.count() {
            let shape = "ComplianceTypeCountLimitExceededException";
            return Err(Refusal::ssm(shape, "at most 10 types"));
        }
        let said = Compliance {
            found_at: input.execution_summary.execution_time,
            items: input.items,
        };
        let key = (input.resource_id, input.compliance_type);
        self.compliance.insert(key, said);
        Ok(json!({}))
    }
}

impl Parameter {
    fn shown(&self, name: &str, decrypted: bool) -> Value {
        let value = match self.is_secret && !decrypted {
            true => "AQICAHh0IGlzIG5vdCBkZWNyeXB0ZWQ=",
            false => self.value.as_str(),
        };
        json!({
            "Name": name,
            "Type": if self.is_secret { "SecureString" } else { "String" },
            "Value": value,
            "Version": self.version,
            "LastModifiedDate": 1_763_841_600.125,
            "ARN": format!("arn:aws:ssm:eu-west-1:123456789012:parameter{name}"),
            "DataType": "text",
        })
    }
}

fn check(item: &Item) -> Result<(), Refusal> {
    let wrong = |what: &str| Err(Refusal::ssm("InvalidItemContentException", what));
    if item.id.is_empty() {
        return wrong("an item has no Id");
    }
    if LONGEST_TITLE < item.title.chars().count() {
        return wrong("a Title is longer than 500 characters");
    }
    if !SEVERITIES.contains(&item.severity.as_str()) {
        return wrong("a Severity is none");
    }
    if !matches!(item.status.as_str(), "COMPLIANT" | "NON_COMPLIANT") {
        return wrong("a Status is none");
    }
    let fits = |(name, value): (&String, &String)| {
        (1..=LONGEST_DETAIL_NAME).contains(&name.chars().count())
            && value.chars().count() <= LONGEST_DETAIL
    };
    if !item.details.iter().all(fits) {
        return wrong("one of the Details is too long");
    }
    Ok(())
}

fn is_custom_type(name: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
    name.len() <= LONGEST_TYPE
        && name
            .strip_prefix("Custom:")
            .is_some_and(|rest| 2 <= rest.len() && rest.chars().all(word))
}

fn invalid(member: &str, why: &str) -> Refusal {
    let message = format!(
        "1 validation error detected: Value at '{member}' failed to satisfy constraint: Member {why}"
    );
    Refusal::ssm("ValidationException", &message)
}

fn read<T: DeserializeOwned>(input: &Value) -> Result<T, Refusal> {
    T::deserialize(input).map_err(|error| Refusal::malformed(&error.to_string()))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Names {
    names: Vec<String>,
    #[serde(default)]
    with_decryption: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Comply {
    resource_id: String,
    resource_type: String,
    compliance_type: String,
    execution_summary: Summary,
    items: Vec<Item>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Summary {
    execution_time: f64,
}

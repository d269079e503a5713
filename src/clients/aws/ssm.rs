//! The two calls of SSM that a node makes, as SSM has them: one request each.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Connections;
use super::json::{Failure, FailureKind, Json, Service};
use crate::clients::credentials::NodeCredentials;
use crate::clock::Clock;
use crate::domain::compliance::Item;
use crate::domain::settings::{Fetched, Parameter};

/// SSM among the services.
pub const SERVICE: Service = Service {
    name: "ssm",
    target: "AmazonSSM",
};

/// What a node says of itself is kept under this type, one of at most ten of its own.
pub const COMPLIANCE_TYPE: &str = "Custom:Sideline";

/// A way to SSM.
#[derive(Debug, Clone)]
pub struct Ssm {
    json: Json,
}

impl Ssm {
    /// A way to SSM; the arguments are those of [`Json::new`].
    #[must_use]
    pub fn new(
        region: &str,
        credentials: NodeCredentials,
        endpoint: Option<String>,
        clock: Clock,
        connections: Connections,
    ) -> Self {
        Ssm {
            json: Json::new(SERVICE, region, credentials, endpoint, clock, connections),
        }
    }

    /// The latest versions of these parameters, at most ten, decrypted.
    ///
    /// # Errors
    /// See [`FailureKind`]. An answer that leaves a name out is none of SSM's: what it does not know, it says.
    pub async fn parameters(&self, names: &[String]) -> Result<Fetched, Failure> {
        #[derive(Serialize)]
        #[serde(rename_all = "PascalCase")]
        struct Input<'a> {
            names: &'a [String],
            with_decryption: bool,
        }
        let operation = "GetParameters";
        let input = Input {
            names,
            with_decryption: true,
        };
        let answer: Answer = self.json.call(operation, &input).await?;
        answer.for_names(names).map_err(|said| Failure {
            kind: FailureKind::Unreachable,
            said: format!("{operation}: {said}"),
        })
    }

    /// Says how a managed instance does, in place of what it said last; `at` is when that was found.
    ///
    /// # Errors
    /// See [`FailureKind`].
    pub async fn put_compliance(
        &self,
        instance: &str,
        at: Timestamp,
        items: &[Item],
    ) -> Result<(), Failure> {
        #[derive(Serialize)]
        #[serde(rename_all = "PascalCase")]
        struct Input<'a> {
            resource_id: &'a str,
            resource_type: &'static str,
            compliance_type: &'static str,
            execution_summary: Summary,
            items: &'a [Item],
        }
        #[derive(Serialize)]
        #[serde(rename_all = "PascalCase")]
        struct Summary {
            /// In seconds of the Unix epoch.
            execution_time: i64,
        }
        #[derive(Deserialize)]
        struct Done {}
        let input = Input {
            resource_id: instance,
            resource_type: "ManagedInstance",
            compliance_type: COMPLIANCE_TYPE,
            execution_summary: Summary {
                execution_time: at.as_second(),
            },
            items,
        };
        let Done {} = self.json.call("PutComplianceItems", &input).await?;
        Ok(())
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    #[serde(default)]
    parameters: Vec<Found>,
    #[serde(default)]
    invalid_parameters: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Found {
    name: String,
    /// `:3` where the third version was asked for.
    #[serde(default)]
    selector: String,
    #[serde(default, rename = "ARN")]
    arn: String,
    value: String,
    version: i64,
}

impl Found {
    /// Whether it was asked for by this name: alone, with a version or a label, or as an ARN.
    fn is(&self, name: &str) -> bool {
        let Found { selector, .. } = self;
        [&self.name, &self.arn]
            .into_iter()
            .any(|own| own == name || name.strip_prefix(own.as_str()) == Some(selector))
    }
}

impl Answer {
    fn for_names(self, names: &[String]) -> Result<Fetched, String> {
        let mut fetched = Fetched::default();
        for name in names {
            if let Some(found) = self.parameters.iter().find(|found| found.is(name)) {
                fetched.parameters.push(Parameter {
                    name: name.clone(),
                    version: found.version,
                    value: found.value.clone(),
                });
            } else if self.invalid_parameters.contains(name) {
                fetched.missing.push(name.clone());
            } else {
                return Err(format!("the answer says nothing of {name}"));
            }
        }
        Ok(fetched)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_held_against_what_was_asked() {
        let answer = r#"{"Parameters": [
            {"Name": "/b", "Version": 2, "Value": "two", "Type": "String", "LastModifiedDate": 1.5},
            {"Name": "/a", "Selector": ":7", "Version": 7, "Value": "seven"},
            {"Name": "arn:aws:ssm:eu-west-1:1:parameter/c", "ARN": "arn:aws:ssm:eu-west-1:1:parameter/c", "Version": 1, "Value": "shared"}
        ], "InvalidParameters": ["/d"]}"#;
        for (names, found, missing) in [
            (vec!["/a:7", "/b"], Ok(vec![("/a:7", 7), ("/b", 2)]), vec![]),
            (vec!["/b", "/d"], Ok(vec![("/b", 2)]), vec!["/d"]),
            (
                vec!["arn:aws:ssm:eu-west-1:1:parameter/c"],
                Ok(vec![("arn:aws:ssm:eu-west-1:1:parameter/c", 1)]),
                vec![],
            ),
            (
                vec!["/b", "/e"],
                Err("the answer says nothing of /e"),
                vec![],
            ),
            (vec!["/a"], Ok(vec![("/a", 7)]), vec![]),
            (vec!["/b:7"], Err("the answer says nothing of /b:7"), vec![]),
        ] {
            let names: Vec<String> = names.into_iter().map(str::to_owned).collect();
            let answer: Answer = serde_json::from_str(answer).unwrap();
            let fetched = answer.for_names(&names);
            let versions = fetched.as_ref().map(|fetched| {
                let all = fetched.parameters.iter();
                all.map(|one| (one.name.as_str(), one.version)).collect()
            });
            assert_eq!(versions.map_err(String::as_str), found, "{names:?}");
            assert_eq!(fetched.map_or(vec![], |fetched| fetched.missing), missing);
        }
    }
}

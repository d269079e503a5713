//! What SSM says of the configuration: a new set of parameters is tried, and taken back if the agent does not survive it.
//!
//! A set is written down as on trial before anything is started with it. A life that ends without having been told to
//! is the set's fault, so the next one starts with what was good before.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::moment::{Moment, Now};
use crate::config::Problems;
pub use crate::config::layers::Parameter;

/// A set is good when the agent has ticked for so long with it.
pub const TRIAL: Duration = Duration::from_secs(300);

/// So much of the time between two ticks counts: an agent that hung has not shown that it works.
const LONGEST_TICK: Duration = Duration::from_secs(10);

/// The version of [`Kept`]'s form.
pub const VERSION: u32 = 1;

/// One answer of SSM: everything that `ssm.parameters` names is in one of the two.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fetched {
    /// What there is.
    pub parameters: Vec<Parameter>,
    /// The names that SSM does not know: a node without a parameter of its own is normal.
    pub missing: Vec<String>,
}

/// What outlives the agent: `settings.json` in `paths.state`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// [`VERSION`].
    pub version: u32,
    /// The parameters that have shown that the agent lives with them.
    pub good: Vec<Parameter>,
    /// Those that have yet to.
    pub trial: Option<Trial>,
    /// What is not in force, and why.
    pub refused: Vec<Refused>,
}

/// A set of parameters on trial.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// The parameters.
    pub parameters: Vec<Parameter>,
    /// What tells it from other sets.
    pub digest: String,
    /// Since when.
    pub since: Timestamp,
    /// In which boot.
    pub boot: String,
    /// Whether the life that tried it was told to stop, and did.
    pub stopped: bool,
}

/// What is not in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Where and why: the first problem.
    pub why: String,
    /// How many more problems there are.
    pub more: usize,
    /// The digest of a whole set that was taken back, and that is not tried again; `None`: one parameter is wrong.
    pub digest: Option<String>,
}

/// `fleet.toml:3:1: unknown key …; and 2 more`.
impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)?;
        match self.more {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

impl Default for Kept {
    fn default() -> Self {
        Kept {
            version: VERSION,
            good: Vec::new(),
            trial: None,
            refused: Vec::new(),
        }
    }
}

impl Kept {
    /// The parameters that count now.
    #[must_use]
    pub fn in_force(&self) -> &[Parameter] {
        self.trial
            .as_ref()
            .map_or(&self.good, |trial| &trial.parameters)
    }
}

/// Parameters that SSM has just given, held against the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// Those that can be used together.
    pub parameters: Vec<Parameter>,
    /// What tells all that SSM gave from what else it could give.
    pub digest: String,
    /// Whether they make another configuration than the one in force.
    pub is_other: bool,
    /// What was wrong with the others.
    pub refused: Vec<Refused>,
}

impl Refused {
    /// A parameter that is wrong.
    #[must_use]
    pub fn of(parameter: &Parameter, problems: &Problems) -> Self {
        let (why, more) = problems.first(&parameter.to_string());
        Refused {
            why,
            more,
            digest: None,
        }
    }
}

/// What to do with [`Kept`] and the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Todo {
    /// Nothing has changed.
    Nothing,
    /// Write it down.
    Keep,
    /// Write it down, then make the configuration anew.
    Apply,
}

/// Decides which parameters count.
#[derive(Debug, Clone)]
pub struct Settings {
    kept: Kept,
    boot: String,
    /// How long the agent has ticked with the set on trial, and when last.
    lived: Duration,
    ticked: Option<Moment>,
}

impl Settings {
    /// A new life of the agent, in this boot, with what the one before it kept. What was on trial is taken back, where
    /// that life ended with it in this same boot and nobody had told it to; else its trial begins again.
    #[must_use]
    pub fn begin(kept: Kept, boot: &str, now: Now) -> (Self, Todo) {
        let mut settings = Settings {
            kept,
            boot: boot.to_owned(),
            lived: Duration::ZERO,
            ticked: None,
        };
        let Some(trial) = &mut settings.kept.trial else {
            return (settings, Todo::Nothing);
        };
        if trial.boot == boot && !trial.stopped {
            settings.take_back("the agent ended with it before it had run for 5 minutes");
        } else {
            boot.clone_into(&mut trial.boot);
            trial.stopped = false;
            trial.since = now.wall;
        }
        (settings, Todo::Keep)
    }

    /// What must outlive the agent.
    #[must_use]
    pub fn kept(&self) -> &Kept {
        &self.kept
    }

    /// Takes in what SSM has given. What is to be applied must be written down first; where it can't be, the settings
    /// as they were before stay.
    #[must_use]
    pub fn offer(&mut self, offer: Offer, now: Now) -> Todo {
        let is_taken_back = |one: &Refused| one.digest.as_ref() == Some(&offer.digest);
        let mut refused = offer.refused;
        let taken_back = self
            .kept
            .refused
            .iter()
            .find(|one| is_taken_back(one))
            .cloned();
        let is_taken_back = taken_back.is_some();
        refused.splice(0..0, taken_back);
        let mut todo = match refused == self.kept.refused {
            true => Todo::Nothing,
            false => Todo::Keep,
        };
        self.kept.refused = refused;
        if is_taken_back {
            return todo;
        }
        if offer.is_other {
            self.kept.trial = Some(Trial {
                parameters: offer.parameters,
                digest: offer.digest,
                since: now.wall,
                boot: self.boot.clone(),
                stopped: false,
            });
            self.lived = Duration::ZERO;
            self.ticked = None;
            return Todo::Apply;
        }
        // Other words for the same: there is nothing to try.
        match &mut self.kept.trial {
            Some(trial)
                if (&trial.digest, &trial.parameters) != (&offer.digest, &offer.parameters) =>
            {
                trial.parameters = offer.parameters;
                trial.digest = offer.digest;
                todo = Todo::Keep;
            }
            None if self.kept.good != offer.parameters => {
                self.kept.good = offer.parameters;
                todo = Todo::Keep;
            }
            Some(_) | None => {}
        }
        todo
    }

    /// The agent has looked, judged and told. Returns [`Todo::Keep`] when what was on trial has become good.
    #[must_use]
    pub fn tick(&mut self, now: Moment) -> Todo {
        if self.kept.trial.is_none() {
            return Todo::Nothing;
        }
        let since = self
            .ticked
            .replace(now)
            .map_or(Duration::ZERO, |last| now - last);
        self.lived += since.min(LONGEST_TICK);
        if self.lived < TRIAL {
            return Todo::Nothing;
        }
        if let Some(trial) = self.kept.trial.take() {
            self.kept.good = trial.parameters;
        }
        Todo::Keep
    }

    /// The parts of the agent could not be started with what is on trial. [`Todo::Nothing`]: nothing is, so the
    /// trouble is not its fault.
    #[must_use]
    pub fn fail(&mut self, why: &str) -> Todo {
        match self.kept.trial {
            None => Todo::Nothing,
            Some(_) => {
                self.take_back(why);
                Todo::Apply
            }
        }
    }

    /// The agent is told to stop: that is nobody's fault.
    #[must_use]
    pub fn stop(&mut self) -> Todo {
        match &mut self.kept.trial {
            None => Todo::Nothing,
            Some(trial) => {
                trial.stopped = true;
                Todo::Keep
            }
        }
    }

    fn take_back(&mut self, why: &str) {
        let Some(trial) = self.kept.trial.take() else {
            return;
        };
        let (new, good) = (&trial.parameters, &self.kept.good);
        let other = new
            .iter()
            .filter(|one| !good.contains(one))
            .map(ToString::to_string);
        let gone = good
            .iter()
            .filter(|old| new.iter().all(|one| one.name != old.name));
        let gone = gone.map(|old| format!("the set without {old}"));
        let names: Vec<String> = other.chain(gone).collect();
        self.kept.refused.insert(
            0,
            Refused {
                why: format!("{} was taken back: {why}", names.join(", ")),
                more: 0,
                digest: Some(trial.digest),
            },
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A life after the other, a character a step:
    ///
    /// - `A` to `Z`: SSM gives this set; `=`: it gives what is in force in other words
    /// - `!`: it gives a parameter that is wrong beside what is in force
    /// - `1`: the agent ticks for a minute; `h`: it hangs for ten
    /// - `x`: it crashes; `s`: it is stopped; `r`: the machine is switched off. Then it starts again
    /// - `f`: its parts can't be started
    ///
    /// What comes of it: what is good, what is on trial, and what is refused: a digest, or `!`.
    fn live(script: &str) -> String {
        let mut boot = 0;
        let mut moment = Moment::after_boot(Duration::from_secs(60));
        let mut settings = Settings::begin(Kept::default(), "boot 0", at(moment)).0;
        for step in script.chars() {
            let in_force = settings.kept().in_force().to_vec();
            let todo = match step {
                'A'..='Z' => settings.offer(offer(step, &in_force, &[]), at(moment)),
                '=' => {
                    let mut offer = offer(name(&in_force), &in_force, &[]);
                    offer.parameters[0].version += 1;
                    settings.offer(offer, at(moment))
                }
                '!' => settings.offer(offer(name(&in_force), &in_force, &["!"]), at(moment)),
                '1' => (0..30).fold(Todo::Nothing, |todo, _| {
                    moment = moment + Duration::from_secs(2);
                    let news = settings.tick(moment);
                    if news == Todo::Nothing { todo } else { news }
                }),
                'h' => {
                    moment = moment + Duration::from_secs(600);
                    settings.tick(moment)
                }
                'f' => settings.fail("no"),
                'x' | 's' | 'r' => {
                    if step == 's' {
                        let _ = settings.stop();
                    }
                    boot += u32::from(step == 'r');
                    let boot = format!("boot {boot}");
                    let (next, todo) = Settings::begin(settings.kept.clone(), &boot, at(moment));
                    settings = next;
                    todo
                }
                other => panic!("{other} is no step"),
            };
            let changed = in_force != settings.kept().in_force();
            assert!(
                !changed || todo != Todo::Nothing,
                "{script} {step}: it is written down"
            );
        }
        let Kept {
            good,
            trial,
            refused,
            ..
        } = settings.kept();
        let trial = trial.as_ref().map_or('-', |trial| name(&trial.parameters));
        let refused: String = refused
            .iter()
            .map(|one| one.digest.as_deref().unwrap_or(&one.why))
            .collect();
        format!("{} {trial} {refused}", name(good))
            .trim_end()
            .to_owned()
    }

    fn at(moment: Moment) -> Now {
        Now {
            moment,
            wall: Timestamp::UNIX_EPOCH,
            sure: true,
        }
    }

    fn offer(set: char, in_force: &[Parameter], refused: &[&str]) -> Offer {
        let parameters = match set {
            '-' => Vec::new(),
            set => vec![Parameter {
                name: "/p".to_owned(),
                version: 1,
                value: set.to_string(),
            }],
        };
        let refused = refused.iter().map(|why| Refused {
            why: (*why).to_owned(),
            more: 0,
            digest: None,
        });
        Offer {
            is_other: name(&parameters) != name(in_force),
            digest: set.to_string(),
            parameters,
            refused: refused.collect(),
        }
    }

    fn name(set: &[Parameter]) -> char {
        set.first()
            .and_then(|one| one.value.chars().next())
            .unwrap_or('-')
    }

    #[test]
    fn a_set_is_good_when_the_agent_has_lived_with_it() {
        for (script, wanted) in [
            ("", "- -"),
            ("A", "- A"),
            ("A1111", "- A"),
            ("A111111", "A -"),
            // What hangs has not lived.
            ("Ahhhh", "- A"),
            ("A111111B", "A B"),
            ("A111111B11111C", "A C"),
            ("A111111B11111C1", "A C"),
            ("A111111B11111C111111", "C -"),
            ("A111111A", "A -"),
            // Other words for the same need no trial, and do not begin one again.
            ("A111111=", "A -"),
            ("A111=111", "A -"),
        ] {
            assert_eq!(live(script), wanted, "{script}");
        }
    }

    #[test]
    fn what_the_agent_does_not_survive_is_taken_back_and_not_tried_again() {
        for (script, wanted) in [
            ("Ax", "- - A"),
            ("A11111x", "- - A"),
            ("A111111x", "A -"),
            ("A111111Bx", "A - B"),
            ("A111111BxB", "A - B"),
            ("A111111BxxB1x", "A - B"),
            ("A111111BxrsB", "A - B"),
            // Until it changes.
            ("A111111BxC", "A C"),
            ("A111111BxBC111111", "C -"),
            ("A111111BxA", "A -"),
            ("A111111BxCx", "A - C"),
            // A stop or a power cut is not its fault; then its trial begins anew.
            ("A11111s1111", "- A"),
            ("A11111s111111", "A -"),
            ("A11111r1111", "- A"),
            ("A11111sx", "- - A"),
            ("A11111rx", "- - A"),
            ("A11111rs111111", "A -"),
            // Its parts can't be started.
            ("A111111Bf", "A - B"),
            ("A111111BfB", "A - B"),
            ("A111111f", "A -"),
        ] {
            assert_eq!(live(script), wanted, "{script}");
        }
    }

    #[test]
    fn what_is_wrong_stands_until_it_is_put_right() {
        for (script, wanted) in [
            ("A111111!", "A - !"),
            ("A111111!x", "A - !"),
            ("A111111!xA", "A -"),
            ("A!111111", "A - !"),
            ("A111111Bx!", "A - !"),
        ] {
            assert_eq!(live(script), wanted, "{script}");
        }
    }

    #[test]
    fn what_was_taken_back_is_named() {
        let one = |name: &str, version| Parameter {
            name: name.to_owned(),
            version,
            value: "secret".to_owned(),
        };
        let kept = Kept {
            good: vec![one("/a", 1), one("/b", 1), one("/c", 4)],
            trial: Some(Trial {
                parameters: vec![one("/a", 2), one("/c", 4)],
                digest: "d".to_owned(),
                since: Timestamp::UNIX_EPOCH,
                boot: "b".to_owned(),
                stopped: false,
            }),
            ..Kept::default()
        };
        let (settings, todo) = Settings::begin(kept, "b", at(Moment::BOOT));
        assert_eq!(todo, Todo::Keep);
        let told = settings.kept().refused[0].to_string();
        let names = "parameter /a (version 2), the set without parameter /b (version 1)";
        assert!(told.starts_with(names), "{told}");
        assert!(!format!("{settings:?}{told}").contains("secret"));
    }
}

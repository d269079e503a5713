//! The configuration in force: what the file says, and what SSM gave to be laid over it.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::config::layers::Base;
use crate::config::{Config, Problems};
use crate::domain::moment::{Moment, Now};
use crate::domain::settings::{self as domain, Fetched, Offer, Parameter, Refused, Todo};
use crate::store::settings as copy;

/// A healthy disk has written a few kilobytes long before. One that hangs must not hold up the watching.
const PATIENCE: Duration = Duration::from_secs(2);

/// What the disk did not take is tried again so often.
const TRY_AGAIN: Duration = Duration::from_secs(60);

/// Where the configuration comes from, and what became of what was not taken.
#[derive(Debug)]
pub(super) struct Settings {
    base: Base,
    config: Config,
    decides: domain::Settings,
    fetched: Option<Arc<Fetched>>,
    /// What was good with another file, and is wrong over this one.
    unfit: Vec<Refused>,
    /// The file as it is now is wrong.
    wrong_file: Option<Refused>,
    /// The copy could not be written.
    unkept: Option<Refused>,
    /// When it was last tried to take parameters in.
    tried: Moment,
    /// A write that the disk has not answered yet.
    hanging: Option<JoinHandle<std::io::Result<()>>>,
}

impl Settings {
    /// What an earlier life kept, over the file as it is now; what did not pass its trial is taken back.
    pub(super) async fn open(base: Base, boot: &str, now: Now) -> Self {
        let folder = &base.config.paths.state;
        let kept = match base.config.ssm.parameters.is_empty() {
            true => None,
            false => copy::read(folder).unwrap_or_else(|error| {
                let file = folder.join(copy::FILE);
                tracing::warn!(
                    "starting without parameters: {} can't be read: {error}",
                    file.display()
                );
                None
            }),
        };
        let (decides, todo) = domain::Settings::begin(kept.unwrap_or_default(), boot, now);
        let mut settings = Settings {
            config: base.config.clone(),
            base,
            decides,
            fetched: None,
            unfit: Vec::new(),
            wrong_file: None,
            unkept: None,
            tried: now.moment,
            hanging: None,
        };
        settings.lay();
        match todo {
            Todo::Nothing => {}
            Todo::Keep | Todo::Apply => {
                settings.keep().await;
            }
        }
        for refused in &settings.decides.kept().refused {
            tracing::warn!("not in force: {refused}");
        }
        settings
    }

    /// The configuration in force.
    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    /// Whether what is in force has yet to show that the agent lives with it.
    pub(super) fn is_on_trial(&self) -> bool {
        self.decides.kept().trial.is_some()
    }

    /// What is not in force, and why: for a person.
    pub(super) fn rejected(&self) -> Option<String> {
        let kept = self.decides.kept().refused.iter();
        let mut all = self
            .wrong_file
            .iter()
            .chain(&self.unfit)
            .chain(kept)
            .chain(&self.unkept);
        let first = all.next()?;
        let more = first.more + all.map(|one| 1 + one.more).sum::<usize>();
        Some(
            Refused {
                more,
                ..first.clone()
            }
            .to_string(),
        )
    }

    /// Goes on with another file. The configuration in force is another one then.
    pub(super) async fn reload(&mut self, base: Base, now: Now) {
        self.base = base;
        self.wrong_file = None;
        if self.base.config.ssm.parameters.is_empty() {
            // What nobody asks for is not there, and not wrong either.
            self.fetched = Some(Arc::default());
        }
        self.lay();
        self.weigh(now).await;
        if !self.base.config.ssm.parameters.is_empty() {
            // Somebody may have taken the copy away, or moved the folder.
            self.keep().await;
        }
    }

    /// The file as it is now is wrong: what was in force stays.
    pub(super) fn refuse_file(&mut self, error: &anyhow::Error) {
        tracing::error!("the old configuration stays in force: {error:#}");
        let told = format!("{error:#}");
        let mut lines = told.lines();
        self.wrong_file = Some(Refused {
            why: lines.next().unwrap_or_default().to_owned(),
            more: lines.count(),
            digest: None,
        });
    }

    /// Takes in what SSM has given, where it is new. True: the configuration in force is another one now.
    pub(super) async fn follow(&mut self, fetched: Option<Arc<Fetched>>, now: Now) -> bool {
        if fetched.is_some() {
            self.fetched = fetched;
        } else if self.unkept.is_none() || now.moment - self.tried < TRY_AGAIN {
            return false;
        }
        self.weigh(now).await
    }

    /// The agent has looked, judged and told.
    pub(super) async fn tick(&mut self, now: Moment) {
        if self.decides.tick(now) == Todo::Keep {
            tracing::info!("passed the trial: {}", self.names());
            self.keep().await;
        }
    }

    /// The parts of the agent could not be started. True: with what is in force now they may.
    pub(super) async fn take_back(&mut self, error: &anyhow::Error) -> bool {
        if self.decides.fail(&format!("{error:#}")) == Todo::Nothing {
            return false;
        }
        tracing::error!("the parameters before stay in force: {error:#}");
        self.lay();
        self.keep().await;
        true
    }

    /// The agent is told to stop.
    pub(super) async fn stop(&mut self) {
        if self.decides.stop() == Todo::Keep {
            self.keep().await;
        }
    }

    /// What is in force, for a person.
    fn names(&self) -> String {
        let parameters = self.decides.kept().in_force().iter();
        let names: Vec<String> = parameters.map(ToString::to_string).collect();
        match names.is_empty() {
            true => "no parameters".to_owned(),
            false => names.join(", "),
        }
    }

    /// Makes the configuration of the file and the parameters in force.
    fn lay(&mut self) {
        let in_force = self.decides.kept().in_force();
        if in_force.is_empty() {
            // Most nodes: nothing needs to be read again.
            self.unfit.clear();
            self.config = self.base.config.clone();
            return;
        }
        let laid = self.base.lay(in_force, &[]);
        self.unfit = told(&laid.refused);
        for refused in &self.unfit {
            tracing::warn!("refused: {refused}");
        }
        self.config = laid.effective.config;
    }

    /// Holds what SSM gave last against the file.
    async fn weigh(&mut self, now: Now) -> bool {
        self.tried = now.moment;
        let Some(fetched) = &self.fetched else {
            if self.unkept.is_some() {
                self.keep().await;
            }
            return false;
        };
        let before = self.decides.clone();
        let laid = self.base.lay(&fetched.parameters, before.kept().in_force());
        self.unfit.clear();
        let offer = Offer {
            // Of all that SSM gave: what is left of it without a wrong one is not something else.
            digest: self.base.digest(&fetched.parameters),
            is_other: laid.effective.config != self.config,
            parameters: laid.used,
            refused: told(&laid.refused),
        };
        let todo = self.decides.offer(offer, now);
        for (parameter, problems) in &laid.refused {
            if !before
                .kept()
                .refused
                .contains(&Refused::of(parameter, problems))
            {
                tracing::warn!("refused:\n{}", problems.lines(&parameter.to_string()));
            }
        }
        match todo {
            Todo::Nothing if self.unkept.is_none() => false,
            Todo::Nothing | Todo::Keep => {
                self.keep().await;
                false
            }
            Todo::Apply if self.keep().await => {
                self.config = laid.effective.config;
                let names = self.names();
                tracing::info!("on trial for {} s: {names}", domain::TRIAL.as_secs());
                true
            }
            Todo::Apply => {
                self.decides = before;
                false
            }
        }
    }

    /// Writes down what must outlive the agent; false where it can't be.
    async fn keep(&mut self) -> bool {
        let why = self.write().await.err();
        if let Some(why) = &why
            && self.unkept.is_none()
        {
            tracing::error!(
                "no new parameters are taken: {} can't be written: {why}",
                copy::FILE
            );
        }
        self.unkept = why.map(|why| Refused {
            why: format!(
                "no new parameters are taken: {} can't be written: {why}",
                copy::FILE
            ),
            more: 0,
            digest: None,
        });
        self.unkept.is_none()
    }

    async fn write(&mut self) -> Result<(), String> {
        let unanswered = || "the disk does not answer".to_owned();
        if self.hanging.take_if(|write| write.is_finished()).is_none() && self.hanging.is_some() {
            return Err(unanswered());
        }
        let folder = self.base.config.paths.state.clone();
        let kept = self.decides.kept().clone();
        let mut write = tokio::task::spawn_blocking(move || copy::write(&folder, &kept));
        match tokio::time::timeout(PATIENCE, &mut write).await {
            Ok(Ok(written)) => written.map_err(|error| error.to_string()),
            Ok(Err(crash)) => Err(crash.to_string()),
            Err(_) => {
                self.hanging = Some(write);
                Err(unanswered())
            }
        }
    }
}

fn told(refused: &[(Parameter, Problems)]) -> Vec<Refused> {
    let refused = refused.iter();
    refused
        .map(|(parameter, problems)| Refused::of(parameter, problems))
        .collect()
}

//! What SSM has to do with this node: the parts that fetch its parameters, and that tell Compliance and Inventory of it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{FutureExt, LocalBoxFuture};
use tokio::sync::watch;

use super::environment;
use super::part::Part;
use crate::clients::aws::ssm::Ssm as Client;
use crate::clients::aws::{self, Connections};
use crate::clients::credentials::NodeCredentials;
use crate::clock::Clock;
use crate::collect::identity::Identity;
use crate::config::{self, Config};
use crate::control::ssm::inventory::{Change, Places};
use crate::control::ssm::{self as control, compliance, inventory, parameters};
use crate::domain::report::{Outlet, OutletState, Report};
use crate::domain::settings::Fetched;

/// Lets the SSM agent find what SSM Inventory is told: `sideline inventory link`.
///
/// # Errors
/// See [`Places::link`].
pub fn link_inventory(config: &Config, identity: &Identity) -> io::Result<Vec<Change>> {
    Places::new(config, identity.managed_instance.as_deref()).link()
}

/// What fetches lasts as long as these: the names, the time between two looks, and where to ask.
type ParametersPart = Part<(Vec<String>, Duration, config::Aws), Fetching>;

/// What tells lasts as long as these: who is told of, and where.
type CompliancePart = Part<(String, config::Aws), watch::Receiver<Outlet>>;

/// The agent's end of what fetches.
#[derive(Debug)]
struct Fetching {
    fetched: watch::Receiver<Option<Arc<Fetched>>>,
    outlet: watch::Receiver<Outlet>,
}

/// One part a kind of call.
#[derive(Debug, Default)]
pub(super) struct SsmPart {
    parameters: Option<ParametersPart>,
    compliance: Option<CompliancePart>,
    inventory: Option<Part<Places, ()>>,
}

/// How AWS is asked, whatever it is asked.
#[derive(Debug, Clone)]
pub(super) struct Way<'a> {
    /// Shared by all.
    pub(super) connections: &'a Connections,
    /// Shared by all.
    pub(super) credentials: &'a NodeCredentials,
    /// Learns from every answer.
    pub(super) clock: &'a Clock,
}

impl SsmPart {
    /// Starts what the configuration asks for; what runs with the same settings goes on undisturbed.
    pub(super) async fn furnish(
        &mut self,
        config: &Config,
        identity: &Identity,
        reports: &watch::Sender<Option<Arc<Report>>>,
        way: &Way<'_>,
    ) {
        // Without a region there is nobody to ask; that is told where something was to be asked.
        let aws = config::Aws {
            region: identity.region.clone().unwrap_or_default(),
            ..config.aws.clone()
        };
        if config.ssm.parameters.is_empty() {
            Part::remove(&mut self.parameters).await;
        } else {
            let names = config.ssm.parameters.clone();
            let key = (names, config.ssm.every, aws.clone());
            Part::renew(&mut self.parameters, key, |(names, every, aws), tasks| {
                let (publish, fetched) = watch::channel(None);
                let (tell, outlet) = watch::channel(Outlet::off(control::OUTLET));
                if aws.region.is_empty() {
                    tell.send_replace(no_region());
                } else {
                    let task = parameters::Parameters {
                        ssm: way.client(aws),
                        names: names.clone(),
                        every: *every,
                        clock: way.clock.clone(),
                    };
                    let token = tasks.token();
                    tasks.spawn(
                        "SSM parameters",
                        parameters::run(task, publish, tell, token),
                    );
                }
                Fetching { fetched, outlet }
            })
            .await;
        }
        let instance = identity.managed_instance.as_deref();
        let places = Places::new(config, instance);
        Part::renew(&mut self.inventory, places, |places, tasks| {
            let task = inventory::run(places.clone(), reports.subscribe(), tasks.token());
            tasks.spawn("SSM Inventory", task);
        })
        .await;
        match instance {
            Some(instance) if config.ssm.compliance && !aws.region.is_empty() => {
                let key = (instance.to_owned(), aws);
                Part::renew(&mut self.compliance, key, |(instance, aws), tasks| {
                    let (tell, outlet) = watch::channel(Outlet::off(control::OUTLET));
                    let task = compliance::Telling {
                        ssm: way.client(aws),
                        instance: instance.clone(),
                        clock: way.clock.clone(),
                    };
                    let token = tasks.token();
                    let reports = reports.subscribe();
                    tasks.spawn(
                        "SSM Compliance",
                        compliance::run(task, reports, tell, token),
                    );
                    outlet
                })
                .await;
            }
            Some(_) | None => Part::remove(&mut self.compliance).await,
        }
    }

    /// Forgets what SSM holds: it is asked again when this is furnished the next time.
    pub(super) async fn forget_parameters(&mut self) {
        Part::remove(&mut self.parameters).await;
    }

    /// What SSM holds, where that is news since this was asked last.
    pub(super) fn fetched(&mut self) -> Option<Arc<Fetched>> {
        let fetching = &mut self.parameters.as_mut()?.value;
        let is_news = fetching.fetched.has_changed().unwrap_or(false);
        is_news.then(|| fetching.fetched.borrow_and_update().clone())?
    }

    /// How the calls go.
    pub(super) fn outlet(&self) -> Outlet {
        let off = || Outlet::off(control::OUTLET);
        let parameters = self.parameters.as_ref();
        let parameters = parameters.map_or_else(off, |part| part.value.outlet.borrow().clone());
        let compliance = self.compliance.as_ref();
        let compliance = compliance.map_or_else(off, |part| part.value.borrow().clone());
        control::merged(parameters, compliance)
    }

    /// Waits until there are other parameters, or until a task ends badly.
    pub(super) fn stir(&mut self) -> Vec<LocalBoxFuture<'_, anyhow::Result<()>>> {
        let mut waits = Vec::with_capacity(3);
        waits.extend(
            self.parameters
                .as_mut()
                .map(|part| stir(part).boxed_local()),
        );
        waits.extend(
            self.compliance
                .as_mut()
                .map(|part| part.failure().boxed_local()),
        );
        waits.extend(
            self.inventory
                .as_mut()
                .map(|part| part.failure().boxed_local()),
        );
        waits
    }

    /// Stops all.
    pub(super) async fn stop(&mut self) {
        tokio::join!(
            Part::remove(&mut self.parameters),
            Part::remove(&mut self.compliance),
            Part::remove(&mut self.inventory),
        );
    }
}

async fn stir(part: &mut ParametersPart) -> anyhow::Result<()> {
    let fetched = &mut part.value.fetched;
    tokio::select! {
        biased;
        () = news(fetched) => Ok(()),
        error = part.tasks.failure() => Err(error),
    }
}

/// Waits until there is something that nobody has looked at; for ever where nothing comes any more.
async fn news<T>(receiver: &mut watch::Receiver<T>) {
    match receiver.changed().await {
        // It stays news until somebody looks at it.
        Ok(()) => receiver.mark_changed(),
        Err(_) => std::future::pending().await,
    }
}

fn no_region() -> Outlet {
    Outlet {
        state: OutletState::Rejected,
        error: Some("no AWS region is known; set aws.region".to_owned()),
        ..Outlet::off(control::OUTLET)
    }
}

impl Way<'_> {
    fn client(&self, aws: &config::Aws) -> Client {
        Client::new(
            &aws.region,
            self.credentials.clone(),
            aws::endpoint("SSM", environment),
            self.clock.clone(),
            self.connections.clone(),
        )
    }
}

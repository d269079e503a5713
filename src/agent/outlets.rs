//! The ways to the cloud.

use std::sync::Arc;

use futures_util::future::{FutureExt, LocalBoxFuture};
use tokio::sync::{mpsc, watch};

use super::environment;
use super::part::Part;
use crate::clients::aws::{self, Connections};
use crate::clients::credentials::NodeCredentials;
use crate::clients::reach::Target;
use crate::clock::Clock;
use crate::collect::identity::Identity;
use crate::config::{self, Config, Enabled};
use crate::domain::judge::Judgement;
use crate::domain::memory::Memory;
use crate::domain::moment::Now;
use crate::domain::report::{Event, Outlet};
use crate::ship::{cloudwatch, relay};
use crate::store::{Draft, Store};
use crate::supervisor::Supervisor;

/// Judgements that an outlet may be behind before it misses some.
const JUDGEMENTS_IN_FLIGHT: usize = 64;

/// The agent's end of an outlet.
#[derive(Debug)]
struct Way {
    judgements: mpsc::Sender<Arc<Judgement>>,
    told: watch::Receiver<Outlet>,
}

/// What both outlets depend on: who the node is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Common {
    site: String,
    node: String,
    boot: String,
}

type CloudWatchPart = Part<(config::CloudWatch, config::Aws, Common), Way>;
type RelayPart = Part<(config::Relay, std::time::Duration, Common), Way>;

/// One part an outlet.
#[derive(Debug, Default)]
pub(super) struct Outlets {
    cloudwatch: Option<CloudWatchPart>,
    relay: Option<RelayPart>,
    connections: Connections,
    credentials: Option<(config::Aws, NodeCredentials)>,
}

impl Outlets {
    /// Opens what the configuration asks for; what runs with the same settings goes on with what it holds.
    pub(super) async fn furnish(
        &mut self,
        config: &Config,
        identity: &Identity,
        memory: &mut Memory,
        store: &Store,
        clock: &Clock,
    ) {
        let common = Common {
            site: config.node.site.clone(),
            node: identity.node_id.clone(),
            boot: identity.boot.clone(),
        };
        match wanted_region(config, identity) {
            Some(region) => {
                let aws = config::Aws {
                    region,
                    ..config.aws.clone()
                };
                let key = (config.cloudwatch.clone(), aws, common.clone());
                let way = (self.credentials(config, clock), &self.connections);
                Part::renew(
                    &mut self.cloudwatch,
                    key,
                    |(settings, aws, common), tasks| {
                        open_cloudwatch(settings, aws, common, store, clock, &way, tasks)
                    },
                )
                .await;
            }
            None => Part::remove(&mut self.cloudwatch).await,
        }
        if config.relay.url.is_empty() {
            Part::remove(&mut self.relay).await;
        } else {
            let key = (config.relay.clone(), config.cloudwatch.period, common);
            Part::renew(&mut self.relay, key, |(settings, period, common), tasks| {
                memory.session += 1;
                let relay = relay::Relay {
                    settings: settings.clone(),
                    site: common.site.clone(),
                    node: common.node.clone(),
                    boot: common.boot.clone(),
                    session: memory.session,
                    period: *period,
                    store: store.clone(),
                    clock: clock.clone(),
                };
                let token = tasks.token();
                way("relay", |judgements, status| {
                    tasks.spawn("the relay", relay::run(relay, judgements, status, token));
                })
            })
            .await;
        }
    }

    /// What all connections to AWS share.
    pub(super) fn connections(&self) -> &Connections {
        &self.connections
    }

    /// What all that speaks to AWS signs with, as long as the settings are the same: what one is refused, the others
    /// need not try.
    pub(super) fn credentials(&mut self, config: &Config, clock: &Clock) -> NodeCredentials {
        match &self.credentials {
            Some((settings, credentials)) if *settings == config.aws => credentials.clone(),
            Some(_) | None => {
                let new = NodeCredentials::new(&config.aws, environment, clock.clone());
                self.credentials = Some((config.aws.clone(), new.clone()));
                new
            }
        }
    }

    /// Waits until an outlet ends badly.
    pub(super) fn stir(&mut self) -> Vec<LocalBoxFuture<'_, anyhow::Result<()>>> {
        let mut waits = Vec::with_capacity(2);
        waits.extend(
            self.cloudwatch
                .as_mut()
                .map(|part| part.failure().boxed_local()),
        );
        waits.extend(self.relay.as_mut().map(|part| part.failure().boxed_local()));
        waits
    }

    /// How each does, in the order of the contract; `ssm` and `ecs` are told by who acts there.
    pub(super) fn report(&self, ssm: Outlet, ecs: Outlet) -> Vec<Outlet> {
        let told = |way: &Way| way.told.borrow().clone();
        vec![
            self.cloudwatch
                .as_ref()
                .map_or(Outlet::off("cloudwatch"), |part| told(&part.value)),
            self.relay
                .as_ref()
                .map_or(Outlet::off("relay"), |part| told(&part.value)),
            ssm,
            ecs,
        ]
    }

    /// Events as the relay wants them kept; none where there is no relay.
    pub(super) fn drafts(&self, events: &[Event], now: Now) -> Vec<Draft> {
        if self.relay.is_none() {
            return Vec::new();
        }
        let draft = |event| relay::wire::draft(event, now);
        events.iter().map(draft).collect()
    }

    /// Hands a judgement to each.
    pub(super) fn ship(&self, judgement: &Arc<Judgement>) {
        let cloudwatch = self.cloudwatch.as_ref().map(|part| &part.value);
        let relay = self.relay.as_ref().map(|part| &part.value);
        for way in [cloudwatch, relay].into_iter().flatten() {
            if way.judgements.try_send(Arc::clone(judgement)).is_err() {
                tracing::error!(
                    outlet = way.told.borrow().name,
                    "an outlet does not keep up"
                );
            }
        }
    }

    /// Stops both at once, each with its farewell.
    pub(super) async fn stop(&mut self) {
        tokio::join!(
            Part::remove(&mut self.cloudwatch),
            Part::remove(&mut self.relay)
        );
    }
}

fn open_cloudwatch(
    settings: &config::CloudWatch,
    aws: &config::Aws,
    common: &Common,
    store: &Store,
    clock: &Clock,
    (credentials, connections): &(NodeCredentials, &Connections),
    tasks: &mut Supervisor,
) -> Way {
    let endpoint = aws::endpoint("CLOUDWATCH", environment);
    let usual = || aws::usual_endpoint("monitoring", &aws.region);
    let server = endpoint.clone().unwrap_or_else(usual);
    let ship = cloudwatch::CloudWatch {
        settings: settings.clone(),
        source: cloudwatch::Source {
            site: common.site.clone(),
            node: common.node.clone(),
        },
        store: store.clone(),
        server: Target::of_url(&server),
        client: aws::cloudwatch(
            &aws.region,
            credentials.clone(),
            endpoint,
            clock.clone(),
            connections,
        ),
        credentials: credentials.clone(),
        clock: clock.clone(),
    };
    let token = tasks.token();
    way("cloudwatch", |judgements, status| {
        tasks.spawn(
            "CloudWatch",
            cloudwatch::run(ship, judgements, status, token),
        );
    })
}

fn way(
    name: &'static str,
    spawn: impl FnOnce(mpsc::Receiver<Arc<Judgement>>, watch::Sender<Outlet>),
) -> Way {
    let (judgements, receiver) = mpsc::channel(JUDGEMENTS_IN_FLIGHT);
    let (status, told) = watch::channel(Outlet::off(name));
    spawn(receiver, status);
    Way { judgements, told }
}

/// The region to send metrics to, if they are to be sent at all.
fn wanted_region(config: &Config, identity: &Identity) -> Option<String> {
    let region = identity.region.clone();
    match config.cloudwatch.enabled {
        Enabled::Never => return None,
        Enabled::Always if region.is_none() => {
            tracing::error!("cloudwatch.enabled is always, but no region is known; set aws.region");
        }
        Enabled::Auto if region.is_none() => {
            tracing::info!("nothing is sent to CloudWatch: no region is known; set aws.region");
        }
        Enabled::Auto | Enabled::Always => {}
    }
    region
}

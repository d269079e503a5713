//! This node's place in ECS: where it is, how it stands there, and what is wanted of it.

use tokio::sync::watch;

use super::environment;
use super::part::Part;
use super::ssm::Way;
use crate::clients::aws;
use crate::clients::aws::ecs::Ecs as Client;
use crate::collect::identity::Identity;
use crate::collect::identity::ecs as introspection;
use crate::config::{self, Config, FailoverMode};
use crate::control::ecs as control;
use crate::domain::ecs::{EcsView, Place, Trouble, TroubleKind, Want};
use crate::domain::report::Outlet;
use crate::supervisor::Supervisor;

/// The agent's ends: of what asks the ECS agent on this machine, and of what acts in ECS.
#[derive(Debug)]
pub(super) struct Ecs {
    place: watch::Receiver<Option<Place>>,
    seen: watch::Receiver<EcsView>,
    outlet: watch::Receiver<Outlet>,
    wants: watch::Sender<Want>,
}

/// As long as these settings last; the region is part of `aws`, empty where none is known.
pub(super) type EcsPart = Part<(config::Aws, bool), Ecs>;

/// What is known of ECS when there is nothing to ask it with.
pub(super) fn nothing() -> (Option<Place>, EcsView, Outlet) {
    (None, EcsView::default(), Outlet::off("ecs"))
}

impl Ecs {
    /// Keeps the part in `slot` going, or starts it anew with other settings. It acts in ECS in mode `drain`, and where
    /// something has `to_come_back` from then.
    pub(super) async fn furnish(
        slot: &mut Option<EcsPart>,
        to_come_back: bool,
        config: &Config,
        identity: &Identity,
        way: &Way<'_>,
    ) {
        let region = identity.region.clone().unwrap_or_default();
        let aws = config::Aws {
            region,
            ..config.aws.clone()
        };
        let acts = config.failover.mode == FailoverMode::Drain || to_come_back;
        Part::renew(slot, (aws, acts), |(aws, acts), tasks| {
            Ecs::start(aws, *acts, way, tasks)
        })
        .await;
    }

    fn start(aws: &config::Aws, acts: bool, way: &Way<'_>, tasks: &mut Supervisor) -> Ecs {
        let (found, place) = watch::channel(None);
        let (url, token) = (aws.ecs_agent.clone(), tasks.token());
        tasks.spawn("the ECS agent", async move {
            match url.is_empty() {
                true => token.cancelled().await,
                false => introspection::follow(&url, acts, found, token).await?,
            }
            Ok(())
        });
        let (wants, wanted) = watch::channel(Want::Nothing);
        let (see, seen) = watch::channel(EcsView::default());
        let (tell, outlet) = watch::channel(Outlet::off("ecs"));
        if acts && aws.region.is_empty() {
            see.send_replace(EcsView {
                trouble: Some(Trouble {
                    kind: TroubleKind::Refused,
                    said: "no AWS region is known; set aws.region".to_owned(),
                }),
                ..EcsView::default()
            });
        } else if acts {
            let endpoint = aws::endpoint("ECS", environment);
            let control = control::EcsControl {
                ecs: Client::new(
                    &aws.region,
                    way.credentials.clone(),
                    endpoint,
                    way.clock.clone(),
                    way.connections.clone(),
                ),
                clock: way.clock.clone(),
            };
            let (place, token) = (place.clone(), tasks.token());
            tasks.spawn(
                "ECS",
                control::run(control, wanted, place, see, tell, token),
            );
        }
        Ecs {
            place,
            seen,
            outlet,
            wants,
        }
    }

    /// Where the node is, how it stands there, and how asking goes.
    pub(super) fn look(&mut self) -> (Option<Place>, EcsView, Outlet) {
        (
            self.place.borrow_and_update().clone(),
            self.seen.borrow_and_update().clone(),
            self.outlet.borrow().clone(),
        )
    }

    /// Says what is wanted; who acts on it is woken only by something else.
    pub(super) fn want(&self, want: &Want) {
        self.wants.send_if_modified(|wanted| {
            let is_other = wanted != want;
            if is_other {
                wanted.clone_from(want);
            }
            is_other
        });
    }
}

impl EcsPart {
    /// Waits for news of the node's place, or until a task ends badly.
    pub(super) async fn stir(&mut self) -> anyhow::Result<()> {
        let Ecs { place, seen, .. } = &mut self.value;
        tokio::select! {
            biased;
            () = news(place) => Ok(()),
            () = news(seen) => Ok(()),
            error = self.tasks.failure() => Err(error),
        }
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

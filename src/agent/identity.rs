//! The watch over what proves who this node is.

use tokio::sync::watch;

use super::part::Part;
use crate::clients::credentials::NodeCredentials;
use crate::collect::identity::Identity;
use crate::collect::identity::watch::{self as watching, Watching};
use crate::config::{self, Config};
use crate::domain::identity::Seen;

/// The agent's ends: of what looks, and of what wakes the SSM agent.
#[derive(Debug)]
pub(super) struct Ends {
    seen: watch::Receiver<Seen>,
    wanted: watch::Sender<u64>,
}

/// As long as these last: where the files are, and who the agent started as.
pub(super) type IdentityPart = Part<(config::Aws, Identity), Ends>;

/// What there is to look at.
pub(super) fn watching(
    config: &Config,
    identity: &Identity,
    credentials: &NodeCredentials,
) -> Watching {
    Watching {
        aws: config.aws.clone(),
        identity: identity.clone(),
        credentials: credentials.clone(),
        systemctl: "systemctl".to_owned(),
    }
}

/// Keeps the part in `slot` going, or starts it anew; the SSM agent was wanted to be restarted so often before.
pub(super) async fn furnish(
    slot: &mut Option<IdentityPart>,
    config: &Config,
    identity: &Identity,
    credentials: &NodeCredentials,
    restarts: u64,
) {
    let key = (config.aws.clone(), identity.clone());
    Part::renew(slot, key, |_, tasks| {
        let (publish, seen) = watch::channel(Seen::default());
        let (wanted, wants) = watch::channel(restarts);
        let task = watching::run(
            watching(config, identity, credentials),
            wants,
            publish,
            tasks.token(),
        );
        tasks.spawn("the identity", task);
        Ends { seen, wanted }
    })
    .await;
}

impl IdentityPart {
    /// What was seen last.
    pub(super) fn seen(&mut self) -> Seen {
        self.value.seen.borrow_and_update().clone()
    }

    /// How often the SSM agent is to have been restarted since the agent started.
    pub(super) fn want_restarts(&self, count: u64) {
        self.value.wanted.send_if_modified(|wanted| {
            let is_more = *wanted < count;
            *wanted = count;
            is_more
        });
    }

    /// Waits for news, or until the task ends badly.
    pub(super) async fn stir(&mut self) -> anyhow::Result<()> {
        tokio::select! {
            biased;
            changed = self.value.seen.changed() => match changed {
                Ok(()) => {
                    // It stays news until somebody looks at it.
                    self.value.seen.mark_changed();
                    Ok(())
                }
                Err(_) => Err(self.tasks.failure().await),
            },
            error = self.tasks.failure() => Err(error),
        }
    }
}

//! How we tell the cloud: one outbox a destination, so that one that is stuck never holds up the other.

pub mod cloudwatch;
pub mod datum;
pub mod period;
pub mod relay;

use tokio::sync::watch;

use crate::domain::report::Outlet;

/// Tells how an outlet does, where that is news: nobody is woken for nothing.
fn tell(status: &watch::Sender<Outlet>, outlet: &Outlet) {
    status.send_if_modified(|told| {
        let is_news = told != outlet;
        if is_news {
            told.clone_from(outlet);
        }
        is_news
    });
}

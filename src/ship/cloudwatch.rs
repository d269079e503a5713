//! Metrics to CloudWatch: one compressed request a period, a change of health at once, a backlog in large requests.
//!
//! Everything goes through the store first. The store decides what goes next; here it is put into requests, and what
//! came of them is told to the store.

mod answer;
mod delivery;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use aws_sdk_cloudwatch::Client;
use aws_sdk_cloudwatch::types::{Dimension, MetricDatum, StandardUnit};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::datum::{self, CAPACITY, Datum, HEALTH, Scope, Unit};
use super::period::Period;
use crate::clients::backoff::Backoff;
use crate::clients::credentials::NodeCredentials;
use crate::clients::reach::{self, Target};
use crate::clock::Clock;
use crate::config::{CloudWatch as Settings, Enabled};
use crate::domain::judge::Judgement;
use crate::domain::moment::{CLOCK_TOLERANCE, Moment, Now};
use crate::domain::outbox::{Fate, Number, Rank, Want};
use crate::domain::phase;
use crate::domain::report::{EventKind, Outlet, OutletState};
use crate::store::{Batch, Destination, Draft, Standing, Store, Turn};
use answer::Refusal;
use delivery::{Delivery, Item};

/// How long a clean stop may wait for CloudWatch.
const FAREWELL: Duration = Duration::from_secs(3);

/// Between two looks for credentials that are not there yet.
const LOOK_FOR_CREDENTIALS: Duration = Duration::from_secs(30);

/// Under a minute CloudWatch keeps metrics as "high resolution".
const STANDARD_RESOLUTION: Duration = Duration::from_secs(60);

/// Longest pause after failures.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// What is taken from the store at once: about what one request holds. The newest two are the period that has just
/// ended, and a change of health after it.
const BATCH: Want = Want {
    records: 80,
    bytes: 64 << 10,
    newest: 2,
};

/// Who the metrics are of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Dimension Site.
    pub site: String,
    /// Dimension Node.
    pub node: String,
}

/// The way to CloudWatch.
#[derive(Debug)]
pub struct CloudWatch {
    /// What to send.
    pub settings: Settings,
    /// Who the metrics are of.
    pub source: Source,
    /// What waits.
    pub store: Store,
    /// The SDK's client; it must not retry by itself.
    pub client: Client,
    /// Where its requests go, where that can be knocked at.
    pub server: Option<Target>,
    /// Where its credentials come from.
    pub credentials: NodeCredentials,
    /// The time.
    pub clock: Clock,
}

/// Ships metrics until it is cancelled.
///
/// # Errors
/// The store has ended. Trouble with CloudWatch is told in `status`.
pub async fn run(
    ship: CloudWatch,
    mut judgements: mpsc::Receiver<Arc<Judgement>>,
    status: watch::Sender<Outlet>,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    let clock = ship.clock.clone();
    if ship.settings.enabled == Enabled::Auto
        && !wait_for_credentials(&ship.credentials, &mut judgements, &cancel).await
    {
        return Ok(());
    }
    let mut desk = Desk::new(&ship);
    // What waits from an earlier life.
    let turn = Turn::new(Destination::CloudWatch, clock.now());
    let batch = ship.store.turn(turn).await;
    desk.stored(batch.context("the store has ended")?);
    if desk.standing.more {
        desk.outlet.state = OutletState::Retrying;
    }
    let (mut storing, mut sending) = (None, None);
    loop {
        desk.next_step(&mut storing, &mut sending);
        desk.tell(&status);
        tokio::select! {
            () = cancel.cancelled() => break,
            Some(judgement) = judgements.recv() => desk.take_in(&judgement),
            () = tokio::time::sleep(desk.period.left(clock.now().wall)) => desk.close_period(),
            () = step(&mut desk.pause) => {}
            batch = step(&mut storing) => desk.stored(batch.context("the store has ended")?),
            outcome = step(&mut sending) => desk.answered(outcome),
        }
    }
    while let Ok(judgement) = judgements.try_recv() {
        desk.take_in(&judgement);
    }
    desk.break_period();
    // At once whatever the pause; after a failure no more.
    desk.pause = None;
    let farewell = async {
        while desk.pause.is_none() {
            desk.next_step(&mut storing, &mut sending);
            if storing.is_none() && sending.is_none() {
                break;
            }
            tokio::select! {
                batch = step(&mut storing) => desk.stored(batch.context("the store has ended")?),
                outcome = step(&mut sending) => desk.answered(outcome),
            }
        }
        anyhow::Ok(())
    };
    // What is not sent in time is kept.
    if let Ok(ended) = tokio::time::timeout(FAREWELL, farewell).await {
        ended?;
    }
    desk.close().await
}

/// Waits until credentials can be found, which the SSM agent may write long after the start. False: cancelled.
async fn wait_for_credentials(
    credentials: &NodeCredentials,
    judgements: &mut mpsc::Receiver<Arc<Judgement>>,
    cancel: &CancellationToken,
) -> bool {
    let mut told = false;
    while !credentials.available().await {
        if !told {
            told = true;
            tracing::warn!("nothing is sent to CloudWatch: there are no AWS credentials yet");
        }
        let look_again = tokio::time::sleep(LOOK_FOR_CREDENTIALS);
        tokio::pin!(look_again);
        loop {
            tokio::select! {
                () = &mut look_again => break,
                () = cancel.cancelled() => return false,
                // Without a cloud to send to, nothing is kept.
                Some(_) = judgements.recv() => {}
            }
        }
    }
    true
}

type Step<'a, T> = Option<Pin<Box<dyn Future<Output = T> + Send + 'a>>>;

/// Waits for what is under way, and takes it off; for ever where nothing is.
async fn step<T>(under_way: &mut Step<'_, T>) -> T {
    let outcome = match under_way {
        Some(future) => future.as_mut().await,
        None => std::future::pending().await,
    };
    *under_way = None;
    outcome
}

/// What came of a request.
type Outcome = Result<(), (Refusal, String)>;

impl CloudWatch {
    /// The period of now; it ends at this node's own time, so that not all nodes call in the same second.
    fn period(&self, now: Now) -> Period {
        let settings = self.settings.clone();
        let phase = phase::of(&self.source.node, settings.period);
        Period::starting(settings, phase, now.wall)
    }

    fn send(&self, items: &[Item]) -> Pin<Box<dyn Future<Output = Outcome> + Send + 'static>> {
        let data = items.iter().map(|item| self.encode(item)).collect();
        let request = self
            .client
            .put_metric_data()
            .namespace(&self.settings.namespace)
            .set_metric_data(Some(data));
        Box::pin(async move { answer::read(request.send().await) })
    }

    fn encode(&self, item: &Item) -> MetricDatum {
        let datum = &item.datum;
        let dimension =
            |name: &str, value: &str| Dimension::builder().name(name).value(value).build();
        let unit = match datum.unit() {
            Unit::None => StandardUnit::None,
            Unit::Count => StandardUnit::Count,
            Unit::Percent => StandardUnit::Percent,
            Unit::Seconds => StandardUnit::Seconds,
        };
        let mut dimensions = vec![dimension("Site", &self.source.site)];
        if datum.scope != Scope::Site {
            dimensions.push(dimension("Node", &self.source.node));
        }
        match &datum.scope {
            Scope::Site | Scope::Node => {}
            Scope::Gpu(id) => dimensions.push(dimension("Gpu", id)),
            Scope::Camera(id) => dimensions.push(dimension("Camera", id)),
        }
        #[expect(clippy::cast_precision_loss, reason = "values are small")]
        let value =
            |(hundredths, count): &(i64, u32)| (*hundredths as f64 / 100.0, f64::from(*count));
        let (values, counts) = datum.values.iter().map(value).unzip();
        let high_resolution = self.settings.period < STANDARD_RESOLUTION;
        MetricDatum::builder()
            .metric_name(datum.name)
            .set_dimensions(Some(dimensions))
            .timestamp(aws_smithy_types::DateTime::from_millis(
                item.at.as_millisecond(),
            ))
            .set_values(Some(values))
            .set_counts(Some(counts))
            .unit(unit)
            .set_storage_resolution(high_resolution.then_some(1))
            .build()
    }
}

/// A pause after a failure; where nobody was there, it is over as soon as somebody is.
async fn rest(until: Instant, server: Option<Target>) {
    let knock = async {
        match &server {
            Some(server) => reach::opens(server).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = tokio::time::sleep_until(until) => {}
        () = knock => {}
    }
}

/// What is known of the way: everything `run` decides with.
struct Desk<'a> {
    ship: &'a CloudWatch,
    period: Period,
    latest: Option<Arc<Judgement>>,
    /// What the store has not been told yet.
    turn: Turn,
    has_news: bool,
    delivery: Option<Delivery>,
    standing: Standing,
    stood_at: Moment,
    backoff: Backoff,
    /// Goes on through everything else that happens: news must not put off the next knock.
    pause: Step<'static, ()>,
    /// What the clock was off when the request under way was signed.
    offset: Option<SignedDuration>,
    outlet: Outlet,
}

impl<'a> Desk<'a> {
    fn new(ship: &'a CloudWatch) -> Self {
        let now = ship.clock.now();
        Desk {
            ship,
            period: ship.period(now),
            latest: None,
            turn: Turn::new(Destination::CloudWatch, now),
            has_news: false,
            delivery: None,
            standing: Standing::default(),
            stood_at: now.moment,
            backoff: Backoff::up_to(LONGEST_PAUSE),
            pause: None,
            offset: None,
            outlet: Outlet {
                state: OutletState::Ok,
                ..Outlet::off("cloudwatch")
            },
        }
    }

    fn take_in(&mut self, judgement: &Arc<Judgement>) {
        self.period.take_in(&judgement.report);
        let changed = judgement
            .events
            .iter()
            .any(|event| matches!(event.kind, EventKind::Verdict { .. }));
        let state = judgement.report.verdict.state;
        if changed && self.latest.is_some() {
            let health = Datum::single(HEALTH, Scope::Node, f64::from(state.code()));
            self.put(Rank::Transition, judgement.report.at, None, &[health]);
        }
        self.latest = Some(Arc::clone(judgement));
    }

    /// Keeps what a period that will not end has seen; all but `Capacity`, which the next start may still send.
    fn break_period(&mut self) {
        let now = self.ship.clock.now();
        if let Some(latest) = self.latest.clone() {
            let age = self.oldest(now);
            let (_, mut data) = self.period.finish(&latest.report, age, now.wall);
            data.retain(|datum| datum.name != CAPACITY);
            self.put(Rank::Metric, now.wall, None, &data);
        }
    }

    fn close_period(&mut self) {
        let now = self.ship.clock.now();
        if !self.period.is_over(now.wall) {
            return;
        }
        let length = self.period.settings().period;
        match self.latest.clone() {
            Some(latest) => {
                let age = self.oldest(now);
                let (at, data) = self.period.finish(&latest.report, age, now.wall);
                self.put(Rank::Metric, at, Some(length), &data);
            }
            None => self.period = self.ship.period(now),
        }
    }

    fn put(&mut self, rank: Rank, at: Timestamp, period: Option<Duration>, data: &[Datum]) {
        let now = self.ship.clock.now();
        self.turn.put.push(Draft {
            number: None,
            rank,
            moment: now.moment_at(at).unwrap_or(Moment::BOOT),
            wall: at,
            period,
            payload: datum::encode(data),
        });
        self.has_news = true;
    }

    /// Starts what can be started: telling the store what is new and asking it for more, and the next request.
    fn next_step(
        &mut self,
        storing: &mut Step<'a, Option<Batch>>,
        sending: &mut Step<'a, Outcome>,
    ) {
        if sending.is_none() && self.pause.is_none() {
            self.offset = self.ship.clock.offset();
            let items = self.delivery.as_ref().and_then(Delivery::next);
            *sending = items.map(|items| self.ship.send(items));
        }
        let takes = self.delivery.is_none() && sending.is_none() && self.pause.is_none();
        let wants_more = takes && (self.standing.more || !self.turn.put.is_empty());
        if storing.is_none() && (self.has_news || wants_more) {
            let now = self.ship.clock.now();
            let fresh = Turn::new(Destination::CloudWatch, now);
            let mut turn = std::mem::replace(&mut self.turn, fresh);
            turn.now = now;
            turn.take = takes.then_some(BATCH);
            self.has_news = false;
            *storing = Some(Box::pin(self.ship.store.turn(turn)));
        }
    }

    fn stored(&mut self, batch: Batch) {
        self.standing = batch.standing;
        let now = self.ship.clock.now();
        self.stood_at = now.moment;
        if !batch.records.is_empty() {
            let mut delivery = Delivery::of(batch.records, now);
            self.settle(delivery.settled());
            self.delivery = delivery.next().is_some().then_some(delivery);
        }
    }

    fn settle(&mut self, settled: Vec<(Number, Fate)>) {
        self.has_news |= !settled.is_empty();
        self.turn.settled.extend(settled);
    }

    fn answered(&mut self, outcome: Outcome) {
        let Some(mut delivery) = self.delivery.take() else {
            return;
        };
        let (refusal, error) = match outcome {
            Ok(()) => {
                delivery.taken();
                if let Some(error) = self.outlet.error.take() {
                    tracing::info!(was = error, "CloudWatch takes metrics again");
                }
                self.outlet.state = OutletState::Ok;
                self.outlet.last_success = Some(self.ship.clock.now().wall);
                self.backoff.reset();
                self.ship.credentials.taken();
                return self.go_on(delivery);
            }
            Err(failure) => failure,
        };
        if self.outlet.error.as_ref() != Some(&error) {
            tracing::warn!(error, "CloudWatch does not take metrics");
        }
        if refusal == Refusal::Credentials {
            self.ship.credentials.refused(&error);
        }
        self.outlet.error = Some(error);
        self.outlet.state = match refusal {
            Refusal::Unreachable
            | Refusal::NotArrived
            | Refusal::MayHaveArrived
            | Refusal::Credentials => OutletState::Retrying,
            Refusal::Forbidden | Refusal::BadData => OutletState::Rejected,
        };
        match refusal {
            Refusal::BadData if !self.clock_was_off() => {
                delivery.refused();
                return self.go_on(delivery);
            }
            Refusal::Unreachable
            | Refusal::NotArrived
            | Refusal::MayHaveArrived
            | Refusal::Credentials
            | Refusal::Forbidden
            | Refusal::BadData => {}
        }
        let left = delivery.give_up(refusal == Refusal::MayHaveArrived);
        self.turn.settled.extend(left.settled);
        self.turn.not_counted.extend(left.not_counted);
        self.turn.hand_back = true;
        self.has_news = true;
        self.standing.more = true;
        let until = Instant::now() + self.backoff.pause();
        let server = self.ship.server.clone();
        let server = server.filter(|_| refusal == Refusal::Unreachable);
        self.pause = Some(Box::pin(rest(until, server)));
    }

    /// Data that are refused for their times, when this very answer tells that the clock was wrong, were not bad.
    fn clock_was_off(&self) -> bool {
        let (then, now) = (self.offset, self.ship.clock.offset());
        let then = then.unwrap_or_default();
        now.is_some_and(|now| (now - then).abs() > CLOCK_TOLERANCE)
    }

    /// The rest of a delivery, if there is one.
    fn go_on(&mut self, mut delivery: Delivery) {
        self.settle(delivery.settled());
        self.delivery = delivery.next().is_some().then_some(delivery);
    }

    /// Tells the store the rest.
    async fn close(mut self) -> anyhow::Result<()> {
        if let Some(delivery) = self.delivery.take() {
            // What is under way may have arrived.
            let left = delivery.give_up(true);
            self.turn.settled.extend(left.settled);
            self.turn.not_counted.extend(left.not_counted);
        }
        self.turn.hand_back = true;
        self.turn.now = self.ship.clock.now();
        let batch = self.ship.store.turn(self.turn).await;
        let pending = batch.context("the store has ended")?.standing.pending;
        if pending > 0 {
            tracing::info!(pending, "what CloudWatch did not take is kept");
        }
        Ok(())
    }

    fn oldest(&self, now: Now) -> Duration {
        if self.standing.pending == 0 {
            return Duration::ZERO;
        }
        self.standing.oldest + (now.moment - self.stood_at)
    }

    fn tell(&mut self, status: &watch::Sender<Outlet>) {
        let now = self.ship.clock.now();
        self.outlet.pending = self.standing.pending;
        self.outlet.oldest_pending_s = self.oldest(now).as_secs();
        self.outlet.dropped = self.standing.dropped;
        super::tell(status, &self.outlet);
    }
}

//! Metrics to CloudWatch: one compressed request a period, a change of health at once, retried from an outbox.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_cloudwatch::Client;
use aws_sdk_cloudwatch::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_sdk_cloudwatch::operation::RequestId;
use aws_sdk_cloudwatch::operation::put_metric_data::PutMetricDataError;
use aws_sdk_cloudwatch::types::{Dimension, MetricDatum, StandardUnit};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::period::{Datum, Period, Scope, Unit};
use crate::clients::credentials::{NodeCredentials, is_refusal};
use crate::clock::Clock;
use crate::config::{CloudWatch as Settings, Enabled};
use crate::domain::judge::Judgement;
use crate::domain::moment::Now;
use crate::domain::outbox::{Id, Limits, Outbox, Rank};
use crate::domain::report::{EventKind, Outlet, OutletState, State};

/// How long a clean stop may wait for CloudWatch.
const FAREWELL: Duration = Duration::from_secs(3);

/// Between two looks for credentials that are not there yet.
const LOOK_FOR_CREDENTIALS: Duration = Duration::from_secs(30);

/// Under a minute CloudWatch keeps metrics as "high resolution".
const STANDARD_RESOLUTION: Duration = Duration::from_secs(60);

/// Who the metrics are of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Dimension Site.
    pub site: String,
    /// Dimension Node.
    pub node: String,
}

/// Ships metrics until it is cancelled.
///
/// # Errors
/// None; trouble with CloudWatch is told in `status`.
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
    let mut sending: Option<Sending<'_>> = None;
    loop {
        if sending.is_none()
            && desk
                .outbox
                .ready_at()
                .is_some_and(|at| at <= clock.moment())
        {
            sending = desk.next().map(|(id, data)| ship.send(id, data));
        }
        desk.tell(&status, clock.now());
        let retry_at = desk
            .outbox
            .ready_at()
            .filter(|_| sending.is_none())
            .map(|at| clock.instant(at));
        tokio::select! {
            () = cancel.cancelled() => break,
            Some(judgement) = judgements.recv() => desk.take_in(&judgement, clock.now()),
            () = tokio::time::sleep(desk.period.left(clock.now().wall)) => desk.close_period(clock.now()),
            () = sleep_until(retry_at) => {}
            outcome = async { sending.as_mut().expect("guarded").await }, if sending.is_some() => {
                sending = None;
                desk.settle(&ship, outcome, clock.now());
            }
        }
    }
    while let Ok(judgement) = judgements.try_recv() {
        desk.take_in(&judgement, clock.now());
    }
    desk.break_period(clock.now());
    let farewell = async {
        if let Some(sending) = sending {
            desk.settle(&ship, sending.await, clock.now());
        }
        // At once whatever the pause; after a failure with the pause, as ever.
        desk.outbox.release_at_once();
        while let Some(at) = desk.outbox.ready_at() {
            tokio::time::sleep_until(clock.instant(at)).await;
            let Some((id, data)) = desk.next() else { break };
            desk.settle(&ship, ship.send(id, data).await, clock.now());
        }
    };
    let in_time = tokio::time::timeout(FAREWELL, farewell).await.is_ok();
    if !in_time || desk.outbox.pending() > 0 {
        tracing::warn!(
            pending = desk.outbox.pending(),
            "stopping with metrics that CloudWatch did not take"
        );
    }
    Ok(())
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

/// The way to CloudWatch.
#[derive(Debug)]
pub struct CloudWatch {
    /// What to send.
    pub settings: Settings,
    /// Who the metrics are of.
    pub source: Source,
    /// Bounds of what waits.
    pub limits: Limits,
    /// The SDK's client; it must not retry by itself.
    pub client: Client,
    /// Where its credentials come from.
    pub credentials: NodeCredentials,
    /// The time.
    pub clock: Clock,
}

type Sending<'a> = Pin<Box<dyn Future<Output = Outcome> + Send + 'a>>;

/// What came of one request.
enum Outcome {
    Taken(Id),
    Failed {
        id: Id,
        verdict: Refusal,
        error: String,
    },
}

/// What a failure means for the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    /// It certainly did not arrive: send it again as it is.
    NotArrived,
    /// It may have arrived: never count a node twice.
    MayHaveArrived,
    /// The credentials are not taken (any more).
    Credentials,
    /// This node may not send.
    Forbidden,
    /// CloudWatch does not like the data.
    BadData,
}

impl CloudWatch {
    fn send(&self, id: Id, data: Vec<Datum>) -> Sending<'_> {
        let request = self
            .client
            .put_metric_data()
            .namespace(&self.settings.namespace)
            .set_metric_data(Some(
                data.into_iter().map(|datum| self.encode(datum)).collect(),
            ));
        Box::pin(async move {
            match request.send().await {
                // The SDK takes any 200 for success, a captive portal's page too; AWS alone sends a request id.
                Ok(answer) if answer.request_id().is_none() => Outcome::Failed {
                    id,
                    verdict: Refusal::NotArrived,
                    error:
                        "the answer is not AWS's: is there a proxy or a captive portal in between?"
                            .to_owned(),
                },
                Ok(_) => Outcome::Taken(id),
                Err(error) => {
                    let (verdict, error) = read_error(&error);
                    Outcome::Failed { id, verdict, error }
                }
            }
        })
    }

    fn encode(&self, datum: Datum) -> MetricDatum {
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
        let (values, counts) = datum.values.into_iter().unzip();
        let high_resolution = self.settings.period < STANDARD_RESOLUTION;
        MetricDatum::builder()
            .metric_name(datum.name)
            .set_dimensions(Some(dimensions))
            .timestamp(aws_smithy_types::DateTime::from_millis(
                datum.at.as_millisecond(),
            ))
            .set_values(Some(values))
            .set_counts(Some(counts))
            .unit(unit)
            .set_storage_resolution(high_resolution.then_some(1))
            .build()
    }
}

/// What waits and what is known of the way: everything `run` decides with.
struct Desk {
    period: Period,
    outbox: Outbox<Vec<Datum>>,
    latest: Option<Arc<Judgement>>,
    told: State,
    outlet: Outlet,
}

impl Desk {
    fn new(ship: &CloudWatch) -> Self {
        Desk {
            period: Period::starting(ship.settings.clone(), ship.clock.now().wall),
            outbox: Outbox::new(ship.limits),
            latest: None,
            told: State::Unknown,
            outlet: Outlet {
                state: OutletState::Ok,
                ..Outlet::off("cloudwatch")
            },
        }
    }

    fn take_in(&mut self, judgement: &Arc<Judgement>, now: Now) {
        self.period.take_in(&judgement.report);
        let changed = judgement
            .events
            .iter()
            .any(|event| matches!(event.kind, EventKind::Verdict { .. }));
        let state = judgement.report.verdict.state;
        // That a node that has just started is healthy can wait for the period's end.
        let good_news = self.told == State::Unknown && state == State::Healthy;
        if changed && !good_news && self.latest.is_some() {
            let at = judgement.report.at;
            let health = Datum::single("Health", Scope::Node, at, f64::from(state.code()));
            self.put(Rank::Transition, vec![health], now);
        }
        self.told = state;
        self.latest = Some(Arc::clone(judgement));
    }

    /// Sends what a period that will not end has seen; all but `Capacity`, which the next start may still send.
    fn break_period(&mut self, now: Now) {
        let age = self.outbox.oldest(now.moment);
        if let Some(latest) = &self.latest {
            let mut data = self.period.finish(&latest.report, age, now.wall);
            data.retain(|datum| datum.name != "Capacity");
            self.put(Rank::Metric, data, now);
        }
    }

    fn close_period(&mut self, now: Now) {
        if !self.period.is_over(now.wall) {
            return;
        }
        let age = self.outbox.oldest(now.moment);
        match &self.latest {
            Some(latest) => {
                let data = self.period.finish(&latest.report, age, now.wall);
                self.put(Rank::Metric, data, now);
            }
            None => self.period = Period::starting(self.period.settings().clone(), now.wall),
        }
    }

    fn put(&mut self, rank: Rank, data: Vec<Datum>, now: Now) {
        let bytes = size(&data);
        self.outbox.put(rank, data, bytes, now.moment);
    }

    fn next(&mut self) -> Option<(Id, Vec<Datum>)> {
        // The clock was asked already by whoever found the outbox ready.
        let at = self.outbox.ready_at()?;
        self.outbox
            .take(1, 1, at)
            .pop()
            .map(|(id, _, data)| (id, data.clone()))
    }

    fn settle(&mut self, ship: &CloudWatch, outcome: Outcome, now: Now) {
        let (id, refusal, error) = match outcome {
            Outcome::Taken(id) => {
                self.outbox.acknowledge(id);
                if let Some(error) = self.outlet.error.take() {
                    tracing::info!(was = error, "CloudWatch takes metrics again");
                }
                self.outlet.state = OutletState::Ok;
                self.outlet.last_success = Some(now.wall);
                return;
            }
            Outcome::Failed { id, verdict, error } => (id, verdict, error),
        };
        if self.outlet.error.as_ref() != Some(&error) {
            tracing::warn!(error, "CloudWatch does not take metrics");
        }
        self.outlet.error = Some(error);
        self.outlet.state = match refusal {
            Refusal::NotArrived | Refusal::MayHaveArrived | Refusal::Credentials => {
                OutletState::Retrying
            }
            Refusal::Forbidden | Refusal::BadData => OutletState::Rejected,
        };
        match refusal {
            Refusal::NotArrived | Refusal::Forbidden => {}
            Refusal::MayHaveArrived => self
                .outbox
                .edit(id, |data| data.retain(|datum| datum.name != "Capacity")),
            Refusal::Credentials => ship.credentials.forget(),
            Refusal::BadData => return self.take_apart(id, now),
        }
        self.outbox.release(now.moment, fastrand::f64());
    }

    /// Halves a refused record, so that in the end only the poison datum is dropped.
    fn take_apart(&mut self, id: Id, now: Now) {
        let mut whole = Vec::new();
        self.outbox.edit(id, |data| whole = std::mem::take(data));
        if whole.len() < 2 {
            self.outbox.refuse(id);
            return;
        }
        let second = whole.split_off(whole.len() / 2);
        let parts = [whole, second].map(|half| {
            let bytes = size(&half);
            (half, bytes)
        });
        self.outbox.replace(id, parts.into_iter(), now.moment);
    }

    fn tell(&mut self, status: &watch::Sender<Outlet>, now: Now) {
        self.outlet.pending = self.outbox.pending();
        self.outlet.oldest_pending_s = self.outbox.oldest(now.moment).as_secs();
        self.outlet.dropped = self.outbox.dropped();
        status.send_if_modified(|told| {
            let changed = *told != self.outlet;
            if changed {
                told.clone_from(&self.outlet);
            }
            changed
        });
    }
}

/// About what a record takes in memory.
fn size(data: &[Datum]) -> u64 {
    data.iter()
        .map(|datum| 64 + 16 * datum.values.len() as u64)
        .sum()
}

/// Reads what an error means for the data, and names it for a person.
///
/// Codes by AWS's common errors and PutMetricData's reference.
fn read_error(error: &SdkError<PutMetricDataError>) -> (Refusal, String) {
    match error {
        SdkError::ServiceError(answer) => {
            let code = answer.err().code().unwrap_or("unknown error");
            let message = answer.err().message().unwrap_or_default();
            (
                read_code(code),
                format!("{code}: {message}")
                    .trim_end_matches([':', ' '])
                    .to_owned(),
            )
        }
        SdkError::TimeoutError(_) => (Refusal::MayHaveArrived, "no answer in time".to_owned()),
        SdkError::DispatchFailure(failure) if failure.is_timeout() => {
            (Refusal::MayHaveArrived, "no answer in time".to_owned())
        }
        _ if lacks_credentials(error) => (Refusal::Credentials, innermost(error)),
        // A connection that breaks may break after the request went out.
        SdkError::DispatchFailure(_) => {
            let why = innermost(error);
            let refused =
                why.contains("refused") || why.contains("dns") || why.contains("unreachable");
            (
                if refused {
                    Refusal::NotArrived
                } else {
                    Refusal::MayHaveArrived
                },
                why,
            )
        }
        SdkError::ResponseError(_) | _ => (Refusal::MayHaveArrived, innermost(error)),
    }
}

fn read_code(code: &str) -> Refusal {
    match code {
        code if is_refusal(code) => Refusal::Credentials,
        // The SDK has learnt the clock's offset from the answer and signs the next one right.
        "RequestExpired" | "RequestTimeTooSkewed" | "IncompleteSignature" => Refusal::Credentials,
        "AccessDenied" | "AccessDeniedException" | "NotAuthorized" | "OptInRequired" => {
            Refusal::Forbidden
        }
        "InternalFailure" | "InternalServiceFault" | "InternalServerError" => {
            Refusal::MayHaveArrived
        }
        code if code.starts_with("Throttl")
            || code == "LimitExceeded"
            || code == "RequestLimitExceeded"
            || code.starts_with("ServiceUnavailable") =>
        {
            Refusal::NotArrived
        }
        code if code.starts_with("Invalid")
            || code.starts_with("Missing")
            || code.starts_with("Validation")
            || code.contains("TooLarge") =>
        {
            Refusal::BadData
        }
        _ => Refusal::MayHaveArrived,
    }
}

/// Whether nothing was sent because the provider had nothing to sign with.
fn lacks_credentials(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |inner| inner.source())
        .any(|inner| inner.is::<CredentialsError>())
}

/// The innermost cause: "connection refused" rather than "dispatch failure".
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    let text = inner.to_string();
    if text.is_empty() {
        DisplayErrorContext(error).to_string()
    } else {
        text
    }
}

async fn sleep_until(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_error_means_for_the_data() {
        for (code, refusal) in [
            ("ExpiredToken", Refusal::Credentials),
            ("UnrecognizedClientException", Refusal::Credentials),
            ("AccessDenied", Refusal::Forbidden),
            ("ThrottlingException", Refusal::NotArrived),
            ("InternalServiceFault", Refusal::MayHaveArrived),
            ("InvalidParameterValue", Refusal::BadData),
            ("MissingParameter", Refusal::BadData),
            ("SomethingNew", Refusal::MayHaveArrived),
        ] {
            assert_eq!(read_code(code), refusal, "{code}");
        }
    }
}

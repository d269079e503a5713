//! Uninterruptible power supplies, as the daemon of Network UPS Tools (upsd) tells: <https://www.rfc-editor.org/rfc/rfc9271>
//!
//! A handful of lines over TCP, asked anew each time, so that there is no connection to lose. The crate nut-client is
//! not used: it panics when upsd closes the connection, and reads lines without end.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::time::Duration;

use tokio::io::{
    AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, Take,
};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval_at, timeout};
use tokio_util::sync::CancellationToken;

use super::program::printable;
use crate::clock::Clock;
use crate::config::{self, Enabled};
use crate::domain::reading::Reading;
use crate::domain::snapshot::{Ups, UpsPower};

/// All questions together take no longer.
const DEADLINE: Duration = Duration::from_secs(5);

/// All answers together are no longer; a UPS's variables are some 3 KiB.
const ANSWERS: u64 = 256 << 10;

/// More than a server has.
const MOST: usize = 16;

/// A text of a UPS is no longer than this, in characters.
const LONGEST_TEXT: usize = 128;

/// Asks upsd at `config.address` at once, then every `config.every`.
///
/// `enabled = "auto"` and a refused connection is `Off`: there is no upsd here. Once it has answered it has to go on
/// answering. A UPS that upsd has lost is in the reading, as `stale`.
///
/// # Errors
/// None: what can't be read is `Failed`.
pub async fn run(
    config: config::Ups,
    out: watch::Sender<Reading<Vec<Ups>>>,
    clock: Clock,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    if config.enabled == Enabled::Never {
        out.send_replace(Reading::Off);
        cancel.cancelled().await;
        return Ok(());
    }
    let mut ticks = interval_at(clock.instant(clock.moment()), config.every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut expected = config.enabled == Enabled::Always;
    let mut failing_since = None;
    loop {
        tokio::select! {
            () = cancel.cancelled() => return Ok(()),
            _ = ticks.tick() => {}
        }
        let answer = tokio::select! {
            () = cancel.cancelled() => return Ok(()),
            answer = timeout(DEADLINE, ask(&config.address)) => answer,
        };
        let why = match answer {
            Ok(Ok(seen)) => {
                expected = true;
                failing_since = None;
                out.send_replace(Reading::ok(seen, clock.moment()));
                continue;
            }
            Ok(Err(why)) if why.kind() == ErrorKind::ConnectionRefused && !expected => {
                out.send_replace(Reading::Off);
                continue;
            }
            Ok(Err(why)) => format!("upsd at {}: {why}", config.address),
            Err(_) => format!(
                "upsd at {} does not answer within {DEADLINE:?}",
                config.address
            ),
        };
        let at = *failing_since.get_or_insert_with(|| {
            tracing::warn!("the UPS is unknown: {why}");
            clock.moment()
        });
        out.send_replace(Reading::Failed { why, at });
    }
}

/// Asks the upsd at `address` for all that it knows.
///
/// # Errors
/// As for [`talk`], and it can't be reached.
pub async fn ask(address: &str) -> io::Result<Vec<Ups>> {
    talk(TcpStream::connect(address).await?).await
}

/// Asks the upsd at the other end of a stream for all that it knows.
///
/// # Errors
/// It refuses to list its supplies, says what is no answer, says too much, or goes.
pub async fn talk(stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<Vec<Ups>> {
    let mut session = Session {
        stream: BufReader::new(stream.take(ANSWERS)),
    };
    let listed = session.list("UPS").await?.map_err(io::Error::other)?;
    let names = listed.iter().filter_map(|row| row.first());
    let names: Vec<String> = names.take(MOST).cloned().collect();
    let mut seen = Vec::with_capacity(names.len());
    for name in names {
        let variables = session.list(&format!("VAR {}", quoted(&name))).await?;
        seen.push(ups(&name, variables));
    }
    // A farewell that is not heard changes nothing.
    let _ = session
        .stream
        .get_mut()
        .get_mut()
        .write_all(b"LOGOUT\n")
        .await;
    Ok(seen)
}

/// A conversation with upsd, bounded in length.
struct Session<S> {
    stream: BufReader<Take<S>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
    /// The rows of `LIST {what}`, each without the words that repeat the question; or upsd's refusal.
    async fn list(&mut self, what: &str) -> io::Result<Result<Vec<Vec<String>>, String>> {
        let question = format!("LIST {what}\n");
        let stream = self.stream.get_mut().get_mut();
        stream.write_all(question.as_bytes()).await?;
        let asked = words(what)?;
        let mut rows = Vec::new();
        loop {
            let row = self.line().await?;
            let first = row.first().map_or("", String::as_str);
            match (first, row.strip_prefix(asked.as_slice())) {
                ("BEGIN", _) => {}
                ("END", _) => return Ok(Ok(rows)),
                ("ERR", _) => return Ok(Err(printable(&row[1..].join(" "), LONGEST_TEXT))),
                (_, Some(rest)) => rows.push(rest.to_vec()),
                (_, None) => return Err(nonsense(&row.join(" "))),
            }
        }
    }

    async fn line(&mut self) -> io::Result<Vec<String>> {
        let mut line = Vec::new();
        self.stream.read_until(b'\n', &mut line).await?;
        let Some(line) = line.strip_suffix(b"\n") else {
            return Err(if self.stream.get_ref().limit() == 0 {
                io::Error::other(format!("said more than {ANSWERS} bytes"))
            } else {
                ErrorKind::UnexpectedEof.into()
            });
        };
        words(&String::from_utf8_lossy(line))
    }
}

/// Splits a line as upsd quotes it: `VAR myups ups.model "Back-UPS \"700\""`.
fn words(line: &str) -> io::Result<Vec<String>> {
    shell_words::split(line).map_err(|_| nonsense(line))
}

fn quoted(name: &str) -> String {
    shell_words::quote(name).into_owned()
}

fn nonsense(line: &str) -> io::Error {
    let line = printable(line, LONGEST_TEXT);
    io::Error::other(format!("said \"{line}\", which is no answer"))
}

/// What a UPS's variables mean (RFC 9271, "Variables" and "Status").
fn ups(name: &str, variables: Result<Vec<Vec<String>>, String>) -> Ups {
    let name = printable(name, LONGEST_TEXT);
    let rows = match variables {
        Ok(rows) => rows,
        // DATA-STALE, DRIVER-NOT-CONNECTED: not known, which is not good.
        Err(why) => {
            return Ups {
                name,
                stale: true,
                why: Some(why),
                ..Ups::default()
            };
        }
    };
    let variables: BTreeMap<&str, &str> = rows
        .iter()
        .filter_map(|row| Some((row.first()?.as_str(), row.get(1)?.as_str())))
        .collect();
    let text = |key: &str| {
        let value = variables.get(key)?;
        Some(printable(value, LONGEST_TEXT)).filter(|text| !text.is_empty())
    };
    let number = |key: &str| {
        let number: f64 = variables.get(key)?.trim().parse().ok()?;
        (number.is_finite() && 0.0 <= number).then_some(number)
    };
    let status = text("ups.status").unwrap_or_default();
    let says = |flag: &str| status.split(' ').any(|word| word == flag);
    let maker = text("device.mfr").or_else(|| text("ups.mfr"));
    let model = text("device.model").or_else(|| text("ups.model"));
    // Before its first look at the UPS, and while it has lost it, a driver says so here.
    let stale = status.is_empty() || says("WAIT") || says("NOCOMM");
    Ups {
        name,
        model: match (maker, model) {
            (Some(maker), Some(model)) => Some(format!("{maker} {model}")),
            (maker, model) => maker.or(model),
        },
        power: if says("OB") {
            UpsPower::Battery
        } else if says("OL") {
            UpsPower::Line
        } else {
            UpsPower::Unknown
        },
        low_battery: says("LB"),
        replace_battery: says("RB"),
        forced_shutdown: says("FSD"),
        alarm: says("ALARM"),
        overloaded: says("OVER"),
        charge_percent: number("battery.charge"),
        runtime_s: number("battery.runtime"),
        load_percent: number("ups.load"),
        why: stale.then(|| format!("the driver says \"{status}\"")),
        stale,
        status,
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn what_a_status_means() {
        use UpsPower::{Battery, Line, Unknown};
        // status → power, stale, flags: low, replace, shutdown, alarm, overloaded
        for (status, power, stale, flags) in [
            ("OL", Line, false, ""),
            ("OL CHRG", Line, false, ""),
            ("OB DISCHRG", Battery, false, ""),
            ("OB LB", Battery, false, "low"),
            ("FSD OB LB", Battery, false, "low shutdown"),
            ("ALARM OL RB OVER", Line, false, "replace alarm overloaded"),
            ("BYPASS", Unknown, false, ""),
            ("OFF", Unknown, false, ""),
            ("WAIT", Unknown, true, ""),
            ("OL NOCOMM", Line, true, ""),
            ("", Unknown, true, ""),
        ] {
            let row = vec!["ups.status".to_owned(), status.to_owned()];
            let seen = ups("u", Ok(vec![row]));
            let flags_seen = [
                (seen.low_battery, "low"),
                (seen.replace_battery, "replace"),
                (seen.forced_shutdown, "shutdown"),
                (seen.alarm, "alarm"),
                (seen.overloaded, "overloaded"),
            ];
            let told = flags_seen
                .into_iter()
                .filter_map(|(set, name)| set.then_some(name));
            let told = told.collect::<Vec<_>>().join(" ");
            assert_eq!(
                (seen.power, seen.stale, told.as_str()),
                (power, stale, flags),
                "{status}"
            );
        }
    }

    /// A upsd that says `said` whatever it is asked.
    async fn told(said: &'static [u8]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            // Who asks may have heard enough.
            let _ = stream.write_all(said).await;
            let _ = stream.shutdown().await;
            let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
        };
        let (asked, ()) = tokio::join!(ask(&address), server);
        match asked {
            Ok(seen) => {
                let row = |ups: &Ups| {
                    let why = ups.why.as_deref().unwrap_or("-");
                    let model = ups.model.as_deref().unwrap_or("-");
                    format!("{}: {model}, {}, {why}", ups.name, ups.status)
                };
                seen.iter().map(row).collect::<Vec<_>>().join("; ")
            }
            Err(why) => why.to_string(),
        }
    }

    #[tokio::test]
    async fn answers_and_nonsense() {
        const STALE: &[u8] = b"BEGIN LIST UPS\nUPS a \"An \\\"old\\\" one\"\nUPS b \"\"\nEND LIST UPS\n\
            ERR DATA-STALE\nBEGIN LIST VAR b\nVAR b ups.status \"OL\"\nVAR b ups.model \"X \\\"7\\\"\"\nEND LIST VAR b\n";
        for (said, expected) in [
            (STALE, "a: -, , DATA-STALE; b: X \"7\", OL, -"),
            (b"BEGIN LIST UPS\nEND LIST UPS\n", ""),
            (b"", "unexpected end of file"),
            (b"BEGIN LIST UPS\nUPS a", "unexpected end of file"),
            (b"ERR ACCESS-DENIED\n", "ACCESS-DENIED"),
            (b"ERR ACCESS\x1b[2JDENIED\n", "ACCESS [2JDENIED"),
            (
                b"SSH-2.0-OpenSSH\r\n",
                "said \"SSH-2.0-OpenSSH\", which is no answer",
            ),
            (b"\n", "said \"\", which is no answer"),
            (b"UPS \"a\n", "said \"UPS \"a\", which is no answer"),
            (&[b'x'; 300 << 10], "said more than 262144 bytes"),
        ] {
            assert_eq!(told(said).await, expected);
        }
    }
}

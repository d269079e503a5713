//! The watchdog by its timetable: a minute a step, and what each kind of trouble says.

use super::*;

const NODE: &str = "mi-0123456789abcdef0";

fn start() -> Timestamp {
    "2026-11-23T12:00:00Z".parse().unwrap()
}

fn minute(count: u64) -> Now {
    let since = Duration::from_secs(60 * count);
    Now {
        moment: Moment::after_boot(since),
        wall: start().checked_add(since).unwrap(),
        sure: true,
    }
}

/// Renewed at this minute, for an hour.
fn renewed(at: u64) -> Seen {
    Seen {
        started_as: Some(NODE.to_owned()),
        registered: Registered::As(NODE.to_owned()),
        renewal: Some(Renewal {
            at: Some(minute(at).wall),
            expires_at: minute(at + 60).wall,
        }),
        ..Seen::default()
    }
}

/// One letter a span of ten minutes: `a` AWS answers, `-` it does not, `A` it answers and the SSM agent renews.
/// Expected: `r`enews, `?` unknown, `s`leeps, `S`leeps and is to be restarted in this span.
fn check(world: &str, expected: &str) {
    let mut watchdog = Watchdog::default();
    let (mut seen, mut heard, mut said) = (renewed(0), None, String::new());
    for (span, letter) in (0..).zip(world.chars()) {
        let wanted = watchdog.restarts_wanted();
        for at in 10 * span..10 * (span + 1) {
            let now = minute(at);
            if letter != '-' {
                heard = Some(now.moment);
            }
            if letter == 'A' && at == 10 * span {
                seen = renewed(at);
            }
            watchdog.take_in(&seen, heard, true, now);
        }
        said.push(match watchdog.ssm_agent {
            SsmAgent::Renews => 'r',
            SsmAgent::Unknown => '?',
            SsmAgent::Asleep if wanted < watchdog.restarts_wanted() => 'S',
            SsmAgent::Asleep => 's',
            SsmAgent::None => '.',
        });
    }
    assert_eq!(said, expected, "{world}");
}

#[test]
fn an_ssm_agent_that_does_not_renew_is_asleep() {
    for (world, expected) in [
        // Half of an hour, and ten minutes for whoever is slow.
        ("aaaaaaaa", "rrrrSsss"),
        ("aaaAaaaAaaa", "rrrrrrrrrrr"),
        // It is restarted, and renews.
        ("aaaaaAaaa", "rrrrSrrrr"),
        // It is restarted once an hour.
        ("aaaaaaaaaaaaaaaaa", "rrrrSsssssSsssssS"),
        // The uplink is down for an hour; when it is back the SSM agent has ten minutes.
        ("aa------aaaa", "rrrr?????Sss"),
        ("aa------aAaa", "rrrr?????rrr"),
        ("------------", "rrrr????????"),
        // A short hole in the uplink is none, a longer one means ten more minutes.
        ("aaaa-aaa", "rrrrSsss"),
        ("aaaaa--aaa", "rrrrSs??ss"),
    ] {
        check(world, expected);
    }
}

#[test]
fn nothing_is_restarted_that_may_not_be() {
    let mut watchdog = Watchdog::default();
    for at in 0..120 {
        let now = minute(at);
        watchdog.take_in(&renewed(0), Some(now.moment), false, now);
    }
    assert_eq!(watchdog.ssm_agent, SsmAgent::Asleep);
    assert_eq!(watchdog.restarts_wanted(), 0);
}

#[test]
fn a_registration_is_held_against_the_one_at_the_start() {
    let named = |name: Option<&str>| name.map(str::to_owned);
    let is = |name: &str| Registered::As(name.to_owned());
    for (started, registered, expected) in [
        (Some("mi-1"), is("mi-1"), None),
        (None, Registered::No, None),
        (
            Some("mi-1"),
            Registered::No,
            Some((
                Severity::Degraded,
                "the SSM registration is gone; this machine was mi-1",
            )),
        ),
        (
            Some("mi-1"),
            is("mi-2"),
            Some((
                Severity::Degraded,
                "registered as mi-2 now, and was mi-1: `systemctl restart sideline`",
            )),
        ),
        (
            None,
            is("mi-1"),
            Some((
                Severity::Info,
                "registered as mi-1 now: `systemctl restart sideline`",
            )),
        ),
        (
            None,
            Registered::Unreadable("the SSM registration /r holds no JSON".to_owned()),
            Some((Severity::Info, "the SSM registration /r holds no JSON")),
        ),
        (
            Some("mi-1"),
            Registered::Unreadable("the SSM registration /r can't be read".to_owned()),
            Some((Severity::Degraded, "the SSM registration /r can't be read")),
        ),
    ] {
        let seen = Seen {
            started_as: named(started),
            registered,
            ..Seen::default()
        };
        let mut watchdog = Watchdog::default();
        watchdog.take_in(&seen, None, true, minute(0));
        let found = watchdog.identity(&seen);
        assert_eq!(
            found.as_ref().map(|(severity, ..)| *severity),
            expected.map(|(severity, _)| severity),
        );
        let (_, _, evidence) = found.unwrap_or((Severity::Info, Advice::None, String::new()));
        assert!(
            evidence.contains(expected.map_or("", |(_, words)| words)),
            "{evidence}"
        );
    }
}

#[test]
fn credentials_that_can_not_be_used_say_why() {
    let good = Credentials {
        source: Some(Source::File),
        file: Some("/root/.aws/credentials".to_owned()),
        expires_at: Some(minute(10).wall),
        long_lived: Some(false),
        problem: None,
        refused: None,
    };
    let refused = Credentials {
        refused: Some("ExpiredTokenException: it is expired".to_owned()),
        ..good.clone()
    };
    let missing = Credentials {
        problem: Some("there is no credentials file /root/.aws/credentials".to_owned()),
        ..good.clone()
    };
    for (credentials, at, expected) in [
        (&good, 9, None),
        (
            &good,
            10,
            Some("the credentials expired at 2026-11-23T12:10:00Z"),
        ),
        (
            &refused,
            0,
            Some(
                "AWS refuses the credentials of /root/.aws/credentials: ExpiredTokenException: it is expired",
            ),
        ),
        (
            &missing,
            11,
            Some("there is no credentials file /root/.aws/credentials"),
        ),
    ] {
        let trouble = credentials.trouble(minute(at));
        assert_eq!(trouble.as_deref(), expected, "at {at}");
    }
}

#[test]
fn what_never_was_renewed_is_late_when_it_expires() {
    let renewal = |at: Option<u64>, expires: u64| Renewal {
        at: at.map(|at| minute(at).wall),
        expires_at: minute(expires).wall,
    };
    for (renewal, late) in [
        (renewal(Some(0), 60), 40),
        (renewal(None, 60), 70),
        // A clock that was set back.
        (renewal(Some(90), 60), 70),
    ] {
        assert_eq!(renewal.late(), minute(late).wall, "{renewal:?}");
    }
}

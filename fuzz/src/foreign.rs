//! What foreign programs say: smartctl of a disk, upsd of the power supplies.

use sideline::collect::drives::{self, Answer};
use sideline::collect::ups;
use sideline::domain::snapshot::UpsPower;

/// What smartctl prints: no health without evidence, and reasons that can be shown.
pub(super) fn smartctl(input: &[u8]) {
    match drives::answer(input) {
        Answer::Health(smart) => {
            let json: serde_json::Value = serde_json::from_slice(input).expect("it was read");
            let status = json["smartctl"]["exit_status"].as_u64();
            assert!(status.is_some_and(|status| status & 0b11 == 0), "{smart:?}");
            assert_ne!(
                *smart,
                Default::default(),
                "health of which nothing is known"
            );
            assert!(smart.failing_attributes.iter().all(|name| is_shown(name)));
            assert!(smart.temperature_c.is_none_or(f64::is_finite));
            let kept = serde_json::to_string(&smart).expect("it can be recorded");
            assert_eq!(serde_json::from_str(&kept).ok(), Some(smart));
        }
        Answer::Nothing(why) | Answer::NoHelper(why) => assert!(is_shown(&why), "{why:?}"),
        Answer::Asleep => {}
    }
}

/// What upsd says, whatever it is asked: a supply is on line only where it says so.
pub(super) fn upsd(input: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime can be built");
    let stream = tokio::io::join(input, tokio::io::sink());
    let seen = match runtime.block_on(ups::talk(stream)) {
        Ok(seen) => seen,
        Err(why) => return assert!(is_shown(&why.to_string()), "{why}"),
    };
    assert!(seen.len() <= 16);
    for ups in seen {
        let says = |flag: &str| ups.status.split(' ').any(|word| word == flag);
        match ups.power {
            UpsPower::Line => assert!(says("OL") && !says("OB")),
            UpsPower::Battery => assert!(says("OB")),
            UpsPower::Unknown => assert!(!says("OL") && !says("OB")),
        }
        assert!(!ups.status.is_empty() || ups.stale, "{ups:?}");
        assert_eq!(ups.stale, ups.why.is_some(), "{ups:?}");
        let texts = [
            Some(&ups.name),
            Some(&ups.status),
            ups.model.as_ref(),
            ups.why.as_ref(),
        ];
        assert!(
            texts.into_iter().flatten().all(|text| is_shown(text)),
            "{ups:?}"
        );
        let numbers = [ups.charge_percent, ups.runtime_s, ups.load_percent];
        let is_sound = |number: f64| number.is_finite() && 0.0 <= number;
        assert!(numbers.into_iter().flatten().all(is_sound), "{ups:?}");
    }
}

/// Fit for a terminal and a log.
fn is_shown(text: &str) -> bool {
    text.chars().count() <= 512 && !text.contains(char::is_control)
}

//! What is kept of a record, as a damaged disk or another version may hand it back.

use std::time::Duration;

use jiff::Timestamp;
use sideline::domain::outbox::Rank;
use sideline::ship::datum::{self, MAX_VALUES};
use sideline::ship::relay::wire;
use sideline::store::Record;

/// A row of either journal: what is read can be written again, what would be sent has the shape that is promised.
pub(super) fn run(input: &[u8]) {
    if let Some(data) = datum::decode(input) {
        assert_eq!(datum::decode(&datum::encode(&data)), Some(data.clone()));
        let now = Timestamp::UNIX_EPOCH;
        for datum in data {
            if datum::fault(&datum, now, now).is_none() {
                assert!((1..=MAX_VALUES).contains(&datum.values.len()));
                assert!(datum.values.iter().all(|(_, count)| *count > 0));
            }
        }
    }
    let record = Record {
        number: 48_211,
        rank: Rank::Transition,
        at: Timestamp::UNIX_EPOCH,
        age: Duration::MAX,
        counts: false,
        payload: input.to_vec(),
    };
    if let Some(event) = wire::event(&record) {
        let event: serde_json::Value = serde_json::from_slice(&event).expect("JSON is sent");
        assert_eq!(event["v"], 1);
        assert_eq!(event["seq"], 48_211);
        assert_eq!(event["hist"], true);
        assert!(
            event["kind"].is_string() && event["boot"].is_string(),
            "{event}"
        );
    }
}

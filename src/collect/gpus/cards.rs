//! The agent's list of the cards: what a round of questions makes of it.

use std::collections::BTreeMap;
use std::mem::take;

use super::wire::At;
use crate::domain::snapshot::{Gpu, GpuState};

/// The list after a round, in NVML's order: the cards that were `read`, by place, and those known before of which the
/// round tells nothing. The round has ended `at`; `count` cards are listed, where it was whole.
pub(super) fn merged(
    mut read: BTreeMap<u32, Gpu>,
    at: &At,
    count: Option<u32>,
    before: &[Gpu],
    pci: &[String],
) -> Vec<Gpu> {
    let furthest = read.keys().next_back().copied().max(at.place);
    let told = furthest.map_or(0, |place| place as usize + 1);
    let listed = count.map_or(before.len().max(told), |count| count as usize);
    let mut unread = Vec::new();
    let told = (0..).take(listed).map(|place| {
        read.remove(&place).unwrap_or_else(|| {
            unread.push(place as usize);
            let named = at.card.clone().filter(|_| at.place == Some(place));
            Gpu {
                id: named.unwrap_or_default(),
                ..Gpu::default()
            }
        })
    });
    let mut cards = identified(told.collect(), before, pci);
    for place in unread {
        let Some(card) = cards.get_mut(place) else {
            continue;
        };
        let known = match card.id.is_empty() {
            true => before.get(place).filter(|old| old.id.is_empty()),
            false => before.iter().find(|old| old.id == card.id),
        };
        if let Some(old) = known {
            card.clone_from(old);
        }
    }
    cards
}

/// What was read of a card is not known any more; who it is stays known.
pub(super) fn blank(card: &mut Gpu, state: GpuState) {
    let old = take(card);
    *card = Gpu {
        id: old.id,
        name: old.name,
        pci: old.pci,
        serial: old.serial,
        vbios: old.vbios,
        driver: old.driver,
        memory_total_bytes: old.memory_total_bytes,
        state,
        ..Gpu::default()
    };
}

/// A card that is lost or refuses to speak can't say who it is: the card that was listed at its place tells, or
/// the one address on the bus that nobody else has.
fn identified(mut cards: Vec<Gpu>, before: &[Gpu], pci: &[String]) -> Vec<Gpu> {
    let named: Vec<String> = cards.iter().map(|card| card.id.clone()).collect();
    for (place, card) in cards.iter_mut().enumerate() {
        let known = match card.id.is_empty() {
            true => before.get(place).filter(|old| !named.contains(&old.id)),
            false => before.iter().find(|old| old.id == card.id),
        };
        if let Some(known) = known.filter(|_| card.state != GpuState::Ok) {
            card.id.clone_from(&known.id);
            card.name = card.name.take().or_else(|| known.name.clone());
            card.pci = card.pci.take().or_else(|| known.pci.clone());
            card.serial = card.serial.take().or_else(|| known.serial.clone());
            card.vbios = card.vbios.take().or_else(|| known.vbios.clone());
        }
    }
    let taken: Vec<String> = cards.iter().filter_map(|card| card.pci.clone()).collect();
    let mut free = pci.iter().filter(|address| !taken.contains(address));
    let mut nameless = cards.iter_mut().filter(|card| card.id.is_empty());
    if let (Some(address), None) = (free.next(), free.next())
        && let (Some(card), None) = (nameless.next(), nameless.next())
    {
        // Where a card is remembered in that slot, and not listed elsewhere, it is that one.
        let known = before
            .iter()
            .filter(|old| old.pci.as_ref() == Some(address) && !named.contains(&old.id))
            .find(|old| !old.id.is_empty());
        card.id.clone_from(known.map_or(address, |old| &old.id));
        card.pci = Some(address.clone());
    }
    cards
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_that_can_not_say_who_it_is_is_known_by_its_place() {
        use GpuState::{Lost, Ok, Unknown};
        let card = |id: &str, pci: &str, state| Gpu {
            id: id.into(),
            pci: (!pci.is_empty()).then(|| pci.to_owned()),
            state,
            ..Gpu::default()
        };
        let a = || card("A", "a", Ok);
        let b = || card("B", "b", Ok);
        let lost = || card("", "", Lost);
        for (now, before, pci, expected) in [
            (vec![a(), lost()], vec![a(), b()], "a b", "A:a B:b"),
            (vec![lost(), b()], vec![a(), b()], "a b", "A:a B:b"),
            (vec![card("", "", Unknown)], vec![a()], "a", "A:a"),
            // Half-told: the rest is remembered.
            (vec![card("A", "", Lost)], vec![a()], "", "A:a"),
            // The first card is lost, and the second moved up to its place: the slot tells which is which.
            (vec![b(), lost()], vec![a(), b()], "a b", "B:b A:a"),
            // Never seen before: the bus tells, where it tells one.
            (vec![a(), lost()], vec![], "a b", "A:a b:b"),
            (vec![lost(), lost()], vec![], "a b", ":- :-"),
            (vec![lost()], vec![], "a b", ":-"),
        ] {
            let pci: Vec<String> = pci.split(' ').map(String::from).collect();
            let told = format!("{now:?}");
            let cards = identified(now, &before, &pci);
            let seen: Vec<String> = cards
                .iter()
                .map(|card| format!("{}:{}", card.id, card.pci.as_deref().unwrap_or("-")))
                .collect();
            assert_eq!(seen.join(" "), expected, "{told}");
        }
    }

    #[test]
    fn a_round_that_ends_half_way_keeps_what_is_known() {
        let card = |id: &str, temperature| Gpu {
            id: id.into(),
            pci: Some(id.to_lowercase()),
            state: GpuState::Ok,
            temperature_c: temperature,
            ..Gpu::default()
        };
        let old = |id| card(id, Some(50.0));
        let fresh = |id| card(id, Some(60.0));
        let remembered = |id| Gpu {
            state: GpuState::Unknown,
            ..card(id, None)
        };
        type Case<'a> = (&'a str, Vec<(u32, Gpu)>, Option<u32>, Vec<Gpu>, &'a str);
        let cases: Vec<Case<'_>> = vec![
            ("0 A", vec![], None, vec![old("A"), old("B")], "A50 B50"),
            (
                "0 A",
                vec![(1, fresh("B"))],
                None,
                vec![old("A"), old("B")],
                "A50 B60",
            ),
            (
                "1 -",
                vec![(0, fresh("A"))],
                None,
                vec![old("A"), old("B")],
                "A60 B50",
            ),
            // The first life of a probe: the second card tells that there are two.
            ("0 -", vec![(1, fresh("B"))], None, vec![], "a? B60"),
            ("0 A", vec![], None, vec![], "A?"),
            // Remembered in another order than NVML lists them.
            (
                "0 A",
                vec![],
                None,
                vec![remembered("B"), remembered("A")],
                "A? B?",
            ),
            (
                "0 -",
                vec![(1, fresh("B"))],
                None,
                vec![remembered("B"), remembered("A")],
                "A? B60",
            ),
            // A whole round without the suspect, and one that lists fewer.
            (
                "",
                vec![(1, fresh("B"))],
                Some(2),
                vec![old("A"), old("B")],
                "A50 B60",
            ),
            (
                "",
                vec![(0, fresh("B"))],
                Some(1),
                vec![old("A"), old("B")],
                "B60",
            ),
            ("", vec![], Some(0), vec![old("A")], ""),
        ];
        let pci = ["a".to_owned(), "b".to_owned()];
        for (ended, read, count, before, expected) in cases {
            let (place, card) = ended.split_once(' ').unwrap_or_default();
            let at = At {
                place: place.parse().ok(),
                card: Some(card.to_owned()).filter(|card| card != "-"),
                call: None,
            };
            let cards = merged(read.into_iter().collect(), &at, count, &before, &pci);
            let told: Vec<String> = cards
                .iter()
                .map(|card| match card.temperature_c {
                    Some(temperature) => format!("{}{temperature}", card.id),
                    None => format!("{}?", card.id),
                })
                .collect();
            assert_eq!(told.join(" "), expected, "{ended} of {before:?}");
        }
    }

    #[test]
    fn a_blank_card_keeps_its_name_alone() {
        let mut card = Gpu {
            id: "GPU-1".into(),
            temperature_c: Some(50.0),
            pids: vec![7],
            problems: vec!["odd".into()],
            ..Gpu::default()
        };
        blank(&mut card, GpuState::Hung);
        let expected = Gpu {
            id: "GPU-1".into(),
            state: GpuState::Hung,
            ..Gpu::default()
        };
        assert_eq!(card, expected);
    }
}

//! Asking a card one call at a time: what it offers, what went wrong, and what that makes of the card.

use nvml_wrapper::error::NvmlError;

use crate::domain::snapshot::{Gpu, GpuState};

/// A card tells of so many problems; the rest are counted.
const PROBLEMS: usize = 8;

/// Asks one call at a time and keeps what went wrong.
pub(super) struct Asker {
    note: fn(&'static str),
    /// The driver says that the card has fallen off the bus: it is asked nothing more.
    lost: bool,
    pub(super) problems: Vec<String>,
}

impl Asker {
    pub(super) fn new(note: fn(&'static str)) -> Self {
        Asker {
            note,
            lost: false,
            problems: Vec::new(),
        }
    }

    /// The answer; `None` where the card does not offer it or the call failed.
    pub(super) fn value<T>(
        &mut self,
        call: &'static str,
        answer: impl FnOnce() -> Result<T, NvmlError>,
    ) -> Option<T> {
        if self.lost {
            return None;
        }
        (self.note)(call);
        match answer() {
            Ok(value) => return Some(value),
            Err(NvmlError::GpuLost) => self.lost = true,
            Err(why) if not_offered(&why) => {}
            Err(why) => {
                let problem = format!("{call}: {why}");
                if !self.problems.contains(&problem) {
                    self.problems.push(problem);
                }
            }
        }
        None
    }

    /// As `value`; a text that says nothing is none.
    pub(super) fn text(
        &mut self,
        call: &'static str,
        answer: impl FnOnce() -> Result<String, NvmlError>,
    ) -> Option<String> {
        self.value(call, answer).filter(|text| {
            let text = text.trim();
            !text.is_empty() && !["0", "N/A", "[N/A]", "[Not Supported]"].contains(&text)
        })
    }

    /// The card's state by all that was asked. Where everything that a working card tells went wrong,
    /// nobody knows how it does.
    pub(super) fn conclude(self, gpu: Gpu) -> Gpu {
        if self.lost {
            return Gpu {
                id: gpu.id,
                name: gpu.name,
                pci: gpu.pci,
                serial: gpu.serial,
                vbios: gpu.vbios,
                state: GpuState::Lost,
                ..Gpu::default()
            };
        }
        let mut problems = gpu.problems;
        problems.extend(self.problems);
        let told = gpu.temperature_c.is_some()
            || gpu.utilization_percent.is_some()
            || gpu.memory_total_bytes.is_some()
            || gpu.power_w.is_some();
        let state = match gpu.id.is_empty() || (!told && !problems.is_empty()) {
            true => GpuState::Unknown,
            false => GpuState::Ok,
        };
        Gpu {
            state,
            problems: shortened(problems),
            ..gpu
        }
    }
}

fn shortened(mut problems: Vec<String>) -> Vec<String> {
    let more = problems.len().saturating_sub(PROBLEMS);
    if 0 < more {
        problems.truncate(PROBLEMS);
        problems.push(format!("and {more} more"));
    }
    problems
}

/// Errors that say "this card, this driver or our binding does not know such a thing": no trouble.
fn not_offered(why: &NvmlError) -> bool {
    matches!(
        why,
        NvmlError::NotSupported
            | NvmlError::NotFound
            | NvmlError::NoData
            | NvmlError::InvalidArg
            | NvmlError::InsufficientSize(_)
            | NvmlError::FunctionNotFound
            | NvmlError::FailedToLoadSymbol(_)
            | NvmlError::Utf8Error(_)
            | NvmlError::UnexpectedVariant(_)
            | NvmlError::IncorrectBits(_)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_make_the_state() {
        use GpuState::{Lost, Ok, Unknown};
        let named = || Gpu {
            id: "GPU-1".into(),
            pci: Some("0000:01:00".into()),
            temperature_c: Some(50.0),
            ..Gpu::default()
        };
        let silent = || Gpu {
            temperature_c: None,
            ..named()
        };
        type Error = fn() -> NvmlError;
        let gone: Error = || NvmlError::GpuLost;
        let odd: Error = || NvmlError::Unknown;
        let none: Error = || NvmlError::NotSupported;
        for (gpu, errors, state, problems) in [
            (named(), &[][..], Ok, 0),
            (named(), &[none, none], Ok, 0),
            (named(), &[odd, none, odd], Ok, 1),
            (named(), &[odd, gone], Lost, 0),
            (silent(), &[none], Ok, 0),
            (silent(), &[odd], Unknown, 1),
            (Gpu::default(), &[none], Unknown, 0),
            (Gpu::default(), &[gone], Lost, 0),
        ] {
            let mut ask = Asker::new(|_| {});
            for error in errors {
                assert_eq!(ask.value("nvmlCall", || Err::<(), _>(error())), None);
            }
            let (id, pci) = (gpu.id.clone(), gpu.pci.clone());
            let gpu = ask.conclude(gpu);
            assert_eq!((gpu.state, gpu.problems.len()), (state, problems));
            assert_eq!((gpu.id, gpu.pci), (id, pci));
        }
    }

    #[test]
    fn a_lost_card_is_asked_nothing_more() {
        let mut ask = Asker::new(|_| {});
        assert_eq!(ask.value("one", || Err::<u32, _>(NvmlError::GpuLost)), None);
        assert_eq!(ask.value("two", || Ok(1)), None);
        assert_eq!(ask.conclude(Gpu::default()).state, GpuState::Lost);
    }

    #[test]
    fn problems_are_few() {
        let problems = |count: usize| (0..count).map(|n| n.to_string()).collect::<Vec<_>>();
        assert_eq!(shortened(problems(PROBLEMS)).len(), PROBLEMS);
        let short = shortened(problems(PROBLEMS + 3));
        assert_eq!(short.last().map(String::as_str), Some("and 3 more"));
    }
}

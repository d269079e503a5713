//! Event sets: Xids as they appear in the state file, each told once to each set that waits for them.

use std::collections::BTreeMap;
use std::ffi::{c_uint, c_ulonglong};
use std::ptr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nvml_wrapper_sys::bindings::*;

use crate::calls;
use crate::codes::{Answer, Code, Known};
use crate::gate::{self, Card, Outs, POLL};
use crate::state::State;

calls! { CALLS:
    fn nvmlEventSetCreate(set: *mut nvmlEventSet_t) as me {
        gate::ask(me)?;
        // SAFETY: the caller's pointer is null or good.
        unsafe { (set,).put((ptr::without_provenance_mut(sets().create()),), false) }
    }

    fn nvmlDeviceRegisterEvents(device: nvmlDevice_t, types: c_ulonglong, set: nvmlEventSet_t) as me {
        let card = Card::asked(me, device)?;
        if types & !card.event_types.known()? != 0 {
            return Err(Code::NOT_SUPPORTED);
        }
        let seen = card.xid_events.iter().map(|event| event.seq).max();
        sets().of(set)?.push(Registration { device: device.addr(), types, seen });
        Ok(())
    }

    fn nvmlEventSetWait(set: nvmlEventSet_t, data: *mut nvmlEventData_t, timeout_ms: c_uint) as me {
        // SAFETY: the caller's pointer is null or good.
        unsafe { (data,).put((wait(me, set, timeout_ms)?,), false) }
    }
    fn nvmlEventSetWait_v2(set: nvmlEventSet_t, data: *mut nvmlEventData_t, timeout_ms: c_uint) as me {
        // SAFETY: the caller's pointer is null or good.
        unsafe { (data,).put((wait(me, set, timeout_ms)?,), false) }
    }

    fn nvmlEventSetFree(set: nvmlEventSet_t) as me {
        gate::ask(me)?;
        sets().registrations.remove(&set.addr()).map(drop).ok_or(Code::INVALID_ARGUMENT)
    }
}

/// One card in one set.
struct Registration {
    device: usize,
    types: c_ulonglong,
    /// The latest event that has been told, or was there before.
    seen: Option<u64>,
}

/// All sets, by handle.
struct Sets {
    created: usize,
    registrations: BTreeMap<usize, Vec<Registration>>,
}

fn sets() -> MutexGuard<'static, Sets> {
    static SETS: Mutex<Sets> = Mutex::new(Sets {
        created: 0,
        registrations: BTreeMap::new(),
    });
    SETS.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sets {
    fn create(&mut self) -> usize {
        self.created += 1;
        self.registrations.insert(self.created, Vec::new());
        self.created
    }

    fn of(&mut self, set: nvmlEventSet_t) -> Answer<&mut Vec<Registration>> {
        self.registrations
            .get_mut(&set.addr())
            .ok_or(Code::INVALID_ARGUMENT)
    }
}

fn wait(call: &str, set: nvmlEventSet_t, timeout_ms: c_uint) -> Answer<nvmlEventData_t> {
    let until = Instant::now() + Duration::from_millis(timeout_ms.into());
    loop {
        let state = gate::ask(call)?;
        if let Some(event) = next(call, &state, sets().of(set)?)? {
            return Ok(event);
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Code::TIMEOUT);
        }
        thread::sleep(left.min(POLL));
    }
}

/// The next event of any card, or the error of one that fails. Events come first: what a card
/// reported before it was lost is still told.
fn next(
    call: &str,
    state: &Arc<State>,
    registrations: &mut [Registration],
) -> Answer<Option<nvmlEventData_t>> {
    let mut failed = None;
    for registration in registrations {
        let device = ptr::without_provenance_mut(registration.device);
        let wanted = registration.types & c_ulonglong::from(nvmlEventTypeXidCriticalError) != 0;
        let unseen = gate::events(state, device)
            .filter(|(seq, _)| registration.seen < Some(*seq))
            .min();
        if let Some((seq, xid)) = unseen.filter(|_| wanted) {
            registration.seen = Some(seq);
            return Ok(Some(nvmlEventData_t {
                device,
                eventType: nvmlEventTypeXidCriticalError.into(),
                eventData: xid,
                gpuInstanceId: c_uint::MAX,
                computeInstanceId: c_uint::MAX,
            }));
        }
        failed = failed.or(Card::of(call, state.clone(), device).err());
    }
    failed.map_or(Ok(None), Err)
}

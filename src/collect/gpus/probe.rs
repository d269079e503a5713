//! The child's side: loads the vendor's library, answers questions on standard input with lines on standard
//! output, and tells of Xids the moment the driver does.
//!
//! It is the process that may hang or crash in the agent's stead, so it is small and never tidies up: what it
//! holds goes with it. No tokio here; every wait is a system call.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use nvml_wrapper::bitmasks::event::EventTypes;
use nvml_wrapper::enums::event::XidError;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, EventSet, Nvml};
use rustix::process::Signal;

use super::nvml;
use super::wire::{At, Line, MOST_CARDS, Missing, Question};
use crate::domain::snapshot::{Gpu, GpuState};

/// The name under which the process is listed, and found if it can't be killed.
pub(super) const NAME: &str = "sideline-probe";

/// Exit status of a probe whose library no longer goes with the driver: start a fresh one (`EX_TEMPFAIL`).
pub(super) const AFRESH: i32 = 75;

/// The loader's name of the library.
pub(super) const LIBRARY: &str = "libnvidia-ml.so.1";

/// How often the library's file is looked at.
const LIBRARY_LOOK: Duration = Duration::from_secs(60);

/// How often the event thread looks whether cards answer anew, and how long it rests when it can't listen.
const EVENTS_LOOK: Duration = Duration::from_secs(5);

/// Listening that ends so soon was in vain.
const IN_VAIN: Duration = Duration::from_secs(1);

/// Room for the vendor's calls; only what is touched takes memory.
const STACK: usize = 256 * 1024;

/// NVML's number for an Xid that it can't tell.
const XID_UNKNOWN: u32 = 999;

/// Answers questions until standard input ends. `library`: path of libnvidia-ml.so.1; empty: the loader's.
///
/// # Errors
/// When standard input or output fails, or no thread can be started.
pub fn main(library: &str) -> anyhow::Result<()> {
    // Both are comforts: a probe that hangs dies with its agent, and is told from it by name.
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    let _ = std::fs::write("/proc/self/comm", NAME);

    let watchdog = Watchdog::start()?;
    let mut probe = Probe::new(library);
    for line in io::stdin().lines() {
        let line = line.context("standard input")?;
        let Some(question) = Question::decode(&line) else {
            anyhow::bail!("{line:?} is no question; write read, or read and milliseconds");
        };
        watchdog.begin(question.patience);
        let answer = probe.read(&question)?;
        watchdog.end();
        say(&answer)?;
    }
    Ok(())
}

/// Says a line whole, whichever thread says it.
fn say(line: &Line) -> anyhow::Result<()> {
    let line = line.encode()?;
    io::stdout()
        .lock()
        .write_all(&line)
        .context("standard output")
}

/// What the probe remembers between two questions.
struct Probe {
    library: String,
    nvml: Option<&'static Nvml>,
    driver: Option<String>,
    kept: Vec<Option<nvml::Kept>>,
    /// The cards that answered last time; `None` before the first reading.
    answering: Option<Vec<String>>,
    /// Those that have answered in the reading under way.
    read_now: Vec<String>,
    looked: Instant,
}

impl Probe {
    fn new(library: &str) -> Self {
        let library = if library.is_empty() { LIBRARY } else { library };
        Probe {
            library: library.to_owned(),
            nvml: None,
            driver: None,
            kept: Vec::new(),
            answering: None,
            read_now: Vec::new(),
            looked: Instant::now(),
        }
    }

    fn read(&mut self, question: &Question) -> anyhow::Result<Line> {
        // The first calls are where a library dies that does not go with its driver.
        ALOUD.store(self.answering.is_none(), Ordering::Relaxed);
        arrive(None, None);
        let nvml = match self.nvml {
            Some(nvml) => nvml,
            None => match open(&self.library) {
                Ok(nvml) => self.greet(nvml)?,
                Err(failed) => return Ok(failed),
            },
        };
        if LIBRARY_LOOK < self.looked.elapsed() {
            self.looked = Instant::now();
            if library_replaced() {
                std::process::exit(AFRESH);
            }
        }
        match self.cards(nvml, question) {
            Ok(count) => {
                self.watch_events(nvml)?;
                let driver = self.driver.clone();
                Ok(Line::Reading { count, driver })
            }
            // It did answer, so the driver has changed under the library.
            Err(_) if self.answering.is_some() => std::process::exit(AFRESH),
            Err(why) => Ok(Line::Failed {
                kind: Missing::Driver,
                why: why.to_string(),
            }),
        }
    }

    fn greet(&mut self, nvml: Nvml) -> anyhow::Result<&'static Nvml> {
        // Leaked: nvmlShutdown may block, and the event thread needs the library to the end.
        let nvml: &'static Nvml = Box::leak(Box::new(nvml));
        self.nvml = Some(nvml);
        note("nvmlSystemGetDriverVersion");
        self.driver = nvml.sys_driver_version().ok();
        say(&Line::Hello {
            driver: self.driver.clone(),
            nvml: nvml.sys_nvml_version().ok(),
        })?;
        Ok(nvml)
    }

    /// Reads the cards that are asked for, and says each at once. Returns how many NVML lists.
    fn cards(&mut self, nvml: &Nvml, question: &Question) -> Result<u32, NvmlError> {
        note("nvmlDeviceGetCount");
        let count = nvml.device_count()?.min(MOST_CARDS);
        self.kept.resize_with(count as usize, || None);
        *locked(&SUSPECTS) = question.suspects.clone();
        let aloud = ALOUD.load(Ordering::Relaxed);
        let mut states = Vec::new();
        self.read_now.clear();
        for place in question.order(count) {
            let Some(kept) = self.kept.get_mut(place as usize) else {
                continue;
            };
            let suspected = question.suspects.contains(&place);
            ALOUD.store(aloud || suspected, Ordering::Relaxed);
            arrive(Some(place), kept.as_ref().map(|kept| kept.id().to_owned()));
            let card = Gpu {
                driver: self.driver.clone(),
                ..nvml::read(nvml, place, kept, note, named)
            };
            states.push(card.state);
            if card.state == GpuState::Ok {
                self.read_now.push(card.id.clone());
            }
            // It was read, so calls about it may be made elsewhere too.
            locked(&SUSPECTS).retain(|suspect| *suspect != place);
            let card = Box::new(card);
            if say(&Line::Card { place, card }).is_err() {
                std::process::exit(1);
            }
        }
        arrive(None, None);
        let worked = self.answering.as_ref().is_some_and(|ids| !ids.is_empty());
        if worked && !states.is_empty() && states.iter().all(|state| *state == GpuState::Unknown) {
            return Err(NvmlError::Unknown);
        }
        Ok(count)
    }

    /// Starts to listen for Xids after the first reading, and lets the listener know of cards that answer anew.
    fn watch_events(&mut self, nvml: &'static Nvml) -> anyhow::Result<()> {
        let before = self.answering.replace(std::mem::take(&mut self.read_now));
        let answering = self.answering.iter().flatten();
        match before {
            None => {
                thread::Builder::new()
                    .name("events".into())
                    .stack_size(STACK)
                    .spawn(move || listen(nvml))
                    .context("thread for events")?;
            }
            // A card that answers no more makes the wait fail, which is notice enough.
            Some(before) => {
                let anew = answering.filter(|id| !before.contains(id)).count();
                ANSWERING.fetch_add(anew, Ordering::Relaxed);
            }
        }
        Ok(())
    }
}

/// Loads and starts NVML.
fn open(library: &str) -> Result<Nvml, Line> {
    note("nvmlInit_v2");
    let opened = Nvml::builder().lib_path(OsStr::new(library)).init();
    opened.map_err(|failed| {
        let (kind, why) = if let NvmlError::LibloadingError(why) = failed {
            let why = why.to_string();
            (missing(library, &why), why)
        } else {
            (Missing::Driver, failed.to_string())
        };
        Line::Failed { kind, why }
    })
}

/// A file that is not there is no library; one that the loader refuses is a broken driver.
fn missing(library: &str, loader: &str) -> Missing {
    match loader.starts_with(library) && loader.contains("No such file") {
        true => Missing::NoLibrary,
        false => Missing::Driver,
    }
}

/// Whether the library in use is no longer the one on disk: an upgrade of the driver has begun, and only a
/// fresh start can tell whether programs can still use the cards.
fn library_replaced() -> bool {
    let Ok(maps) = File::open("/proc/self/maps") else {
        return false;
    };
    let mut lines = BufReader::new(maps).lines().map_while(Result::ok);
    lines.any(|line| line.ends_with("(deleted)") && line.contains("nvidia") && line.contains(".so"))
}

/// Where the reading is.
static AT: Mutex<At> = Mutex::new(At {
    place: None,
    card: None,
    call: None,
});

/// Whether each call is said before it is made: should it take the process with it, the agent knows which.
static ALOUD: AtomicBool = AtomicBool::new(false);

/// Cards that only the reading may touch, by place: they have made a call hang or crash.
static SUSPECTS: Mutex<Vec<u32>> = Mutex::new(Vec::new());

/// Notes the call that is about to be made.
fn note(call: &'static str) {
    let mut at = locked(&AT);
    match &mut at.call {
        // Keeps the room that the name before had.
        Some(name) => call.clone_into(name),
        none => *none = Some(call.to_owned()),
    }
    tell(&at, ALOUD.load(Ordering::Relaxed));
}

/// Notes the card that is about to be read, and says so.
fn arrive(place: Option<u32>, card: Option<String>) {
    let mut at = locked(&AT);
    *at = At {
        place,
        card,
        call: None,
    };
    tell(&at, place.is_some());
}

/// Notes the name of the card that is being read.
fn named(card: &str) {
    locked(&AT).card = Some(card.to_owned());
}

/// An agent that no longer listens has ended, and so does the probe.
fn tell(at: &At, aloud: bool) {
    if aloud && say(&Line::At(at.clone())).is_err() {
        std::process::exit(1);
    }
}

/// What a thread that panicked leaves behind is whole all the same.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Says which call a reading waits for when it takes too long.
struct Watchdog(SyncSender<Duration>);

impl Watchdog {
    fn start() -> anyhow::Result<Self> {
        let (rounds, watched) = sync_channel(1);
        thread::Builder::new()
            .name("watchdog".into())
            .stack_size(STACK)
            .spawn(move || watch(&watched))
            .context("thread for the watchdog")?;
        Ok(Watchdog(rounds))
    }

    fn begin(&self, patience: Duration) {
        // The watchdog ends only with standard output, and that ends the probe.
        let _ = self.0.send(patience);
    }

    fn end(&self) {
        let _ = self.0.send(Duration::ZERO);
    }
}

/// One message begins a reading, the next ends it.
fn watch(rounds: &Receiver<Duration>) {
    while let Ok(patience) = rounds.recv() {
        let mut said = At::default();
        while rounds.recv_timeout(patience) == Err(RecvTimeoutError::Timeout) {
            let at = locked(&AT).clone();
            tell(&at, at != said);
            said = at;
        }
    }
}

/// Counts the cards that answer anew.
static ANSWERING: AtomicUsize = AtomicUsize::new(0);

/// Tells of every Xid of the cards that can be listened to, to the end of the process.
fn listen(nvml: &'static Nvml) {
    let mut in_vain = 0;
    loop {
        let answering = ANSWERING.load(Ordering::Relaxed);
        let registered = Instant::now();
        let cards = listenable(nvml);
        if let Some(set) = register(nvml, &cards) {
            let others = || ANSWERING.load(Ordering::Relaxed) != answering;
            loop {
                match tell_next(&set, &cards) {
                    Heard::Xid => {}
                    // Only a set that has nothing more to tell is given up.
                    Heard::Nothing if others() => break,
                    Heard::Nothing => {}
                    Heard::Failure => break,
                }
            }
        }
        // A card that is lost makes every wait fail, so listen anew to the others, and at once: what they
        // announce meanwhile is not heard. But not over and over.
        in_vain = if registered.elapsed() < IN_VAIN {
            in_vain + 1
        } else {
            0
        };
        if 1 < in_vain {
            thread::sleep(EVENTS_LOOK);
        }
    }
}

/// The cards that announce Xids, with their UUIDs.
fn listenable(nvml: &'static Nvml) -> Vec<(Device<'static>, String)> {
    let count = nvml.device_count().unwrap_or(0).min(MOST_CARDS);
    let suspects = locked(&SUSPECTS).clone();
    (0..count)
        .filter(|index| !suspects.contains(index))
        .filter_map(|index| {
            let device = nvml.device_by_index(index).ok()?;
            let id = device.uuid().ok()?;
            let events = device.supported_event_types().ok()?;
            events
                .contains(EventTypes::CRITICAL_XID_ERROR)
                .then_some((device, id))
        })
        .collect()
}

/// One set for all cards. A card that refuses takes the set with it, so begin again without it.
fn register<'nvml>(
    nvml: &'nvml Nvml,
    cards: &[(Device<'nvml>, String)],
) -> Option<EventSet<'nvml>> {
    let mut willing: Vec<&Device<'nvml>> = cards.iter().map(|(device, _)| device).collect();
    while !willing.is_empty() {
        let empty = nvml.create_event_set().ok()?;
        let registered = willing
            .iter()
            .enumerate()
            .try_fold(empty, |set, (place, device)| {
                let xids = EventTypes::CRITICAL_XID_ERROR;
                device.register_events(xids, set).map_err(|_| place)
            });
        match registered {
            Ok(set) => return Some(set),
            Err(unwilling) => drop(willing.remove(unwilling)),
        }
    }
    None
}

/// What came of a wait.
enum Heard {
    Xid,
    Nothing,
    Failure,
}

/// Waits for an Xid and tells of it.
fn tell_next(set: &EventSet<'_>, cards: &[(Device<'_>, String)]) -> Heard {
    let timeout = u32::try_from(EVENTS_LOOK.as_millis()).unwrap_or(u32::MAX);
    let event = match set.wait(timeout) {
        Ok(event) => event,
        Err(NvmlError::Timeout) => return Heard::Nothing,
        Err(_) => return Heard::Failure,
    };
    let number = match event.event_data {
        Some(XidError::Value(number)) => u32::try_from(number).unwrap_or(XID_UNKNOWN),
        Some(XidError::Unknown) => XID_UNKNOWN,
        None => return Heard::Nothing,
    };
    // A card that is lost can't be asked its name any more.
    let card = cards.iter().find(|(device, _)| same(device, &event.device));
    let gpu = card.map(|(_, id)| id.clone()).unwrap_or_default();
    if say(&Line::Xid { gpu, number }).is_err() {
        std::process::exit(1);
    }
    Heard::Xid
}

/// Whether both handles mean one card.
#[expect(
    unsafe_code,
    reason = "nvml-wrapper has no safe way to compare cards that don't answer"
)]
fn same(one: &Device<'_>, other: &Device<'_>) -> bool {
    // SAFETY: the handles are compared, never followed.
    unsafe { one.handle() == other.handle() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_missing_file_is_no_library() {
        let absent = "cannot open shared object file: No such file or directory";
        for (library, loader, expected) in [
            (LIBRARY, format!("{LIBRARY}: {absent}"), Missing::NoLibrary),
            (
                "/opt/ml.so",
                format!("/opt/ml.so: {absent}"),
                Missing::NoLibrary,
            ),
            (LIBRARY, format!("libcuda.so.1: {absent}"), Missing::Driver),
            (
                LIBRARY,
                format!("/usr/lib/{LIBRARY}: invalid ELF header"),
                Missing::Driver,
            ),
            (
                LIBRARY,
                format!("{LIBRARY}: file too short"),
                Missing::Driver,
            ),
        ] {
            assert_eq!(missing(library, &loader), expected, "{loader}");
        }
    }

    #[test]
    fn a_library_that_is_not_there_is_said_to_be_missing() {
        let question = Question::decode("read").unwrap();
        let mut probe = Probe::new("/nonexistent/libnvidia-ml.so.1");
        for _ in 0..2 {
            let Ok(Line::Failed { kind, why }) = probe.read(&question) else {
                panic!("a reading without a library");
            };
            assert_eq!(kind, Missing::NoLibrary);
            assert!(why.contains("/nonexistent"), "{why}");
        }
    }

    #[test]
    fn a_file_that_is_no_library_is_a_broken_driver() {
        let mut probe = Probe::new("/proc/self/cmdline");
        let answer = probe.read(&Question::decode("read").unwrap()).unwrap();
        assert!(
            matches!(
                &answer,
                Line::Failed {
                    kind: Missing::Driver,
                    ..
                }
            ),
            "{answer:?}"
        );
    }

    #[test]
    fn our_own_files_are_not_replaced() {
        assert!(!library_replaced());
    }
}

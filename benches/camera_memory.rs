//! What a camera takes in memory: at most 2 KiB, in its source and in the judge together.
#![expect(clippy::print_stdout, reason = "it is a measurement")]

mod node;

use std::alloc::{GlobalAlloc, Layout, System};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};

use node::Server;

/// Bytes a camera may take.
const BOUND: usize = 2_048;

/// What is allocated now.
static IN_USE: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator, which also counts.
struct Counting;

#[expect(unsafe_code, reason = "an allocator can't be written without")]
// SAFETY: everything is handed to the system's allocator as it came; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        IN_USE.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the rules of `alloc`, which are the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: `place` came from `alloc` above, so from the system's.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() -> ExitCode {
    println!("| cameras | state | kept, bytes a camera | with a report, bytes a camera |");
    println!("|--:|---|--:|--:|");
    let mut most = 0;
    for (state, fps) in [("up", 5.0), ("down", 0.0)] {
        for cameras in [18, 180, 1_800, 18_000] {
            let (kept, with_report) = a_camera_takes(cameras, fps);
            println!("| {cameras} | {state} | {kept} | {with_report} |");
            most = most.max(kept);
        }
    }
    if most > BOUND {
        println!("BROKEN: a camera takes {most} bytes, at most {BOUND}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Bytes that source, configuration and judge keep of a camera, and the same with the latest report.
fn a_camera_takes(cameras: usize, fps: f64) -> (usize, usize) {
    let (none, none_with_report) = taken(0, fps);
    let (all, all_with_report) = taken(cameras, fps);
    (
        (all - none).div_ceil(cameras),
        (all_with_report - none_with_report).div_ceil(cameras),
    )
}

fn taken(cameras: usize, fps: f64) -> (usize, usize) {
    let before = IN_USE.load(Ordering::Relaxed);
    let mut server = Server::new(cameras, fps);
    // The first look's journal holds every camera once.
    drop(server.look());
    let kept = IN_USE.load(Ordering::Relaxed) - before;
    let judgement = server.look();
    let with_report = IN_USE.load(Ordering::Relaxed) - before;
    drop(judgement);
    (kept, with_report)
}

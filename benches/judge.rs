//! What one judging tick costs; at most 10 µs for two cards and 18 cameras.

mod node;

use divan::Bencher;
use divan::counter::ItemsCount;
use node::Server;

fn main() {
    divan::main();
}

/// Everything is well: the tick of nearly all ticks. Includes letting go of the report.
#[divan::bench(args = [18, 180, 1_800, 18_000])]
fn healthy(bencher: Bencher<'_, '_>, cameras: usize) {
    tick(bencher, cameras, 5.0);
}

/// Every camera has a finding that stays open.
#[divan::bench(args = [18, 180, 1_800, 18_000])]
fn all_down(bencher: Bencher<'_, '_>, cameras: usize) {
    tick(bencher, cameras, 0.0);
}

/// A year of a healthy node with two cards and 18 cameras, a tick every ten seconds, each with fresh readings; at most
/// 15 s.
#[divan::bench(sample_count = 1, sample_size = 1)]
fn year(bencher: Bencher<'_, '_>) {
    const TICKS: u32 = 365 * 24 * 60 * 6;
    let mut server = Server::new(18, 5.0);
    bencher.counter(ItemsCount::new(TICKS)).bench_local(|| {
        for _ in 0..TICKS {
            let judgement = server.live();
            assert!(judgement.report.findings.is_empty(), "all is well");
        }
    });
}

fn tick(bencher: Bencher<'_, '_>, cameras: usize, fps: f64) {
    let mut server = Server::new(cameras, fps);
    let first = server.look();
    let (findings, listed) = (first.report.findings.len(), first.report.cameras.len());
    assert_eq!(listed, cameras, "the judge sees every camera");
    assert_eq!(
        findings,
        if fps > 0.0 { 0 } else { cameras },
        "a finding a camera that is down"
    );
    bencher
        .counter(ItemsCount::new(cameras))
        .bench_local(|| drop(server.look()));
}

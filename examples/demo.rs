//! A field server with 18 cameras and two GPUs on this very machine: faults, verdict, and what the cloud hears.
//!
//! Everything but the hardware is real: the agent, an MQTT broker, the NVML ABI, CloudWatch's wire protocol.
//! `cargo run --release --example demo` ends by itself in about a minute, or on Ctrl-C.
#![expect(clippy::print_stdout, reason = "it is a show")]

#[path = "demo/field.rs"]
mod field;
#[path = "demo/screen.rs"]
mod screen;

#[path = "../tests/servers/aws.rs"]
mod aws;
#[path = "../tests/servers/fake_nvml.rs"]
mod fake_nvml;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior};

use field::Field;
use screen::Screen;

/// Something that happens to the field server.
type Act = fn(&Field) -> anyhow::Result<()>;

/// What happens when, in seconds from the start.
const SCRIPT: [(u64, &str, Act); 4] = [
    (0, "all is well", |_| Ok(())),
    (20, "the second GPU falls off the bus", Field::lose_a_gpu),
    (
        35,
        "a technician has power-cycled the box: the GPU is back",
        Field::give_the_gpu_back,
    ),
    (45, "camera hole07 loses its cable", Field::unplug_a_camera),
];

/// When the curtain falls.
const END: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    // The agent and its GPU probe are this same file, started again with sideline's own arguments.
    let outcome = if std::env::args_os().len() > 1 {
        sideline::cli::main()
    } else {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(Into::into)
            .and_then(|runtime| runtime.block_on(show()))
            .map(|()| ExitCode::SUCCESS)
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("demo: {error:#}");
        ExitCode::FAILURE
    })
}

async fn show() -> anyhow::Result<()> {
    println!("setting up a field server …");
    let aws = aws::Aws::start().await;
    let mut field = Field::set_up(&aws.url())
        .await
        .context("the field server could not be set up")?;
    let mut screen = Screen::new(field.relay()?);
    let started = Instant::now();
    let mut second = tokio::time::interval(Duration::from_secs(1));
    second.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // Whoever ends the show, the agent must not play on alone.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut acts = SCRIPT.iter().peekable();
    let mut act = "";
    while started.elapsed() < END {
        tokio::select! {
            _ = second.tick() => {}
            () = screen.listen() => continue,
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            _ = hangup.recv() => break,
        }
        field.publish_stats()?;
        if let Some((_, name, happen)) =
            acts.next_if(|(at, ..)| started.elapsed() >= Duration::from_secs(*at))
        {
            act = name;
            happen(&field)?;
        }
        let report = sideline::status::client::report(&field.socket()).await.ok();
        screen.draw(act, started.elapsed(), report.as_ref(), &aws.log());
        field.check_agent()?;
    }
    field.tear_down().await?;
    screen.goodbye(&aws.log());
    Ok(())
}

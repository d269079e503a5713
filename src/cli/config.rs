//! `sideline config`: checks, shows, documents and prices the configuration.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::anyhow;
use clap::{Args, Subcommand};

use super::{load, print, timing};
use crate::config::cost::{self, Bill, Fleet};
use crate::config::{Config, Enabled, Expected, Profile, manual, units};

/// What to do with the configuration.
#[derive(Debug, Clone, Subcommand)]
pub enum ConfigCommand {
    /// Check a file: every problem at once, with line numbers.
    #[command(after_help = "\
Each problem is one line, FILE:LINE:COLUMN: MESSAGE. The exit status is 0 if all is right, else 1.
--over holds what is to become a parameter of SSM against the file that it will be laid over, as a node does.

Examples:
  sideline config check /etc/sideline/sideline.toml
  sideline config check new.toml && echo right
  sideline config check sideline.toml --over fleet.toml --over site-north.toml")]
    Check {
        /// The file to check.
        file: PathBuf,
        /// The text of a parameter, laid over the file and over those before it.
        #[arg(long, value_name = "FILE", visible_alias = "layer")]
        over: Vec<PathBuf>,
    },
    /// Print the configuration in force, where each value came from, and when findings open and close.
    #[command(after_help = "\
A value comes from the file, from a parameter of SSM that the agent laid over it (ssm.parameters), from the environment (AWS_REGION, AWS_DEFAULT_REGION, AWS_SHARED_CREDENTIALS_FILE; for an ordinary user without a file also XDG_STATE_HOME and XDG_RUNTIME_DIR), or is the default.
What is printed is a configuration again, but for passwords in URLs, which are shown as ***.

Examples:
  sideline config show
  sideline --config new.toml config show
  sideline config show --json | jq .origins")]
    Show {
        /// Print JSON: file, parameters, config, the origin of each key, and the timing of each finding.
        #[arg(long)]
        json: bool,
    },
    /// Print a sample: every key, its meaning and its default.
    #[command(after_help = "\
Examples:
  sideline config defaults | sudo tee /etc/sideline/sideline.toml
  sideline config defaults | less")]
    Defaults,
    /// Print the JSON schema of the file, for editors.
    #[command(after_help = "\
Examples:
  sideline config schema > sideline.schema.json

Many editors then check and complete a TOML file whose first line is
  #:schema ./sideline.schema.json")]
    Schema,
    /// Work out what CloudWatch will charge a month.
    #[command(after_help = "\
Counts the metrics and requests of the configured profile, period and detail_budget for nodes of one site.
What is not given is taken from the configuration: gpu.expected, cameras.expect.

Examples:
  sideline config cost
  sideline config cost --nodes 20 --gpus 2 --cameras 18
  sideline config cost --profile full --gpus 2 --cameras 18
  sideline config cost --nodes 20 --json | jq .bill.monthly")]
    Cost(CostArgs),
}

/// What to price.
#[derive(Debug, Clone, Copy, Args)]
pub struct CostArgs {
    /// Nodes of the site.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    nodes: u32,
    /// GPUs of each node [default: gpu.expected if it is a number, else 1].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(..=100_000))]
    gpus: Option<u32>,
    /// Cameras of each node [default: those of cameras.expect, else node.slots, else 1].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(..=1_000_000))]
    cameras: Option<u32>,
    /// Price another profile than cloudwatch.profile: capacity, essential or full.
    #[arg(long, value_name = "PROFILE", value_parser = profile)]
    profile: Option<Profile>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Runs `sideline config …`; `file` is the global `--config`.
///
/// # Errors
/// A configuration that cannot be read or is wrong; an output that cannot be written.
pub fn run(command: ConfigCommand, file: Option<&Path>) -> anyhow::Result<ExitCode> {
    let text = match command {
        ConfigCommand::Check { file, over } => {
            // The problems alone: each is a line that editors and scripts understand.
            if let Err(problems) = check(&file, &over) {
                eprintln!("{problems:#}");
                return Ok(ExitCode::FAILURE);
            }
            let files = [&file].into_iter().chain(&over);
            files
                .map(|file| format!("{}: ok\n", file.display()))
                .collect()
        }
        ConfigCommand::Show { json: true } => {
            let loaded = load::load(file)?;
            let mut shown = loaded.json();
            shown["timing"] = timing::json(&loaded.config);
            format!("{shown:#}\n")
        }
        ConfigCommand::Show { json: false } => {
            let loaded = load::load(file)?;
            loaded.toml() + &timing::comments(&loaded.config)
        }
        ConfigCommand::Defaults => manual::sample(),
        ConfigCommand::Schema => manual::schema().to_owned(),
        ConfigCommand::Cost(args) => price(load::load(file)?.config, args),
    };
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// Whether a file is right, and what is laid over it.
fn check(file: &Path, over: &[PathBuf]) -> anyhow::Result<()> {
    let base = load::base(Some(file))?;
    let texts: Vec<String> = over
        .iter()
        .map(|file| load::read(file))
        .collect::<Result<_, _>>()?;
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let wrong = base.check_over(&texts).into_iter();
    let lines = wrong.map(|(at, problems)| problems.lines(&over[at].display().to_string()));
    let lines: Vec<String> = lines.collect();
    match lines.is_empty() {
        true => Ok(()),
        false => Err(anyhow!(lines.join("\n"))),
    }
}

fn profile(word: &str) -> Result<Profile, String> {
    match word {
        "capacity" => Ok(Profile::Capacity),
        "essential" => Ok(Profile::Essential),
        "full" => Ok(Profile::Full),
        _ => Err("must be capacity, essential or full".into()),
    }
}

fn price(mut config: Config, args: CostArgs) -> String {
    if let Some(profile) = args.profile {
        config.cloudwatch.profile = profile;
    }
    let fleet = Fleet {
        nodes: args.nodes,
        gpus: args.gpus.unwrap_or_else(|| gpus(&config)),
        cameras: args.cameras.unwrap_or_else(|| cameras(&config)),
    };
    let bill = Bill::of(&config.cloudwatch, fleet);
    if args.json {
        let json = serde_json::json!({
            "cloudwatch": config.cloudwatch,
            "bill": bill,
            "currency": "USD",
            "prices": cost::SOURCE,
        });
        return format!("{json:#}\n");
    }
    table(&config, &bill)
}

fn gpus(config: &Config) -> u32 {
    match (config.gpu.enabled, config.gpu.expected) {
        (Enabled::Never, _) => 0,
        (Enabled::Auto | Enabled::Always, Expected::Count(count)) => count,
        (Enabled::Auto | Enabled::Always, Expected::Remember(_)) => 1,
    }
}

fn cameras(config: &Config) -> u32 {
    match u32::try_from(config.cameras.expect.len()) {
        Ok(0) => config.node.slots.unwrap_or(1),
        Ok(count) => count,
        Err(_) => u32::MAX,
    }
}

fn table(config: &Config, bill: &Bill) -> String {
    let cloudwatch = &config.cloudwatch;
    let Fleet {
        nodes,
        gpus,
        cameras,
    } = bill.fleet;
    let profile = match cloudwatch.profile {
        Profile::Capacity => "capacity",
        Profile::Essential => "essential",
        Profile::Full => "full",
    };
    let mut text = String::new();
    let mut line = |left: &str, middle: &str, count: &str, monthly: &str| {
        let _ = writeln!(text, "{left:<15} {middle:<19} {count:>10} {monthly:>12}");
    };
    line("metric", "by", "metrics", "$ a month");
    for row in &bill.rows {
        let (metrics, monthly) = (row.metrics.to_string(), row.monthly.to_string());
        line(row.metric, row.dimensions, &metrics, &monthly);
    }
    let [metrics, requests, node, all] = [
        bill.metrics_monthly,
        bill.requests_monthly,
        bill.node_monthly,
        bill.monthly,
    ]
    .map(|dollars| dollars.to_string());
    line("all metrics", "", &bill.metrics.to_string(), &metrics);
    line(
        "PutMetricData",
        "requests",
        &bill.requests.to_string(),
        &requests,
    );
    line("", "", "", &"-".repeat(all.len()));
    line("total", "", "", &all);
    if nodes > 1 {
        line("one node alone", "", "", &node);
    }
    if bill.detail_metrics > 0 {
        let (metrics, monthly) = (bill.detail_metrics, bill.detail_monthly.to_string());
        line(
            "detail, at most",
            "if sick all month",
            &format!("+{metrics}"),
            &monthly,
        );
    }

    let off = match cloudwatch.enabled {
        Enabled::Never => {
            "\ncloudwatch.enabled is \"never\": as configured, nothing is sent and nothing charged.\n"
        }
        Enabled::Auto | Enabled::Always => "",
    };
    format!(
        "CloudWatch, profile {profile}, every {}: {nodes} {} of one site; GPUs: {gpus} each, cameras: {cameras} each\n\n\
         {text}{off}\n\
         {}.\n\
         Without taxes, alarms, the free tier and the lower price of metrics after the first 10,000.\n",
        units::format_duration(cloudwatch.period),
        if nodes == 1 { "node" } else { "nodes" },
        cost::SOURCE,
    )
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(subcommand)]
        command: ConfigCommand,
    }

    fn cost(arguments: &str) -> String {
        let arguments = ["program", "cost"]
            .into_iter()
            .chain(arguments.split_whitespace());
        let ConfigCommand::Cost(args) = Program::try_parse_from(arguments).unwrap().command else {
            panic!("no cost");
        };
        price(Config::default(), args)
    }

    #[test]
    fn the_arguments_hold_together() {
        use clap::CommandFactory;
        Program::command().debug_assert();
        for wrong in ["--nodes 0", "--profile some", "--gpus -1"] {
            let arguments = ["program", "cost"]
                .into_iter()
                .chain(wrong.split_whitespace());
            assert!(Program::try_parse_from(arguments).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_cost_is_a_table() {
        insta::assert_snapshot!(cost("--nodes 3 --gpus 2 --cameras 18"), @r"
        CloudWatch, profile essential, every 1m: 3 nodes of one site; GPUs: 2 each, cameras: 18 each

        metric          by                     metrics    $ a month
        Capacity        Site                         1         0.30
        Health          Site, Node                   3         0.90
        GpuUtilization  Site, Node                   3         0.90
        GpuMemoryUsed   Site, Node                   3         0.90
        GpuTemperature  Site, Node                   3         0.90
        GpuFaults       Site, Node                   3         0.90
        CamerasUp       Site, Node                   3         0.90
        CameraFpsRatio  Site, Node                   3         0.90
        CpuUtilization  Site, Node                   3         0.90
        MemoryUsed      Site, Node                   3         0.90
        DiskUsed        Site, Node                   3         0.90
        OutboxAge       Site, Node                   3         0.90
        all metrics                                 34        10.20
        PutMetricData   requests                131400         1.32
                                                              -----
        total                                                 11.52
        one node alone                                         4.04
        detail, at most if sick all month          +30         9.00

        List prices of us-east-1, as third-party pages agree on them, not checked against a bill:
        $0.30 a metric (the first 10,000), $0.01 per 1,000 PutMetricData requests.
        Without taxes, alarms, the free tier and the lower price of metrics after the first 10,000.
        ");
    }

    #[test]
    fn the_cost_is_json() {
        let json: serde_json::Value =
            serde_json::from_str(&cost("--profile full --gpus 2 --cameras 18 --json")).unwrap();
        assert_eq!(json["cloudwatch"]["profile"], "full");
        assert_eq!(json["bill"]["metrics"], 56);
        assert_eq!(json["bill"]["monthly"], 17.238);
    }
}

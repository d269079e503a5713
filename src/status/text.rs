//! The report for a tired person on an 80-column terminal; colour only where it is wanted.
//!
//! It is drawn from the wire form, so that a newer agent with codes we do not know is shown all the same.

use serde_json::Value;

use super::page::{Page, short};

/// The SSM agent renews credentials that last an hour after half of it.
const EXPIRE_SOON_S: i64 = 900;

/// Draws the report; the verdict first, then what is wrong, then the details.
#[must_use]
pub fn draw(report: &Value, colour: bool) -> String {
    let mut page = Page::new(colour);
    head(&mut page, report);
    findings(&mut page, report);
    host(&mut page, report);
    beside(&mut page, report);
    gpus(&mut page, report);
    cameras(&mut page, report);
    outlets(&mut page, report);
    identity(&mut page, &report["identity"]);
    page.text()
}

fn head(page: &mut Page, report: &Value) {
    let node = &report["node"];
    let state = word(&report["verdict"]["state"]);
    let capacity = &report["capacity"];
    page.start(paint(state), &state.to_uppercase());
    page.line(&format!(
        "  {} at {}  {}",
        word(&node["id"]),
        word(&node["site"]),
        node["uptime_s"]
            .as_u64()
            .map_or_else(String::new, |up| format!("up {}", span(up))),
    ));
    page.line(&format!(
        "{}; since {}",
        carries(capacity),
        clock(&report["verdict"]["since"]),
    ));
    failover(page, &report["failover"]);
}

/// What an order has come to: `orders::Stands` in its wire form.
#[must_use]
pub fn stands(stands: &Value) -> String {
    let mut page = Page::new(false);
    page.line(&carries(&stands["capacity"]));
    failover(&mut page, &stands["failover"]);
    page.text()
}

fn carries(capacity: &Value) -> String {
    let because = capacity["because"]
        .as_str()
        .map_or_else(String::new, |why| format!(" ({why})"));
    format!(
        "carries {} of {} slots{because}",
        count(&capacity["available"]),
        count(&capacity["slots"]),
    )
}

/// Where the node stands between in service and drained; nothing where that is as usual.
fn failover(page: &mut Page, failover: &Value) {
    let (mode, state) = (word(&failover["mode"]), word(&failover["state"]));
    if !matches!(state, "in_service" | "?") {
        let would = match (mode, state) {
            (_, "maintenance") | ("drain", _) => "",
            _ => "would be ",
        };
        let until = failover["until"].as_str().map_or_else(String::new, |_| {
            format!(" until {}", clock(&failover["until"]))
        });
        page.line(&format!(
            "{would}{}{until}; since {}",
            state.replace('_', " "),
            clock(&failover["since"]),
        ));
        page.wrapped(word(&failover["reason"]));
    }
    if let Some(why) = failover["held_back"].as_str() {
        page.line("not drained, because");
        page.wrapped(why);
    }
    let drill = &failover["drill"];
    if drill.is_object() {
        page.line(&format!(
            "drill: at most {} slots until {}",
            count(&drill["slots"]),
            clock(&drill["until"]),
        ));
    }
}

fn findings(page: &mut Page, report: &Value) {
    let findings = list(&report["findings"]);
    if findings.is_empty() {
        let reasons: Vec<&str> = list(&report["verdict"]["reasons"])
            .iter()
            .map(word)
            .collect();
        if !reasons.is_empty() {
            page.line("");
            page.line(&format!("over     {}", reasons.join(" ")));
            page.line("         better when that has held for judge.recover_after");
        }
        return;
    }
    page.line("");
    for finding in findings {
        let severity = word(&finding["severity"]);
        page.start(paint(severity), &format!("{severity:<8}"));
        page.line(&format!(
            " {}  {}",
            word(&finding["code"]),
            word(&finding["subject"])
        ));
        page.wrapped(word(&finding["evidence"]));
        let advice = match word(&finding["advice"]) {
            "none" => String::new(),
            advice => format!("; do: {}", advice.replace('_', " ")),
        };
        let times = match finding["count"].as_u64() {
            Some(0 | 1) | None => String::new(),
            Some(times) => format!(", {times} times"),
        };
        page.line(&format!(
            "         since {}{times}{advice}",
            clock(&finding["since"])
        ));
    }
}

fn host(page: &mut Page, report: &Value) {
    let host = &report["host"];
    page.line("");
    if host.is_null() {
        page.line("host     not read yet");
        return;
    }
    let load = list(&host["load"]).first().and_then(Value::as_f64);
    page.line(&format!(
        "host     cpu {}  memory {}  load {}",
        percent(&host["cpu_percent"]),
        percent(&host["memory_used_percent"]),
        load.map_or_else(|| "?".to_owned(), |load| format!("{load:.1}")),
    ));
    for disk in list(&host["disks"]) {
        let mark = if disk["read_only"] == true {
            "  READ-ONLY"
        } else {
            ""
        };
        page.line(&format!(
            "disk     {:<24} {}{mark}",
            short(word(&disk["mount"]), 24),
            percent(&disk["used_percent"])
        ));
    }
}

/// UPSes and checks; disks only speak up in findings.
fn beside(page: &mut Page, report: &Value) {
    for ups in list(&report["ups"]) {
        let left = ups["runtime_s"].as_f64().map_or(String::new(), |left| {
            format!("  {:.0} min left", left / 60.0)
        });
        page.line(&format!(
            "ups      {:<24} {:<10} {} charge{left}",
            short(word(&ups["name"]), 24),
            short(word(&ups["status"]), 10),
            percent(&ups["charge_percent"]),
        ));
    }
    for check in list(&report["checks"]) {
        let state = word(&check["state"]);
        page.piece("check    ");
        page.start(paint_check(state), &format!("{state:<9}"));
        page.line(&format!(
            "{:<16} {}",
            short(word(&check["name"]), 16),
            short(word(&check["text"]), 44)
        ));
    }
}

fn paint_check(state: &str) -> &'static str {
    match state {
        "ok" => paint("ok"),
        "critical" => paint("failing"),
        _ => paint("degraded"),
    }
}

fn gpus(page: &mut Page, report: &Value) {
    if list(&report["gpus"]).is_empty() {
        page.line("gpus     none seen");
    }
    for gpu in list(&report["gpus"]) {
        let state = word(&gpu["state"]);
        let memory = gpu["memory_used_bytes"]
            .as_f64()
            .zip(gpu["memory_total_bytes"].as_f64());
        page.piece("gpu      ");
        page.start(paint(state), &format!("{state:<5}"));
        let name = word(&gpu["name"])
            .trim_start_matches("NVIDIA ")
            .trim_start_matches("GeForce ");
        page.line(&format!(
            "{:<10} {:<17}{:>4} °C{:>6} gpu{:>6} dec{:>6} mem",
            short(word(&gpu["pci"]), 10),
            short(name, 17),
            number(&gpu["temperature_c"]),
            percent(&gpu["utilization_percent"]),
            percent(&gpu["decoder_percent"]),
            memory.map_or_else(
                || "?".to_owned(),
                |(used, total)| format!("{:.0} %", used * 100.0 / total)
            ),
        ));
    }
}

fn cameras(page: &mut Page, report: &Value) {
    let cameras = list(&report["cameras"]);
    if cameras.is_empty() {
        page.line("cameras  none seen");
        return;
    }
    let in_state = |state: &str| {
        cameras
            .iter()
            .filter(|camera| camera["state"] == state)
            .count()
    };
    let others: Vec<String> = ["degraded", "down", "disabled", "idle", "unknown"]
        .into_iter()
        .filter(|state| in_state(state) > 0)
        .map(|state| format!(", {} {state}", in_state(state)))
        .collect();
    page.line(&format!(
        "cameras  {} of {} up{}",
        in_state("up"),
        cameras.len(),
        others.concat()
    ));
    for camera in cameras
        .iter()
        .filter(|camera| camera["state"] != "up" && camera["state"] != "disabled")
    {
        let state = word(&camera["state"]);
        page.piece("         ");
        page.start(paint(state), &format!("{state:<8}"));
        let reason = camera["reason"]
            .as_str()
            .map_or_else(String::new, |why| format!(", {}", why.replace('_', " ")));
        page.line(&format!(
            " {:<16} {} fps{reason}, since {}",
            short(word(&camera["id"]), 16),
            number(&camera["fps"]),
            clock(&camera["since"]),
        ));
    }
}

fn outlets(page: &mut Page, report: &Value) {
    for outlet in list(&report["outlets"])
        .iter()
        .filter(|outlet| outlet["state"] != "off")
    {
        let state = word(&outlet["state"]);
        page.piece("to cloud ");
        page.start(
            paint(state),
            &format!("{:<10} {state}", word(&outlet["name"])),
        );
        let pending = match outlet["pending"].as_u64() {
            Some(0) | None => String::new(),
            Some(pending) => {
                format!(
                    "  {pending} waiting, oldest {}",
                    span(outlet["oldest_pending_s"].as_u64().unwrap_or(0))
                )
            }
        };
        let dropped = match outlet["dropped"].as_u64() {
            Some(0) | None => String::new(),
            Some(dropped) => format!("  {dropped} lost"),
        };
        page.line(&format!("{pending}{dropped}"));
        if let Some(error) = outlet["error"].as_str() {
            page.wrapped(error);
        }
    }
}

/// Who the node is to AWS; nothing where that is as usual.
fn identity(page: &mut Page, identity: &Value) {
    let left = identity["credentials"]["expires_in_s"].as_i64();
    let asleep = identity["ssm_agent"] == "asleep";
    let credentials = match left {
        Some(left) if left <= 0 => format!("expired {} ago", span(left.unsigned_abs())),
        Some(left) if asleep || left < EXPIRE_SOON_S => {
            format!("expire in {}", span(left.unsigned_abs()))
        }
        Some(_) | None if asleep => "are not renewed".to_owned(),
        Some(_) | None => return,
    };
    let why = if asleep { "; the SSM agent sleeps" } else { "" };
    let node = identity["managed_instance"].as_str().unwrap_or("AWS");
    page.line(&format!("identity {node}: credentials {credentials}{why}"));
}

/// ANSI colour of a state or severity.
fn paint(state: &str) -> &'static str {
    match state {
        "healthy" | "ok" | "up" => "32",
        "degraded" | "retrying" | "unknown" | "idle" | "info" => "33",
        "failing" | "lost" | "hung" | "down" | "rejected" => "31",
        _ => "0",
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or("?")
}

fn count(value: &Value) -> String {
    value
        .as_u64()
        .map_or_else(|| "?".to_owned(), |number| number.to_string())
}

fn number(value: &Value) -> String {
    value.as_f64().map_or_else(
        || "?".to_owned(),
        |number| {
            if number.fract() == 0.0 {
                format!("{number:.0}")
            } else {
                format!("{number:.1}")
            }
        },
    )
}

fn percent(value: &Value) -> String {
    value
        .as_f64()
        .map_or_else(|| "?".to_owned(), |share| format!("{share:.0} %"))
}

/// `2026-11-22T19:36:12.410Z` → `2026-11-22 19:36:12Z`.
fn clock(value: &Value) -> String {
    let stamp = word(value);
    let zone = if stamp.len() > 19 { "Z" } else { "" };
    stamp.get(..19).unwrap_or(stamp).replace('T', " ") + zone
}

/// The two greatest units of a duration.
fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::super::page::{WIDTH, visible};
    use super::*;
    use serde_json::json;

    #[test]
    fn no_line_is_wider_than_the_terminal_and_nothing_moves_the_cursor() {
        let report = json!({
            "node": {"id": "mi-0123456789abcdef0", "site": "x".repeat(200), "uptime_s": 90_061},
            "verdict": {"state": "failing", "since": "2026-11-22T19:36:12.410Z"},
            "capacity": {"slots": 18, "available": 9, "because": "verdict"},
            "findings": [{"code": "gpu.xid.79", "subject": "gpu:GPU-1f0e", "severity": "failing",
                "since": "2026-11-22T19:36:12.410Z", "count": 3, "advice": "power_cycle",
                "evidence": format!("NVRM: Xid\x1b[2J {}", "y".repeat(300))}],
            "cameras": [{"id": "hole\n07", "state": "down", "fps": null, "reason": "no_frames", "since": "?"}],
        });
        for colour in [false, true] {
            let text = draw(&report, colour);
            for line in text.lines() {
                assert!(visible(line) <= WIDTH, "{line}");
            }
            assert_eq!(text.contains('\x1b'), colour);
        }
    }
}

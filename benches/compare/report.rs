//! The table, the targets below it, and the same as JSON.

use serde_json::{Value, json};

use crate::options::{FrontName, Options};
use crate::rounds::{Findings, Outcome, Row};
use crate::statistics::Samples;
use crate::targets::Target;

const HEADINGS: [&str; 10] = [
    "front",
    "connections/s (min..max)",
    "of direct",
    "front CPU us/conn (min..max)",
    "all CPU us/conn (min..max)",
    "of direct",
    "WS round trips/s (min..max)",
    "of direct",
    "bytes/idle conn",
    "fds/idle conn",
];

const NOTES: &str = "\
direct: the workers listen themselves (SO_REUSEPORT), nobody is in front: clients don't stick.
bare hand-off: the limit; accepts, hands over, closes, and cares for nothing else.
watched: with a scrape of the metrics a second and the dashboard open during each turn.
All CPU is that of load, front and workers together, with what the kernel does on their behalf.
HAProxy, nginx: one thread or process, TCP mode, consistent hash of the client's address.
Node has a Node app behind it: only its front's CPU, memory and descriptors compare directly.
Idle bytes are the front process's own memory; a proxy's two kernel sockets come on top.
A negative figure there is a garbage collector's doing.
Shares are medians of the rounds' shares.
";

pub(crate) fn text(options: &Options, findings: &Findings, targets: &[Target]) -> String {
    let mut text = format!(
        "\n{} workers, median of {} x {:?} per figure, {} idle connections\n\n",
        options.workers,
        options.rounds,
        options.seconds,
        options.idle_connections()
    );
    text += &table(&findings.rows);
    text += &format!(
        "\nother programs used {:.0} % of the machine meanwhile\n",
        findings.used_by_others * 100.0
    );
    for row in &findings.rows {
        text += &remarks(row);
    }
    text += NOTES;
    text += "\nTargets of sticky-lb:\n";
    for target in targets {
        let verdict = match target.result {
            Some((value, true)) => format!("met     {value:.3}"),
            Some((value, false)) => format!("missed  {value:.3}"),
            None => "not measured".to_owned(),
        };
        let limit = target.limit.map(|limit| format!("  (bare hand-off: {limit:.3})"));
        text += &format!("  {:<59}  {verdict}{}\n", target.promise, limit.unwrap_or_default());
    }
    text
}

/// Columns as wide as their widest cell, figures to the right.
fn table(rows: &[Row]) -> String {
    let mut lines = vec![HEADINGS.map(str::to_owned)];
    let measured = |row: &&Row| matches!(row.outcome, Outcome::Measured);
    lines.extend(rows.iter().filter(measured).map(|row| cells(row, rows)));
    let mut text = String::new();
    for line in &lines {
        for (column, cell) in line.iter().enumerate() {
            let width = lines.iter().map(|line| line[column].len()).max();
            let width = width.unwrap_or_default();
            text += &match column {
                0 => format!("{cell:<width$}"),
                _ => format!("  {cell:>width$}"),
            };
        }
        text.push('\n');
    }
    text
}

fn cells(row: &Row, rows: &[Row]) -> [String; 10] {
    let direct = rows.iter().find(|row| row.name == FrontName::Direct);
    let share = |figure: fn(&Row) -> &Samples| {
        let share = direct.and_then(|direct| figure(row).share_of(figure(direct)));
        or_dash(share, 2)
    };
    [
        row.name.title().to_owned(),
        with_spread(&row.connections, 0),
        share(|row| &row.connections),
        with_spread(&row.cpu, 1),
        with_spread(&row.all_cpu, 1),
        share(|row| &row.all_cpu),
        with_spread(&row.echoes, 0),
        share(|row| &row.echoes),
        or_dash(row.idle.map(|idle| idle.bytes), 0),
        or_dash(row.idle.map(|idle| idle.descriptors), 2),
    ]
}

fn with_spread(samples: &Samples, digits: usize) -> String {
    match (samples.median(), samples.min(), samples.max()) {
        (Some(median), Some(min), Some(max)) => {
            format!("{median:.digits$} ({min:.digits$}..{max:.digits$})")
        }
        _ => "-".to_owned(),
    }
}

fn or_dash(value: Option<f64>, digits: usize) -> String {
    // Adding zero turns the minus zero of a rounded figure into a plain one.
    let scale = 10_f64.powf(digits as f64);
    value.map_or_else(
        || "-".to_owned(),
        |value| format!("{:.digits$}", (value * scale).round() / scale + 0.0),
    )
}

/// Why figures are missing, and which ones to doubt.
fn remarks(row: &Row) -> String {
    let title = row.name.title();
    let mut text = match &row.outcome {
        Outcome::Measured => String::new(),
        Outcome::Skipped(reason) => format!("{title}: skipped: {reason}\n"),
        Outcome::Failed(reason) => format!("{title}: failed: {reason}\n"),
    };
    if row.failed_connections > 0 {
        let first = row.first_failure.as_deref().unwrap_or("unknown");
        let count = row.failed_connections;
        text += &format!("{title}: {count} connections failed, the first: {first}\n");
    }
    text
}

pub(crate) fn json(options: &Options, findings: &Findings, targets: &[Target]) -> Value {
    let target = |target: &Target| {
        json!({
            "promise": target.promise,
            "value": target.result.map(|(value, _)| value),
            "bare_hand_off": target.limit,
            "met": target.result.map(|(_, met)| met),
        })
    };
    json!({
        "workers": options.workers,
        "seconds": options.seconds.as_secs_f64(),
        "rounds": options.rounds,
        "idle_connections": options.idle_connections(),
        "used_by_others": findings.used_by_others,
        "fronts": findings.rows.iter().map(row_json).collect::<Vec<_>>(),
        "targets": targets.iter().map(target).collect::<Vec<_>>(),
    })
}

fn row_json(row: &Row) -> Value {
    let figure = |samples: &Samples| json!({"median": samples.median(), "rounds": samples.all()});
    let (outcome, reason) = match &row.outcome {
        Outcome::Measured => ("measured", None),
        Outcome::Skipped(reason) => ("skipped", Some(reason)),
        Outcome::Failed(reason) => ("failed", Some(reason)),
    };
    json!({
        "front": row.name.title(),
        "outcome": outcome,
        "reason": reason,
        "connections_per_second": figure(&row.connections),
        "front_cpu_us_per_connection": figure(&row.cpu),
        "all_cpu_us_per_connection": figure(&row.all_cpu),
        "websocket_round_trips_per_second": figure(&row.echoes),
        "bytes_per_idle_connection": row.idle.map(|idle| idle.bytes),
        "descriptors_per_idle_connection": row.idle.map(|idle| idle.descriptors),
        "failed_connections": row.failed_connections,
    })
}

//! `status`, `workers` and `describe`.

use std::fmt::Write;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::cli::client::ControlClient;
use crate::cli::commands::follow::event_line;
use crate::cli::commands::reload::{more_of_failure, progress};
use crate::cli::failure::Failure;
use crate::cli::notices::{dominance, heaviness};
use crate::cli::screen::{Look, Tone};
use crate::cli::table::{Column, Value, pairs, table};
use crate::cli::units::{
    NOTHING, bytes, clean, clock, counted, maybe, millis, percent, rate, seconds,
};
use crate::control::protocol::Request;
use crate::control::report::{Slot, Status, Worker};

/// Slots that are listed by number.
const LISTED: usize = 8;

const WORKERS: [Column; 17] = [
    Column::number("slot"),
    Column::number("gen").spare(6),
    Column::number("pid"),
    Column::word("state"),
    Column::number("uptime"),
    Column::number("crashes"),
    Column::number("conns"),
    Column::number("total").spare(9),
    Column::number("ws").spare(10),
    Column::number("req").spare(5),
    Column::number("hand/s").spare(4),
    Column::number("p99").spare(7),
    Column::number("stalls").spare(8),
    Column::number("mem").spare(2),
    Column::number("mem/conn").spare(6),
    Column::number("cpu").spare(3),
    Column::number("share").spare(1),
];

/// States of slots that are problems, and what to do about one slot and about several.
const TROUBLES: [(&str, [&str; 2]); 5] = [
    ("errored", ["`describe` says why, `undrain` tries again"; 2]),
    (
        "back-off",
        [
            "its workers end too soon: `describe` says why",
            "their workers end too soon: `describe` says why",
        ],
    ),
    (
        "stopped",
        [
            "its worker has ended and is not to be followed: `undrain` fills it again",
            "their workers have ended and are not to be followed: `undrain` fills them again",
        ],
    ),
    ("drained", ["`undrain` takes it back into service", "`undrain` takes them back into service"]),
    ("spawning", ["its worker is not ready yet", "their workers are not ready yet"]),
];

pub(super) fn status(client: &mut ControlClient) -> Result<(), Failure> {
    // Slots that don't serve are found among the workers. As JSON there is one report alone.
    let workers: Vec<Worker> =
        if client.json { Vec::new() } else { client.ask(&Request::Workers {})? };
    client.show(&Request::Status {}, |status, look| status_text(status, &workers, look))
}

pub(super) fn workers(client: &mut ControlClient) -> Result<(), Failure> {
    client.show(&Request::Workers {}, |workers: &Vec<Worker>, look| worker_table(workers, look))
}

pub(super) fn describe(client: &mut ControlClient, slot: u16) -> Result<(), Failure> {
    client.show(&Request::Describe { slot }, slot_text)
}

/// The process that takes signals, and the primary's own if that is another.
fn processes(status: &Status) -> String {
    match (status.pid, status.primary_pid) {
        // An older primary says one only.
        (pid, 0) => format!("pid {pid}"),
        (pid, primary) if pid == primary => format!("pid {pid}"),
        (pid, primary) => format!("pid {pid} (primary {primary})"),
    }
}

/// How often the primary was upgraded and has crashed.
fn replacements(status: &Status) -> String {
    let count = |count: u64, one: &str, several: &str| match count {
        0 => String::new(),
        1 => format!(", {one}"),
        count => format!(", {count} {several}"),
    };
    count(status.upgrades, "upgraded once", "upgrades")
        + &count(status.recoveries, "crashed once", "crashes")
}

fn status_text(status: &Status, workers: &[Worker], look: Look) -> String {
    let warnings = warnings(status, workers);
    let text: String =
        warnings.iter().map(|(tone, text)| look.paint(format!("! {text}"), *tone) + "\n").collect();
    let s = status;
    let scaling = maybe(s.autoscale, |(least, most)| format!(", by load from {least} to {most}"));
    let top_client = maybe(s.top_client.as_ref(), |it| {
        format!("{} with {} of connections lately", clean(&it.address), percent(it.share * 100.0))
    });
    let mut lines = vec![("name", clean(&s.name))];
    // An older primary doesn't say it.
    lines.extend(s.command.as_ref().map(|command| ("runs", runs(command, s))));
    lines.extend([
        ("version", {
            let (up, replaced) = (seconds(s.uptime_s), replacements(s));
            format!("{}, {}, up {up}{replaced}", clean(&s.version), processes(s))
        }),
        ("listening", clean(&s.listening.join(", "))),
        ("admin", maybe(s.admin.as_deref(), url) + &token_file(s)),
        ("control", maybe(s.control.as_deref(), clean)),
        ("placement", clean(&s.placement)),
        (
            "workers",
            format!(
                "{} of {} {}{}",
                s.serving,
                s.workers,
                serve(s.workers),
                scaling.trim_start_matches(NOTHING)
            ),
        ),
        (
            "now",
            format!(
                "{}, {} in flight, {} waiting, {} accepted/s",
                counted(s.connections, "connection"),
                counted(s.requests, "request"),
                s.waiting,
                rate(s.accepts_per_second)
            ),
        ),
        (
            "hand-off",
            format!(
                "p50 {}, p99 {}",
                maybe(s.handoff_p50_ms, millis),
                maybe(s.handoff_p99_ms, millis)
            ),
        ),
        (
            "so far",
            format!(
                "{} accepted, {} acknowledged, {} redispatched, {} fallbacks",
                s.accepted, s.acknowledged, s.redispatched, s.fallbacks
            ),
        ),
        ("sessions", sessions(s)),
        (
            "troubles",
            format!(
                "{} crashed, {} cut, {}, {} refused, {} lost, {} lost, {}",
                s.crashes,
                counted(s.connections_cut, "connection"),
                counted(s.stalls, "stall"),
                s.refused,
                s.lost,
                counted(s.sessions_lost, "session"),
                counted(s.accept_errors, "accept error")
            ),
        ),
        ("top client", top_client),
        ("log", format!("{}, {} dropped", clean(&s.log_levels), counted(s.dropped_lines, "line"))),
    ]);
    text + &pairs(&lines)
}

/// The workers' command, and the file that it is from.
fn runs(command: &[String], status: &Status) -> String {
    let command = match command {
        [] => "the demo".to_owned(),
        words => clean(&words.join(" ")),
    };
    match &status.configuration {
        Some(file) => format!("{command}, by {}", clean(file)),
        None => command,
    }
}

/// A rolling restart that has failed and was not followed by another one: when, why, and where to look.
fn failed_rollout(status: &Status) -> Option<String> {
    let failed = status.last_rollout.as_ref().filter(|_| status.rollout.is_none())?;
    if !failed.is_aborted() {
        return None;
    }
    let time = maybe(failed.ended_ms, |at| clock(at, Timestamp::now(), &TimeZone::system()));
    let reason = failed.reason.as_deref().map_or_else(|| "no reason known".to_owned(), clean);
    let more = more_of_failure(&status.name, failed);
    Some(format!("{}, aborted at {time}: {reason}{more}", progress(failed)))
}

/// Where a browser finds the admin listener.
fn url(address: &str) -> String {
    format!("http://{}/", clean(address))
}

fn token_file(status: &Status) -> String {
    let file = status.admin_token_file.as_deref();
    file.map(|file| format!(", token in {}", clean(file))).unwrap_or_default()
}

/// Sessions: those that can migrate, those that did, those that were closed instead.
fn sessions(status: &Status) -> String {
    let Status { sessions, websockets, sessions_migrated, .. } = status;
    let Status { migrations_failed, clients_closed, rebalance_pending, .. } = status;
    let Status { sessions_protected, sessions_recovered, session_recovery_failures, .. } = status;
    let pending = match rebalance_pending {
        0 => String::new(),
        pending => format!(", {pending} to be rebalanced"),
    };
    let safe = match sessions_protected + sessions_recovered + session_recovery_failures {
        0 => String::new(),
        _ => format!(
            "; {sessions_protected} protected, {sessions_recovered} survived the crash of their worker, \
             {session_recovery_failures} did not"
        ),
    };
    format!(
        "{sessions} of {} can migrate; {sessions_migrated} migrated, {migrations_failed} failed to, \
         {clients_closed} closed{pending}{safe}",
        counted(*websockets, "WebSocket"),
    )
}

/// Problems, as lines above everything else.
fn warnings(status: &Status, workers: &[Worker]) -> Vec<(Tone, String)> {
    let mut warnings = Vec::new();
    if status.stopping {
        warnings.push((Tone::Warn, "everything is being stopped".to_owned()));
    } else if !status.accepting {
        warnings
            .push((Tone::Bad, "no connections are accepted: no worker was ready yet".to_owned()));
    }
    if status.serving < status.workers {
        let tone = if status.serving == 0 { Tone::Bad } else { Tone::Warn };
        let workers = counted(status.workers.into(), "worker");
        let text = format!("only {} of {workers} {}", status.serving, serve(status.workers));
        warnings.push((tone, text));
    }
    for (state, [for_one, for_several]) in TROUBLES {
        let slots: Vec<u16> =
            workers.iter().filter(|it| it.state == state).map(|it| it.slot).collect();
        // A successor that is not ready yet is part of a rolling restart.
        let expected = state == "spawning" && status.serving >= status.workers;
        if !slots.is_empty() && !expected {
            let what_to_do = if slots.len() == 1 { for_one } else { for_several };
            let text = format!("{} {state}: {what_to_do}", slot_list(&slots));
            warnings.push((Tone::from_state(state), text));
        }
    }
    if let Some(rollout) = &status.rollout {
        warnings.push((Tone::Warn, progress(rollout)));
    }
    if let Some(client) = &status.dominant_client {
        // On a line of its own, the address of the page is whole.
        let text = format!("{}\n  see {}", dominance(client), clean(&client.guide));
        warnings.push((Tone::Warn, text));
    }
    if let Some(heavy) = &status.heavy_connections {
        let text = format!("{}\n  see {}", heaviness(heavy), clean(&heavy.guide));
        warnings.push((Tone::Warn, text));
    }
    warnings.extend(failed_rollout(status).map(|text| (Tone::Bad, text)));
    let not_renewed = status.not_renewed.iter();
    warnings.extend(not_renewed.map(|what| (Tone::Warn, format!("as before: {}", clean(what)))));
    warnings
}

/// The verb behind `1 of 1 worker`, `1 of 4 workers`.
fn serve(workers: u16) -> &'static str {
    if workers == 1 { "serves" } else { "serve" }
}

/// `slot 3 is`, `slots 1, 2 are`.
fn slot_list(slots: &[u16]) -> String {
    let numbers: Vec<_> = slots.iter().take(LISTED).map(u16::to_string).collect();
    let more = slots.len().saturating_sub(LISTED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let (noun, verb) = if slots.len() == 1 { ("slot", "is") } else { ("slots", "are") };
    format!("{noun} {}{more} {verb}", numbers.join(", "))
}

fn worker_table(workers: &[Worker], look: Look) -> String {
    table(&WORKERS, workers.iter().map(worker_row).collect(), look)
}

/// A worker's values are dashes where a slot has no worker.
fn worker_row(worker: &Worker) -> Vec<Value> {
    let own = |text: String| if worker.pid.is_some() { text } else { NOTHING.to_owned() };
    vec![
        worker.slot.into(),
        maybe(worker.generation, |it| it.to_string()).into(),
        maybe(worker.pid, |it| it.to_string()).into(),
        Value::state(&worker.state),
        maybe(worker.uptime_s, seconds).into(),
        worker.crashes.into(),
        own(worker.connections.to_string()).into(),
        own(worker.connections_total.to_string()).into(),
        own(worker.websockets.to_string()).into(),
        own(worker.requests.to_string()).into(),
        own(rate(worker.handoffs_per_second)).into(),
        maybe(worker.handoff_p99_ms, millis).into(),
        worker.stalls.into(),
        maybe(worker.memory, bytes).into(),
        maybe(worker.memory_per_connection, bytes).into(),
        maybe(worker.cpu, percent).into(),
        own(percent(worker.share * 100.0)).into(),
    ]
}

fn slot_text(slot: &Slot, look: Look) -> String {
    let state = look.paint(clean(&slot.state), Tone::from_state(&slot.state));
    let mut text = pairs(&[
        ("slot", slot.slot.to_string()),
        ("state", format!("{state}, {} to clients", clean(&slot.availability))),
        ("weight", slot.weight.to_string()),
        ("started", counted(slot.started, "worker")),
        ("crashes", slot.crashes.to_string()),
        ("last failure", maybe(slot.last_failure.as_deref(), clean)),
        ("next worker", maybe(slot.delay_ms, |it| format!("in {}", seconds(it / 1_000.0)))),
        ("handed off", format!("{}, {} refused", slot.handed_off, slot.refused)),
        ("on the way", format!("{}, {} waiting for it", slot.in_flight, slot.queued)),
        ("requests", slot.requests_total.to_string()),
        ("lag", maybe(slot.lag_ms, millis)),
    ]);
    let _ = write!(text, "\n{}", worker_table(&slot.workers, look));
    if !slot.events.is_empty() {
        text.push('\n');
        text.extend(slot.events.iter().map(|event| event_line(event, look)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::report::{Event, HeavyConnections, Rollout, TopClient};

    fn worker(slot: u16, state: &str) -> Worker {
        Worker { slot, state: state.to_owned(), ..Worker::default() }
    }

    fn busy(slot: u16) -> Worker {
        Worker {
            generation: Some(12),
            pid: Some(4_194_304),
            uptime_s: Some(223_200.0),
            crashes: 3,
            connections: 12_345,
            connections_total: 12_345_678,
            websockets: 12_001,
            requests: 42,
            handoffs_per_second: 1_234.5,
            handoff_p99_ms: Some(0.41),
            memory: Some(85 << 20),
            memory_per_connection: Some(7_100),
            cpu: Some(99.9),
            share: 0.25,
            ..worker(slot, "serving")
        }
    }

    fn status() -> Status {
        Status { name: "shop".into(), serving: 4, workers: 4, accepting: true, ..Status::default() }
    }

    #[test]
    fn a_worker_is_a_line_and_nothing_is_a_dash() {
        let text = worker_table(&[busy(0), worker(1, "errored")], Look::default());
        let lines: Vec<Vec<_>> =
            text.lines().map(|it| it.split("  ").map(str::trim).collect()).collect();
        let cells = |line: usize| -> Vec<&str> {
            lines[line].iter().copied().filter(|cell| !cell.is_empty()).collect()
        };
        let heads: Vec<_> = WORKERS.iter().map(|column| Value::from(column.head())).collect();
        assert_eq!(heads.len(), cells(0).len(), "{text}");
        let expected = "0 12 4194304 serving 2d_14h 3 12345 12345678 12001 42 1234 0.41_ms 0 85_MiB 6.9_KiB 100% 25%";
        let expected: Vec<_> = expected.split(' ').map(|it| it.replace('_', " ")).collect();
        assert_eq!(cells(1), expected, "{text}");
        assert_eq!(cells(2)[..6], ["1", "-", "-", "errored", "-", "0"], "{text}");
    }

    #[test]
    fn busy_workers_fit_into_eighty_columns() {
        let look = Look { colour: false, width: Some(80) };
        let text = worker_table(&[busy(0), busy(1_023)], look);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        for head in ["slot", "pid", "state", "crashes", "conns", "mem", "share"] {
            assert!(text.lines().next().is_some_and(|line| line.contains(head)), "{head}: {text}");
        }
    }

    #[test]
    fn status_is_short_and_says_first_what_is_wrong() {
        let quiet = status_text(&status(), &[worker(0, "serving")], Look::default());
        assert!(quiet.starts_with("name:"), "{quiet}");
        assert!(quiet.contains("4 of 4 serve\n"), "{quiet}");
        let replaced = Status { upgrades: 2, recoveries: 1, ..status() };
        let replaced = status_text(&replaced, &[worker(0, "serving")], Look::default());
        assert!(replaced.contains("up 0.0 s, 2 upgrades, crashed once\n"), "{replaced}");
        assert!(quiet.contains("up 0.0 s\n"), "{quiet}");
        let troubled = Status {
            serving: 0,
            accepting: false,
            autoscale: Some((2, 8)),
            top_client: Some(TopClient { address: "10.0.0.1".into(), share: 0.5 }),
            rollout: Some(Rollout { number: 2, of: 4, ..Rollout::default() }),
            ..status()
        };
        let states = ["errored", "back-off", "stopped", "drained", "spawning"];
        let workers: Vec<_> =
            states.iter().zip(0..).map(|(state, slot)| worker(slot, state)).collect();
        let text = status_text(&troubled, &workers, Look::default());
        assert!(text.lines().count() <= 22, "{text}");
        assert!(text.starts_with("! no connections are accepted"), "{text}");
        for expected in [
            "! only 0 of 4 workers serve",
            "! slot 0 is errored: `describe`",
            "! slot 3 is drained: `undrain`",
            "! rolling restart 2",
            "0 of 4 serve, by load from 2 to 8",
            "10.0.0.1 with 50%",
        ] {
            assert!(text.contains(expected), "{expected}: {text}");
        }
    }

    #[test]
    fn connections_that_are_far_too_heavy_are_named() {
        let guide = "the guide".to_owned();
        let heavy = HeavyConnections { slot: 2, memory_per_connection: 135_000, guide };
        let status = Status { heavy_connections: Some(heavy), ..status() };
        let text = status_text(&status, &[worker(0, "serving")], Look::default());
        let expected = "! a connection takes 132 KiB of slot 2's worker, far more than a WebSocket \
                        needs\n  see the guide\n";
        assert!(text.starts_with(expected), "{text}");
    }

    #[test]
    fn a_rolling_restart_that_has_failed_is_explained() {
        let failed = Rollout {
            number: 2,
            trigger: "command".into(),
            of: 4,
            result: Some("aborted".into()),
            reason: Some("new worker in slot 3 exited with status 1".into()),
            ended_ms: Some(0),
            failed_slot: Some(3),
            last_line: Some("boom".into()),
            ..Rollout::default()
        };
        let status = Status { name: "app".into(), last_rollout: Some(failed), ..status() };
        let text = failed_rollout(&status).unwrap();
        assert!(text.starts_with("rolling restart 2 by command: 0 of 4 slots replaced"), "{text}");
        let end = "new worker in slot 3 exited with status 1, its last line: boom (`sticky-lb --name app \
                   logs --slot 3` has more); the workers of before go on: mend it, then `sticky-lb \
                   --name app reload`";
        assert!(text.ends_with(end), "{text}");
        let next = Status { rollout: Some(Rollout::default()), ..status };
        assert_eq!(failed_rollout(&next), None);
    }

    #[test]
    fn it_is_said_what_runs() {
        let words = ["node", "a.js"].map(str::to_owned).to_vec();
        let configuration = Some("/etc/a.toml".to_owned());
        let status = Status { command: Some(words), configuration, ..status() };
        let text = status_text(&status, &[], Look::default());
        assert!(text.contains("node a.js, by /etc/a.toml\n"), "{text}");
        assert_eq!(runs(&[], &Status::default()), "the demo");
    }

    #[test]
    fn one_and_several_have_their_own_words() {
        let warned = |status: &Status, states: &[&str]| {
            let workers = states.iter().zip(0..).map(|(state, slot)| worker(slot, state));
            let warned = warnings(status, &workers.collect::<Vec<_>>());
            warned.into_iter().map(|(_, text)| text).collect::<Vec<_>>()
        };
        let drained = "slot 0 is drained: `undrain` takes it back into service";
        assert_eq!(warned(&status(), &["drained"]), [drained]);
        let drained = "slots 0, 1 are drained: `undrain` takes them back into service";
        assert_eq!(warned(&status(), &["drained", "drained"]), [drained]);
        let one = Status { serving: 0, workers: 1, ..status() };
        assert_eq!(warned(&one, &[]), ["only 0 of 1 worker serves"]);
        assert!(status_text(&one, &[], Look::default()).contains("0 of 1 serves\n"));
    }

    #[test]
    fn many_slots_are_not_all_listed() {
        assert_eq!(slot_list(&[3]), "slot 3 is");
        assert_eq!(
            slot_list(&(0..10).collect::<Vec<_>>()),
            "slots 0, 1, 2, 3, 4, 5, 6, 7 and 2 more are"
        );
    }

    #[test]
    fn a_description_ends_with_what_happened() {
        let event = Event { text: "worker crashed".into(), slot: Some(3), ..Event::default() };
        let slot = Slot {
            slot: 3,
            state: "back-off".into(),
            last_failure: Some("exit code 1".into()),
            delay_ms: Some(3_200.0),
            workers: vec![worker(3, "back-off")],
            events: vec![event],
            ..Slot::default()
        };
        let text = slot_text(&slot, Look::default());
        assert!(text.contains("last failure:  exit code 1\n"), "{text}");
        assert!(text.contains("next worker:   in 3.2 s\n"), "{text}");
        assert!(text.trim_end().ends_with("worker crashed"), "{text}");
    }
}

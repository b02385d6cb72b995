//! Metrics are valid for Prometheus and count everything once; alerts and the Grafana dashboard use
//! existing names.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::client::{ask, connect_from, nth};
use common::process::{self, Signal};
use common::{Primary, eventually, own_directory};
use serde_json::json;

/// A scrape.
#[derive(Clone, Debug, PartialEq)]
struct Scrape(String);

impl Scrape {
    fn of(primary: &Primary) -> Self {
        let answer = primary.get("/metrics");
        let kind = answer.header("content-type").unwrap();
        assert!(kind.starts_with("text/plain; version=0.0.4"), "{kind}");
        Self(answer.body)
    }

    /// Names, labels and values.
    fn series(&self) -> impl Iterator<Item = (&str, f64)> {
        let lines = self.0.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        lines.map(|line| {
            let (series, value) = line.rsplit_once(' ').unwrap();
            (series, value.parse().unwrap())
        })
    }

    /// The value of `accepting`, `stalls_total{slot="0"}`.
    fn value(&self, series: &str) -> f64 {
        let name = format!("sticky_lb_{series}");
        let found = self.series().find(|(series, _)| *series == name);
        found.unwrap_or_else(|| panic!("no {name} in {}", self.0)).1
    }

    fn has(&self, series: &str) -> bool {
        self.series().any(|(found, _)| found == format!("sticky_lb_{series}"))
    }

    /// The sum over all labels.
    fn sum(&self, name: &str) -> f64 {
        let name = format!("sticky_lb_{name}{{");
        self.series().filter(|(series, _)| series.starts_with(&name)).map(|(_, value)| value).sum()
    }
}

fn with_admin(workers: u16) -> Primary {
    Primary::with_workers(workers)
        .arguments(&["--admin", "127.0.0.1:0", "--admin-token-file", "none"])
        .start()
}

/// Runs promtool, which must succeed without output.
fn promtool(arguments: &[&str], input: &str) {
    let mut promtool = Command::new("promtool")
        .args(arguments)
        .current_dir(deploy(""))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is installed: Debian has it in the package prometheus");
    promtool.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{arguments:?}: {output:?}");
}

fn deploy(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/deploy").join(name)
}

#[test]
fn promtool_finds_no_error() {
    let primary = with_admin(2);
    ask(nth(0), primary.address());
    let scrape = Scrape::of(&primary);
    promtool(&["check", "metrics"], &scrape.0);
    // promtool does not check these.
    let mut names = BTreeSet::new();
    for line in scrape.0.lines().filter(|line| line.starts_with("# TYPE ")) {
        let name = line.split(' ').nth(2).unwrap();
        assert!(name.starts_with("sticky_lb_"), "{name}");
        assert!(scrape.0.contains(&format!("# HELP {name} ")), "{name} has no help");
        assert!(names.insert(name), "{name} comes twice");
    }
    let series: Vec<_> = scrape.series().map(|(series, _)| series).collect();
    let different: BTreeSet<_> = series.iter().collect();
    assert_eq!(series.len(), different.len(), "each series comes once");
    for series in series {
        let family = series.split('{').next().unwrap();
        let histogram = ["_bucket", "_sum", "_count"].map(|end| family.strip_suffix(end));
        let known = histogram.iter().flatten().chain([&family]).any(|name| names.contains(name));
        assert!(known, "{series} has no type");
    }
    primary.stop();
}

#[test]
fn series_of_all_words_exist_from_the_start() {
    let primary = with_admin(1);
    let scrape = Scrape::of(&primary);
    for series in [
        "fallback_connections_total{reason=\"remembered\"}",
        "fallback_connections_total{reason=\"not-serving\"}",
        "accept_errors_total{errno=\"EMFILE\"}",
        "worker_crashes_total{reason=\"signal\"}",
        "worker_crashes_total{reason=\"out-of-memory\"}",
        "worker_replacements_total{reason=\"memory\"}",
        "rollouts_total{result=\"done\"}",
        "rollouts_total{result=\"aborted\"}",
        "rollout_in_progress",
        "lost_connections_total",
        "sessions_migrated_total",
        "migrations_failed_total",
        "sessions_lost_total",
        "sessions_protected",
        "sessions_not_protected_total",
        "sessions_recovered_total",
        "session_recovery_failures_total{reason=\"busy\"}",
        "session_recovery_failures_total{reason=\"client-gone\"}",
        "session_recovery_failures_total{reason=\"unverified\"}",
        "session_recovery_failures_total{reason=\"no-target\"}",
        "clients_closed_total",
        "rebalance_pending",
        "sessions{slot=\"0\"}",
        "websockets{slot=\"0\"}",
        "dropped_output_lines_total",
        "dropped_node_messages_total{direction=\"from\"}",
        "dropped_node_messages_total{direction=\"to\"}",
        "handoff_seconds_count",
        "handoff_seconds_bucket{le=\"0.0001\"}",
        "handoff_seconds_bucket{le=\"10\"}",
        "refused_connections_total{slot=\"0\"}",
        "stalls_total{slot=\"0\"}",
    ] {
        assert_eq!(scrape.value(series), 0.0, "{series}");
    }
    let version = format!("build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"));
    assert_eq!(scrape.value(&version), 1.0);
    assert_eq!(scrape.value("slot_state{slot=\"0\",state=\"serving\"}"), 1.0);
    assert_eq!(scrape.sum("slot_state"), 1.0, "a slot is in one state");
    assert_eq!((scrape.value("slots"), scrape.value("serving_slots")), (1.0, 1.0));
    assert!(scrape.value("worker_memory_bytes{slot=\"0\"}") > 100_000.0);
    let age = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs_f64()
        - scrape.value("start_time_seconds");
    assert!((0.0..60.0).contains(&age), "started {age} seconds ago");
    primary.stop();
}

#[test]
fn connections_are_counted_once_in_any_number_of_scrapes() {
    let primary = with_admin(2);
    let held: Vec<_> = (0..5).map(|n| connect_from(nth(n), primary.address()).unwrap()).collect();
    for n in 0..20 {
        ask(nth(n), primary.address());
    }
    eventually("25 hand-offs", || {
        Scrape::of(&primary).value("acknowledged_connections_total") == 25.0
    });
    // Scrapes within 200 ms share a snapshot: this looks at several.
    let mut different = BTreeSet::new();
    eventually("several snapshots", || {
        let scrape = Scrape::of(&primary);
        for name in ["accepted_connections_total", "handoff_seconds_count"] {
            assert_eq!(scrape.value(name), 25.0, "{name}");
        }
        assert_eq!(scrape.value("handoff_seconds_bucket{le=\"+Inf\"}"), 25.0);
        for name in ["handed_off_connections_total", "connections_total"] {
            assert_eq!(scrape.sum(name), 25.0, "{name}");
        }
        assert!(scrape.value("handoff_seconds_sum") > 0.0);
        let snapshot = primary.get("/api/status").json()["uptime_s"].to_string();
        different.insert(snapshot);
        different.len() > 3
    });
    eventually("answered requests are finished", || {
        let scrape = Scrape::of(&primary);
        scrape.sum("requests_total") == 20.0 && scrape.sum("established_connections") == 5.0
    });
    drop(held);
    eventually("none is established", || {
        Scrape::of(&primary).sum("established_connections") == 0.0
    });
    primary.stop();
}

#[test]
fn buckets_of_the_histogram_rise() {
    let primary = with_admin(1);
    for n in 0..10 {
        ask(nth(n), primary.address());
    }
    let scrape = Scrape::of(&primary);
    let buckets: Vec<_> =
        scrape.series().filter(|(series, _)| series.contains("_bucket{le=")).collect();
    assert_eq!(buckets.len(), 17);
    assert!(buckets.is_sorted_by_key(|(_, count)| *count), "{buckets:?}");
    assert_eq!(buckets.last().unwrap().1, scrape.value("handoff_seconds_count"));
    primary.stop();
}

#[test]
fn counters_include_crashed_workers() {
    let primary = with_admin(2);
    let clients = primary.clients_of(1, 8);
    for client in &clients {
        ask(*client, primary.address());
    }
    let requests = |scrape: &Scrape| scrape.value("requests_total{slot=\"1\"}");
    eventually("8 requests", || requests(&Scrape::of(&primary)) == 8.0);
    let old = primary.worker(1);
    process::signal(old, Signal::KILL);
    eventually("its crash", || {
        Scrape::of(&primary).value("worker_crashes_total{reason=\"signal\"}") == 1.0
    });
    eventually("its successor", || Scrape::of(&primary).value("serving_slots") == 2.0);
    let after = Scrape::of(&primary);
    assert_eq!(requests(&after), 8.0);
    assert_eq!(after.value("connections_total{slot=\"1\"}"), 8.0);
    assert_eq!(after.value("slot_crashes_total{slot=\"1\"}"), 1.0);
    assert_eq!(after.value("slot_started_workers_total{slot=\"1\"}"), 2.0);
    assert_eq!(after.value("slot_crashes_total{slot=\"0\"}"), 0.0);
    ask(clients[0], primary.address());
    eventually("the ninth", || requests(&Scrape::of(&primary)) == 9.0);
    primary.stop();
}

#[test]
fn rolling_restarts_and_replacements_are_counted() {
    let primary = with_admin(2);
    primary.order("reload", &json!({}));
    assert_eq!(Scrape::of(&primary).value("rollouts_total{result=\"done\"}"), 1.0);
    primary.order("restart", &json!({"slot": 1}));
    let scrape = Scrape::of(&primary);
    assert_eq!(scrape.value("worker_replacements_total{reason=\"ordered\"}"), 1.0);
    assert_eq!(scrape.sum("worker_crashes_total"), 0.0, "none of it is a crash");
    primary.stop();
}

#[test]
fn a_removed_slot_has_no_series_but_those_that_count() {
    let primary = with_admin(3);
    assert!(Scrape::of(&primary).has("established_connections{slot=\"2\"}"));
    primary.order("scale", &json!({"to": "2"}));
    // A counter never goes back, nor away.
    let counts = |line: &&str| line.split('{').next().is_some_and(|it| it.ends_with("_total"));
    eventually("it is gone", || {
        Scrape::of(&primary).0.lines().filter(|it| it.contains("slot=\"2\"")).all(|it| counts(&it))
    });
    assert!(Scrape::of(&primary).has("established_connections{slot=\"1\"}"));
    primary.order("drain", &json!({"slot": 1, "wait": true}));
    let drained = Scrape::of(&primary);
    assert_eq!(drained.value("slot_state{slot=\"1\",state=\"drained\"}"), 1.0);
    assert_eq!(drained.value("slot_state{slot=\"1\",state=\"serving\"}"), 0.0);
    assert_eq!(drained.value("serving_slots"), 1.0);
    primary.stop();
}

#[test]
fn alerts_and_scrape_configuration_are_valid() {
    promtool(&["check", "rules", "alerts.yml"], "");
    promtool(&["check", "config", "--syntax-only", "prometheus.yml"], "");
}

/// All metric names in a file.
fn names(text: &str) -> BTreeSet<String> {
    let found = text.match_indices("sticky_lb_").map(|(at, _)| {
        text[at..].chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
    });
    found.collect()
}

#[test]
fn alerts_and_dashboard_use_existing_names() {
    let primary = with_admin(1);
    let scrape = Scrape::of(&primary);
    let there: BTreeSet<_> =
        scrape.series().map(|(series, _)| series.split('{').next().unwrap().to_owned()).collect();
    for (file, at_least) in [("alerts.yml", 8), ("grafana.json", 15)] {
        let asked = names(&fs::read_to_string(deploy(file)).unwrap());
        assert!(asked.len() >= at_least, "{file}: {asked:?}");
        let missing: Vec<_> = asked.difference(&there).collect();
        assert!(missing.is_empty(), "{file} asks for {missing:?}");
    }
    primary.stop();
}

#[test]
fn the_dashboard_can_be_imported_anywhere() {
    let text = fs::read_to_string(deploy("grafana.json")).unwrap();
    let dashboard: serde_json::Value = serde_json::from_str(&text).unwrap();
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    assert!(variables.iter().any(|it| it["type"] == "datasource" && it["name"] == "datasource"));
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "each panel has an id of its own");
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    let mut rules = "groups:\n- name: dashboard\n  rules:\n".to_owned();
    for (number, target) in targets.enumerate() {
        assert_eq!(target["datasource"]["uid"], "${datasource}", "{target}");
        // Replaces Grafana's variables, which promtool cannot parse.
        let query = target["expr"].as_str().unwrap();
        let query = query.replace("$__rate_interval", "1m").replace("$job", ".*");
        rules += &format!("  - {{record: query_{number}, expr: {}}}\n", json!(query));
    }
    let file = own_directory().join("rules.yml");
    fs::write(&file, rules).unwrap();
    promtool(&["check", "rules", file.to_str().unwrap()], "");
}

//! The dashboard in a real browser: figures and orders of a running primary, many workers, a lost
//! primary.

mod common;

use std::fs;
use std::path::Path;

use common::browser::{Browser, Tab};
use common::fake_admin::{FakeAdmin, live};
use common::process::{self, Signal};
use common::{Builder, Primary, client, eventually};
use serde_json::json;
use sticky_lb::internals::control::report::Worker;

const DESK: [u32; 2] = [1_280, 900];
const PHONE: [u32; 2] = [360, 780];
const TOKEN: &str = "a-token-of-20-letters";

#[test]
fn all_slots_are_shown_with_their_workers() {
    let (primary, url) = start(Primary::with_workers(4));
    let browser = Browser::start();
    let tab = browser.open(&url);
    tab.wait_for_text("#serving", "4 of 4 slots serve");
    for slot in 0..4 {
        tab.wait_for_text(&row(slot), &primary.worker(slot).to_string());
        assert_eq!(shown(&tab, slot, "state"), "serving");
    }
    let clients = (0..20).map(client::nth);
    let held: Vec<_> =
        clients.map(|it| client::connect_from(it, primary.address()).expect("room")).collect();
    tab.wait_for_text("#tiles", "20 since the start");
    eventually("all connections, each in its slot", || {
        let loads = (0..4).map(|slot| shown(&tab, slot, "connections").trim().parse::<u32>());
        loads.map(Result::unwrap_or_default).sum::<u32>() == 20
    });
    tab.wait_for_text("#spread ~ figcaption", "Mean 5.0; least");
    eventually("title", || tab.evaluate("document.title") == "4/4 serve – app");
    tab.emulate(DESK, "light");
    let fits = "document.querySelector('#region table').offsetWidth <= document.querySelector('#region').clientWidth";
    eventually("a table that fits its card", || tab.evaluate(fits) == true);
    screenshots(&tab, "dashboard-4");
    drop(held);
    assert_is_quiet(&tab, &url);
}

#[test]
fn a_killed_worker_is_replaced_by_its_successor() {
    let (primary, url) = start(Primary::with_workers(3));
    let browser = Browser::start();
    let tab = browser.open(&url);
    let killed = primary.worker(1);
    tab.wait_for_text(&row(1), &killed.to_string());
    process::signal(killed, Signal::KILL);
    eventually("its successor in the row", || {
        let pid = shown(&tab, 1, "pid");
        shown(&tab, 1, "state") == "serving" && pid != killed.to_string() && !pid.is_empty()
    });
    assert_eq!(shown(&tab, 1, "pid"), primary.worker(1).to_string());
    assert_eq!(shown(&tab, 1, "generation"), "1");
    assert_eq!(shown(&tab, 1, "crashes"), "1");
    tab.wait_for_text("#events", "worker crashed after");
    tab.wait_for_text("#axis ~ figcaption", "1 crash,");
    tab.wait_for_text("#counters", "Crashes");
    assert_eq!(counters(&tab), json!([["Crashes", "1"]]));
    // Announced to screen readers.
    tab.wait_for_text("#news", "latest: slot 1");
    assert_is_quiet(&tab, &url);
}

#[test]
fn a_kill_is_one_crash_wherever_it_is_counted() {
    let (primary, url) = start(Primary::with_workers(2));
    let browser = Browser::start();
    let tab = browser.open(&url);
    tab.wait_for_text(&row(1), "serving");
    let killed = primary.worker(1);
    primary.ask("kill", json!({"slot": 1}));
    eventually("its successor in the row", || {
        shown(&tab, 1, "state") == "serving" && shown(&tab, 1, "pid") != killed.to_string()
    });
    let crashes = primary.ask("status", json!({}))["crashes"].as_u64().expect("a number");
    let expected = if crashes == 1 { "1 crash,".to_owned() } else { format!("{crashes} crashes,") };
    tab.wait_for_text("#axis ~ figcaption", &expected);
    let shown = json!([["Crashes", crashes.to_string()]]);
    assert_eq!(counters(&tab), if crashes == 0 { json!([]) } else { shown });
}

#[test]
fn an_address_that_has_nearly_all_connections_is_named() {
    let (primary, url) = start(Primary::with_workers(2));
    let browser = Browser::start();
    let tab = browser.open(&url);
    tab.wait_for_text("#serving", "2 of 2");
    // Before that, it is said what to try.
    tab.wait_for_text("#empty", &format!("curl -i http://127.0.0.1:{}/", primary.port()));
    assert_eq!(count(&tab, "#dominant:not([hidden])"), 0);
    tab.screenshot(&Path::new(env!("CARGO_TARGET_TMPDIR")).join("dashboard-empty.png"));
    let address = primary.client_of(1);
    let connect = |_| client::connect_from(address, primary.address()).expect("room");
    let held: Vec<_> = (0..40).map(connect).collect();
    let said = format!("{address} has 100 % of connections and sticks to slot 1");
    tab.wait_for_text("#dominant", &said);
    let link = "document.querySelector('#dominant a').href";
    let page = tab.evaluate(link);
    assert_eq!(page, format!("http://{}/guide/load-tests", primary.admin()));
    let chapter = primary.get("/guide/load-tests").body;
    assert!(chapter.starts_with("# Load tests\n"), "{chapter}");
    assert_eq!(count(&tab, "#empty:not([hidden])"), 0);
    tab.screenshot(&Path::new(env!("CARGO_TARGET_TMPDIR")).join("dashboard-dominant.png"));
    drop(held);
    eventually("nothing to say", || count(&tab, "#dominant:not([hidden])") == 0);
    assert_is_quiet(&tab, &url);
}

#[test]
fn figures_stay_over_a_reload_of_the_page() {
    let fake_admin = FakeAdmin::start();
    let browser = Browser::start();
    let tab = browser.open(&fake_admin.url());
    (1..=90).for_each(|n| fake_admin.tell(&live(4, n)));
    tab.wait_for_text("#facts", &uptime(90));
    let points =
        "(document.querySelector('#time .line').getAttribute('d').match(/[ML]/g) ?? []).length";
    assert_eq!(tab.evaluate(points), 90);
    fake_admin.forget();
    tab.evaluate("location.reload()");
    fake_admin.tell(&live(4, 91));
    tab.wait_for_text("#facts", &uptime(91));
    eventually("figures from before", || tab.evaluate(points) == 91);
    // Another run begins with its own.
    fake_admin.forget();
    tab.evaluate("location.reload()");
    let mut other = live(4, 92);
    other.status.uptime_s = 1.0;
    fake_admin.tell(&other);
    tab.wait_for_text("#facts", "up 1 s");
    eventually("its own figures", || tab.evaluate(points) == 1);
}

#[test]
fn only_tiles_that_say_something_are_shown_and_no_line_leaves_its_tile() {
    let fake_admin = FakeAdmin::start();
    let browser = Browser::start();
    let tab = browser.open(&fake_admin.url());
    for n in 1..=30 {
        let mut live = live(4, n);
        // Another primary may have taken over with less.
        live.status.fallbacks = if n < 20 { 7 } else { 3 };
        live.status.crashes = if n < 20 { 5 } else { 2 };
        (live.status.handoff_p50_ms, live.status.handoff_p99_ms) = (None, None);
        fake_admin.tell(&live);
    }
    tab.wait_for_text("#facts", "up 30 s");
    eventually("drawn", || counters(&tab) == json!([["Fallbacks", "3"], ["Crashes", "2"]]));
    let tiles = tab.text("#tiles");
    for (label, is_shown) in [
        ("Accepts per second", true),
        ("Connections", true),
        ("Requests in flight", true),
        ("Hand-off", false),
        ("Top client", false),
    ] {
        assert_eq!(tiles.contains(label), is_shown, "{label}: {tiles}");
    }
    assert!(!tab.text("#counters").contains("/ min"), "{}", tab.text("#counters"));
    let stray = "[...document.querySelectorAll('.tile:not([hidden]) path, .load path')].filter((path) => {
        const [line, tile] = [path.getBoundingClientRect(), path.closest('.tile, td').getBoundingClientRect()];
        return line.width && (line.left < tile.left || line.right > tile.right || line.top < tile.top || line.bottom > tile.bottom);
    }).length";
    assert_eq!(tab.evaluate(stray), 0);
}

#[test]
fn an_even_spread_is_said_to_be_even() {
    let fake_admin = FakeAdmin::start();
    let browser = Browser::start();
    let tab = browser.open(&fake_admin.url());
    let mut even = live(3, 1);
    even.workers.iter_mut().for_each(|worker| worker.connections = 4);
    fake_admin.tell(&even);
    tab.wait_for_text("#spread ~ figcaption", "4 in each slot");
    even.workers.iter_mut().for_each(|worker| worker.connections = 0);
    even.time_ms += 1_000;
    fake_admin.tell(&even);
    tab.wait_for_text("#spread ~ figcaption", "No connections");
    // The table has a column for WebSockets.
    even.workers[1].websockets = 3;
    even.time_ms += 1_000;
    fake_admin.tell(&even);
    eventually("three WebSockets", || shown(&tab, 1, "websockets") == "3");
}

#[test]
fn workers_are_compact_on_a_phone_and_orders_are_behind_their_slot() {
    let (_primary, url) = start(Primary::with_workers(2));
    let browser = Browser::start();
    let tab = browser.open(&url);
    tab.emulate(PHONE, "light");
    tab.wait_for_text(&row(1), "serving");
    let height = format!("document.querySelector({:?}).offsetHeight", row(1));
    let height = tab.evaluate(&height).as_f64().expect("a number");
    assert!(height < 130.0, "a worker is {height} pixels high");
    tab.click(&format!("{} [data-order=about]", row(1)));
    // They move down when the facts come.
    tab.wait_for_text("#slot dl", "For new clients");
    tab.click("#slot-orders [data-order=drain]:not([hidden])");
    tab.wait_for_text("#confirm", "Drain slot 1?");
    tab.click("#confirm .main");
    tab.wait_for_text("#outcomes", "Drain slot 1: its worker drains");
    assert_is_quiet(&tab, &url);
}

#[test]
fn a_slot_is_drained_and_undrained_by_keyboard() {
    let (_primary, url) = start(Primary::with_workers(2));
    let browser = Browser::start();
    let tab = browser.open(&url);
    tab.wait_for_text(&row(1), "serving");
    choose(&tab, 1, "drain");
    tab.wait_for_text("#confirm", "Its clients go to other slots");
    tab.press("Escape");
    eventually("no dialog", || tab.evaluate("document.querySelector('dialog[open]')").is_null());
    assert_eq!(tab.text("#outcomes"), "", "something was ordered");
    // The focus returns to the button.
    assert_eq!(tab.evaluate("document.activeElement.dataset.order"), "drain");
    tab.press("Enter");
    confirm(&tab);
    tab.wait_for_text("#outcomes", "Drain slot 1: its worker drains");
    eventually("a drained slot", || shown(&tab, 1, "state") == "drained");
    tab.wait_for_text("#spread ~ figcaption", "1 slot without a serving worker: 1");
    // A refusal shows its reason.
    choose(&tab, 0, "drain");
    confirm(&tab);
    tab.wait_for_text("#outcomes", "Drain slot 0: failed: slot 0 is the last one that serves");
    choose(&tab, 1, "undrain");
    confirm(&tab);
    tab.wait_for_text("#outcomes", "Undrain slot 1: back in service");
    eventually("a slot that serves", || shown(&tab, 1, "state") == "serving");
    // The browser reports the refused request.
    let complaints = tab.complaints();
    assert!(complaints.iter().all(|it| it.contains("409")), "{complaints:?}");
}

#[test]
fn workers_are_scaled_and_replaced() {
    let (primary, url) = start(Primary::with_workers(2));
    let browser = Browser::start();
    let tab = browser.open(&url);
    tab.wait_for_text(&row(1), "serving");
    tab.click("[data-to='+1']");
    tab.wait_for_text("#confirm", "Scale to 3 workers?");
    tab.click("#confirm .main");
    tab.wait_for_text("#outcomes", "Scale to 3 workers: from 2 workers to 3");
    tab.wait_for_text("#serving", "3 of 3 slots serve");
    let before = primary.worker(0);
    tab.click("[data-order=reload]");
    tab.click("#confirm .main");
    eventually("a new worker", || shown(&tab, 0, "generation") == "1");
    tab.wait_for_text("#events", "rolling restart 1 done");
    assert_ne!(primary.worker(0), before);
    tab.click(&format!("{} [data-order=about]", row(0)));
    tab.wait_for_text("#slot dl", "open: clients get its worker");
    tab.wait_for_text("#slot .events", "worker ready");
    tab.press("Escape");
    assert_is_quiet(&tab, &url);
}

#[test]
fn the_route_of_a_client_is_shown() {
    let (primary, url) = start(Primary::with_workers(3));
    let browser = Browser::start();
    let tab = browser.open(&url);
    tab.wait_for_text("#serving", "3 of 3");
    let (client, worker) = (primary.client_of(2), primary.worker(2));
    tab.enter("#address", &client.to_string());
    let goes = format!("of {client} goes to slot 2 (pid {worker}), the first of its ranking");
    tab.wait_for_text("#route", &goes);
    assert_eq!(count(&tab, "#ranking li"), 3);
    tab.wait_for_text("#ranking .target", "slot 2");
    let key = primary.ask("where", json!({"address": client}))["key"].clone();
    tab.wait_for_text("#route", key.as_str().expect("a key"));
    // If its slot is closed, another slot and the reason are shown.
    primary.ask("drain", json!({"slot": 2}));
    eventually("a drained slot", || shown(&tab, 2, "state") == "drained");
    tab.enter("#address", &client.to_string());
    let why = "not to slot 2, the first of its ranking: no worker serves there";
    tab.wait_for_text("#route", why);
    tab.wait_for_text("#ranking", "skipped: no worker serves there");
    assert_ne!(tab.text("#ranking .target"), "");
    assert_is_quiet(&tab, &url);
    tab.enter("#address", "no address");
    tab.wait_for_text("#route", "Error: ");
    assert_eq!(count(&tab, "#ranking li"), 0);
}

#[test]
fn the_token_is_requested_until_it_is_right() {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("dashboard-token");
    fs::write(&file, TOKEN).expect("the target directory is writable");
    let file = file.to_str().expect("a path of text");
    let (_primary, url) = start_with_token(Primary::with_workers(2), file);
    let browser = Browser::start();
    let tab = browser.open(&url);
    tab.wait_for_text("#lost", "Not signed in");
    eventually("the dialog", || is_open(&tab, "#sign-in"));
    // Nothing empty stands behind it, and the field keeps away from its text.
    let seen = |selector: &str| {
        let found = format!(
            "[...document.querySelectorAll({selector:?})].some((it) => it.checkVisibility())"
        );
        tab.evaluate(&found)
    };
    assert_eq!(
        (seen("#states button"), seen("#tiles dt"), seen("#events")),
        (false.into(), false.into(), false.into())
    );
    let gap = "(() => {
        const field = document.querySelector('#token'), text = document.createRange();
        text.selectNodeContents(field.parentElement.firstChild);
        return field.getBoundingClientRect().top - text.getBoundingClientRect().bottom;
    })()";
    let gap = tab.evaluate(gap).as_f64().expect("a number");
    assert!(gap >= 4.0, "{gap} pixels between text and field");
    tab.screenshot(&Path::new(env!("CARGO_TARGET_TMPDIR")).join("dashboard-token.png"));
    tab.enter("#token", "another-token-of-letters");
    tab.wait_for_text("#sign-in", "The token is wrong");
    assert_eq!(tab.text("#serving"), "No data yet");
    tab.enter("#token", TOKEN);
    tab.wait_for_text("#serving", "2 of 2 slots serve");
    assert!(!is_open(&tab, "#sign-in"));
    assert_eq!(count(&tab, "#lost:not([hidden])"), 0);
    assert_eq!(tab.evaluate("[localStorage.length, sessionStorage.length]"), json!([0, 1]));
    // It is kept until the tab is closed, and sent only in a header.
    tab.evaluate("location.reload()");
    tab.wait_for_text("#serving", "2 of 2 slots serve");
    let requests = tab.requests();
    assert!(requests.iter().all(|it| it.starts_with(&url) && !it.contains(TOKEN)), "{requests:?}");
}

#[test]
fn a_lost_primary_is_shown_and_reconnected() {
    let fake_admin = FakeAdmin::start();
    let browser = Browser::start();
    let tab = browser.open(&fake_admin.url());
    fake_admin.tell(&live(4, 1));
    tab.wait_for_text("#link", "Live");
    fake_admin.go_away(true);
    tab.wait_for_text("#lost", "No connection to the primary");
    tab.wait_for_text("#lost", "The data is from");
    tab.wait_for_text("#link", "Not connected");
    assert_eq!(tab.evaluate("document.title"), "lost – shop");
    fake_admin.go_away(false);
    fake_admin.tell(&live(4, 2));
    tab.wait_for_text("#link", "Live");
    tab.wait_for_text("#events", "happened in second 2");
    assert_eq!(count(&tab, "#lost:not([hidden])"), 0);
    // Known events have come again and are shown once.
    assert_eq!(count(&tab, "#events li"), 2);
}

#[test]
fn html_in_data_stays_text() {
    let evil = r#"<img src=x onerror="document.title='gone'"><script>oops()</script>"#;
    let fake_admin = FakeAdmin::start();
    let browser = Browser::start();
    let tab = browser.open(&fake_admin.url());
    let mut figures = live(4, 1);
    let status = &mut figures.status;
    for text in [&mut status.name, &mut status.placement, &mut status.version] {
        evil.clone_into(text);
    }
    status.listening = vec![evil.to_owned()];
    figures.workers.push(Worker { slot: 9, state: evil.to_owned(), ..Worker::default() });
    let event = &mut figures.events[0];
    for text in [&mut event.kind, &mut event.text] {
        evil.clone_into(text);
    }
    fake_admin.tell(&figures);
    for place in ["#name", "#facts", "tbody", "#events"] {
        tab.wait_for_text(place, evil);
    }
    // An error has the primary's text.
    tab.enter("#address", "127.0.0.1");
    tab.wait_for_text("#route", "not <b>here</b>");
    assert_eq!(count(&tab, "img, main script, b b, #route b"), 0);
    assert_eq!(tab.evaluate("document.title"), format!("3/4 serve – {evil}"));
    assert_is_quiet(&tab, &fake_admin.url());
}

#[test]
fn a_thousand_workers_don_t_break_it() {
    let fake_admin = FakeAdmin::start();
    let browser = Browser::start();
    let tab = browser.open(&fake_admin.url());
    tab.emulate(DESK, "light");
    let tell_until = |last: u32, from: u32| {
        (from..=last).for_each(|n| fake_admin.tell(&live(1_000, n)));
        tab.wait_for_text("#events", &format!("happened in second {last}"));
        tab.wait_for_text("#facts", &uptime(last));
    };
    tell_until(60, 1);
    tab.wait_for_text("#serving", "999 of 1,000 slots serve");
    tab.wait_for_text("#states", "back-off 1");
    let (elements, rows) = (count(&tab, "*"), count(&tab, "tbody tr"));
    assert!((10..=100).contains(&rows), "{rows} rows at once");
    // Filters work while data arrives.
    (61..=200).for_each(|n| fake_admin.tell(&live(1_000, n)));
    tab.enter("#filter", "990-994");
    eventually("five rows", || count(&tab, "tbody tr") == 5);
    tab.wait_for_text(&row(992), "10992");
    tab.enter("#filter", "");
    tab.click("#pages [data-turn='1']");
    tab.wait_for_text("#shown", "51 to 100 of 1,000 rows");
    tab.click("th.connections button");
    eventually("rows in order", || {
        let text = "[...document.querySelectorAll('td.connections')].map((it) => +it.innerText)";
        let loads: Vec<u64> = serde_json::from_value(tab.evaluate(text)).expect("numbers");
        loads.len() == 50 && loads.is_sorted_by(|a, b| a >= b)
    });
    assert_eq!(tab.evaluate("document.querySelector('th.connections').ariaSort"), "descending");
    tab.click("#states [data-state=back-off]");
    eventually("one row", || count(&tab, "tbody tr") == 1);
    tab.click("#states [data-state='']");
    tab.click("th.slot button");
    tell_until(260, 201);
    // Only the list of events grows, up to its limit.
    assert_eq!(count(&tab, "#events li"), 200);
    let more = count(&tab, "*") - elements;
    assert!(more < 6 * 200, "{more} elements more");
    tab.evaluate("document.activeElement.blur(), scrollTo(0, 0)");
    screenshots(&tab, "dashboard-1000");
    tab.emulate(PHONE, "light");
    let width = "document.documentElement.scrollWidth <= document.documentElement.clientWidth";
    eventually("a page as wide as the phone", || tab.evaluate(width) == true);
    let overlaps = "[...document.querySelectorAll('#spread ~ .ticks span')].some((tick) =>
        tick.previousElementSibling?.getBoundingClientRect().right > tick.getBoundingClientRect().left)";
    fake_admin.tell(&live(1_000, 261));
    eventually("numbers beside each other", || tab.evaluate(overlaps) == false);
    assert_is_quiet(&tab, &fake_admin.url());
}

/// The uptime in the page's format.
fn uptime(seconds: u32) -> String {
    format!("up {} min {} s", seconds / 60, seconds % 60)
}

/// Starts a primary with an admin listener, and returns its URL.
fn start(builder: Builder) -> (Primary, String) {
    start_with_token(builder, "none")
}

/// The same with the token in a file.
fn start_with_token(builder: Builder, file: &str) -> (Primary, String) {
    let primary =
        builder.arguments(&["--admin", "127.0.0.1:0", "--admin-token-file", file]).start();
    let address = primary.ask("status", json!({}))["admin"].clone();
    (primary, format!("http://{}/", address.as_str().expect("an address")))
}

/// The row of a slot's newest worker.
fn row(slot: u16) -> String {
    format!("tr:nth-last-child(1 of :has([data-slot='{slot}']))")
}

/// The text of a slot's cell.
fn shown(tab: &Tab, slot: u16, column: &str) -> String {
    tab.text(&format!("{} .{column}", row(slot)))
}

fn count(tab: &Tab, selector: &str) -> u64 {
    let found = tab.evaluate(&format!("document.querySelectorAll({selector:?}).length"));
    found.as_u64().unwrap_or_default()
}

/// Labels and values of the counters that are shown.
fn counters(tab: &Tab) -> serde_json::Value {
    tab.evaluate(
        "[...document.querySelectorAll('#counters .tile:not([hidden])')]
            .map((it) => [it.querySelector('dt').innerText, it.querySelector('.value').innerText])",
    )
}

fn is_open(tab: &Tab, dialog: &str) -> bool {
    tab.evaluate(&format!("document.querySelector({dialog:?}).open")) == true
}

/// Presses a slot's button by keyboard.
fn choose(tab: &Tab, slot: u16, order: &str) {
    let button = format!("{} [data-order={order}]:not([hidden])", row(slot));
    eventually(&button, || count(tab, &button) == 1);
    tab.evaluate(&format!("document.querySelector({button:?}).focus()"));
    tab.press("Enter");
    eventually("a question", || is_open(tab, "#confirm"));
}

/// Confirms by keyboard; the first button with the focus cancels.
fn confirm(tab: &Tab) {
    eventually("a question", || is_open(tab, "#confirm"));
    tab.press("Tab");
    tab.press("Enter");
    eventually("an answer", || !is_open(tab, "#confirm"));
}

/// The page has logged no error and sent no request to another host.
fn assert_is_quiet(tab: &Tab, url: &str) {
    assert_eq!(tab.complaints(), [""; 0]);
    let foreign = |it: &String| !it.starts_with(url) && !it.starts_with("data:");
    assert_eq!(tab.requests().into_iter().find(foreign), None);
}

/// Screenshots for people: `NAME-light.png`, `-dark` and `-phone` in the target directory.
fn screenshots(tab: &Tab, name: &str) {
    for (kind, size, scheme) in
        [("light", DESK, "light"), ("dark", DESK, "dark"), ("phone", PHONE, "light")]
    {
        tab.emulate(size, scheme);
        let width = "document.documentElement.scrollWidth <= document.documentElement.clientWidth";
        eventually("a page as wide as the screen", || tab.evaluate(width) == true);
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{kind}.png"));
        if name.ends_with("-4") { tab.screenshot_all(&file) } else { tab.screenshot(&file) }
    }
}

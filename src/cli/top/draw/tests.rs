//! What is on the screen, for screens of all sizes.

use proptest::prelude::*;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::style::{Color, Modifier};

use super::*;
use crate::cli::top::order::Order;
use crate::cli::top::sample;
use crate::cli::top::state::{Popup, StatusText};
use crate::cli::top::theme::Characters;
use crate::control::report::{DominantClient, Event, Live, Rollout, Status, TopClient, Worker};

const COLOURED: Look = Look::new(true, Characters::Unicode);

fn screen(state: &State, (width, height): (u16, u16), look: Look) -> TestBackend {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal
        .draw(|frame| {
            draw(frame, state, look);
        })
        .unwrap();
    terminal.backend().clone()
}

/// The lines of the screen, without what is blank behind them.
fn lines(state: &State, size: (u16, u16)) -> Vec<String> {
    let look = Look::new(false, Characters::Unicode);
    let screen = screen(state, size, look);
    let cells = screen.buffer().content().chunks(usize::from(size.0).max(1));
    let text = cells.map(|line| line.iter().map(|cell| cell.symbol()).collect::<String>());
    text.map(|line| line.trim_end().to_owned()).collect()
}

/// A view that has been open for some seconds.
fn state(workers: u16) -> State {
    let mut state = State::new(sample::live(workers));
    for second in 0..30 {
        let mut live = sample::live(workers);
        live.status.connections = second * 10;
        live.status.fallbacks = 12 + second / 10;
        live.events = Vec::new();
        state.live(live);
    }
    state
}

/// A worker that drains beside its successor, a slot that waits: what a roll-out looks like.
fn in_a_rollout() -> State {
    let mut live = sample::live(3);
    live.status.serving = 2;
    live.status.rollout = Some(Rollout {
        number: 7,
        replaced: 1,
        of: 3,
        under_way: vec![(1, "its new worker to be ready".to_owned())],
        ..Rollout::default()
    });
    let successor = Worker { generation: Some(2), ..live.workers[0].clone() };
    live.workers[0].state = "draining".to_owned();
    live.workers.insert(1, successor);
    live.workers[3] = Worker { slot: 2, state: "back-off".to_owned(), ..Worker::default() };
    State::new(live)
}

#[test]
fn eighty_by_twenty_four_shows_everything() {
    let mut state = state(4);
    state.said = Some(StatusText { text: "sorted by slot".to_owned(), is_bad: false });
    state.under_way = vec![Order::Reload];
    let mut screen = lines(&state, (80, 24));
    for event in &mut screen[13..15] {
        // The time of day is where it is read.
        event.replace_range(..8, "--:--:--");
    }
    let expected = "\
shop  sticky-lb 0.1.0  0.0.0.0:3000  pid 4711  up 3h12m  rendezvous
serving 4/4  accepting
accepts/s     1234 ███████ p50 ms        0.08 ███████ fallbacks       14
connections    290 ▆▆▆▇▇▇█ p99 ms        0.31 ███████ redispatched     3
requests        17 ███████ stalls           0         refused          0
migrated         0         closed           0         ws lost          0
crashes          2         top client  12% 192.168.100.100
 slot   gen     pid state    uptime conns load   hand/s p99 ms   mem cpu % crash
>   0     1    4712 serving   3h11m   100 █████▊     12   0.30  123M  12.5     0
    1     1    4713 serving   3h11m   101 █████▉     12   0.30  123M  12.5     0
    2     1    4714 serving   3h11m   102 █████▉     12   0.30  123M  12.5     0
    3     1    4715 serving   3h11m   103 ██████     12   0.30  123M  12.5     0
events
--:--:-- slot 2: worker ready, 4 of 4 slots serve
--:--:-- slot 2: worker crashed after 3.2 s and 12 connections: exit code 1







sorted by slot  under way: reload
q quit ? help r reload d drain u undrain R restart +/- scale s sort e events";
    assert_eq!(screen.join("\n"), expected, "\n{}", screen.join("\n"));
}

#[test]
fn sixty_by_twenty_shows_who_serves() {
    let screen = lines(&state(40), (60, 20));
    let text = screen.join("\n");
    for part in [
        "shop  sticky-lb 0.1.0",
        "serving 40/40",
        "accepts/s     1234",
        " slot     pid state    uptime conns hand/s   mem cpu % crash\n",
        ">   0    4712 serving   3h11m   100     12  123M  12.5     0\n",
        "    5    4717 serving",
        "events  (33 more workers above or below)",
        "worker crashed after 3.2 s",
        "\nq quit ? help r reload d drain u undrain R restart",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
}

#[test]
fn a_large_terminal_shows_more() {
    let text = lines(&state(1_000), (200, 50)).join("\n");
    for part in ["share", "taken", "answered", "p50 ms", "stalls", "   29     1    4741 serving"] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    // A bar a second: of totals, where something came.
    let fallbacks = text.lines().find(|line| line.contains("fallbacks")).unwrap();
    let after = fallbacks.split("14 ").nth(1).unwrap();
    assert_eq!(after.matches('█').count(), 2, "{after}");
}

#[test]
fn a_tiny_terminal_shows_workers() {
    let screen = lines(&state(4), (20, 5));
    assert_eq!(
        screen,
        ["shop  sticky-lb 0.1.", " slot state", ">   0 serving", "    1 serving", "q quit ? help"]
    );
}

#[test]
fn the_selected_worker_is_in_sight_wherever_it_is() {
    let mut state = state(1_000);
    for slot in [0, 500, 999] {
        state.rows.step(isize::MIN);
        state.rows.step(slot);
        for size in [(80, 24), (60, 20), (200, 50), (20, 5)] {
            let mark = format!(">{slot:>4}");
            let found = lines(&state, size).iter().any(|line| line.starts_with(&mark));
            assert!(found, "slot {slot} in {size:?}");
        }
    }
}

#[test]
fn a_rollout_says_what_it_waits_for() {
    let text = lines(&in_a_rollout(), (80, 24)).join("\n");
    for part in [
        "\nserving 2/3  accepting\n",
        "\nrolling restart 7: 1 of 3, slot 1 waits for its new worker to be ready\n",
        ">   0     1    4712 draining",
        "    0     2    4712 serving",
        "    2     -       - back-off      -     0             0      -     -     -     0",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
}

#[test]
fn what_a_rollout_waits_for_is_read_to_the_end() {
    let mut state = in_a_rollout();
    let rollout = state.status.rollout.as_mut().expect("a roll-out");
    rollout.under_way = vec![(1, "its new worker to last for min_uptime".to_owned())];
    let screen = lines(&state, (80, 24));
    assert_eq!(screen[2], "rolling restart 7: 1 of 3, slot 1 waits for its new worker to last for");
    assert_eq!(screen[3], "min_uptime");
}

#[test]
fn a_rolling_restart_that_has_failed_is_named() {
    let mut state = state(4);
    let reason = Some("new worker in slot 0 exited with status 3".to_owned());
    let result = Some("aborted".to_owned());
    state.status.last_rollout = Some(Rollout { number: 2, result, reason, ..Rollout::default() });
    let screen = lines(&state, (120, 24));
    let said = "rolling restart 2 aborted: new worker in slot 0 exited with status 3; `sticky-lb status` has more";
    assert_eq!(screen[2], said);
    state.status.last_rollout.as_mut().unwrap().result = Some("done".to_owned());
    assert_ne!(lines(&state, (120, 24))[2], said);
}

#[test]
fn an_address_that_has_nearly_all_connections_is_named() {
    let mut state = state(4);
    state.status.dominant_client = Some(DominantClient {
        address: "127.0.0.1".to_owned(),
        share: 1.0,
        slot: 2,
        guide: "the guide".to_owned(),
    });
    let screen = lines(&state, (80, 24));
    assert_eq!(screen[2], "127.0.0.1 has 100% of connections and sticks to slot 2");
    assert_eq!(screen[3], "see the guide");
    assert!(screen[4].starts_with("accepts/s"), "{}", screen[4]);
}

#[test]
fn the_bar_of_the_selected_row_is_no_fuller_than_others() {
    let mut live = sample::live(2);
    live.workers[0].connections = 0;
    let screen = screen(&State::new(live), (80, 24), COLOURED);
    let cells = screen.buffer().content().chunks(80).find(|line| line[0].symbol() == ">");
    let cells = cells.expect("a selected row");
    let reversed = |place: usize| cells[place].modifier.contains(Modifier::REVERSED);
    let load = (42..48).map(|place| (cells[place].symbol(), reversed(place)));
    assert_eq!(load.collect::<Vec<_>>(), [(" ", false); 6]);
    assert!(reversed(0) && reversed(40));
}

#[test]
fn how_a_worker_ended_is_read_to_the_end() {
    let mut state = state(4);
    let text =
        "worker crashed after 242.1 s and 1234 connections: was killed by signal 9 (SIGKILL)";
    state.events[1].text = text.to_owned();
    let screen = lines(&state, (60, 20));
    let first = screen.iter().position(|line| line.contains("slot 2: worker crashed")).unwrap();
    assert_eq!(screen[first][9..], *"slot 2: worker crashed after 242.1 s and 1234");
    assert_eq!(screen[first + 1], "         connections: was killed by signal 9 (SIGKILL)");
}

#[test]
fn a_loss_cannot_be_overlooked() {
    let mut state = state(4);
    state.lost("connection refused".to_owned());
    let expected = "lost the primary, trying again (q quits): connection refused";
    assert_eq!(lines(&state, (80, 24))[1], expected);
    assert_eq!(lines(&state, (80, 5))[0], expected);
    state.live(sample::live(4));
    assert_eq!(lines(&state, (80, 24))[1], "serving 4/4  accepting");
    state.silence = std::time::Duration::from_secs(4);
    assert_eq!(lines(&state, (80, 24))[1], "serving 4/4  accepting  no news for 4 s");
    state.silence = std::time::Duration::ZERO;
    state.status.waiting = 7;
    let expected = "serving 4/4  accepting  7 connections wait for a worker";
    assert_eq!(lines(&state, (80, 24))[1], expected);
}

#[test]
fn a_question_and_its_answers_lie_over_everything() {
    let mut state = state(4);
    state.popup = Some(Popup::Confirm(Order::Drain(3)));
    for size in [(80, 24), (60, 20), (20, 5)] {
        let text = lines(&state, size).join("\n");
        assert!(text.contains("Drain slot 3?"), "{text}");
        assert!(text.contains(" y  yes    n  no"), "{text}");
    }
    state.popup = Some(Popup::Help);
    for size in [(80, 24), (60, 20)] {
        let text = lines(&state, size).join("\n");
        assert!(text.contains("up down k j") && text.contains("of any worker"), "{text}");
        assert!(text.contains("any key closes this"), "{text}");
    }
}

#[test]
fn colours_are_of_the_sixteen_and_can_be_left_out() {
    let mut state = in_a_rollout();
    state.popup = Some(Popup::Confirm(Order::Reload));
    state.lost = Some("gone".to_owned());
    let colours = |look| {
        let screen = screen(&state, (80, 24), look);
        let cells = screen.buffer().content().iter();
        cells.flat_map(|cell| [cell.fg, cell.bg]).collect::<std::collections::HashSet<_>>()
    };
    let colourless = colours(Look::new(false, Characters::Unicode));
    assert_eq!(colourless.into_iter().collect::<Vec<_>>(), [Color::Reset]);
    let coloured = colours(COLOURED);
    assert!(coloured.len() > 3, "{coloured:?}");
    let is_indexed = |colour: &Color| matches!(colour, Color::Rgb(..) | Color::Indexed(_));
    assert!(!coloured.iter().any(is_indexed), "{coloured:?}");
}

#[test]
fn without_unicode_nothing_but_ascii_is_drawn() {
    let mut state = state(4);
    for popup in [None, Some(Popup::Help), Some(Popup::Confirm(Order::Reload))] {
        state.popup = popup;
        let screen = screen(&state, (120, 40), Look::new(true, Characters::Ascii));
        let stray = screen.buffer().content().iter().find(|cell| !cell.symbol().is_ascii());
        assert!(stray.is_none(), "{stray:?}");
    }
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![".{0,40}", "[\\x1b\\[0-9;m\\r\\n\\t]{0,20}"]
}

fn number() -> impl Strategy<Value = f64> {
    prop_oneof![Just(0.0), 0.0..1e4, prop::num::f64::ANY]
}

prop_compose! {
    fn any_worker()(
        slot: u16,
        generation: Option<u32>,
        pid: Option<i32>,
        state in text(),
        (connections, requests, memory) in any::<(u64, u64, Option<u64>)>(),
        (uptime, cpu, rate, share) in (number(), number(), number(), number()),
    ) -> Worker {
        Worker {
            slot, generation, pid, state, connections, requests, memory, share,
            uptime_s: Some(uptime), cpu: Some(cpu), handoffs_per_second: rate,
            handoff_p50_ms: Some(share), handoff_p99_ms: Some(uptime), ..Worker::default()
        }
    }
}

prop_compose! {
    fn any_live()(
        (name, words, address) in (text(), text(), text()),
        (a, b, c, pid) in any::<(u64, u64, u64, u32)>(),
        (serving, slots) in any::<(u16, u16)>(),
        (one, two) in (number(), number()),
        (time_ms, autoscale) in any::<(i64, Option<(u16, u16)>)>(),
        under_way in prop::collection::vec((any::<u16>(), text()), 0..5),
        workers in prop::collection::vec(any_worker(), 0..20),
    ) -> Live {
        let event = Event { number: a, time_ms, text: words, ..Event::default() };
        let rollout = Rollout { number: a, under_way, ..Rollout::default() };
        let status = Status {
            name, pid, serving, workers: slots, autoscale, uptime_s: one, fallbacks: b, stalls: c,
            connections: a, accepts_per_second: two, handoff_p99_ms: Some(one),
            top_client: Some(TopClient { address, share: two }), rollout: Some(rollout),
            ..Status::default()
        };
        Live { time_ms, status, workers, events: vec![event] }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]
    /// Whatever a primary tells, on whatever screen, whatever keys were pressed.
    #[test]
    fn nothing_panics_and_nothing_but_text_is_drawn(
        lives in prop::collection::vec(any_live(), 1..4),
        keys in "[jkGgrdRu+sey?n-]{0,12}",
        size in (0_u16..220, 0_u16..60),
        more_colours: bool,
    ) {
        let mut lives = lives.into_iter();
        let mut state = State::new(lives.next().unwrap());
        for live in lives {
            state.live(live);
        }
        for key in keys.chars() {
            state.key(KeyEvent::new(KeyCode::Char(key), KeyModifiers::NONE));
        }
        let screen = screen(&state, size, Look::new(more_colours, Characters::Unicode));
        let controls = |symbol: &str| symbol.contains(char::is_control);
        prop_assert!(!screen.buffer().content().iter().any(|cell| controls(cell.symbol())));
    }
}

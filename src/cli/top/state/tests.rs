//! Keys and news in, what is seen and wished for out.

use super::*;
use crate::cli::top::rows::Sort;
use crate::cli::top::sample;

/// A view of `workers` slots after these keys, and what the last one wished for.
fn after(workers: u16, keys: &str) -> (State, Option<Action>) {
    let mut state = State::new(sample::live(workers));
    state.page = 10;
    let wish = press(&mut state, keys);
    (state, wish)
}

/// Presses keys; `^` stands before what is pressed with Control, capital arrows are page keys.
fn press(state: &mut State, keys: &str) -> Option<Action> {
    let (mut wish, mut modifiers) = (None, KeyModifiers::NONE);
    for key in keys.chars() {
        let code = match key {
            '^' => {
                modifiers = KeyModifiers::CONTROL;
                continue;
            }
            '↑' => KeyCode::Up,
            '↓' => KeyCode::Down,
            '⇑' => KeyCode::PageUp,
            '⇓' => KeyCode::PageDown,
            '⎋' => KeyCode::Esc,
            '⏎' => KeyCode::Enter,
            key => KeyCode::Char(key),
        };
        wish =
            state.key(KeyEvent::new(code, std::mem::replace(&mut modifiers, KeyModifiers::NONE)));
    }
    wish
}

fn said(state: &State) -> &str {
    state.said.as_ref().map_or("", |said| &said.text)
}

#[test]
fn keys_that_end_it() {
    for (keys, expected) in [
        ("q", Some(Action::Quit)),
        ("^c", Some(Action::Quit)),
        ("?^c", Some(Action::Quit)),
        ("r^c", Some(Action::Quit)),
        ("e", None),
        // q says no to a question, and closes help.
        ("rq", None),
        ("?q", None),
        ("rqq", Some(Action::Quit)),
        ("^l", Some(Action::Clear)),
        ("^q", None),
        ("⎋", None),
        ("y", None),
    ] {
        assert_eq!(after(4, keys).1, expected, "{keys}");
    }
}

#[test]
fn nothing_is_ordered_without_a_yes() {
    for (keys, order) in [
        ("r", Order::Reload),
        ("+", Order::More),
        ("=", Order::More),
        ("-", Order::Fewer),
        ("d", Order::Drain(0)),
        ("↓↓d", Order::Drain(2)),
        ("↓u", Order::Undrain(1)),
        ("jjjkR", Order::Restart(2)),
    ] {
        let (mut state, wish) = after(4, keys);
        assert_eq!((state.popup, wish), (Some(Popup::Confirm(order)), None), "{keys}");
        for ignored in ["x", "⏎", "↓", "r", " "] {
            assert_eq!(press(&mut state, ignored), None, "{keys} {ignored}");
            assert_eq!(state.popup, Some(Popup::Confirm(order)), "{keys} {ignored}");
        }
        for no in ["n", "N", "⎋", "q"] {
            let mut state = state.clone();
            assert_eq!(press(&mut state, no), None, "{keys} {no}");
            assert_eq!((state.popup, state.under_way.len()), (None, 0), "{keys} {no}");
            assert_eq!(said(&state), format!("{order}: not ordered"));
        }
        assert_eq!(press(&mut state, "y"), Some(Action::CarryOut(order)), "{keys}");
        assert_eq!((state.popup, &state.under_way[..]), (None, &[order][..]), "{keys}");
        // One yes, one order.
        assert_eq!(press(&mut state, "y"), None, "{keys}");
    }
}

#[test]
fn a_question_stays_with_its_slot() {
    let (mut state, _) = after(4, "↓↓d");
    let mut live = sample::live(4);
    live.workers.retain(|worker| worker.slot != 2);
    state.live(live);
    assert_eq!(press(&mut state, "y"), Some(Action::CarryOut(Order::Drain(2))));
}

#[test]
fn what_came_of_an_order_is_said_until_the_next() {
    let (mut state, _) = after(4, "dy");
    state.answered(Order::Drain(0), Err("slot 0 is the last one that serves".to_owned()));
    let expected = "drain slot 0: slot 0 is the last one that serves".to_owned();
    assert_eq!(state.said, Some(StatusText { text: expected.clone(), is_bad: true }));
    assert_eq!(state.under_way, []);
    state.live(sample::live(4));
    press(&mut state, "↓e?⎋");
    assert_eq!(said(&state), expected);
    press(&mut state, "ry");
    assert_eq!(said(&state), "");
    state.answered(Order::Reload, Ok("done".to_owned()));
    assert_eq!(state.said, Some(StatusText { text: "reload: done".to_owned(), is_bad: false }));
}

#[test]
fn an_order_is_not_given_twice_and_orders_are_bounded() {
    let (mut state, _) = after(20, "dy");
    press(&mut state, "d");
    assert_eq!((state.popup, said(&state)), (None, "drain slot 0: under way already"));
    for _ in 1..ORDERS {
        assert!(press(&mut state, "↓dy").is_some());
    }
    assert_eq!(press(&mut state, "↓dy"), None);
    assert_eq!(state.under_way.len(), ORDERS);
    assert_eq!(said(&state), "8 orders are under way: wait for one of them");
    state.answered(Order::Drain(3), Ok("done".to_owned()));
    assert_eq!(press(&mut state, "dy"), Some(Action::CarryOut(Order::Drain(8))));
}

#[test]
fn a_thousand_workers_are_walked_through() {
    for (keys, slot) in [
        ("", 0),
        ("↑", 0),
        ("↓↓↓↑", 2),
        ("⇓", 10),
        ("⇓⇓⇑↓", 11),
        ("G", 999),
        ("G↓", 999),
        ("Gkk", 997),
        ("Gg", 0),
        ("G⇑", 989),
    ] {
        let (state, _) = after(1_000, keys);
        assert_eq!(state.rows.selected().map(|worker| worker.slot), Some(slot), "{keys}");
    }
}

#[test]
fn without_workers_there_is_nothing_to_order() {
    let (state, wish) = after(0, "↓⇓Gd");
    assert_eq!((wish, state.popup, said(&state)), (None, None, "there is no slot"));
}

#[test]
fn sorting_goes_round_and_is_said() {
    let (mut state, _) = after(4, "s");
    assert_eq!((state.rows.sort(), said(&state)), (Sort::Connections, "sorted by connections"));
    press(&mut state, "ssss");
    assert_eq!((state.rows.sort(), said(&state)), (Sort::Slot, "sorted by slot"));
}

#[test]
fn events_come_once_and_are_bounded() {
    let numbers = |state: &State| state.events.iter().map(|it| it.number).collect::<Vec<_>>();
    let live = |numbers: std::ops::Range<u64>| Live {
        events: numbers.map(|number| Event { number, ..Event::default() }).collect(),
        ..sample::live(1)
    };
    let mut state = State::new(live(1..4));
    state.live(live(4..5));
    state.live(live(5..5));
    assert_eq!(numbers(&state), [1, 2, 3, 4]);
    // Connected again: those of the past come again.
    state.lost("gone".to_owned());
    state.live(live(2..7));
    assert_eq!(numbers(&state), [1, 2, 3, 4, 5, 6]);
    state.live(live(7..2_000));
    assert_eq!((state.events.len(), state.events[0].number), (EVENTS, 1_500));
}

#[test]
fn another_primary_begins_anew() {
    let mut state = State::new(sample::live(4));
    state.lost("connection refused".to_owned());
    assert_eq!(state.lost.as_deref(), Some("connection refused"));
    let mut other = sample::live(2);
    other.status.pid += 1;
    other.events = vec![Event { number: 1, ..Event::default() }];
    state.live(other);
    assert_eq!((state.lost.as_deref(), state.rows.len(), state.events.len()), (None, 2, 1));
    assert!(said(&state).starts_with("another primary is there"), "{}", said(&state));
}

//! The state of the view: messages and keys change it, and it returns what to do. Pure: never draws,
//! never asks the primary.

use std::collections::VecDeque;
use std::time::Duration;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use crate::control::report::{Event, Live, Status};

use super::figures::Trends;
use super::order::Order;
use super::rows::Rows;

/// Events that are kept.
const EVENTS: usize = 500;
/// Orders that may be under way at a time: each has a thread.
const ORDERS: usize = 8;

/// Everything that is drawn.
#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) status: Status,
    pub(super) rows: Rows,
    pub(super) trends: Trends,
    /// The oldest first.
    pub(super) events: VecDeque<Event>,
    /// Why there is no connection to the primary.
    pub(super) lost: Option<String>,
    /// Since the last snapshot.
    pub(super) silence: Duration,
    pub(super) popup: Option<Popup>,
    /// Events get half of the room.
    pub(super) more_events: bool,
    /// Orders that were not answered yet.
    pub(super) under_way: Vec<Order>,
    /// The result of the last order or key.
    pub(super) said: Option<StatusText>,
    /// Rows of the table that fit.
    pub(super) page: usize,
}

/// A box over everything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Popup {
    Confirm(Order),
    Help,
}

/// A line for the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StatusText {
    pub(super) text: String,
    pub(super) is_bad: bool,
}

/// Something to do outside of the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    CarryOut(Order),
    /// Draw everything again: something else has written to the terminal.
    Clear,
    Quit,
}

impl State {
    /// From the first snapshot.
    pub(super) fn new(live: Live) -> Self {
        let mut rows = Rows::default();
        rows.replace(live.workers);
        Self {
            status: live.status,
            rows,
            trends: Trends::default(),
            events: live.events.into(),
            lost: None,
            silence: Duration::ZERO,
            popup: None,
            more_events: false,
            under_way: Vec::new(),
            said: None,
            page: 1,
        }
    }

    /// Another snapshot; after a loss, maybe of another primary.
    pub(super) fn live(&mut self, live: Live) {
        // In containers, both may be process 1.
        let is_younger = live.status.uptime_s < self.status.uptime_s;
        if is_younger || self.status.pid != live.status.pid {
            // Its numbers begin at 0.
            self.events.clear();
            self.trends = Trends::default();
            self.say(format!("another primary is there: process {}", live.status.pid), false);
        } else {
            self.trends.add(&self.status, &live.status);
        }
        self.lost = None;
        self.silence = Duration::ZERO;
        self.status = live.status;
        self.rows.replace(live.workers);
        // The first of each connection brings those of the past.
        let seen = self.events.back().map(|event| event.number);
        self.events.extend(live.events.into_iter().filter(|event| Some(event.number) > seen));
        self.events.drain(..self.events.len().saturating_sub(EVENTS));
    }

    /// The primary cannot be reached.
    pub(super) fn lost(&mut self, reason: String) {
        self.lost = Some(reason);
    }

    /// An order has come to an end.
    pub(super) fn answered(&mut self, order: Order, outcome: Result<String, String>) {
        if let Some(place) = self.under_way.iter().position(|it| *it == order) {
            self.under_way.remove(place);
        }
        let is_bad = outcome.is_err();
        let (Ok(text) | Err(text)) = outcome;
        self.say(format!("{order}: {text}"), is_bad);
    }

    /// A key was pressed.
    pub(super) fn key(&mut self, key: KeyEvent) -> Option<Action> {
        match (key.code, key.modifiers.contains(KeyModifiers::CONTROL)) {
            (KeyCode::Char('c'), true) => return Some(Action::Quit),
            (KeyCode::Char('l'), true) => return Some(Action::Clear),
            (_, true) => return None,
            _ => {}
        }
        match self.popup.take() {
            None => self.watch(key.code),
            // Any key closes it.
            Some(Popup::Help) => None,
            Some(Popup::Confirm(order)) => self.confirm(order, key.code),
        }
    }

    fn watch(&mut self, key: KeyCode) -> Option<Action> {
        let page = isize::try_from(self.page).unwrap_or(1).max(1);
        match key {
            KeyCode::Char('q') => return Some(Action::Quit),
            KeyCode::Up | KeyCode::Char('k') => self.rows.step(-1),
            KeyCode::Down | KeyCode::Char('j') => self.rows.step(1),
            KeyCode::PageUp => self.rows.step(-page),
            KeyCode::PageDown => self.rows.step(page),
            KeyCode::Home | KeyCode::Char('g') => self.rows.step(isize::MIN),
            KeyCode::End | KeyCode::Char('G') => self.rows.step(isize::MAX),
            KeyCode::Char('r') => self.ask(Order::Reload),
            KeyCode::Char('+' | '=') => self.ask(Order::More),
            KeyCode::Char('-') => self.ask(Order::Fewer),
            KeyCode::Char('d') => self.ask_of_slot(Order::Drain),
            KeyCode::Char('u') => self.ask_of_slot(Order::Undrain),
            KeyCode::Char('R') => self.ask_of_slot(Order::Restart),
            KeyCode::Char('e') => self.more_events = !self.more_events,
            KeyCode::Char('?' | 'h') => self.popup = Some(Popup::Help),
            KeyCode::Char('s') => {
                self.rows.sort_by_next();
                self.say(format!("sorted by {}", self.rows.sort().name()), false);
            }
            _ => {}
        }
        None
    }

    fn confirm(&mut self, order: Order, key: KeyCode) -> Option<Action> {
        match key {
            KeyCode::Char('y' | 'Y') => {
                self.under_way.push(order);
                self.said = None;
                Some(Action::CarryOut(order))
            }
            KeyCode::Char('n' | 'N' | 'q') | KeyCode::Esc => {
                self.say(format!("{order}: not ordered"), false);
                None
            }
            // Neither yes nor no.
            _ => {
                self.popup = Some(Popup::Confirm(order));
                None
            }
        }
    }

    fn ask_of_slot(&mut self, order: fn(u16) -> Order) {
        match self.rows.selected().map(|worker| worker.slot) {
            Some(slot) => self.ask(order(slot)),
            None => self.say("there is no slot".to_owned(), true),
        }
    }

    fn ask(&mut self, order: Order) {
        if self.under_way.contains(&order) {
            self.say(format!("{order}: under way already"), true);
        } else if self.under_way.len() == ORDERS {
            self.say(format!("{ORDERS} orders are under way: wait for one of them"), true);
        } else {
            self.popup = Some(Popup::Confirm(order));
        }
    }

    fn say(&mut self, text: String, is_bad: bool) {
        self.said = Some(StatusText { text, is_bad });
    }
}

#[cfg(test)]
mod tests;

//! Commands that change something: `scale`, `drain`, `restart`, `stop` and others.

use clap::Args;
use serde_json::{Value, json};

use crate::cli::client::{ControlClient, turning};
use crate::cli::failure::Failure;
use crate::cli::screen::Look;
use crate::cli::units::{clean, counted};
use crate::control::protocol::Request;
use crate::control::report::{Levels, Rebalanced, Scaled};

#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct Scale {
    /// The new number, or a change by +N or -N.
    #[arg(value_name = "N|+N|-N", allow_negative_numbers = true, value_parser = number)]
    to: String,
}

fn number(text: &str) -> Result<String, String> {
    // A sign is part of such a number.
    let number: Result<i32, _> = text.parse();
    number.map(|_| text.to_owned()).map_err(|_| "expected a number, +N or -N".to_owned())
}

pub(super) fn scale(client: &mut ControlClient, scale: Scale) -> Result<(), Failure> {
    client.show(&Request::Scale { to: scale.to }, scaled_text)
}

fn scaled_text(scaled: &Scaled, _: Look) -> String {
    let Scaled { from, to, deferred } = *scaled;
    match (from == to, deferred) {
        (true, _) => format!("{} already\n", counted(to.into(), "worker")),
        (_, false) => format!("from {from} to {}\n", counted(to.into(), "worker")),
        (_, true) => format!(
            "from {from} to {}, when the rolling restart that is under way has ended\n",
            counted(to.into(), "worker")
        ),
    }
}

pub(super) fn drain(client: &mut ControlClient, slot: u16, wait: bool) -> Result<(), Failure> {
    let request = Request::Drain { slot, wait };
    if !wait {
        return client.show(&request, |done: &Value, _| match is_already(done) {
            true => format!("slot {slot} is drained already\n"),
            false => format!("slot {slot} drains: its worker finishes what it has\n"),
        });
    }
    client.wait(
        &request,
        format!("slot {slot}: its worker finishes what it has"),
        "not waited for any more: the slot goes on draining",
        |_: &Value, _| format!("slot {slot} is drained: its worker has ended\n"),
    )
}

fn is_already(done: &Value) -> bool {
    done["already"] == true
}

pub(super) fn undrain(client: &mut ControlClient, slot: u16) -> Result<(), Failure> {
    client.wait(
        &Request::Undrain { slot },
        format!("slot {slot}: its worker gets ready"),
        "not waited for any more: the slot's worker is started all the same",
        |done: &Value, _| match is_already(done) {
            true => format!("slot {slot} serves already\n"),
            false => format!("slot {slot} serves\n"),
        },
    )
}

pub(super) fn restart(client: &mut ControlClient, slot: u16) -> Result<(), Failure> {
    client.wait(
        &Request::Restart { slot },
        format!("slot {slot}: its new worker gets ready and proves itself"),
        "not waited for any more: the slot's worker is replaced all the same",
        |_: &Value, _| format!("slot {slot} has a new worker\n"),
    )
}

pub(super) fn stop(client: &mut ControlClient, now: bool) -> Result<(), Failure> {
    let goes_on = "not waited for any more: everything is stopped all the same";
    let mut waiting = client.begin(&Request::Stop { now }, goes_on)?;
    let message = if now { "ends at once" } else { "workers finish what they have" };
    turning(message.to_owned(), || waiting.until_the_end())?;
    client.say(json!({}), |_: &Value, _| "primary has ended\n".to_owned())
}

pub(super) fn kill(client: &mut ControlClient, slot: u16) -> Result<(), Failure> {
    client.show(&Request::Kill { slot }, |_: &Value, _| {
        format!("worker of slot {slot} is killed: the next one is started as after a crash\n")
    })
}

pub(super) fn signal(client: &mut ControlClient, slot: u16, signal: String) -> Result<(), Failure> {
    let text = format!("worker of slot {slot} got {signal}\n");
    client.show(&Request::Signal { slot, signal }, |_: &Value, _| text)
}

pub(super) fn log_level(client: &mut ControlClient, levels: Option<String>) -> Result<(), Failure> {
    client.show(&Request::LogLevel { levels }, |levels: &Levels, _| {
        format!("log levels: {}\n", clean(&levels.levels))
    })
}

pub(super) fn rebalance(client: &mut ControlClient) -> Result<(), Failure> {
    client.show(&Request::Rebalance {}, rebalanced_text)
}

fn rebalanced_text(rebalanced: &Rebalanced, _: Look) -> String {
    let Rebalanced { clients, sessions } = *rebalanced;
    let forgotten = format!(
        "{} forgotten that went elsewhere: each goes to the first of its slots again\n",
        counted(clients, "client")
    );
    match sessions {
        0 => forgotten,
        1 => forgotten + "1 session moves there now\n",
        _ => forgotten + &format!("{sessions} sessions move there now, rebalance_rate a second\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_workers_may_have_a_sign() {
        for right in ["4", "+1", "-1"] {
            assert_eq!(number(right).as_deref(), Ok(right));
        }
        for wrong in ["", "+", "many", "1.5", "--1", "+-1", "99999999999"] {
            assert!(number(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sessions_that_move_are_told_of_where_there_are_any() {
        let text =
            |clients, sessions| rebalanced_text(&Rebalanced { clients, sessions }, Look::default());
        assert_eq!(text(1, 0).lines().count(), 1);
        assert!(text(2, 1).ends_with("\n1 session moves there now\n"), "{}", text(2, 1));
        assert!(text(0, 30).contains("\n30 sessions move there now"), "{}", text(0, 30));
    }

    #[test]
    fn it_is_said_when_scaling_comes_later() {
        let text =
            |from, to, deferred| scaled_text(&Scaled { from, to, deferred }, Look::default());
        assert_eq!(text(2, 1, false), "from 2 to 1 worker\n");
        assert_eq!(text(2, 2, false), "2 workers already\n");
        assert!(text(2, 3, true).contains("when the rolling restart"));
    }
}

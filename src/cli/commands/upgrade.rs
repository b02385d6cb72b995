//! `upgrade`: waits until the primary is its own successor.

use std::thread::sleep;
use std::time::Duration;

use serde_json::{Value, json};

use crate::cli::client::{ControlClient, turning};
use crate::cli::failure::Failure;
use crate::control::client::{ClientError, Deadline};
use crate::control::protocol::Request;
use crate::control::report::Status;
use crate::protocol::ids::Timestamp;

const GOES_ON: &str = "not waited for any more: `sticky-lb status` says which release runs";

/// How long the successor may take until it answers.
const TIMEOUT: Duration = Duration::from_secs(15);
/// How long one answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);

pub(super) fn upgrade(client: &mut ControlClient) -> Result<(), Failure> {
    let before: Status = client.ask(&Request::Status {})?;
    let mut waiting = client.begin(&Request::Upgrade {}, GOES_ON)?;
    let after = turning("the new program looks at what is left to it".to_owned(), || {
        match waiting.finish() {
            // It may have begun before the answer was out.
            Ok(_) | Err(Failure::Client(ClientError::Ended | ClientError::Lost(_))) => {}
            Err(error) => return Err(error),
        }
        successor(client, &before)
    })?;
    let (from, to, pid) = (before.version, after.version, after.pid);
    let said = json!({"pid": pid, "from": from, "to": to, "upgrades": after.upgrades});
    client.say(said, |_: &Value, _| {
        format!("primary {pid} runs sticky-lb {to} now, before {from}: workers have not noticed\n")
    })
}

/// Waits until it answers.
fn successor(client: &ControlClient, before: &Status) -> Result<Status, Failure> {
    let begun = Timestamp::now();
    while Timestamp::now().since(begun) < TIMEOUT {
        // Between the two nobody answers, or the one before does still.
        let answer =
            client.ask_until::<Status>(&Request::Status {}, Deadline::after(ANSWER_TIMEOUT));
        if let Ok(status) = answer {
            if status.upgrades > before.upgrades {
                return Ok(status);
            }
            if status.failed_upgrades > before.failed_upgrades {
                let reason = status.upgrade_failed.unwrap_or_default();
                return Err(Failure::Failed(format!("primary stays as it was: {reason}")));
            }
            if status.recoveries > before.recoveries {
                let text = "primary has crashed before it was upgraded, another one goes on: look at its log";
                return Err(Failure::Failed(text.to_owned()));
            }
        }
        sleep(LOOK);
    }
    Err(Failure::Failed("no new primary has come within 15 s: look at its log".to_owned()))
}

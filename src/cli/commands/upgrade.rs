//! `upgrade`: waits until the primary is its own successor.

use std::path::PathBuf;
use std::thread::sleep;

use serde_json::{Value, json};

use crate::cli::client::{ControlClient, turning};
use crate::cli::commands::reload::complain_of;
use crate::cli::failure::Failure;
use crate::cli::successor::{LOOK, TIMEOUT, look};
use crate::cli::units::clean;
use crate::control::client::ClientError;
use crate::control::protocol::Request;
use crate::control::report::{Status, Upgrading};
use crate::protocol::ids::Timestamp;

const GOES_ON: &str = "not waited for any more: `sticky-lb status` says which release runs";

pub(super) fn upgrade(client: &mut ControlClient) -> Result<(), Failure> {
    let before: Status = client.ask(&Request::Status {})?;
    let mut waiting = client.begin(&Request::Upgrade {}, GOES_ON)?;
    let (upgrading, after) =
        turning("the new program looks at what is left to it".to_owned(), || {
            let upgrading: Upgrading = match waiting.finish() {
                Ok(answer) => serde_json::from_value(answer).map_err(ClientError::Answer)?,
                // It may have begun before the answer was out.
                Err(Failure::Client(ClientError::Ended | ClientError::Lost(_))) => {
                    Upgrading::default()
                }
                Err(error) => return Err(error),
            };
            let after = successor(client, &before, upgrading.control.as_ref().map(PathBuf::from))?;
            Ok((upgrading, after))
        })?;
    let (from, to, pid) = (before.version, after.version, after.pid);
    let said = json!({
        "pid": pid, "from": from, "to": to, "upgrades": after.upgrades,
        "not_applied": upgrading.not_applied,
    });
    let address = (before.listening != after.listening)
        .then(|| format!("clients connect to {} now\n", clean(&after.listening.join(", "))));
    client.say(said, |_: &Value, _| {
        format!("primary {pid} runs sticky-lb {to} now, before {from}: workers have not noticed\n")
            + &address.unwrap_or_default()
    })?;
    if !client.json {
        complain_of(&upgrading.not_applied);
    }
    Ok(())
}

/// Waits until it answers: where the primary before did, or at a control socket of another name.
fn successor(
    client: &ControlClient,
    before: &Status,
    next: Option<PathBuf>,
) -> Result<Status, Failure> {
    let begun = Timestamp::now();
    while Timestamp::now().since(begun) < TIMEOUT {
        // Between the two nobody answers, or the one before does still.
        if let Some((_, status)) = look(&client.path, next.as_ref(), before.pid) {
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

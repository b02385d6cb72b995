//! What workers speak, and how Node workers are spoken to.

use std::ffi::OsString;
use std::str::FromStr;

use clap::{Args, ValueEnum};

use crate::bus::rules::Rule;
use crate::frontend::steering::program::Family;
use crate::link::interface::{Dispatch, Interface, InterfaceChoice};
use crate::link::node::settings::{HandOverBy, NodeSettings, TicketKeys};
use crate::settings::problems::Problems;
use crate::settings::units::signal;
use crate::supervisor::command::{WorkerCommand, names_listener};

/// The interface to workers.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Interface")]
pub struct InterfaceArgs {
    /// Choose how workers get their connections. `native`: by the protocol of this project's library. `node`: as
    /// workers of Node's cluster, with nothing changed in the program. `listen`: each by a listening socket of its own,
    /// as by systemd's socket activation (`LISTEN_FDS`; `{fd}` in the command is its number). `auto`: `listen` if the
    /// command has `{fd}` or `fd://` in it, else as the worker does first.
    #[arg(long, value_enum, value_name = "NAME", default_value = "auto")]
    pub interface: InterfaceArg,
    /// Choose who picks the worker of a client. `primary`: the primary, which accepts the connection and hands it over.
    /// `kernel`: the kernel, by the client's address; the primary takes no part, and what a worker has accepted dies
    /// with it. `os`: the kernel as it likes, and clients don't stick [default: primary, for listen workers kernel].
    #[arg(long, value_enum, value_name = "NAME")]
    pub dispatch: Option<DispatchArg>,
    /// Listen on these addresses where workers have listening sockets of their own and no host is given. `ipv4`: programs
    /// see their clients' addresses as they are. `dual`: IPv6, too; most programs see IPv4 addresses as IPv6 then, some
    /// garbage.
    #[arg(long, value_enum, value_name = "NAME", default_value = "ipv4")]
    pub listen_family: FamilyArg,
    /// Hand connections to Node workers as a message of the program's own: `sticky-session`, `sticky-balance`,
    /// `socket.io`, any text, or an object in JSON [default: to the server that listens on the port].
    #[arg(long, value_name = "MESSAGE")]
    pub node_message: Option<String>,
    /// Handle messages that programs of Node workers send: `guide` for those of tutorials (increment, broadcast,
    /// request-complete and others), `socket.io` for its cluster adapter, `log4js`, `prom-client`, `off` for none, and
    /// TYPE=ACTION for others, where ACTION is `increment`, `get-counter`, `broadcast`, `request`, `load`, `replace`
    /// or `ignore`, with the type of the answer, or the field of the load, after a colon [default: socket.io, log4js].
    #[arg(long, value_name = "NAME", action = clap::ArgAction::Append, value_parser = Rule::from_str)]
    pub node_messages: Vec<Rule>,
    /// End workers that get no order by this signal, once their clients have gone or their time is up [default: INT,
    /// for listen workers TERM, for nginx QUIT].
    #[arg(long, value_name = "SIGNAL", value_parser = signal)]
    pub stop_signal: Option<i32>,
    /// Send Node workers this message when they are to end, before the signal: `true` for PM2's "shutdown", a text,
    /// or an object in JSON.
    #[arg(long, value_name = "MESSAGE", num_args = 0..=1)]
    #[arg(default_missing_value = "true", default_value = "false")]
    pub shutdown_with_message: String,
}

/// How workers get their connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum InterfaceArg {
    /// As the worker does first.
    Auto,
    /// By the protocol of the library.
    Native,
    /// As workers of Node's cluster.
    Node,
    /// By a listening socket.
    Listen,
}

/// Who picks the worker of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DispatchArg {
    /// The primary.
    Primary,
    /// The kernel, by the client's address.
    Kernel,
    /// The kernel, as it likes.
    Os,
}

/// Addresses to listen on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FamilyArg {
    /// Those of IPv4.
    Ipv4,
    /// Those of IPv6 and IPv4, by one socket.
    Dual,
}

impl From<FamilyArg> for Family {
    fn from(arg: FamilyArg) -> Self {
        match arg {
            FamilyArg::Ipv4 => Self::V4,
            FamilyArg::Dual => Self::Dual,
        }
    }
}

impl InterfaceArgs {
    /// `command` is empty for the demo.
    pub(super) fn interface(&self, command: &[OsString]) -> InterfaceChoice {
        let listens = self.dispatch.is_some_and(|it| it != DispatchArg::Primary)
            || command.iter().any(|word| names_listener(word));
        match self.interface {
            InterfaceArg::Auto if command.is_empty() => InterfaceChoice::Only(Interface::Native),
            InterfaceArg::Auto if listens => InterfaceChoice::Only(Interface::Listen),
            InterfaceArg::Auto => InterfaceChoice::Auto,
            InterfaceArg::Native => InterfaceChoice::Only(Interface::Native),
            InterfaceArg::Node => InterfaceChoice::Only(Interface::Node),
            InterfaceArg::Listen => InterfaceChoice::Only(Interface::Listen),
        }
    }

    /// Who picks the worker, for workers that speak this.
    pub(super) fn dispatch(&self, interface: InterfaceChoice, problems: &mut Problems) -> Dispatch {
        let listens = interface == InterfaceChoice::Only(Interface::Listen);
        match self.dispatch {
            None if listens => Dispatch::Kernel,
            None => Dispatch::Primary,
            Some(DispatchArg::Primary) => {
                if listens {
                    let text = "is primary, and listen workers accept their clients themselves: \
                                choose kernel or os, or another interface";
                    problems.note("dispatch", text.to_owned());
                }
                Dispatch::Primary
            }
            Some(arg) => {
                let is_node = interface == InterfaceChoice::Only(Interface::Node);
                if !listens && !is_node {
                    let text = "is for listen and Node workers so far: native workers get their connections from \
                                the primary";
                    problems.note("dispatch", text.to_owned());
                }
                if is_node && self.node_message.is_some() {
                    let text = "needs dispatch = \"primary\", which hands connections over";
                    problems.note("node_message", text.to_owned());
                }
                if arg == DispatchArg::Os { Dispatch::Os } else { Dispatch::Kernel }
            }
        }
    }

    /// The signal by which workers of this command end.
    pub(super) fn stop_signal(&self, interface: InterfaceChoice, command: &WorkerCommand) -> i32 {
        self.stop_signal.unwrap_or_else(|| command.stop_signal(interface).as_raw())
    }

    pub(super) fn node(&self, wait_ready: Option<bool>, problems: &mut Problems) -> NodeSettings {
        if self.interface == InterfaceArg::Native && self.node_message.is_some() {
            let text = "is for Node workers, and interface is native".to_owned();
            problems.note("node_message", text);
        }
        let shutdown_message = match self.shutdown_with_message.as_str() {
            "false" => None,
            "true" => Some(json("shutdown")),
            text => Some(json(text)),
        };
        NodeSettings {
            wait_ready: wait_ready == Some(true),
            hand_over_by: self.node_message.as_deref().map_or(HandOverBy::Listening, hand_over_by),
            shutdown_message,
            ticket_keys: TicketKeys::default(),
        }
    }
}

/// The message for a program that takes its connections itself.
fn hand_over_by(text: &str) -> HandOverBy {
    HandOverBy::Message(match text {
        // The message of tutorials, and guides that follow them.
        "sticky-session" => json("sticky-session:connection"),
        // The package sticky-session.
        "sticky-balance" => json("sticky:balance"),
        // The package @socket.io/sticky. Without `data` version 1 ends with an error.
        "socket.io" => r#"{"type":"sticky:connection","data":""}"#.to_owned(),
        text => json(text),
    })
}

/// An object stays as it is; anything else is a text.
fn json(text: &str) -> String {
    match serde_json::from_str::<serde_json::Value>(text) {
        Ok(object @ serde_json::Value::Object(_)) => object.to_string(),
        _ => serde_json::Value::from(text).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_texts_objects_or_those_of_packages() {
        for (text, expected) in [
            ("sticky-session", "\"sticky-session:connection\""),
            ("sticky-balance", "\"sticky:balance\""),
            ("socket.io", r#"{"type":"sticky:connection","data":""}"#),
            ("own", "\"own\""),
            ("5", "\"5\""),
            (r#"{ "type": "socket" }"#, r#"{"type":"socket"}"#),
            ("a \"quoted\" text", r#""a \"quoted\" text""#),
        ] {
            assert_eq!(hand_over_by(text), HandOverBy::Message(expected.to_owned()), "{text}");
        }
    }
}

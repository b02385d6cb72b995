//! The way in for operators: the endpoints, and the thread that serves them. What others have removed of it is
//! made again.

use std::os::fd::OwnedFd;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::bus::COUNTER;
use crate::config::Config;
use crate::control::history::{EVENTS, History};
use crate::control::links::Notes;
use crate::control::server::Server;
use crate::handover::descriptors::Descriptors;
use crate::primary::endpoints::{Endpoints, Renewed};
use crate::system::store::Store;

/// How often is looked.
const INTERVAL: Duration = Duration::from_secs(5);

/// Memory that a successor goes on with.
#[derive(Debug)]
pub(super) struct Left {
    /// The last events.
    pub(super) history: History,
    /// The counter of workers' programs.
    pub(super) counter: Option<OwnedFd>,
}

/// The way in for operators.
#[derive(Debug)]
pub(super) struct Operators {
    endpoints: Endpoints,
    /// Ends when it is dropped.
    server: Server,
    /// What the server says of this primary.
    notes: watch::Sender<Notes>,
    /// Left to a successor.
    left: Left,
    look: Interval,
    store: Option<Store>,
    /// That it cannot be made again is said once.
    has_failed: bool,
}

impl Operators {
    /// To be called in a runtime.
    pub(super) fn new(
        endpoints: Endpoints,
        server: Server,
        notes: watch::Sender<Notes>,
        left: Left,
        store: Option<Store>,
    ) -> Self {
        let mut look = interval(INTERVAL);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { endpoints, server, notes, left, look, store, has_failed: false }
    }

    /// When it is time to look. May be dropped and called again.
    pub(super) async fn due(&mut self) {
        self.look.tick().await;
    }

    /// Makes again what is not there any more.
    pub(super) fn renew(&mut self) {
        match self.endpoints.renew() {
            Ok(Renewed::Nothing) => self.has_failed = false,
            Ok(Renewed::TokenFile) => {
                self.has_failed = false;
                tracing::warn!(
                    "file of the admin token was removed by somebody else: written again"
                );
            }
            Ok(Renewed::Socket(listener, path)) => {
                self.has_failed = false;
                let name = path.display();
                tracing::warn!(path = %name, "control socket was removed by somebody else: bound again");
                self.server.serve_also(listener);
                self.store.iter().for_each(|store| self.endpoints.keep(store));
                self.notes.send_modify(|notes| notes.control = Some(path));
            }
            Err(error) if !self.has_failed => {
                self.has_failed = true;
                tracing::warn!(error, "control socket is gone and cannot be bound: tried again");
            }
            Err(_) => {}
        }
    }

    /// The settings were read again.
    pub(super) fn set_config(&self, config: &Config) {
        self.notes.send_modify(|notes| {
            notes.not_renewed.clear();
            notes.configuration.clone_from(&config.file);
        });
    }

    /// The command that workers run, if it has changed.
    pub(super) fn set_command(&self, words: Option<Vec<String>>) {
        let Some(words) = words else { return };
        self.notes.send_modify(|notes| notes.command = words);
    }

    /// The descriptors, for a successor.
    pub(super) fn into_descriptors(self) -> Descriptors {
        let mut descriptors = self.endpoints.into_descriptors();
        let memory = [(EVENTS, self.left.history.memory()), (COUNTER, self.left.counter)];
        for (name, memory) in memory {
            if let Some(memory) = memory {
                descriptors.insert(name, memory);
            }
        }
        descriptors
    }
}

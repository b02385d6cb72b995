//! The task that handles programs' messages, on a thread of its own: a large message takes as long as it takes, and
//! neither hand-offs nor supervision wait.
//!
//! Owns what is known of programs. It ends when the frontend does.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use serde_json::json;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};

use crate::bus::counter::SharedCounter;
use crate::bus::decide::{Decisions, Reply, line};
use crate::bus::prom_client;
use crate::bus::rules::Rules;
use crate::link::programs::{
    BusEnd, Dropped, ProgramCommand, ProgramCommands, ProgramMessage, Recipients, RequestCounts,
};
use crate::protocol::ids::WorkerId;
use crate::supervisor::output::Output;

/// Questions for metrics that may wait. Further ones wait before.
const MAX_QUESTIONS: usize = 16;

/// How long a worker may take to tell its metrics that has told them before.
const METRICS_TIMEOUT: Duration = Duration::from_secs(1);

/// How long it is waited for others: most programs have no prom-client, and don't answer.
const FIRST_METRICS_TIMEOUT: Duration = Duration::from_millis(250);

/// Messages that are handled before load is passed on: of each worker the last one counts.
const MAX_BATCH: usize = 256;

/// The way to the task.
#[derive(Clone, Debug)]
pub struct BusHandle {
    questions: mpsc::Sender<oneshot::Sender<String>>,
    rules: Arc<watch::Sender<Arc<Rules>>>,
    dropped: Arc<Dropped>,
}

impl BusHandle {
    /// Goes on with other rules.
    pub fn change(&self, rules: &Rules) {
        self.rules.send_replace(Arc::new(rules.clone()));
    }

    /// The metrics of all programs, as text; empty if they are not collected.
    pub async fn metrics(&self) -> String {
        if !self.rules.borrow().libraries.prom_client {
            return String::new();
        }
        let (reply, answer) = oneshot::channel();
        match self.questions.send(reply).await {
            Ok(()) => answer.await.unwrap_or_default(),
            // The primary is about to end.
            Err(_) => String::new(),
        }
    }

    /// Messages of programs that were dropped, and messages to programs.
    #[must_use]
    pub fn dropped(&self) -> (u64, u64) {
        self.dropped.counts()
    }
}

/// Starts the task, which goes on with the counter of a primary before. Returns the way to it, and the counter's
/// memory for a successor.
///
/// # Errors
///
/// If the kernel gives no thread.
pub fn start(
    end: BusEnd,
    rules: &Rules,
    output: Output,
    memory: Option<OwnedFd>,
) -> io::Result<(BusHandle, Option<OwnedFd>)> {
    let BusEnd { messages, commands, dropped } = end;
    let (changed, rules) = watch::channel(Arc::new(rules.clone()));
    let (questions, asked) = mpsc::channel(MAX_QUESTIONS);
    let counter = SharedCounter::resume(memory);
    let memory = counter.memory();
    let service = Service {
        decisions: Decisions::new(counter.value()),
        counter,
        rules,
        commands,
        output,
        loads: BTreeMap::new(),
        collection: Collection::default(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    thread::Builder::new()
        .name("bus".to_owned())
        .spawn(move || runtime.block_on(service.run(messages, asked)))?;
    Ok((BusHandle { questions, rules: Arc::new(changed), dropped }, memory))
}

/// The task.
struct Service {
    decisions: Decisions,
    counter: SharedCounter,
    rules: watch::Receiver<Arc<Rules>>,
    commands: ProgramCommands,
    output: Output,
    /// What programs have said of their requests and was not passed on.
    loads: BTreeMap<WorkerId, RequestCounts>,
    collection: Collection,
}

/// Metrics that are being collected.
#[derive(Default)]
struct Collection {
    /// The number of the question.
    request: u64,
    /// The ones who wait for the answers.
    waiting: Vec<oneshot::Sender<String>>,
    until: Option<Instant>,
    answers: BTreeMap<WorkerId, String>,
    /// Workers that have answered the question before.
    known: HashSet<WorkerId>,
}

impl Service {
    async fn run(
        mut self,
        mut messages: mpsc::Receiver<ProgramMessage>,
        mut questions: mpsc::Receiver<oneshot::Sender<String>>,
    ) {
        loop {
            let until = self.collection.until;
            let goes_on = tokio::select! {
                message = messages.recv() => match message {
                    Some(message) => self.handle(message, &mut messages).await,
                    None => false,
                },
                Some(question) = questions.recv() => self.ask(question).await,
                () = sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => {
                    self.collection.end();
                    true
                }
            };
            if !goes_on {
                return;
            }
        }
    }

    /// Handles a message and some of those that wait; false if the frontend has ended.
    async fn handle(
        &mut self,
        first: ProgramMessage,
        more: &mut mpsc::Receiver<ProgramMessage>,
    ) -> bool {
        let rules = Arc::clone(&self.rules.borrow());
        let (mut next, mut room) = (Some(first), MAX_BATCH);
        while let Some(message) = next {
            if !self.take(&message, &rules).await {
                return false;
            }
            room -= 1;
            next = if room > 0 { more.try_recv().ok() } else { None };
        }
        for (worker, noted) in std::mem::take(&mut self.loads) {
            if !self.commands.send(ProgramCommand::Requests(worker, noted)).await {
                return false;
            }
        }
        true
    }

    async fn take(&mut self, message: &ProgramMessage, rules: &Rules) -> bool {
        let worker = message.worker;
        let Some(bytes) = &message.bytes else {
            self.decisions.ended(worker);
            self.loads.remove(&worker);
            self.collection.ended(worker);
            return true;
        };
        let replies = self.decisions.on(bytes, worker, rules);
        // Before anything is sent: no program is told a value that is lost.
        self.counter.set(self.decisions.counter());
        for reply in replies {
            if !self.carry_out(worker, reply).await {
                return false;
            }
        }
        true
    }

    async fn carry_out(&mut self, worker: WorkerId, reply: Reply) -> bool {
        match reply {
            Reply::Tell(recipients, line) => {
                return self.commands.send(ProgramCommand::Tell(recipients, line)).await;
            }
            Reply::Replace => return self.commands.send(ProgramCommand::Replace(worker)).await,
            Reply::Requests(noted) => {
                let sum = self.loads.entry(worker).or_default();
                sum.finished += noted.finished;
                sum.open = noted.open.or(sum.open);
            }
            Reply::Print(lines) => self.output.print(worker, lines),
            Reply::Metrics { request, metrics } => {
                self.collection.answered(worker, request, metrics);
            }
            Reply::Missing { library, advice } => tracing::warn!(
                slot = worker.slot.0,
                library,
                advice,
                "a library in a worker asks Node's primary for what this primary doesn't do",
            ),
            Reply::Unknown(kind) => tracing::info!(
                slot = worker.slot.0,
                kind,
                "message of a worker's program does nothing: node_messages has no action for its type",
            ),
        }
        true
    }

    /// Asks all programs for their metrics, unless that is being done.
    async fn ask(&mut self, question: oneshot::Sender<String>) -> bool {
        self.collection.waiting.push(question);
        if self.collection.until.is_some() {
            return true;
        }
        let asked = json!({"type": prom_client::QUESTION, "requestId": self.collection.begin()});
        self.commands.send(ProgramCommand::Tell(Recipients::All, line(&asked))).await
    }
}

impl Collection {
    fn begin(&mut self) -> u64 {
        let has_known = !self.known.is_empty();
        let timeout = if has_known { METRICS_TIMEOUT } else { FIRST_METRICS_TIMEOUT };
        self.request += 1;
        self.until = Some(Instant::now() + timeout);
        self.request
    }

    fn answered(&mut self, worker: WorkerId, request: u64, metrics: Option<String>) {
        let is_awaited = self.until.is_some() && request == self.request;
        if is_awaited {
            self.answers.insert(worker, metrics.unwrap_or_default());
            // Else the first one would be all.
            if !self.known.is_empty() && self.is_complete() {
                self.end();
            }
        } else {
            self.known.insert(worker);
        }
    }

    fn is_complete(&self) -> bool {
        self.known.iter().all(|worker| self.answers.contains_key(worker))
    }

    fn ended(&mut self, worker: WorkerId) {
        self.known.remove(&worker);
        if self.until.is_some() && !self.known.is_empty() && self.is_complete() {
            self.end();
        }
    }

    /// Answers with what has come. A worker that did not answer is not waited for again.
    fn end(&mut self) {
        self.until = None;
        let answers = std::mem::take(&mut self.answers);
        self.known = answers.keys().copied().collect();
        let answers: Vec<_> = answers.into_values().collect();
        let text = prom_client::text(&answers);
        for waiting in self.waiting.drain(..) {
            // The one that has asked may not wait any more.
            let _ = waiting.send(text.clone());
        }
    }
}

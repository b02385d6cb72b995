//! What is done to workers and primary, one act after the other. Only says what; `primary` and
//! `faults` do it.

/// Something that is done, so many times.
#[derive(Clone, Debug)]
pub(crate) struct Act {
    pub(crate) title: String,
    pub(crate) deed: Deed,
    pub(crate) times: u32,
}

/// What is done.
#[derive(Clone, Debug)]
pub(crate) enum Deed {
    /// An operator types this after `sticky-lb`.
    Order(Vec<String>),
    /// The primary becomes its successor.
    Upgrade,
    /// The same with a successor that would not go on: nothing happens.
    RefusedUpgrade(Broken),
    /// kill -9 of the primary.
    Crash,
    /// The first is begun, and the second is done in the middle of it.
    During(Vec<String>, Box<Self>),
    /// kill -9 of workers, slot after slot.
    WorkerCrash,
}

/// What is wrong with a successor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// Its program doesn't start.
    Program,
    /// The configuration is wrong.
    Configuration,
    /// The state that it finds is of a version that it doesn't know.
    State,
}

impl Act {
    fn order(title: impl Into<String>, command: &str) -> Self {
        Self { title: title.into(), deed: Deed::Order(words(command)), times: 1 }
    }

    fn repeated(title: &str, times: u32, deed: Deed) -> Self {
        Self { title: title.to_owned(), deed, times }
    }
}

impl Deed {
    /// As it is told to people.
    pub(crate) fn words(&self) -> String {
        match self {
            Self::Order(words) => format!("sticky-lb {}", words.join(" ")),
            Self::Upgrade | Self::RefusedUpgrade(_) => "sticky-lb upgrade".to_owned(),
            Self::Crash => "kill -9 PRIMARY".to_owned(),
            Self::During(words, deed) => {
                format!("sticky-lb {} & {}", words.join(" "), deed.words())
            }
            Self::WorkerCrash => "kill -9 WORKER".to_owned(),
        }
    }
}

fn words(command: &str) -> Vec<String> {
    command.split(' ').map(str::to_owned).collect()
}

/// How often what is done.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Numbers {
    /// Rolling restarts, one after the other.
    #[arg(long, default_value_t = 20, value_name = "N")]
    pub(crate) restarts: u32,
    /// Upgrades of the primary; a tenth as many in the middle of rolling restarts.
    #[arg(long, default_value_t = 50, value_name = "N")]
    pub(crate) upgrades: u32,
    /// Times the primary is killed; a tenth as many in the middle of rolling restarts.
    #[arg(long, default_value_t = 50, value_name = "N")]
    pub(crate) crashes: u32,
    /// Times a worker is killed. Those of its clients that were at rest go on.
    #[arg(long, default_value_t = 100, value_name = "N")]
    pub(crate) worker_crashes: u32,
}

impl Numbers {
    /// No more than these.
    pub(crate) fn at_most(&mut self, most: Self) {
        self.restarts = self.restarts.min(most.restarts);
        self.upgrades = self.upgrades.min(most.upgrades);
        self.crashes = self.crashes.min(most.crashes);
        self.worker_crashes = self.worker_crashes.min(most.worker_crashes);
    }

    /// All acts, in their order.
    pub(crate) fn acts(self) -> Vec<Act> {
        let restart = |n| Act::order(format!("Rolling restart {n} of {}", self.restarts), "reload");
        let mut acts: Vec<Act> = (1..=self.restarts).map(restart).collect();
        acts.extend([
            Act::order("Twice as many workers", "scale 8"),
            Act::order("Everybody to the worker that they would have now", "rebalance"),
            Act::order("Few workers", "scale 2"),
            Act::order("As many as at first", "scale 4"),
            Act::order("Everybody to the worker that they would have now", "rebalance"),
            Act::order("Slot 1 out of service", "drain 1 --wait"),
            Act::order("Slot 1 back into service", "undrain 1"),
            Act::order("One slot restarted", "restart 2"),
        ]);
        acts.extend(self.replacements(self.upgrades, Deed::Upgrade, "Upgrades of the primary"));
        if self.upgrades > 0 {
            let broken = [
                ("An upgrade to a program that doesn't start", Broken::Program),
                ("An upgrade with a configuration that is wrong", Broken::Configuration),
                ("An upgrade with a state of another version", Broken::State),
            ];
            let refused = |(title, broken)| Act::repeated(title, 1, Deed::RefusedUpgrade(broken));
            acts.extend(broken.map(refused));
        }
        acts.extend(self.replacements(self.crashes, Deed::Crash, "The primary is killed"));
        if self.worker_crashes > 0 {
            let title = "Workers are killed";
            acts.push(Act::repeated(title, self.worker_crashes, Deed::WorkerCrash));
        }
        acts
    }

    fn replacements(self, times: u32, deed: Deed, title: &str) -> Vec<Act> {
        if times == 0 {
            return Vec::new();
        }
        let during = Deed::During(words("reload"), Box::new(deed.clone()));
        let title_during = format!("{title}, in the middle of rolling restarts");
        vec![
            Act::repeated(title, times, deed),
            Act::repeated(&title_during, times.div_ceil(10), during),
        ]
    }
}

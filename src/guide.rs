//! The guide, from the first command to the last byte.
//!
//! | chapter | |
//! |---|---|
//! | [Getting started](getting_started) | the demo, a worker in Rust, one in Python, a configuration file |
//! | [How it works](how_it_works) | slots, affinity, the hand-off, a worker's life, scaling |
//! | [Which state, which scaling](choosing) | processes or threads; stickiness, a store or a token |
//! | [Deploys and drains](deploys_and_drains) | rolling restarts, and what happens to open connections |
//! | [Migration](migration) | WebSockets that go on in another worker |
//! | [Upgrade and crash](upgrade_and_crash) | of the primary, and of a worker |
//! | [Configuration](configuration) | every key |
//! | [Operating](operating) | commands, signals, the admin listener, output |
//! | [Metrics and alerts](metrics_and_alerts) | every metric |
//! | [Load tests](load_tests) | many clients from one machine, and figures that mislead |
//! | [systemd and containers](systemd_and_containers) | units, images, probes |
//! | [Node programs](node_programs) | unmodified servers for Node as workers |
//! | [Any server](any_server) | programs on a listening socket: Python, Ruby, Go, nginx and others |
//! | [Workers in Rust](workers_in_rust) | the library |
//! | [Workers in any language](protocol) | the protocol |
//! | [Is it a good worker?](conformance) | `sticky-lb conformance` checks a worker program |
//! | [From `pm2 start` to here](from_pm2) | PM2's commands, one by one |
//! | [Coming from PM2](coming_from_pm2) | the keys of its file |
//! | [Glossary](glossary) | one word for each idea |
//!
//! # How it is made
//!
//! A chapter is a file in `src/guide`, readable on a forge as it is, and a module here, so that its Rust
//! code is compiled. Its links are references that are defined at its end, as paths of files. Here the
//! definitions of `links.md` come first, and the first definition of a name is the one that counts, so
//! that the same link is an item's. Images work in the same way: a path on a forge, a `data:` URI here,
//! made of the base64 text beside each image.

pub mod getting_started {
    #![doc = include_str!("guide/links.md")]
    #![doc = include_str!("guide/getting-started.md")]
}

pub mod how_it_works {
    #![doc = include_str!("guide/links.md")]
    #![doc = concat!(
        "[growth-memory]: data:image/svg+xml;base64,",
        include_str!("guide/images/growth-memory.svg.base64"),
        "[growth-pause]: data:image/svg+xml;base64,",
        include_str!("guide/images/growth-pause.svg.base64"),
        "[growth-take-over]: data:image/svg+xml;base64,",
        include_str!("guide/images/growth-take-over.svg.base64"),
        "[growth-hand-off]: data:image/svg+xml;base64,",
        include_str!("guide/images/growth-hand-off.svg.base64"),
    )]
    #![doc = include_str!("guide/how-it-works.md")]
}

pub mod choosing {
    #![doc = include_str!("guide/links.md")]
    #![doc = include_str!("guide/choosing.md")]
}

pub mod deploys_and_drains {
    #![doc = include_str!("guide/links.md")]
    #![doc = include_str!("guide/deploys-and-drains.md")]
}

pub mod migration {
    #![doc = include_str!("guide/links.md")]
    #![doc = include_str!("guide/migration.md")]
}

pub mod upgrade_and_crash {
    #![doc = include_str!("guide/links.md")]
    #![doc = include_str!("guide/upgrade-and-crash.md")]
}

pub mod configuration {
    #![doc = include_str!("guide/links.md")]
    #![doc = include_str!("guide/configuration.md")]
}

pub mod operating {
    #![doc = include_str!("guide/links.md")]
    #![doc = concat!(
        "[dashboard]: data:image/png;base64,",
        include_str!("guide/images/dashboard.png.base64"),
        "[terminal]: data:image/svg+xml;base64,",
        include_str!("guide/images/terminal.svg.base64"),
    )]
    #![doc = include_str!("guide/operating.md")]
}

pub mod metrics_and_alerts {
    #![doc = include_str!("guide/links.md")]
    #![doc = include_str!("guide/metrics-and-alerts.md")]
}

pub mod load_tests {
    #![doc = include_str!("guide/links.md")]
    #![doc = include_str!("guide/load-tests.md")]
}

pub mod systemd_and_containers {
    #![doc = include_str!("guide/links.md")]
    #![doc = include_str!("guide/systemd-and-containers.md")]
}

pub mod node_programs {
    #![doc = include_str!("guide/links.md")]
    #![doc = include_str!("guide/node-programs.md")]
}

pub mod any_server {
    #![doc = include_str!("guide/links.md")]
    #![doc = include_str!("guide/any-server.md")]
}

pub mod workers_in_rust {
    #![doc = include_str!("guide/links.md")]
    #![doc = include_str!("guide/workers-in-rust.md")]
}

pub mod protocol {
    #![doc = include_str!("guide/links.md")]
    #![doc = include_str!("guide/protocol.md")]
}

pub mod conformance {
    #![doc = include_str!("guide/links.md")]
    #![doc = include_str!("guide/conformance.md")]
}

pub mod from_pm2 {
    #![doc = include_str!("guide/links.md")]
    #![doc = include_str!("guide/from-pm2.md")]
}

pub mod coming_from_pm2 {
    #![doc = include_str!("guide/links.md")]
    #![doc = include_str!("guide/coming-from-pm2.md")]
}

pub mod glossary {
    #![doc = include_str!("guide/links.md")]
    #![doc = include_str!("guide/glossary.md")]
}

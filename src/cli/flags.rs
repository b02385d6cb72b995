//! What may be typed, and the settings that it stands for.
//!
//! A flag is here with its name, its default, its help and its check; nothing of it goes further
//! than the settings.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

use crate::config::{AffinitySettings, Config};
use crate::frontend::affinity::{DigestKind, Prefixes};
use crate::frontend::listener::ListenerSettings;
use crate::frontend::placement::Placement;
use crate::frontend::router::RouterSettings;
use crate::frontend::slot_table::SlotSettings;
use crate::supervisor::command::WorkerCommand;
use crate::supervisor::lifecycle::LifecycleSettings;
use crate::supervisor::limits::LimitSettings;
use crate::supervisor::output::{LogFormat, OutputSettings, Prefix};
use crate::supervisor::restart::RestartPolicy;
use crate::supervisor::rollout::RolloutSettings;

/// One port, many worker processes, every client stays with its own.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true, args_override_self = true)]
pub(super) struct Cli {
    #[command(flatten)]
    pub(super) run: RunArgs,
    #[command(subcommand)]
    pub(super) command: Option<SubCommand>,
}

#[derive(Debug, Subcommand)]
pub(super) enum SubCommand {
    /// What is run as a worker where no command is given.
    #[command(hide = true)]
    DemoWorker {
        /// Serve this address itself, without a primary, sharing it with others that do (for
        /// benchmarks).
        #[arg(long, value_name = "ADDRESS")]
        listen: Option<SocketAddr>,
    },
}

#[derive(Debug, Args)]
pub(super) struct RunArgs {
    /// Worker processes: a number, `max` for one per CPU, or -K for K fewer than that.
    #[arg(short, long, value_name = "N|max|-K", default_value = "max", value_parser = workers)]
    #[arg(allow_hyphen_values = true)]
    workers: u16,
    /// Port to listen on; 0 for a free one.
    #[arg(short, long, default_value_t = 3000)]
    port: u16,
    /// Address or name to listen on [default: all addresses, IPv6 and IPv4].
    #[arg(long)]
    host: Option<String>,
    /// Connections that the kernel keeps until they are accepted.
    #[arg(long, value_name = "N", default_value_t = 4096)]
    #[arg(value_parser = clap::value_parser!(i32).range(1..))]
    backlog: i32,
    /// Lines of the log below this level are left out.
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log_level: tracing::Level,
    #[command(flatten)]
    placement: PlacementArgs,
    #[command(flatten)]
    patience: PatienceArgs,
    #[command(flatten)]
    output: OutputArgs,
    /// Program to run as each worker, and its arguments [default: a demo].
    #[arg(last = true, value_name = "COMMAND")]
    worker: Vec<OsString>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Placement")]
struct PlacementArgs {
    /// How a connection finds its slot.
    #[arg(long, value_enum, default_value = "rendezvous")]
    placement: PlacementArg,
    /// A weight for each slot: one of weight 2 gets twice the clients of one of weight 1.
    #[arg(long, value_name = "W,W,...", value_delimiter = ',', value_parser = weight)]
    weights: Vec<f64>,
    /// A slot with more than this many times the mean of connections takes no new clients.
    #[arg(long, value_name = "FACTOR", value_parser = load_bound)]
    load_bound: Option<f64>,
    /// Digest of the client's address.
    #[arg(long, value_enum, default_value = "md5")]
    digest: DigestArg,
    /// File with a secret that is digested too, so that nobody outside can aim at one worker.
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    /// Leading bits of an IPv4 address that name a client.
    #[arg(long, value_name = "BITS", default_value_t = 32)]
    #[arg(value_parser = clap::value_parser!(u8).range(0..=32))]
    ipv4_prefix: u8,
    /// Leading bits of an IPv6 address that name a client [default: 64, with modulo 128].
    #[arg(long, value_name = "BITS", value_parser = clap::value_parser!(u8).range(0..=128))]
    ipv6_prefix: Option<u8>,
    /// How long a client that went elsewhere is remembered, from its last connection on.
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = duration)]
    spill_memory: Duration,
    /// How many such clients are remembered.
    #[arg(long, value_name = "N", default_value = "65536")]
    spill_table: NonZeroUsize,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Patience")]
struct PatienceArgs {
    /// How long a slot's new clients wait for the successor of a worker that died.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration)]
    slot_wait: Duration,
    /// A worker that doesn't acknowledge for so long is stalled, and its clients go elsewhere.
    #[arg(long, value_name = "TIME", default_value = "250ms", value_parser = duration)]
    stall_after: Duration,
    /// Connections that may be on their way to a worker, unacknowledged.
    #[arg(long, value_name = "N", default_value_t = 64)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=256))]
    credits: u16,
    /// Connections that may wait for a slot.
    #[arg(long, value_name = "N", default_value_t = 1024)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    slot_queue: u16,
    /// A worker that isn't ready by then has failed.
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = duration)]
    listen_timeout: Duration,
    /// A worker that served for less before it died came too soon: the next one starts after a
    /// pause, which doubles each time.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration)]
    min_uptime: Duration,
    /// Grace period: a worker that hasn't drained by then is killed.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    kill_timeout: Duration,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "What workers print")]
struct OutputArgs {
    /// When lines on standard output begin with their slot: `3 | `. Auto: where it is a terminal.
    #[arg(long, value_enum, default_value = "auto")]
    log_prefix: PrefixArg,
    /// File for standard output.
    #[arg(long, value_name = "FILE")]
    out_file: Option<PathBuf>,
    /// File for standard error.
    #[arg(long, value_name = "FILE")]
    error_file: Option<PathBuf>,
    /// File for both.
    #[arg(long, value_name = "FILE")]
    log_file: Option<PathBuf>,
    /// One file for all workers; else each slot has its own: `out-3.log`.
    #[arg(long)]
    merge_logs: bool,
    /// What lines in files look like.
    #[arg(long, value_enum, default_value = "text")]
    log_format: FormatArg,
    /// Time before each line in files: `YYYY-MM-DD HH:mm:ss Z`, or strftime, such as `%F %T %z`.
    #[arg(long, value_name = "FORMAT")]
    log_date_format: Option<String>,
    /// A file of so many bytes is rotated.
    #[arg(long, value_name = "SIZE", value_parser = size)]
    log_rotate_size: Option<u64>,
    /// A file of that age is rotated.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    log_rotate_interval: Option<Duration>,
    /// Rotated files that are kept.
    #[arg(long, value_name = "N", default_value_t = 10)]
    log_rotate_keep: u32,
}

impl From<OutputArgs> for OutputSettings {
    fn from(args: OutputArgs) -> Self {
        Self {
            name: "app".to_owned(),
            prefix: match args.log_prefix {
                PrefixArg::Auto => Prefix::Auto,
                PrefixArg::Always => Prefix::Always,
                PrefixArg::Never => Prefix::Never,
            },
            out_file: args.out_file,
            error_file: args.error_file,
            log_file: args.log_file,
            merge_logs: args.merge_logs,
            format: match args.log_format {
                FormatArg::Text => LogFormat::Text,
                FormatArg::Json => LogFormat::Json,
            },
            date_format: args.log_date_format,
            rotate_size: args.log_rotate_size,
            rotate_interval: args.log_rotate_interval,
            rotate_keep: args.log_rotate_keep,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum PrefixArg {
    Auto,
    Always,
    Never,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum FormatArg {
    Text,
    Json,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum PlacementArg {
    /// Sticky; one slot more or fewer moves only that slot's share of clients.
    Rendezvous,
    /// Sticky, as Node's tutorials do it; one slot more or fewer moves nearly all clients.
    Modulo,
    /// Not sticky: the slot with the fewest connections.
    LeastConnections,
    /// Not sticky: one after the other.
    RoundRobin,
    /// Not sticky: the less loaded of two random slots.
    Random,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum DigestArg {
    Md5,
    Sha256,
}

/// The settings, and the level of the log.
///
/// # Errors
///
/// If flags contradict each other, or a file that one names cannot be read.
pub(super) fn config(args: RunArgs) -> Result<(Config, tracing::Level), clap::Error> {
    let PlacementArgs { weights, .. } = &args.placement;
    let count = usize::from(args.workers);
    if !weights.is_empty() && weights.len() != count {
        let text = format!("{} weights given for {count} workers", weights.len());
        return Err(Cli::command().error(ErrorKind::WrongNumberOfValues, text));
    }
    let weights = if weights.is_empty() { vec![1.0; count] } else { weights.clone() };
    let command = if args.worker.is_empty() { demo_command() } else { args.worker };
    let patience = args.patience;
    let config = Config {
        name: "app".to_owned(),
        workers: args.workers,
        command: worker_command(command),
        listener: ListenerSettings { host: args.host, port: args.port, backlog: args.backlog },
        affinity: affinity(&args.placement)?,
        router: RouterSettings {
            placement: args.placement.placement.into(),
            weights,
            load_bound: args.placement.load_bound,
            memory_capacity: args.placement.spill_table,
            memory_lifetime: args.placement.spill_memory,
        },
        slots: SlotSettings {
            stall_after: patience.stall_after,
            slot_wait: patience.slot_wait,
            queue: usize::from(patience.slot_queue),
        },
        credits: usize::from(patience.credits),
        lifecycle: LifecycleSettings {
            listen_timeout: patience.listen_timeout,
            kill_timeout: patience.kill_timeout,
            drain_timeout: Duration::from_secs(600),
            max_draining: 2,
            restart: RestartPolicy { min_uptime: patience.min_uptime, ..RestartPolicy::default() },
        },
        wait_ready: true,
        rollout: RolloutSettings::default(),
        autoscale: None,
        limits: LimitSettings::default(),
        stall_timeout: Some(Duration::from_secs(30)),
        lameduck: Duration::ZERO,
        orphan_grace: Duration::from_secs(10),
        watch: None,
        cron_restart: None,
        output: args.output.into(),
    };
    Ok((config, args.log_level))
}

fn affinity(args: &PlacementArgs) -> Result<AffinitySettings, clap::Error> {
    let secret = match &args.secret_file {
        None => Vec::new(),
        Some(file) => std::fs::read(file).map_err(|error| {
            let text = format!("cannot read --secret-file {}: {error}", file.display());
            Cli::command().error(ErrorKind::Io, text)
        })?,
    };
    // Node's mapping hashes whole addresses.
    let usual_v6 = if matches!(args.placement, PlacementArg::Modulo) { 128 } else { 64 };
    let v6 = args.ipv6_prefix.unwrap_or(usual_v6);
    let digest = match args.digest {
        DigestArg::Md5 => DigestKind::Md5,
        DigestArg::Sha256 => DigestKind::Sha256,
    };
    Ok(AffinitySettings { digest, secret, prefixes: Prefixes { v4: args.ipv4_prefix, v6 } })
}

fn worker_command(command: Vec<OsString>) -> WorkerCommand {
    let mut words = command.into_iter();
    WorkerCommand {
        program: words.next().unwrap_or_default(),
        arguments: words.collect(),
        ..WorkerCommand::default()
    }
}

/// This program itself, even after its file was replaced.
fn demo_command() -> Vec<OsString> {
    vec!["/proc/self/exe".into(), "demo-worker".into()]
}

impl From<PlacementArg> for Placement {
    fn from(arg: PlacementArg) -> Self {
        match arg {
            PlacementArg::Rendezvous => Self::Rendezvous,
            PlacementArg::Modulo => Self::Modulo,
            PlacementArg::LeastConnections => Self::LeastConnections,
            PlacementArg::RoundRobin => Self::RoundRobin,
            PlacementArg::Random => Self::Random,
        }
    }
}

fn workers(text: &str) -> Result<u16, String> {
    const MOST: u16 = 1024;
    let cpus = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let count = match text.strip_prefix('-') {
        _ if text == "max" => cpus(),
        Some(fewer) => cpus().saturating_sub(number(fewer)?).max(1),
        None => number(text)?,
    };
    match u16::try_from(count) {
        Ok(0) => Err("at least one worker is needed; `max` is one per CPU".to_owned()),
        Ok(count) if count <= MOST => Ok(count),
        _ => Err(format!("{count} workers are more than {MOST}")),
    }
}

fn number(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| "expected a number, `max`, or -K".to_owned())
}

fn weight(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(weight) if weight > 0.0 && f64::is_finite(weight) => Ok(weight),
        _ => Err("expected a number above 0".to_owned()),
    }
}

fn load_bound(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(bound) if bound >= 1.0 && f64::is_finite(bound) => Ok(bound),
        _ => Err("expected a number of at least 1, such as 1.25".to_owned()),
    }
}

/// `250ms`, `10s`, `5m`; a bare number is milliseconds, as in PM2.
fn duration(text: &str) -> Result<Duration, String> {
    if let Ok(millis) = text.parse() {
        return Ok(Duration::from_millis(millis));
    }
    humantime::parse_duration(text).map_err(|error| format!("{error}; try 250ms, 10s or 5m"))
}

/// `300`, `10K`, `50M`, `1G`.
fn size(text: &str) -> Result<u64, String> {
    let (digits, factor) = match text.as_bytes().last() {
        Some(b'K' | b'k') => (&text[..text.len() - 1], 1 << 10),
        Some(b'M' | b'm') => (&text[..text.len() - 1], 1 << 20),
        Some(b'G' | b'g') => (&text[..text.len() - 1], 1 << 30),
        _ => (text, 1),
    };
    let size = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
    size.filter(|size| *size > 0).ok_or_else(|| "expected a size, such as 50M".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Config, clap::Error> {
        let cli = Cli::try_parse_from([&["sticky-lb"], arguments].concat())?;
        config(cli.run).map(|(config, _)| config)
    }

    #[test]
    fn the_definition_of_the_flags_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn workers_are_a_number_or_relative_to_the_cpus() {
        let cpus = u16::try_from(std::thread::available_parallelism().unwrap().get()).unwrap();
        for (text, expected) in [("8", 8), ("max", cpus), ("-1", (cpus - 1).max(1)), ("-999", 1)] {
            assert_eq!(parse(&["--workers", text]).unwrap().workers, expected, "{text}");
        }
        for wrong in ["0", "many", "1.5", "--", "70000", "-x", ""] {
            assert!(parse(&["--workers", wrong]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn times_are_written_as_people_write_them() {
        for (text, millis) in [("250ms", 250), ("10s", 10_000), ("1600", 1_600), ("2m", 120_000)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        assert!(duration("soon").is_err());
    }

    #[test]
    fn what_follows_the_dashes_is_the_workers_own() {
        let config = parse(&["--workers", "2", "--", "node", "app.js", "--port", "9"]).unwrap();
        assert_eq!(config.command.program, "node");
        assert_eq!(config.command.arguments, ["app.js", "--port", "9"]);
        assert_eq!(config.listener.port, 3000);
    }

    #[test]
    fn modulo_hashes_whole_addresses_unless_told_otherwise() {
        let v6 = |arguments: &[&str]| parse(arguments).unwrap().affinity.prefixes.v6;
        assert_eq!(v6(&[]), 64);
        assert_eq!(v6(&["--placement", "modulo"]), 128);
        assert_eq!(v6(&["--placement", "modulo", "--ipv6-prefix", "56"]), 56);
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for wrong in [
            &["--weights", "1,2"][..],
            &["--weights", "0,1", "--workers", "2"],
            &["--load-bound", "0.5"],
            &["--load-bound", "nan"],
            &["--ipv4-prefix", "33"],
            &["--credits", "0"],
            &["--credits", "300"],
            &["--port", "70000"],
            &["--secret-file", "/nonexistent/secret"],
            &["serve"],
        ] {
            assert!(parse(&[&["--workers", "3"], wrong].concat()).is_err(), "{wrong:?}");
        }
    }
}

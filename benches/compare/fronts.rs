//! Starts each front with its workers and waits until it serves.

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;

use crate::options::FrontName;
use crate::processes::{Process, RunFolder, free_port, wait_until};
use crate::{Result, app, client, procfs, proxies};

/// Requests that must be answered before the first measurement.
const PROBES: usize = 16;

/// A front that serves; it stops when this is dropped.
pub(crate) struct Front {
    pub(crate) port: u16,
    /// The processes that make up the front itself, without its workers.
    /// Empty where the workers listen themselves.
    pub(crate) pids: Vec<u32>,
    /// The port that watchers look at during a turn, if any are to.
    pub(crate) admin: Option<u16>,
    /// Its workers, too. The front comes first and so stops first: without its workers it would
    /// only complain.
    processes: Vec<Process>,
}

impl Front {
    /// All processes that a connection may cost CPU: the front, its workers,
    /// and this one, which is the load.
    pub(crate) fn all_pids(&self) -> Vec<u32> {
        let mut pids = vec![std::process::id()];
        for process in &self.processes {
            pids.push(process.pid());
            pids.extend(procfs::descendants(process.pid()));
        }
        pids
    }
}

/// What became of starting one.
pub(crate) enum Start {
    Serves(Front),
    /// It isn't here to be measured, and why.
    Skipped(String),
}

pub(crate) fn start(name: FrontName, workers: u16, folder: &RunFolder) -> Result<Start> {
    let missing = match name {
        FrontName::Direct | FrontName::Bare | FrontName::StickyLb | FrontName::Watched => None,
        FrontName::Haproxy => proxies::missing("haproxy", "-v"),
        FrontName::Nginx => proxies::missing_nginx(),
        FrontName::Node => proxies::missing("node", "--version"),
    };
    if let Some(reason) = missing {
        return Ok(Start::Skipped(reason));
    }
    let front = match name {
        FrontName::Direct => start_direct(workers, folder),
        FrontName::Bare => start_bare(workers, folder),
        FrontName::StickyLb => start_sticky_lb(workers, None, folder),
        FrontName::Watched => start_sticky_lb(workers, Some(free_port()?), folder),
        FrontName::Haproxy => start_proxy("haproxy", workers, folder),
        FrontName::Nginx => start_proxy("nginx", workers, folder),
        FrontName::Node => start_node(workers, folder),
    }?;
    for _ in 0..PROBES {
        client::get(front.port)?;
    }
    Ok(Start::Serves(front))
}

fn start_direct(workers: u16, folder: &RunFolder) -> Result<Front> {
    let port = free_port()?;
    let mut processes = Vec::new();
    for number in 0..workers {
        processes.push(start_app(&format!("direct-{number}"), port, folder)?);
    }
    wait_for_listeners(port, workers.into(), &mut processes)?;
    Ok(Front { port, pids: Vec::new(), admin: None, processes })
}

fn start_bare(workers: u16, folder: &RunFolder) -> Result<Front> {
    let port = free_port()?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["bare-front", "--port", &port.to_string()]);
    command.args(["--workers", &workers.to_string()]);
    alone("bare", command, port, folder)
}

fn start_node(workers: u16, folder: &RunFolder) -> Result<Front> {
    let port = free_port()?;
    let script = folder.file("node_sticky.js");
    std::fs::write(&script, include_str!("node_sticky.js"))?;
    let mut command = Command::new("node");
    command.arg(script).env("WORKERS", workers.to_string());
    command.env("PORT", port.to_string());
    alone("node", command, port, folder)
}

fn start_sticky_lb(workers: u16, admin: Option<u16>, folder: &RunFolder) -> Result<Front> {
    let port = free_port()?;
    let mut command = Command::new(product());
    // Everywhere, as it is started by default.
    command.args(["--port", &port.to_string()]);
    // Its control socket is nobody's concern.
    command.env("STICKY_LB_RUNTIME_DIR", folder.file("control"));
    command.args(["--workers", &workers.to_string(), "--events-fd", "1"]);
    if let Some(admin) = admin {
        command.args(["--admin", &format!("127.0.0.1:{admin}"), "--admin-token-file", "none"]);
    }
    let name = if admin.is_some() { "sticky-lb-watched" } else { "sticky-lb" };
    let mut process = Process::start(name, &mut command, folder)?;
    wait_until("sticky-lb to be ready", || {
        process.ensure_running()?;
        Ok(process.output()?.contains(r#""event":"ready""#))
    })?;
    // Whatever helper processes the product has count as front, too.
    let mut pids = vec![process.pid()];
    pids.extend(procfs::descendants(process.pid()));
    pids.retain(|pid| !procfs::has_variable(*pid, "STICKY_LB_SLOT"));
    Ok(Front { port, pids, admin, processes: vec![process] })
}

/// HAProxy or nginx in front of workers that listen on ports of their own.
fn start_proxy(name: &str, workers: u16, folder: &RunFolder) -> Result<Front> {
    let mut processes = Vec::new();
    let mut ports = Vec::new();
    for number in 0..workers {
        let port = free_port()?;
        let mut worker = [start_app(&format!("{name}-{number}"), port, folder)?];
        wait_for_listeners(port, 1, &mut worker)?;
        processes.extend(worker);
        ports.push(port);
    }
    let port = free_port()?;
    let command = match name {
        "haproxy" => proxies::haproxy(port, &ports, folder)?,
        _ => proxies::nginx(port, &ports, folder)?,
    };
    let mut front = alone(name, command, port, folder)?;
    front.processes.extend(processes);
    Ok(front)
}

/// A front that is one command, which starts whatever else it needs.
fn alone(name: &str, mut command: Command, port: u16, folder: &RunFolder) -> Result<Front> {
    let mut processes = vec![Process::start(name, &mut command, folder)?];
    wait_for_listeners(port, 1, &mut processes)?;
    let pid = processes[0].pid();
    let mut pids = vec![pid];
    if name == "nginx" {
        // The master does nothing; its one process does the work.
        wait_until("nginx's process", || Ok(!procfs::descendants(pid).is_empty()))?;
        pids.extend(procfs::descendants(pid));
    }
    Ok(Front { port, pids, admin: None, processes })
}

fn start_app(name: &str, port: u16, folder: &RunFolder) -> Result<Process> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    Process::start(name, &mut app::command(address), folder)
}

fn wait_for_listeners(port: u16, count: usize, processes: &mut [Process]) -> Result<()> {
    wait_until(&format!("{count} listeners on port {port}"), || {
        for process in processes.iter_mut() {
            process.ensure_running()?;
        }
        Ok(procfs::listeners(port)? >= count)
    })
}

/// The product's program.
pub(crate) fn product() -> OsString {
    std::env::var_os("STICKY_LB_BIN")
        .unwrap_or_else(|| OsString::from(env!("CARGO_BIN_EXE_sticky-lb")))
}

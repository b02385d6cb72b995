//! HAProxy and nginx: whether they are installed, and their configurations,
//! both as the manuals have them for balancing TCP by client address.

use std::fs;
use std::process::{Command, Stdio};

use crate::Result;
use crate::processes::RunFolder;

/// Why a program can't be run, if so.
pub(crate) fn missing(program: &str, version_flag: &str) -> Option<String> {
    let status = Command::new(program)
        .arg(version_flag)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    match status {
        Ok(status) if status.success() => None,
        Ok(status) => Some(format!("{program} {version_flag} fails ({status})")),
        Err(_) => Some(format!("{program} is not installed")),
    }
}

/// nginx needs its stream module, which many packages leave out.
pub(crate) fn missing_nginx() -> Option<String> {
    if let Some(reason) = missing("nginx", "-v") {
        return Some(reason);
    }
    stream_module().is_err().then(|| "nginx is installed without its stream module".to_owned())
}

pub(crate) fn haproxy(port: u16, workers: &[u16], folder: &RunFolder) -> Result<Command> {
    let mut servers = String::new();
    for (number, worker) in workers.iter().enumerate() {
        servers += &format!("    server worker{number} 127.0.0.1:{worker}\n");
    }
    let configuration = format!(
        "global
    nbthread 1
    maxconn 8000
defaults
    mode tcp
    timeout connect 5s
    timeout client 5m
    timeout server 5m
frontend clients
    bind 127.0.0.1:{port}
    default_backend workers
backend workers
    balance source
    hash-type consistent
{servers}"
    );
    let file = folder.file("haproxy.cfg");
    fs::write(&file, configuration)?;
    let mut command = Command::new("haproxy");
    command.arg("-db").arg("-f").arg(file);
    Ok(command)
}

pub(crate) fn nginx(port: u16, workers: &[u16], folder: &RunFolder) -> Result<Command> {
    let load_module = stream_module()?;
    let mut servers = String::new();
    for worker in workers {
        servers += &format!("        server 127.0.0.1:{worker};\n");
    }
    let configuration = format!(
        "{load_module}
daemon off;
worker_processes 1;
pid nginx.pid;
events {{
    worker_connections 16000;
}}
stream {{
    upstream workers {{
        hash $remote_addr consistent;
{servers}    }}
    server {{
        listen 127.0.0.1:{port};
        proxy_pass workers;
    }}
}}
"
    );
    let file = folder.file("nginx.conf");
    fs::write(&file, configuration)?;
    let mut command = Command::new("nginx");
    command.arg("-p").arg(folder.path()).arg("-c").arg(file);
    command.args(["-e", "stderr"]);
    Ok(command)
}

/// The directive that loads the stream module, empty if it is built in. The
/// program itself knows where its modules are.
fn stream_module() -> Result<String> {
    let told = Command::new("nginx").arg("-V").output()?;
    let told = String::from_utf8(told.stderr)?;
    let mut arguments = told.split_whitespace();
    if arguments.clone().any(|argument| argument == "--with-stream") {
        return Ok(String::new());
    }
    let folder = arguments
        .find_map(|argument| argument.strip_prefix("--modules-path="))
        .ok_or("nginx doesn't say where its modules are")?;
    let module = format!("{folder}/ngx_stream_module.so");
    fs::metadata(&module).map_err(|error| format!("failed to find {module}: {error}"))?;
    Ok(format!("load_module {module};"))
}

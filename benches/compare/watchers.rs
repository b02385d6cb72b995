//! Those who look at a running primary: a scrape of its metrics each second, and a dashboard that
//! stays open.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::Result;

/// How often the metrics are scraped.
const EVERY: Duration = Duration::from_secs(1);

/// They look until this is dropped.
pub(crate) struct Watchers {
    dashboard: TcpStream,
    /// Nothing is ever sent.
    _watching: Sender<()>,
    threads: Vec<JoinHandle<()>>,
}

impl Watchers {
    /// Begins with a scrape and a snapshot at once.
    pub(crate) fn start(admin: u16) -> Result<Self> {
        let dashboard = get(admin, "/api/live")?;
        let mut events = dashboard.try_clone()?;
        let (watching, ended) = channel::<()>();
        let reads = thread::spawn(move || {
            let mut buffer = [0; 64 * 1024];
            while events.read(&mut buffer).is_ok_and(|count| count > 0) {}
        });
        let scrapes = thread::spawn(move || {
            loop {
                if let Ok(mut answer) = get(admin, "/metrics") {
                    // What it says is for the tests.
                    let _ = answer.read_to_end(&mut Vec::new());
                }
                if ended.recv_timeout(EVERY) == Err(RecvTimeoutError::Disconnected) {
                    return;
                }
            }
        });
        Ok(Self { dashboard, _watching: watching, threads: vec![reads, scrapes] })
    }
}

impl Drop for Watchers {
    fn drop(&mut self) {
        let _ = self.dashboard.shutdown(Shutdown::Both);
        self._watching = channel().0;
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn get(port: u16, path: &str) -> Result<TcpStream> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    Ok(stream)
}

//! Messages to the service manager: the datagrams of `sd_notify`.
//!
//! Never fails and never waits: a service manager that doesn't listen costs the primary nothing. Where
//! there is a keeper, it passes them on.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::SocketAddr;
use std::time::Duration;

use crate::protocol::ids::Timestamp;
use crate::system::datagrams::DatagramSender;
use crate::system::keeper;

/// Tells the service manager how this process is.
#[derive(Debug)]
pub struct Notifier {
    sender: DatagramSender,
    watchdog: Option<Duration>,
}

impl Notifier {
    /// To the keeper, or to whom the environment says (`NOTIFY_SOCKET`), if to anybody.
    #[must_use]
    pub fn from_environment() -> Option<Self> {
        let watchdog =
            watchdog(env::var_os("WATCHDOG_USEC"), env::var_os("WATCHDOG_PID"), std::process::id());
        if let Some(sender) = keeper::sender() {
            return Some(Self { sender, watchdog });
        }
        let name = env::var_os("NOTIFY_SOCKET")?;
        match Self::connect(&name, watchdog) {
            Ok(notifier) => Some(notifier),
            Err(error) => {
                tracing::warn!(%error, ?name, "cannot notify the service manager (NOTIFY_SOCKET)");
                None
            }
        }
    }

    fn connect(name: &OsStr, watchdog: Option<Duration>) -> io::Result<Self> {
        Ok(Self { sender: DatagramSender::to(&address(name)?)?, watchdog })
    }

    /// All is up, and `pid` is the process to supervise.
    pub fn ready(&self, pid: u32) {
        self.send(&format!("READY=1\nMAINPID={pid}\n"));
    }

    /// It is being reloaded; [`Notifier::ready`] ends that.
    pub fn reloading(&self) {
        // The clock is CLOCK_MONOTONIC, as the manager expects.
        let micros = Timestamp::now().0 / 1000;
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={micros}\n"));
    }

    /// It ends.
    pub fn stopping(&self) {
        self.send("STOPPING=1\n");
    }

    /// A line for people.
    pub fn status(&self, text: &str) {
        // A second line would be an assignment of its own.
        self.send(&format!("STATUS={}\n", text.replace('\n', " ")));
    }

    /// How often [`Notifier::watchdog`] is to be called, if it is expected: twice as often as the
    /// manager demands.
    #[must_use]
    pub fn watchdog_interval(&self) -> Option<Duration> {
        self.watchdog.map(|demanded| demanded / 2)
    }

    /// It is alive. To be called from what would stand still if it weren't.
    pub fn watchdog(&self) {
        self.send("WATCHDOG=1\n");
    }

    fn send(&self, message: &str) {
        self.relay(message.as_bytes());
    }

    /// Waits until everything is sent, at most so long.
    pub fn flush(&self, timeout: Duration) {
        self.sender.flush(timeout);
    }

    /// Passes on a message of another process.
    pub fn relay(&self, message: &[u8]) {
        self.sender.send(message, None);
    }
}

/// Whether systemd keeps descriptors of this process (`FileDescriptorStoreMax=`).
#[must_use]
pub fn is_systemd() -> bool {
    let room = env::var("FDSTORE").ok().and_then(|room| room.parse::<u64>().ok());
    room.unwrap_or(0) > 0 && env::var_os("NOTIFY_SOCKET").is_some()
}

/// A path, or `@` and an abstract name.
pub(super) fn address(name: &OsStr) -> io::Result<SocketAddr> {
    match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        [b'/', ..] => SocketAddr::from_pathname(name),
        _ => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "expected a path, or an abstract name that begins with @",
        )),
    }
}

/// The interval, unless it is meant for another process.
fn watchdog(micros: Option<OsString>, pid: Option<OsString>, own: u32) -> Option<Duration> {
    let number = |text: OsString| text.to_str()?.parse::<u64>().ok();
    let is_ours = pid.is_none_or(|pid| number(pid) == Some(own.into()));
    let micros = micros.and_then(number).filter(|micros| is_ours && *micros > 0)?;
    Some(Duration::from_micros(micros))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;

    #[test]
    fn a_watchdog_of_another_process_is_not_fed() {
        let demanded = |micros: Option<&str>, pid: Option<&str>| {
            watchdog(micros.map(Into::into), pid.map(Into::into), 42)
        };
        let second = Some(Duration::from_secs(1));
        assert_eq!(demanded(Some("1000000"), Some("42")), second);
        assert_eq!(demanded(Some("1000000"), None), second);
        for (micros, pid) in [
            (Some("1000000"), Some("43")),
            (Some("1000000"), Some("me")),
            (Some("0"), Some("42")),
            (Some("soon"), Some("42")),
            (None, Some("42")),
        ] {
            assert_eq!(demanded(micros, pid), None, "{micros:?} {pid:?}");
        }
    }

    #[test]
    fn a_manager_is_a_path_or_an_abstract_name() {
        assert!(address(OsStr::new("/run/notify")).unwrap().as_pathname().is_some());
        assert_eq!(
            address(OsStr::new("@notify")).unwrap().as_abstract_name(),
            Some(&b"notify"[..])
        );
        for wrong in ["", "notify", "vsock:2:1234"] {
            assert!(address(OsStr::new(wrong)).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_manager_that_does_not_listen_is_no_matter() {
        let notifier = Notifier::connect(OsStr::new("/nonexistent/notify"), None).unwrap();
        notifier.ready(1);
        notifier.status("fine");
        assert_eq!(notifier.sender.lost(), 2);
    }

    #[test]
    fn messages_are_lines_of_assignments() {
        let name = format!("@sticky-lb-notify-{}", std::process::id());
        let manager = UnixDatagram::bind_addr(&address(OsStr::new(&name)).unwrap()).unwrap();
        let demanded = Some(Duration::from_secs(10));
        let notifier = Notifier::connect(OsStr::new(&name), demanded).unwrap();
        assert_eq!(notifier.watchdog_interval(), Some(Duration::from_secs(5)));
        let heard = || {
            let mut buffer = [0; 256];
            let length = manager.recv(&mut buffer).unwrap();
            String::from_utf8_lossy(&buffer[..length]).into_owned()
        };
        notifier.ready(42);
        assert_eq!(heard(), "READY=1\nMAINPID=42\n");
        notifier.status("2 of 3\nREADY=1");
        assert_eq!(heard(), "STATUS=2 of 3 READY=1\n");
        notifier.watchdog();
        assert_eq!(heard(), "WATCHDOG=1\n");
        notifier.stopping();
        assert_eq!(heard(), "STOPPING=1\n");
        notifier.reloading();
        let reloading = heard();
        let micros = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
        assert!(micros.trim_end().parse::<u64>().unwrap() > 0, "{reloading}");
    }
}

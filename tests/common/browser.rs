//! A real browser: headless Chromium, driven over its DevTools protocol.
//!
//! A [`Tab`] does what a user does, keys and all, and keeps what the page complained about.
//! Chromium sees loopback only: no name resolves.

use std::cell::RefCell;
use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use rustix::process::{Pid, kill_process_group};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{Message, WebSocket, client};

use super::process::{Signal, signal};
use super::{TIMEOUT, eventually, own_directory};

const CHROMIUM: &str = "/usr/bin/chromium";
/// How long it may take to end.
const GRACE: Duration = Duration::from_secs(5);
const FLAGS: [&str; 14] = [
    "--headless",
    // Containers run it as root, and give it little shared memory.
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-breakpad",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--no-first-run",
    "--window-size=1000,800",
    "--remote-debugging-port=0",
    "about:blank",
];

/// A browser without a past. Dropping it kills it and all of its processes.
#[derive(Debug)]
pub struct Browser {
    child: Child,
    directory: PathBuf,
}

/// One page of a [`Browser`].
#[derive(Debug)]
pub struct Tab {
    session: RefCell<Session>,
}

/// A conversation over one of DevTools' WebSockets.
#[derive(Debug)]
struct Session {
    socket: WebSocket<TcpStream>,
    calls: u64,
    complaints: Vec<String>,
    requests: Vec<String>,
}

impl Browser {
    /// Starts it.
    pub fn start() -> Self {
        let directory = own_directory();
        let mut command = Command::new(CHROMIUM);
        command.args(FLAGS).arg(format!("--user-data-dir={}", directory.display()));
        // What it writes beside its profile.
        command.env("HOME", &directory).process_group(0);
        let log = fs::File::create(directory.join("log")).expect("a new file");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().unwrap_or_else(|error| {
            panic!("this test needs a browser, try `apt-get install chromium`: {CHROMIUM}: {error}")
        });
        Self { child, directory }
    }

    /// Opens a page in a new tab.
    pub fn open(&self, url: &str) -> Tab {
        let (port, path) = self.devtools();
        let mut browser = Session::connect(port, &path);
        let tab = browser.call("Target.createTarget", &json!({"url": "about:blank"}));
        let path = format!("/devtools/page/{}", tab["targetId"].as_str().expect("its id"));
        let tab = Tab { session: Session::connect(port, &path).into() };
        // Before the page loads, so that no complaint is missed.
        for domain in ["Runtime", "Log", "Page", "Network"] {
            tab.call(&format!("{domain}.enable"), &json!({}));
        }
        // Pages in the background are slowed down; here, all are in front.
        tab.call("Emulation.setFocusEmulationEnabled", &json!({"enabled": true}));
        tab.call("Page.navigate", &json!({"url": url}));
        tab
    }

    /// Where it says that its DevTools are: a port and a path.
    fn devtools(&self) -> (u16, String) {
        let mut found = None;
        eventually("Chromium's DevTools", || {
            let file = fs::read_to_string(self.directory.join("DevToolsActivePort"));
            found = file.ok().and_then(|text| {
                let (port, path) = text.split_once('\n')?;
                (path.len() > "/devtools/browser/".len()).then_some(())?;
                Some((port.parse().ok()?, path.trim().to_owned()))
            });
            found.is_some()
        });
        found.unwrap_or_default()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.directory.join("log")).unwrap_or_default();
            eprintln!("--- Chromium\n{log}--- end of its log");
        }
        // It may go by itself first: then it leaves nothing in the directory for temporary files.
        signal(self.child.id(), Signal::INT);
        let start = SystemTime::now();
        while start.elapsed().is_ok_and(|time| time < GRACE)
            && self.child.try_wait().is_ok_and(|status| status.is_none())
        {
            std::thread::park_timeout(Duration::from_millis(5));
        }
        let group = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        // Nobody may be left of it.
        let _ = group.map(|group| kill_process_group(group, Signal::KILL));
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

impl Tab {
    /// The value of an expression, promises awaited. `null` if there is none, as while loading.
    pub fn evaluate(&self, expression: &str) -> Value {
        let parameters =
            json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let answer = self.session.borrow_mut().ask("Runtime.evaluate", &parameters);
        answer["result"]["result"]["value"].clone()
    }

    /// The text of the first element that a CSS selector finds; empty if there is none.
    pub fn text(&self, selector: &str) -> String {
        let text = self.evaluate(&format!("document.querySelector({selector:?}).innerText"));
        text.as_str().unwrap_or_default().to_owned()
    }

    /// Waits until an element's text contains `text`.
    pub fn wait_for_text(&self, selector: &str, text: &str) {
        eventually(&format!("{text:?} in {selector}"), || self.text(selector).contains(text));
    }

    /// Replaces what is in a field with `text`, and presses Enter.
    pub fn enter(&self, selector: &str, text: &str) {
        let field = format!("document.querySelector({selector:?})");
        self.evaluate(&format!("{field}.focus(); {field}.select()"));
        self.call("Input.insertText", &json!({"text": text}));
        self.press("Enter");
    }

    /// Presses a key: `Enter`, `Escape` or `Tab`.
    pub fn press(&self, name: &str) {
        let (code, text) = match name {
            "Enter" => (13, "\r"),
            "Escape" => (27, ""),
            _ => (9, ""),
        };
        for kind in [if text.is_empty() { "rawKeyDown" } else { "keyDown" }, "keyUp"] {
            let key = json!({"type": kind, "key": name, "code": name, "text": text,
                "windowsVirtualKeyCode": code});
            self.call("Input.dispatchKeyEvent", &key);
        }
    }

    /// Clicks with the mouse on the first element that a CSS selector finds, as soon as it can be
    /// seen with nothing on top.
    pub fn click(&self, selector: &str) {
        let place = format!(
            "(() => {{
                const element = document.querySelector({selector:?});
                element.scrollIntoView({{ block: 'center' }});
                const box = element.getBoundingClientRect();
                const [x, y] = [box.x + box.width / 2, box.y + box.height / 2];
                return element.contains(document.elementFromPoint(x, y)) ? [x, y] : null;
            }})()"
        );
        let mut found = Value::Null;
        eventually(&format!("{selector} to click on"), || {
            found = self.evaluate(&place);
            found.is_array()
        });
        let [x, y] = [&found[0], &found[1]];
        for kind in ["mousePressed", "mouseReleased"] {
            let click = json!({"type": kind, "x": x, "y": y, "button": "left", "clickCount": 1});
            self.call("Input.dispatchMouseEvent", &click);
        }
    }

    /// Shows the page as a screen of this size and of this colour scheme does; an upright one is a
    /// phone's.
    pub fn emulate(&self, [width, height]: [u32; 2], scheme: &str) {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1,
            "mobile": width < height});
        self.call("Emulation.setDeviceMetricsOverride", &size);
        let feature = json!({"name": "prefers-color-scheme", "value": scheme});
        self.call("Emulation.setEmulatedMedia", &json!({"features": [feature]}));
    }

    /// Writes a picture of the page.
    pub fn screenshot(&self, path: &Path) {
        self.write_picture(path, &json!({}));
    }

    fn write_picture(&self, path: &Path, parameters: &Value) {
        let shot = self.call("Page.captureScreenshot", parameters);
        let png = shot["data"].as_str().expect("a picture").as_bytes();
        let png = data_encoding::BASE64.decode(png).expect("base64");
        fs::write(path, png).expect("the target directory is writable");
    }

    /// Writes a picture of the whole page, whatever is in sight.
    pub fn screenshot_all(&self, path: &Path) {
        let sizes = self.call("Page.getLayoutMetrics", &json!({}));
        let size = &sizes["cssContentSize"];
        let clip = json!({"x": 0, "y": 0, "width": size["width"], "height": size["height"],
            "scale": 1});
        self.write_picture(path, &json!({"captureBeyondViewport": true, "clip": clip}));
    }

    /// Addresses that the page has asked for so far.
    pub fn requests(&self) -> Vec<String> {
        // As for complaints.
        self.evaluate("null");
        self.session.borrow().requests.clone()
    }

    /// Errors and warnings of the page so far, as a developer's console shows them.
    pub fn complaints(&self) -> Vec<String> {
        // Its answer comes after all that the page said before.
        self.evaluate("null");
        self.session.borrow().complaints.clone()
    }

    fn call(&self, method: &str, parameters: &Value) -> Value {
        self.session.borrow_mut().call(method, parameters)
    }
}

impl Session {
    fn connect(port: u16, path: &str) -> Self {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("DevTools listen");
        stream.set_read_timeout(Some(TIMEOUT)).expect("a time that is not zero");
        let url = format!("ws://127.0.0.1:{port}{path}");
        let (socket, _) = client(url, stream).expect("DevTools speak WebSocket");
        Self { socket, calls: 0, complaints: Vec::new(), requests: Vec::new() }
    }

    /// The result of a call that has to work.
    fn call(&mut self, method: &str, parameters: &Value) -> Value {
        let mut answer = self.ask(method, parameters);
        assert!(answer.get("error").is_none(), "{method} {parameters}: {answer}");
        answer["result"].take()
    }

    fn ask(&mut self, method: &str, parameters: &Value) -> Value {
        self.calls += 1;
        let call = json!({"id": self.calls, "method": method, "params": parameters});
        self.socket.send(Message::text(call.to_string())).expect("Chromium lives");
        loop {
            let message = self.socket.read();
            let message = message.unwrap_or_else(|error| panic!("no answer to {method}: {error}"));
            let Message::Text(text) = message else { continue };
            let answer: Value = serde_json::from_str(&text).expect("DevTools speak JSON");
            if answer["id"] == self.calls {
                return answer;
            }
            self.complaints.extend(complaint(&answer));
            if answer["method"] == "Network.requestWillBeSent" {
                let url = answer["params"]["request"]["url"].as_str();
                self.requests.push(url.unwrap_or_default().to_owned());
            }
        }
    }
}

/// What an event of DevTools complains about, if it does.
fn complaint(event: &Value) -> Option<String> {
    let (what, level) = match event["method"].as_str()? {
        "Log.entryAdded" => (&event["params"]["entry"], "level"),
        "Runtime.consoleAPICalled" => (&event["params"], "type"),
        "Runtime.exceptionThrown" => return Some(event["params"].to_string()),
        _ => return None,
    };
    let bad = ["error", "warning", "assert"].contains(&what[level].as_str()?);
    bad.then(|| what.to_string())
}

//! Paths that a privileged primary opens while its workers run as another user, who gains nothing by
//! them. Needs root, like `tests/processes.rs`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs::{self, Permissions};
use std::mem::MaybeUninit;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};

use common::process::Signal;
use common::{Builder, Primary, eventually, own_directory};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

/// Workers run as user 1, and print a line whenever there is a file `go`, which they remove.
fn talking(arguments: &[&str]) -> Builder {
    let demo = env!("CARGO_BIN_EXE_sticky-lb");
    let script = format!(
        "(while :; do if [ -e go/$STICKY_LB_SLOT ]; then rm go/$STICKY_LB_SLOT; echo said; fi; \
         sleep 0.02; done) & exec {demo} demo-worker"
    );
    Primary::with_workers(1)
        .arguments(&["--user", "daemon", "--merge-logs"])
        .arguments(arguments)
        .prepared_by(&[], "mkdir go && chown daemon go")
        .worker(&["sh", "-c", &script])
}

fn say(primary: &Primary) {
    fs::write(primary.directory().join("go/0"), "").unwrap();
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// A folder, and the owner and mode that it has.
fn folder(name: &str, owner: u32, mode: u32) -> PathBuf {
    let path = own_directory().join(name);
    fs::create_dir(&path).unwrap();
    set(&path, owner, mode);
    path
}

fn set(path: &Path, owner: u32, mode: u32) {
    chown(path, Some(owner), Some(owner)).unwrap();
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn refused(arguments: &[&str], code: i32, expected: &str) {
    let user = ["--user", "daemon", "--merge-logs"];
    let (found, log) = Primary::with_workers(1).arguments(&user).arguments(arguments).run();
    assert_eq!(found, Some(code), "{arguments:?}: {log}");
    assert!(log.contains(expected), "{arguments:?}: {expected:?} in {log}");
}

#[test]
fn a_log_folder_that_the_workers_user_may_change_is_refused() {
    let victim = own_directory().join("victim");
    let link = |folder: &Path| {
        let link = folder.join("out.log");
        symlink(&victim, &link).unwrap();
        lchown(&link, Some(1), Some(1)).unwrap();
        link
    };
    for (owner, mode, who) in [(1, 0o755, "user 1"), (0, 0o777, "all users"), (0, 0o775, "group 0")]
    {
        let logs = folder("logs", owner, mode);
        let expected = format!("{} can be changed by {who}", logs.display());
        for file in [link(&logs), logs.join("new/out.log")] {
            refused(&["--out-file", file.to_str().unwrap()], 1, &expected);
        }
    }
    // As /tmp: names belong to those who take them first.
    let sticky = folder("logs", 0, 0o1777);
    let expected = format!("{} can be changed by all users", sticky.display());
    refused(&["--out-file", sticky.join("out.log").to_str().unwrap()], 1, &expected);
    let link = link(&sticky);
    let expected = format!("{} can be changed by user 1", link.display());
    refused(&["--out-file", link.to_str().unwrap()], 1, &expected);
    assert!(!victim.exists());
    // A folder above is enough.
    let above = folder("app", 1, 0o755);
    let below = above.join("logs");
    fs::create_dir(&below).unwrap();
    let expected = format!("{} can be changed by user 1", above.display());
    refused(&["--log-file", below.join("all.log").to_str().unwrap()], 1, &expected);
    // A link is followed where nobody else could have put it, and its way is looked at, too.
    let link = own_directory().join("link");
    symlink(&above, &link).unwrap();
    refused(&["--log-file", link.join("all.log").to_str().unwrap()], 1, &expected);
}

#[test]
fn files_of_others_and_with_other_names_are_not_written() {
    let logs = folder("logs", 0, 0o755);
    let (path, precious) = (logs.join("out.log"), logs.join("precious"));
    let arguments = ["--out-file", path.to_str().unwrap()];
    fs::write(&precious, "data").unwrap();
    fs::hard_link(&precious, &path).unwrap();
    refused(&arguments, 1, "has 2 names (hard links)");
    fs::remove_file(&path).unwrap();
    fs::write(&path, "").unwrap();
    set(&path, 1, 0o644);
    refused(&arguments, 1, "belongs to user 1");
    assert_eq!(text(&precious), "data");
}

#[test]
fn a_log_folder_of_roots_is_used_by_whatever_way_and_its_files_are_private() {
    let logs = folder("logs", 0, 0o755);
    let link = own_directory().join("link");
    symlink("../".to_owned() + &relative(&logs), &link).unwrap();
    let path = link.join("deep/out.log");
    let primary = talking(&["--out-file", path.to_str().unwrap(), "--error-file", "/dev/stderr"])
        .arguments(&["--log-rotate-size", "5", "--log-rotate-keep", "2"])
        .start();
    for count in 1..=3 {
        say(&primary);
        eventually("its lines", || {
            let files =
                ["out.log", "out.log.1", "out.log.2"].map(|name| logs.join("deep").join(name));
            files.iter().filter(|file| text(file) == "said\n").count() == count
        });
    }
    // It may have been rotated while they were looked at.
    eventually("the newest", || text(&logs.join("deep/out.log")) == "said\n");
    for (file, mode) in [("deep", 0o755), ("deep/out.log", 0o640), ("deep/out.log.2", 0o640)] {
        let found = fs::metadata(logs.join(file)).unwrap();
        assert_eq!((found.uid(), found.mode() & 0o7777), (0, mode), "{file}");
    }
    primary.stop();
    let primary = talking(&["--out-file", "out.log", "--log-file-mode", "644"]).start();
    let mode = fs::metadata(primary.directory().join("out.log")).unwrap().mode();
    assert_eq!(mode & 0o7777, 0o644);
    primary.stop();
}

/// The last two names of a path in the folder of all tests.
fn relative(path: &Path) -> String {
    let mut names: Vec<_> = path.iter().rev().take(2).map(|it| it.to_str().unwrap()).collect();
    names.reverse();
    names.join("/")
}

#[test]
fn a_link_that_comes_later_is_not_followed_when_a_file_is_reopened_or_rotated() {
    let logs = folder("logs", 0, 0o755);
    let (path, victim) = (logs.join("out.log"), logs.with_file_name("victim"));
    let primary = talking(&["--out-file", path.to_str().unwrap()])
        .arguments(&["--log-rotate-size", "5"])
        .start();
    say(&primary);
    eventually("a line", || text(&path) == "said\n");
    // As of a folder that somebody gives away.
    set(&logs, 1, 0o755);
    fs::rename(&path, logs.join("old")).unwrap();
    symlink(&victim, &path).unwrap();
    primary.signal(Signal::USR1);
    primary.wait_for_log("log file not reopened: the old one stays");
    assert!(primary.log().contains("can be changed by user 1"), "{}", primary.log());
    say(&primary);
    primary.wait_for_log("log file cannot be rotated and grows");
    eventually("the line is in the old one", || text(&logs.join("old")) == "said\nsaid\n");
    assert!(!victim.exists());
    assert!(fs::symlink_metadata(&path).unwrap().is_symlink(), "nor renamed");
    primary.stop();
}

#[test]
fn secrets_that_others_may_write_or_workers_may_read_are_refused() {
    let secrets = folder("secrets", 0, 0o755);
    let file = secrets.join("secret");
    fs::write(&file, "a-token-of-many-characters").unwrap();
    let name = file.to_str().unwrap();
    let both = |code: i32, expected: &str| {
        refused(&["--secret-file", name], code, expected);
        refused(&["--admin", "127.0.0.1:0", "--admin-token-file", name], code, expected);
    };
    set(&file, 0, 0o644);
    both(2, "can be read by user 1, as whom workers run");
    chown(&file, Some(0), Some(1)).unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o640)).unwrap();
    both(2, "can be read by user 1, as whom workers run");
    set(&file, 1, 0o600);
    both(2, "belongs to user 1");
    set(&secrets, 1, 0o755);
    set(&file, 0, 0o600);
    both(2, "can be changed by user 1");
    // Without another user: what others can write.
    set(&secrets, 0, 0o755);
    set(&file, 0, 0o622);
    for flag in ["--secret-file", "--admin-token-file"] {
        let (code, log) = Primary::with_workers(1).arguments(&[flag, name]).run();
        assert_eq!(code, Some(2), "{log}");
        assert!(log.contains("can be written by others, mode 622"), "{log}");
    }
    set(&file, 0, 0o600);
    let user = ["--user", "daemon", "--secret-file", name];
    Primary::with_workers(1).arguments(&user).start().stop();
}

#[test]
fn a_configuration_that_the_workers_user_could_change_is_refused() {
    let place = folder("app", 1, 0o755);
    let file = place.join("sticky-lb.toml");
    fs::write(&file, "user = \"daemon\"\n").unwrap();
    let name = file.to_str().unwrap();
    let run = |expected: &str| {
        let (code, log) = Primary::with_workers(1).arguments(&["--config", name]).run();
        assert_eq!(code, Some(2), "{log}");
        assert!(
            log.contains("workers run as user daemon, who could change the configuration"),
            "{log}"
        );
        assert!(log.contains(expected), "{log}");
        assert!(log.contains("chown root ") && log.contains("chmod go-w "), "{log}");
        assert!(!log.contains("remove it") && !log.contains("/var/log"), "{log}");
    };
    let of_folder = format!("{} can be changed by user 1", place.display());
    run(&of_folder);
    // Those who deploy may.
    set(&place, 65534, 0o755);
    set(&file, 1, 0o644);
    run("sticky-lb.toml can be changed by user 1");
    set(&file, 65534, 0o664);
    chown(&file, None, Some(1)).unwrap();
    run("sticky-lb.toml can be changed by user 1");
    set(&file, 65534, 0o664);
    let primary = Primary::with_workers(1).arguments(&["--config", name]).start();
    // A reload reads it, too.
    set(&place, 1, 0o755);
    primary.signal(Signal::HUP);
    let refused = primary.wait_for_event("reloaded");
    assert_eq!(refused["result"], "refused", "{refused}");
    assert!(refused["reason"].as_str().unwrap().contains(&of_folder), "{refused}");
    primary.stop();
}

/// The change of a mode by name would show up as one: who exchanges the name has the mode of another
/// file changed.
#[test]
fn the_control_sockets_mode_is_not_changed_by_its_name() {
    let folder = folder("run", 0, 0o700);
    let watch = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).unwrap();
    inotify::add_watch(&watch, &folder, WatchFlags::ATTRIB | WatchFlags::CREATE).unwrap();
    let path = folder.join("control.sock");
    let primary =
        Primary::with_workers(1).arguments(&["--control", path.to_str().unwrap()]).start();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut reader = inotify::Reader::new(&watch, &mut buffer);
    let first = reader.next().unwrap().events();
    assert!(first.contains(inotify::ReadFlags::CREATE), "{first:?}");
    while let Ok(event) = reader.next() {
        assert!(!event.events().contains(inotify::ReadFlags::ATTRIB), "{:?}", event.file_name());
    }
    primary.stop();
}

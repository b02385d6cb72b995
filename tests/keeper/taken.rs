//! What a successor needs and somebody else has taken away: it goes on with what its predecessor had.

use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use serde_json::{Value, json};

use crate::common::admin::request;
use crate::common::client::{ask, nth};
use crate::common::process::Signal;
use crate::common::{Primary, eventually};
use crate::kept::say;
use crate::{count, keeps_program, patient};

/// The primary's notes, each up to its first colon.
fn not_renewed(primary: &Primary) -> Vec<String> {
    let status = primary.status();
    let notes = status["not_renewed"].as_array().unwrap().iter();
    let key = |note: &Value| {
        let note = note.as_str().unwrap();
        note.rsplit_once(": cannot").map_or(note, |(key, _)| key).to_owned()
    };
    notes.map(key).collect()
}

fn switch(root: &Path, release: &str) {
    let _ = fs::remove_file(root.join("current"));
    symlink(release, root.join("current")).unwrap();
}

#[test]
fn a_release_that_was_removed_ends_nothing() {
    let launcher = "mkdir one two; ln -s one current; cd current; exec \"$0\" \"$@\"";
    let primary = patient(1).launcher(&["sh", "-c", launcher]).start();
    let root = primary.directory().to_owned();
    let release = |primary: &Primary| {
        let directory = fs::read_link(format!("/proc/{}/cwd", primary.worker(0))).unwrap();
        directory.strip_prefix(&root).unwrap().display().to_string()
    };
    assert_eq!(release(&primary), "one");
    let before = ask(nth(0), primary.address()).pid();

    switch(&root, "two");
    fs::remove_dir_all(root.join("one")).unwrap();
    primary.crash();
    primary.wait_for_event("recovered");
    assert_eq!(ask(nth(0), primary.address()).pid(), before);
    assert_eq!(not_renewed(&primary), [""; 0], "the next release is there");
    primary.ask("reload", json!({}));
    assert_eq!(primary.wait_for_event("reloaded")["result"], "done");
    assert_eq!(release(&primary), "two");

    fs::remove_dir_all(root.join("two")).unwrap();
    let before = ask(nth(0), primary.address()).pid();
    primary.crash();
    primary.wait_for_event("recovered");
    assert_eq!(not_renewed(&primary), ["cwd"]);
    primary.signal(Signal::USR2);
    assert_eq!(primary.wait_for_event("upgraded")["result"], "done");
    assert_eq!(not_renewed(&primary), ["cwd"]);
    assert_eq!(ask(nth(0), primary.address()).pid(), before);

    fs::create_dir(root.join("two")).unwrap();
    primary.ask("reload", json!({}));
    assert_eq!(primary.wait_for_event("reloaded")["result"], "done");
    assert_eq!(not_renewed(&primary), [""; 0], "all is there again");
    primary.stop();
}

#[test]
fn files_that_were_removed_end_nothing() {
    let folder = crate::common::own_directory();
    let (config, all) = (folder.join("app.toml"), folder.join("all"));
    let token = "0123456789abcdef0123";
    let make = || {
        fs::create_dir_all(all.join("watched")).unwrap();
        for (name, text) in [("secret", "of the keys"), ("token", token)] {
            fs::write(all.join(name), text).unwrap();
            fs::set_permissions(all.join(name), Permissions::from_mode(0o600)).unwrap();
        }
    };
    make();
    let text = "workers = 3\nport = 0\nkeeper_min_uptime = 0\nadmin = \"127.0.0.1:0\"\n\
                admin_token_file = \"all/token\"\nsecret_file = \"all/secret\"\n\
                out_file = \"all/out.log\"\nwatch = [\"all/watched\"]\nwatch_delay = \"1h\"\n";
    fs::write(&config, text).unwrap();
    let primary = Primary::from_flags(&["--config", config.to_str().unwrap()]).start();
    let admin = primary.status()["admin"].as_str().unwrap().parse().unwrap();
    let asked = |primary: &Primary| {
        let bearer = format!("Authorization: Bearer {token}");
        assert_eq!(request(admin, "GET", "/api/status", &[&bearer]).status(), 200);
        (0..20).map(|n| ask(nth(n), primary.address()).slot()).collect::<Vec<_>>()
    };
    let before = asked(&primary);

    // No directory can be made again where a file is.
    fs::remove_dir_all(&all).unwrap();
    fs::write(&all, "").unwrap();
    for event in ["recovered", "upgraded"] {
        if event == "recovered" {
            primary.crash();
        } else {
            primary.signal(Signal::USR2);
        }
        assert_ne!(primary.wait_for_event(event)["result"], "refused");
        assert_eq!(asked(&primary), before, "after it has {event}");
        let notes = primary.status()["not_renewed"].to_string();
        for what in ["secret_file", "admin_token_file", "out-0.log", "watch"] {
            assert!(notes.contains(what), "{what} is not in {notes}");
        }
    }
    // The configuration, too.
    fs::remove_file(&config).unwrap();
    primary.signal(Signal::USR2);
    primary.wait_for_event("upgraded");
    assert_eq!(asked(&primary), before);
    assert!(primary.status()["not_renewed"].to_string().contains("app.toml"));

    fs::remove_file(&all).unwrap();
    make();
    fs::write(&config, text).unwrap();
    primary.ask("reload", json!({}));
    assert_eq!(primary.wait_for_event("reloaded")["result"], "done");
    assert_eq!(primary.status()["not_renewed"], json!([]));
    primary.stop();
}

#[test]
fn a_change_of_the_configuration_is_still_refused_by_an_upgrade() {
    let folder = crate::common::own_directory();
    let config = folder.join("app.toml");
    fs::write(&config, "workers = 1\nport = 0\n").unwrap();
    let primary = Primary::from_flags(&["--config", config.to_str().unwrap()]).start();
    fs::write(&config, "workers = 1\nport = 0\nsecret_file = \"nowhere\"\n").unwrap();
    primary.signal(Signal::USR2);
    let upgraded = primary.wait_for_event("upgraded");
    assert_eq!(upgraded["result"], "refused");
    assert!(upgraded["reason"].as_str().unwrap().contains("secret_file"), "{upgraded}");
    primary.stop();
}

#[test]
fn a_successor_that_cannot_run_is_tried_again() {
    let primary = patient(1).start();
    eventually("the primary is heard", || keeps_program(&primary));
    let before = ask(nth(0), primary.address()).pid();
    // A program that comes right with the fourth start.
    let program = primary.directory().join("program");
    let starts = primary.directory().join("starts");
    let text = format!(
        "#!/bin/sh\necho >> {starts}\n[ $(wc -l < {starts}) -gt 3 ] || exit 2\nexec {real} \"$@\"\n",
        starts = starts.display(),
        real = env!("CARGO_BIN_EXE_sticky-lb"),
    );
    File::create(&program).unwrap().write_all(text.as_bytes()).unwrap();
    fs::set_permissions(&program, Permissions::from_mode(0o700)).unwrap();
    let opened = File::open(&program).unwrap();
    say(&primary, "FDSTORE=1\nFDNAME=kept-program\n", &[opened.as_fd()]);
    primary.crash();
    primary.wait_for_event("recovered");
    assert_eq!(count(&primary, "primary cannot go on after the one before"), 3);
    assert_eq!(ask(nth(0), primary.address()).pid(), before);
    primary.stop();
}

#[test]
fn what_operators_reach_is_made_again() {
    let primary = patient(1).arguments(&["--admin", "127.0.0.1:0"]).start();
    let status = primary.status();
    let control = Path::new(status["control"].as_str().unwrap()).to_owned();
    let token = Path::new(status["admin_token_file"].as_str().unwrap()).to_owned();
    let text = fs::read_to_string(&token).unwrap();

    // A cleaner takes the files, with their directory where it is nobody else's.
    fs::remove_file(&control).unwrap();
    fs::remove_file(&token).unwrap();
    primary.signal(Signal::USR1);
    eventually("both are there", || control.exists() && token.exists());
    assert_eq!(fs::read_to_string(&token).unwrap(), text);
    assert_eq!(primary.status()["control"], status["control"]);

    // Without being told to.
    fs::remove_file(&token).unwrap();
    fs::remove_file(&control).unwrap();
    eventually("both are there", || control.exists() && token.exists());
    primary.status();

    // And a successor, which finds neither.
    fs::remove_file(&token).unwrap();
    fs::remove_file(&control).unwrap();
    primary.crash();
    primary.wait_for_event("recovered");
    eventually("both are there", || control.exists() && token.exists());
    assert_eq!(fs::read_to_string(&token).unwrap(), text);
    primary.status();
    primary.stop();
}

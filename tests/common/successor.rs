//! The program that a primary's successor is, and what may be wrong with it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::{Value, json};

use super::{Builder, Primary, eventually, own_directory};

/// A copy of the program, which can be replaced.
#[derive(Debug)]
pub struct Program {
    path: PathBuf,
}

impl Program {
    /// As it was built.
    pub fn fresh() -> Self {
        let program = Self { path: own_directory().join("sticky-lb") };
        program.restore();
        program
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// As it was built, again.
    pub fn restore(&self) {
        let _ = fs::remove_file(&self.path);
        let built = env!("CARGO_BIN_EXE_sticky-lb");
        if fs::hard_link(built, &self.path).is_err() {
            fs::copy(built, &self.path).expect("there is room");
        }
    }

    /// A script in its place.
    pub fn replace(&self, script: &str) {
        // Not over it: it has another name.
        let _ = fs::remove_file(&self.path);
        fs::write(&self.path, script).expect("it can be written");
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(&self.path, mode).expect("it is ours");
    }

    /// A script that asks as it was asked, and has this done before it says so.
    pub fn interpose(&self, shell: &str) {
        let built = env!("CARGO_BIN_EXE_sticky-lb");
        self.replace(&format!("#!/bin/sh\n{shell}\nexec {built} \"$@\"\n"));
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.path.parent().map(fs::remove_dir_all);
    }
}

impl Builder {
    /// It is upgraded to what is there.
    pub fn upgraded_to(self, program: &Program) -> Self {
        let path = program.path().to_str().expect("a path of text").to_owned();
        self.environment("STICKY_LB_PROGRAM", &path)
    }
}

impl Primary {
    /// How everything is.
    pub fn status(&self) -> Value {
        self.ask("status", json!({}))
    }

    /// Types `sticky-lb upgrade`.
    pub fn order_upgrade(&self) -> Output {
        self.begin_upgrade().wait_with_output().expect("it starts")
    }

    /// The same, and doesn't wait for it.
    pub fn begin_upgrade(&self) -> Child {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sticky-lb"));
        command.args(["upgrade", "--control"]).arg(self.control());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("it starts")
    }

    /// Upgrades it, and checks that the command says so.
    pub fn upgrade(&self) {
        let Output { status, stdout, stderr } = self.order_upgrade();
        let said = String::from_utf8_lossy(&stdout);
        let complained = String::from_utf8_lossy(&stderr);
        assert!(status.success(), "{said}{complained}{}", self.log());
        assert!(said.contains("workers have not noticed"), "{said}");
    }

    /// Orders an upgrade that comes to nothing, and returns why.
    pub fn upgrade_in_vain(&self) -> String {
        let before = self.status();
        let Output { status, stdout, stderr } = self.order_upgrade();
        let said = String::from_utf8_lossy(&stderr).into_owned();
        assert_eq!(status.code(), Some(1), "{}{said}", String::from_utf8_lossy(&stdout));
        let after = self.status();
        for what in ["pid", "primary_pid", "upgrades", "recoveries"] {
            assert_eq!(after[what], before[what], "{what}");
        }
        said
    }

    /// The serving workers: slot, generation, pid.
    pub fn serving(&self) -> Vec<(u64, u64, u64)> {
        let workers = self.ask("workers", json!({}));
        let workers = workers.as_array().cloned().unwrap_or_default();
        let number = |worker: &Value, what: &str| worker[what].as_u64();
        let serving = workers.iter().filter(|worker| worker["state"] == "serving");
        serving
            .filter_map(|it| {
                Some((number(it, "slot")?, number(it, "generation")?, number(it, "pid")?))
            })
            .collect()
    }

    /// Kills the primary, and waits until its successor answers.
    pub fn crash_and_recover(&self) {
        let before = self.status();
        self.crash();
        self.wait_for_recovery(&before);
    }

    /// Waits until a successor answers of the one whose status this was.
    pub fn wait_for_recovery(&self, before: &Value) {
        let recovered =
            |status: &Value| status["recoveries"].as_u64() > before["recoveries"].as_u64();
        eventually("a new primary", || {
            let end = self.try_ask("status");
            end.is_some_and(|status| recovered(&status))
        });
    }
}

//! Watch mode against real files: what counts is told once, what doesn't is never told.
//!
//! That nothing is told is shown by a change that counts, made afterwards: it alone is reported.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use sticky_lb::internals::triggers::watch::{
    IGNORED_BY_DEFAULT, WatchError, WatchSettings, Watcher,
};
use tempfile::TempDir;

/// Long enough that what a test does at a stroke is one change on a busy machine too.
const DELAY: Duration = Duration::from_millis(250);

fn watch_with(paths: &[&Path], ignore: &[&str]) -> Result<Watcher, WatchError> {
    Watcher::start(WatchSettings {
        paths: paths.iter().map(|&path| path.to_owned()).collect(),
        ignore: ignore.iter().map(|&pattern| pattern.to_owned()).collect(),
        own: Vec::new(),
        delay: DELAY,
    })
}

fn watch(path: &Path) -> Watcher {
    watch_with(&[path], &IGNORED_BY_DEFAULT).unwrap()
}

/// A folder with `main.js` and `lib/util.js` in it.
fn app() -> (TempDir, PathBuf) {
    let base = tempfile::Builder::new().prefix("watch").tempdir().unwrap();
    let app = base.path().canonicalize().unwrap().join("app");
    fs::create_dir_all(app.join("lib")).unwrap();
    fs::write(app.join("main.js"), "1").unwrap();
    fs::write(app.join("lib/util.js"), "1").unwrap();
    (base, app)
}

async fn told(watcher: &mut Watcher) -> PathBuf {
    let told = tokio::time::timeout(Duration::from_secs(20), watcher.changed()).await;
    told.expect("no change was told")
}

/// Nothing was told so far: the next change is the first.
async fn assert_silent(watcher: &mut Watcher, sentinel: &Path) {
    fs::write(sentinel, "sentinel").unwrap();
    assert_eq!(told(watcher).await, sentinel);
}

#[tokio::test]
async fn whatever_changes_a_file_is_told_once() {
    let (_base, app) = app();
    let mut watcher = watch(&app);
    let at = |name: &str| app.join(name);
    let append = |name: &str| {
        use std::io::Write;
        fs::OpenOptions::new().append(true).open(at(name)).unwrap().write_all(b"2").unwrap();
    };
    type Change<'a> = (&'a str, &'a dyn Fn());
    let changes: [Change<'_>; 9] = [
        ("main.js", &|| fs::write(at("main.js"), "2").unwrap()),
        ("lib/util.js", &|| append("lib/util.js")),
        ("new.js", &|| drop(fs::File::create(at("new.js")).unwrap())),
        ("new.js", &|| fs::remove_file(at("new.js")).unwrap()),
        // As editors write.
        ("main.js.new", &|| {
            fs::write(at("main.js.new"), "3").unwrap();
            fs::rename(at("main.js.new"), at("main.js")).unwrap();
        }),
        ("main.js", &|| {
            assert!(Command::new("touch").arg(at("main.js")).status().unwrap().success());
        }),
        ("folder", &|| fs::create_dir(at("folder")).unwrap()),
        ("folder", &|| fs::rename(at("folder"), at("other")).unwrap()),
        ("other", &|| fs::remove_dir(at("other")).unwrap()),
    ];
    for (step, (path, change)) in changes.into_iter().enumerate() {
        change();
        assert_eq!(told(&mut watcher).await, at(path), "step {step}");
    }
    assert_silent(&mut watcher, &at("lib/util.js")).await;
}

#[tokio::test]
async fn a_touch_without_opening_counts_and_another_mode_does_not() {
    let (_base, app) = app();
    let file = app.join("main.js");
    let aged = |seconds| {
        let time = SystemTime::now() - Duration::from_secs(seconds);
        // Both, or the kernel takes it for a write.
        let times = fs::FileTimes::new().set_accessed(time).set_modified(time);
        fs::File::open(&file).unwrap().set_times(times).unwrap();
    };
    aged(7_200);
    let mut watcher = watch(&app);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&app, fs::Permissions::from_mode(0o755)).unwrap();
    fs::read(&file).unwrap();
    assert_eq!(fs::read_dir(&app).unwrap().count(), 2);
    // A time that is not now is what a backup puts back.
    aged(3_600);
    assert_silent(&mut watcher, &app.join("lib/util.js")).await;

    let python = "import os, sys; os.utime(sys.argv[1])";
    let touched = Command::new("python3").args(["-c", python]).arg(&file).status();
    assert!(touched.unwrap().success());
    assert_eq!(told(&mut watcher).await, file);
}

#[tokio::test]
async fn what_is_ignored_is_silent() {
    let (base, app) = app();
    for folder in ["node_modules/left-pad", ".git", "logs"] {
        fs::create_dir_all(app.join(folder)).unwrap();
    }
    let log = app.join("logs/out.log");
    let ignore = [&IGNORED_BY_DEFAULT[..], &["tmp/*.pid", log.to_str().unwrap()]].concat();
    let mut watcher = watch_with(&[&app], &ignore).unwrap();
    for file in
        ["node_modules/left-pad/index.js", ".git/index", ".main.js.swp", "main.js~", "logs/out.log"]
    {
        fs::write(app.join(file), "x").unwrap();
    }
    fs::create_dir_all(app.join("lib/node_modules/deep/er")).unwrap();
    fs::write(base.path().join("beside"), "x").unwrap();
    assert_silent(&mut watcher, &app.join("main.js")).await;

    // A new folder counts, what is ignored in it doesn't.
    fs::create_dir(app.join("tmp")).unwrap();
    assert_eq!(told(&mut watcher).await, app.join("tmp"));
    fs::write(app.join("tmp/worker.pid"), "1").unwrap();
    fs::write(app.join("lib/node_modules/deep/er/x.js"), "1").unwrap();
    assert_silent(&mut watcher, &app.join("tmp/worker.js")).await;
}

#[tokio::test]
async fn folders_that_come_later_are_watched() {
    let (base, app) = app();
    let mut watcher = watch(&app);
    fs::create_dir_all(app.join("a/b/c")).unwrap();
    assert_eq!(told(&mut watcher).await, app.join("a"));
    fs::write(app.join("a/b/c/deep.js"), "1").unwrap();
    assert_eq!(told(&mut watcher).await, app.join("a/b/c/deep.js"));

    // Moved in with all that is in it, and moved elsewhere.
    let outside = base.path().join("outside");
    fs::create_dir_all(outside.join("x/y")).unwrap();
    fs::rename(&outside, app.join("moved")).unwrap();
    assert_eq!(told(&mut watcher).await, app.join("moved"));
    fs::write(app.join("moved/x/y/z.js"), "1").unwrap();
    assert_eq!(told(&mut watcher).await, app.join("moved/x/y/z.js"));
    fs::rename(app.join("moved"), &outside).unwrap();
    assert_eq!(told(&mut watcher).await, app.join("moved"));
    fs::write(outside.join("x/y/z.js"), "2").unwrap();
    assert_silent(&mut watcher, &app.join("main.js")).await;
}

#[tokio::test]
async fn a_deploy_by_symlink_is_one_change_and_the_new_release_is_watched() {
    let (base, _) = app();
    let base = base.path().canonicalize().unwrap();
    for release in ["1", "2"] {
        fs::create_dir_all(base.join("releases").join(release).join("src")).unwrap();
    }
    let current = base.join("current");
    symlink("releases/1", &current).unwrap();
    let mut watcher = watch(&current.join("src"));

    symlink("releases/2", base.join("next")).unwrap();
    fs::rename(base.join("next"), &current).unwrap();
    assert_eq!(told(&mut watcher).await, current);
    fs::write(base.join("releases/1/src/old.js"), "1").unwrap();
    fs::write(base.join("releases/2/src/new.js"), "1").unwrap();
    assert_eq!(told(&mut watcher).await, current.join("src/new.js"));
}

#[tokio::test]
async fn a_symlink_behind_a_symlink_is_watched() {
    let (base, _) = app();
    let base = base.path().canonicalize().unwrap();
    for release in ["1", "2"] {
        fs::create_dir_all(base.join("releases").join(release)).unwrap();
    }
    symlink("1", base.join("releases/latest")).unwrap();
    symlink("releases/latest", base.join("current")).unwrap();
    let mut watcher = watch(&base.join("current"));
    symlink("2", base.join("releases/next")).unwrap();
    fs::rename(base.join("releases/next"), base.join("releases/latest")).unwrap();
    assert_eq!(told(&mut watcher).await, base.join("releases/latest"));
    fs::write(base.join("releases/1/old.js"), "1").unwrap();
    assert_silent(&mut watcher, &base.join("current/new.js")).await;
}

#[tokio::test]
async fn files_of_this_process_do_not_count() {
    use std::io::Write;
    let (_base, app) = app();
    let mut open = fs::File::create(app.join("events")).unwrap();
    let mut watcher = Watcher::start(WatchSettings {
        paths: vec![app.clone()],
        ignore: Vec::new(),
        own: vec![app.join("main.log")],
        delay: DELAY,
    })
    .unwrap();
    open.write_all(b"{}").unwrap();
    fs::write(app.join("main.log"), "1").unwrap();
    fs::rename(app.join("main.log"), app.join("main.log.1")).unwrap();
    assert_silent(&mut watcher, &app.join("main.js")).await;
}

#[tokio::test]
async fn a_folder_that_disappears_is_waited_for() {
    let (_base, app) = app();
    let lib = app.join("lib");
    let mut watcher = watch(&lib);
    // Back within the delay times ten: one change, told when it is there again.
    fs::remove_dir_all(&lib).unwrap();
    let early = tokio::time::timeout(DELAY * 4, watcher.changed()).await;
    assert!(early.is_err(), "told while the folder is gone");
    fs::create_dir_all(lib.join("again")).unwrap();
    told(&mut watcher).await;
    assert!(lib.exists());
    fs::write(lib.join("again/x.js"), "1").unwrap();
    assert_eq!(told(&mut watcher).await, lib.join("again/x.js"));

    // Gone for longer, with the folder around it: two changes.
    fs::remove_dir_all(&app).unwrap();
    told(&mut watcher).await;
    fs::create_dir_all(&lib).unwrap();
    told(&mut watcher).await;
    assert_silent(&mut watcher, &lib.join("util.js")).await;
}

#[tokio::test]
async fn a_single_file_is_watched_through_its_replacement() {
    let (_base, app) = app();
    let file = app.join("main.js");
    let mut watcher = watch(&file);
    for round in 0..3 {
        fs::write(app.join("main.js.tmp"), "2").unwrap();
        fs::rename(app.join("main.js.tmp"), &file).unwrap();
        assert_eq!(told(&mut watcher).await, file, "renamed, round {round}");
        fs::write(&file, "3").unwrap();
        assert_eq!(told(&mut watcher).await, file, "written, round {round}");
    }
    fs::write(app.join("beside.js"), "1").unwrap();
    assert_silent(&mut watcher, &file).await;
}

#[tokio::test]
async fn changes_that_go_on_are_told_all_the_same_and_many_are_few() {
    let (_base, app) = app();
    let mut watcher = watch(&app);
    let writer = {
        let file = app.join("main.js");
        // Less than the delay apart, without end.
        tokio::spawn(async move {
            loop {
                fs::write(&file, "x").unwrap();
                tokio::time::sleep(DELAY / 20).await;
            }
        })
    };
    assert_eq!(told(&mut watcher).await, app.join("main.js"));
    writer.abort();
    // What is left of it is one change at most; a caller who was busy finds no queue.
    let _ = tokio::time::timeout(DELAY * 20, watcher.changed()).await;
    assert_silent(&mut watcher, &app.join("lib/util.js")).await;
}

#[tokio::test]
async fn a_wait_that_is_dropped_loses_nothing() {
    let (_base, app) = app();
    let mut watcher = watch(&app);
    fs::write(app.join("main.js"), "2").unwrap();
    for _ in 0..30 {
        // Mostly too short for the delay.
        let waited = tokio::time::timeout(DELAY / 10, watcher.changed()).await;
        if waited.is_ok() {
            return;
        }
    }
    told(&mut watcher).await;
}

#[test]
fn what_cannot_be_watched_is_named() {
    let missing = watch_with(&[Path::new("/no/such/folder")], &[]).unwrap_err().to_string();
    assert_eq!(missing, "cannot watch /no/such/folder: it doesn't exist");
    let pattern = watch_with(&[], &["a[", "b"]).unwrap_err().to_string();
    assert!(pattern.starts_with("pattern \"a[\" of what to ignore: "), "{pattern}");
    let limit = WatchError::TooMany { limit: "max_user_watches", allowed: "8192".to_owned() };
    let expected = "cannot watch files: fs.inotify.max_user_watches is 8192, and this user's \
                    programs use them up; raise it (sysctl fs.inotify.max_user_watches=…)";
    assert!(limit.to_string().starts_with(expected), "{limit}");
}

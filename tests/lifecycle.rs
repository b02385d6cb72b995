//! A worker's life and the end of the whole: respawned, replaced, drained, and nothing left behind.

mod common;

use std::io::{Read, Write};
use std::time::Duration;

use common::client::{
    ask, connect_from, ends_within, get_from, nth, read_answer, read_kept_alive, send_get,
};
use common::process::{Signal, children, descriptors, exists, signal, state};
use common::{Primary, eventually};

#[test]
fn term_and_int_end_everything_well() {
    for ending in [Signal::TERM, Signal::INT] {
        let mut primary = Primary::with_workers(3).start();
        ask(nth(0), primary.address());
        let workers = primary.workers();
        primary.signal(ending);
        primary.wait_for_event("stopped");
        assert_eq!(primary.wait().code(), Some(0));
        for (pid, ..) in workers {
            assert!(!exists(pid), "a worker is left, or its zombie");
        }
    }
}

#[test]
fn nobody_is_accepted_any_more_after_the_end() {
    let mut primary = Primary::with_workers(1).start();
    let address = primary.address();
    primary.signal(Signal::TERM);
    primary.wait();
    assert!(connect_from(nth(0), address).is_err());
}

#[test]
fn a_request_in_progress_is_finished_and_an_idle_connection_closed() {
    let primary = Primary::with_workers(1).start();
    let mut idle = connect_from(nth(1), primary.address()).unwrap();
    idle.write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    read_kept_alive(&mut idle).unwrap();
    let mut busy = connect_from(nth(2), primary.address()).unwrap();
    busy.write_all(b"GET /heavy?ms=500 HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    eventually("the request is in progress", || {
        let health = get_from(nth(3), primary.address(), "/health").unwrap();
        health.body.contains("\"connections\":3")
    });
    primary.signal(Signal::TERM);
    assert!(ends_within(&mut idle, Duration::from_secs(15)));
    let answer = read_kept_alive(&mut busy).expect("the answer comes before the end");
    assert!(answer.body.contains("\"duration\""), "{answer:?}");
    assert_eq!(primary.stop_finished()["killed_workers"], 0);
}

#[test]
fn who_came_just_before_the_end_still_gets_an_answer() {
    let primary = Primary::with_workers(2).start();
    for n in 0..20 {
        ask(nth(n), primary.address());
    }
    // Connected, maybe handed over, and nothing said yet.
    let mut silent: Vec<_> =
        (0..20).map(|n| connect_from(nth(n), primary.address()).unwrap()).collect();
    primary.signal(Signal::TERM);
    // They speak when their workers have long been told to end.
    primary.wait_for_log("worker draining");
    for stream in &mut silent {
        send_get(stream, "/").unwrap();
    }
    for stream in silent {
        read_answer(stream).expect("an answer");
    }
    let stopped = primary.stop_finished();
    assert_eq!((&stopped["accepted"], &stopped["acknowledged"]), (&40.into(), &40.into()));
}

#[test]
fn who_never_says_anything_holds_up_the_end_for_a_second_only() {
    let primary = Primary::with_workers(1).start();
    let mut silent = connect_from(nth(0), primary.address()).unwrap();
    ask(nth(1), primary.address());
    primary.signal(Signal::TERM);
    assert!(ends_within(&mut silent, Duration::from_secs(15)));
    assert_eq!(primary.stop_finished()["killed_workers"], 0);
}

#[test]
fn a_worker_that_does_not_drain_is_killed_when_its_grace_period_is_over() {
    let primary = Primary::with_workers(2).arguments(&["--kill-timeout", "300ms"]).start();
    // Ten seconds of work, which no grace period of 300 ms can wait for.
    let mut stream = connect_from(nth(0), primary.address()).unwrap();
    send_get(&mut stream, "/heavy?ms=10000").unwrap();
    eventually("the request is in progress", || {
        let health = get_from(nth(0), primary.address(), "/health").unwrap();
        health.body.contains("\"connections\":2")
    });
    primary.signal(Signal::TERM);
    primary.wait_for_log("was killed at the end of its grace period");
    assert_eq!(primary.stop_finished()["killed_workers"], 1);
}

#[test]
fn a_second_signal_ends_everything_at_once() {
    let mut primary = Primary::with_workers(2).arguments(&["--kill-timeout", "1h"]).start();
    let mut stream = connect_from(nth(0), primary.address()).unwrap();
    send_get(&mut stream, "/heavy?ms=10000").unwrap();
    let workers = primary.workers();
    primary.signal(Signal::TERM);
    primary.wait_for_log("worker draining");
    primary.signal_again(Signal::TERM);
    assert_eq!(primary.wait().code(), Some(0));
    assert!(workers.into_iter().all(|(pid, ..)| !exists(pid)), "a worker is left");
}

#[test]
fn a_stop_while_workers_start_ends_them() {
    let mut primary = Primary::with_workers(2)
        .test_worker(&["never-attaches"])
        .arguments(&["--listen-timeout", "1h"])
        .start_listening();
    eventually("both are started", || primary.workers().len() == 2);
    let workers = primary.workers();
    primary.signal(Signal::TERM);
    assert_eq!(primary.wait().code(), Some(0));
    assert!(workers.into_iter().all(|(pid, ..)| !exists(pid)), "a worker is left");
}

#[test]
fn a_dead_worker_is_followed_in_its_slot_and_leaves_no_zombie() {
    let primary = Primary::with_workers(3).start();
    let old = primary.worker(1);
    signal(old, Signal::KILL);
    eventually("a successor", || primary.worker(1) != old);
    eventually("no zombie", || {
        children(primary.primary_pid()).iter().all(|pid| state(*pid) != Some('Z'))
    });
    assert_eq!(primary.workers().len(), 3);
    primary.wait_for_log("was killed by signal 9");
}

#[test]
fn a_worker_told_to_end_is_replaced_before_it_goes() {
    let primary = Primary::with_workers(2).start();
    let client = primary.client_of(1);
    let old = primary.worker(1);
    assert_eq!(ask(client, primary.address()).pid(), old);
    // As a service manager does to every process of a group.
    signal(old, Signal::TERM);
    eventually("the successor serves", || {
        let answer = ask(client, primary.address());
        assert_eq!(answer.slot(), 1, "the client left its slot");
        answer.pid() != old
    });
    eventually("the old one is gone", || !exists(old));
    let stopped = primary.stop();
    assert_eq!((&stopped["fallbacks"], &stopped["lost"]), (&0.into(), &0.into()));
}

#[test]
fn workers_serve_for_a_while_without_a_primary_and_then_end() {
    let mut primary = Primary::with_workers(2)
        .arguments(&["--orphan-timeout", "1500ms", "--kill-timeout", "500ms"])
        .start();
    let workers = primary.workers();
    let mut idle = connect_from(nth(0), primary.address()).unwrap();
    let mut ask_again = || -> std::io::Result<_> {
        idle.write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")?;
        read_kept_alive(&mut idle)
    };
    ask_again().expect("an answer");
    // It holds its worker up beyond its grace.
    let mut busy = connect_from(nth(1), primary.address()).unwrap();
    send_get(&mut busy, "/heavy?ms=10000").unwrap();
    eventually("its request is in progress", || {
        let health = get_from(nth(1), primary.address(), "/health").unwrap();
        health.body.contains("\"connections\":2") || health.body.contains("\"connections\":3")
    });
    primary.kill_all();
    primary.wait();
    ask_again().expect("its worker goes on serving");
    for (pid, ..) in workers {
        eventually("the orphan ends", || !exists(pid) || state(pid) == Some('Z'));
    }
    assert!(read_answer(busy).is_err(), "ended with its worker");
}

#[test]
fn an_orphan_that_prints_does_not_die_of_it() {
    let mut primary = Primary::with_workers(1)
        .arguments(&["--orphan-timeout", "1h"])
        .worker(&[&common::example("library_worker"), "chatty"])
        .start();
    let worker = primary.worker(0);
    let mut stream = connect_from(nth(0), primary.address()).unwrap();
    let mut ask_again = || {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
        read_kept_alive(&mut stream).expect("an answer").body
    };
    assert!(ask_again().contains("hello"));
    primary.kill_all();
    primary.wait();
    eventually("the worker prints nowhere", || {
        descriptors(worker).iter().any(|(number, link)| *number == 1 && link == "/dev/null")
    });
    assert!(ask_again().contains("hello"));
    signal(worker, Signal::KILL);
}

#[test]
fn an_orphan_told_to_end_does_so_at_once() {
    let mut primary = Primary::with_workers(1).arguments(&["--orphan-timeout", "1h"]).start();
    let worker = primary.worker(0);
    primary.kill_all();
    primary.wait();
    primary.wait_for_no_primary(worker);
    signal(worker, Signal::TERM);
    eventually("the orphan ends", || !exists(worker) || state(worker) == Some('Z'));
}

#[test]
fn a_slot_whose_workers_keep_dying_is_errored_until_a_reload() {
    let primary = Primary::with_workers(2)
        .slot_zero("if [ -e broken ]; then exit 9; fi")
        .arguments(&["--max-restarts", "2", "--exp-backoff-restart-delay", "10ms"])
        .start();
    let client = primary.client_of(0);
    std::fs::write(primary.directory().join("broken"), "").unwrap();
    signal(primary.worker(0), Signal::KILL);
    primary.wait_for_log("slot errored");
    assert_eq!(ask(client, primary.address()).slot(), 1, "the others serve its clients");
    std::fs::remove_file(primary.directory().join("broken")).unwrap();
    primary.signal(Signal::HUP);
    assert_eq!(primary.wait_for_event("reloaded")["result"], "done");
    eventually("its slot is back", || primary.workers().iter().any(|(_, slot, _)| *slot == 0));
    primary.stop();
}

#[test]
fn when_every_slot_is_errored_the_primary_says_so_and_fails() {
    let mut primary = Primary::with_workers(2)
        .worker(&[
            "sh",
            "-c",
            &format!(
                "if [ -e broken ]; then exit 9; fi; exec {} demo-worker",
                env!("CARGO_BIN_EXE_sticky-lb"),
            ),
        ])
        .arguments(&["--max-restarts", "1", "--exp-backoff-restart-delay", "10ms"])
        .start();
    std::fs::write(primary.directory().join("broken"), "").unwrap();
    for (pid, ..) in primary.workers() {
        signal(pid, Signal::KILL);
    }
    assert_eq!(primary.wait().code(), Some(1));
    let log = primary.log();
    let last = log.lines().last().unwrap();
    assert!(
        last.contains("every slot is errored") && last.contains("exited with status 9"),
        "{last}"
    );
}

#[test]
fn workers_that_are_done_are_not_started_again() {
    for (arguments, code) in [
        (&["--stop-exit-codes", "9,11"][..], 9),
        (&["--stop-exit-codes", "9,11"], 11),
        (&["--autorestart=false"], 1),
    ] {
        let demo = env!("CARGO_BIN_EXE_sticky-lb");
        let script = format!("{demo} demo-worker & trap 'kill -9 $!; exit {code}' USR1; wait");
        // A shell that waits for its worker ends with the code when told to.
        let mut primary =
            Primary::with_workers(1).arguments(arguments).worker(&["sh", "-c", &script]).start();
        let shell = children(primary.primary_pid());
        for pid in shell {
            signal(pid, Signal::USR1);
        }
        primary.wait_for_event("stopped");
        assert_eq!(primary.wait().code(), Some(0), "{}", primary.log());
        assert!(primary.log().contains("every slot is stopped"));
    }
}

#[test]
fn a_lame_duck_goes_on_until_its_time_is_over() {
    let primary = Primary::with_workers(1).arguments(&["--lameduck", "1h"]).start();
    let old = primary.worker(0);
    primary.signal(Signal::TERM);
    primary.wait_for_log("stopping gracefully");
    let health = get_from(nth(1), primary.address(), "/health").unwrap();
    assert!(health.head.starts_with("HTTP/1.1 503") && health.body.contains("stopping"));
    // Even a worker that dies is followed.
    signal(old, Signal::KILL);
    eventually("its successor answers", || ask(nth(0), primary.address()).pid() != old);
    let health = get_from(nth(1), primary.address(), "/health").unwrap();
    assert!(health.head.starts_with("HTTP/1.1 503"), "{health:?}");
    primary.signal_again(Signal::TERM);
    assert_eq!(primary.stop_finished()["how"], "forced");
    let short = Primary::with_workers(1).arguments(&["--lameduck", "100ms"]).start();
    assert_eq!(short.stop()["how"], "graceful");
}

#[test]
fn the_last_line_says_how_it_ended_and_what_was_cut() {
    let primary = Primary::with_workers(1).arguments(&["--kill-timeout", "1h"]).start();
    let mut streams: Vec<_> =
        (0..3).map(|n| connect_from(nth(n), primary.address()).unwrap()).collect();
    for stream in &mut streams {
        send_get(stream, "/heavy?ms=10000").unwrap();
    }
    eventually("the requests are in progress", || {
        let health = get_from(nth(9), primary.address(), "/health").unwrap();
        health.body.contains("\"connections\":4")
    });
    primary.signal(Signal::TERM);
    primary.wait_for_log("worker draining");
    primary.signal_again(Signal::INT);
    let stopped = primary.stop_finished();
    assert_eq!(stopped["how"], "forced");
    assert_eq!((&stopped["killed_workers"], &stopped["cut_connections"]), (&1.into(), &3.into()));
}

#[test]
fn a_crash_loop_burns_no_processor() {
    let primary = Primary::with_workers(2).slot_zero("exit 9").start_listening();
    primary.wait_for_log("slot=0 generation=3");
    // Each pause is twice as long as the one before, so that few have come and gone.
    let crashes = primary.log().matches("exited with status 9").count();
    assert!(crashes <= 8, "{crashes} crashes");
    assert_eq!(ask(primary.client_of(0), primary.address()).slot(), 1);
}

#[test]
fn a_client_of_a_draining_worker_can_still_read_to_the_end() {
    let primary = Primary::with_workers(1).start();
    let mut stream = connect_from(nth(0), primary.address()).unwrap();
    stream.write_all(b"GET /heavy?ms=300 HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    primary.wait_for_log("serving=1");
    primary.signal(Signal::TERM);
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("no reset");
    assert!(text.contains("\"rounds\""), "{text:?}");
    assert_eq!(primary.stop_finished()["lost"], 0);
}

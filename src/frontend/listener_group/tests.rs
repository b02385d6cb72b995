use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use rustix::net::{
    AddressFamily, Shutdown, SocketType, bind, connect, listen, shutdown, socket, sockopt,
};

use super::*;
use crate::frontend::affinity::Prefixes;
use crate::frontend::listener::ListenerSettings;
use crate::frontend::steering::Steering;
use crate::protocol::ids::Generation;

const BACKLOG: i32 = 1024;
const PATIENCE: Duration = Duration::from_secs(10);

fn worker(slot: u16, generation: u32) -> WorkerId {
    WorkerId { slot: SlotId(slot), generation: Generation(generation) }
}

fn serving(slots: impl IntoIterator<Item = u16>) -> Vec<(SlotId, WorkerId)> {
    slots.into_iter().map(|slot| (SlotId(slot), worker(slot, 1))).collect()
}

fn ranking_by(secret: &[u8], slots: u16) -> KernelRanking {
    let steering = Steering::new(secret, Prefixes { v4: 32, v6: 64 });
    KernelRanking::new(&steering, &(0..slots).map(|slot| (SlotId(slot), 1.0)).collect::<Vec<_>>())
}

fn ranking(slots: u16) -> KernelRanking {
    ranking_by(b"secret", slots)
}

fn first(family: Family) -> Listener {
    let settings = ListenerSettings { host: None, port: 0, backlog: BACKLOG };
    Listener::bind_shared(&settings, family).unwrap()
}

/// A group with a worker in each slot, which the kernel doesn't know yet.
fn group(family: Family, slots: u16) -> ListenerGroup {
    let mut group = ListenerGroup::new(&first(family), BACKLOG).unwrap();
    for slot in 0..slots {
        group.member(worker(slot, 1)).unwrap();
    }
    group
}

fn connect_from(source: IpAddr, group: &ListenerGroup) -> TcpStream {
    let port = group.first.local().port();
    let (family, target): (_, IpAddr) = match source {
        IpAddr::V4(_) => (AddressFamily::INET, Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(_) => (AddressFamily::INET6, Ipv6Addr::LOCALHOST.into()),
    };
    let client = socket(family, SocketType::STREAM, None).unwrap();
    bind(&client, &SocketAddr::new(source, 0)).unwrap();
    connect(&client, &SocketAddr::new(target, port)).unwrap();
    client.into()
}

fn clients(count: u32) -> impl Iterator<Item = IpAddr> {
    (0..count).map(|n| Ipv4Addr::from_bits(0x7f01_0001 + n * 37).into())
}

/// Accepts all that has arrived: each client, and the index of the socket where it was.
fn arrived(group: &ListenerGroup, count: usize) -> BTreeMap<IpAddr, usize> {
    let mut arrived = BTreeMap::new();
    let since = Timestamp::now();
    while arrived.len() < count && Timestamp::now().since(since) < PATIENCE {
        let members = group.members.iter().map(|member| &member.listener);
        for (index, listener) in std::iter::once(&group.first).chain(members).enumerate() {
            while let Ok(accepted) = listener.accept() {
                arrived.insert(accepted.client.ip(), index);
            }
        }
    }
    assert_eq!(arrived.len(), count);
    arrived
}

/// Clients arrive where user space says, each at the socket of that worker.
fn assert_agrees(group: &ListenerGroup, ranking: &KernelRanking, count: u32) {
    let all: Vec<_> = clients(count).collect();
    for some in all.chunks(200) {
        let _open: Vec<_> = some.iter().map(|client| connect_from(*client, group)).collect();
        for (client, index) in arrived(group, some.len()) {
            let key = ranking.steering().key(client);
            let slot = ranking.first_of(key, |slot| group.steers(slot));
            assert_eq!(group.members[index - 1].slot, slot.unwrap(), "{client} at {index}");
            let holder = group.members[index - 1].holder;
            let serves = group.steered.serving.iter().find(|(serving, _)| Some(*serving) == slot);
            assert_eq!(holder, serves.map(|(_, worker)| *worker));
        }
    }
}

fn place(group: &ListenerGroup, slot: u16) -> usize {
    group.place_held_by(worker(slot, 1)).unwrap()
}

/// As a worker may do.
fn shut_down(group: &ListenerGroup, slot: u16) {
    shutdown(&group.members[place(group, slot)].listener, Shutdown::Both).unwrap();
}

#[derive(Clone, Debug, Default)]
struct Kept(Arc<Mutex<BTreeMap<String, OwnedFd>>>);

impl DescriptorKeeper for Kept {
    fn keep(&self, name: &str, descriptor: BorrowedFd<'_>) {
        let copy = descriptor.try_clone_to_owned().unwrap();
        assert!(self.0.lock().unwrap().insert(name.to_owned(), copy).is_none(), "{name} twice");
    }

    fn remove(&self, name: &str) {
        assert!(self.0.lock().unwrap().remove(name).is_some(), "{name} wasn't there");
    }
}

impl Kept {
    fn left(&self) -> Descriptors {
        let mut left = Descriptors::default();
        for (name, descriptor) in &*self.0.lock().unwrap() {
            left.insert(name.clone(), descriptor.try_clone().unwrap());
        }
        left
    }
}

#[test]
fn two_thousand_clients_arrive_where_user_space_says() {
    for family in [Family::V4, Family::Dual] {
        let (mut group, ranking) = (group(family, 5), ranking(5));
        assert!(group.steer(&serving(0..5), &ranking).unwrap());
        assert!(!group.steer(&serving(0..5), &ranking).unwrap(), "nothing has changed");
        assert_agrees(&group, &ranking, 2_000);
    }
}

#[test]
fn ipv6_clients_arrive_where_user_space_says() {
    let client = IpAddr::from(Ipv6Addr::LOCALHOST);
    for family in [Family::V6, Family::Dual] {
        let mut group = group(family, 8);
        let mut seen = BTreeSet::new();
        for secret in 0..64_u8 {
            let ranking = ranking_by(&[secret], 8);
            group.steer(&serving(0..8), &ranking).unwrap();
            let _open = connect_from(client, &group);
            let index = arrived(&group, 1)[&client];
            let slot = group.members[index - 1].slot;
            assert_eq!(ranking.first(ranking.steering().key(client)), Some(slot));
            seen.insert(slot);
        }
        assert_eq!(seen.len(), 8);
    }
}

#[test]
fn slots_come_and_go_and_the_first_socket_is_the_last_resort() {
    let (mut group, ranking) = (group(Family::V4, 4), ranking(4));
    for slots in [&[0, 1][..], &[0, 1, 2, 3], &[1, 3], &[2], &[0, 1, 2, 3]] {
        assert!(group.steer(&serving(slots.iter().copied()), &ranking).unwrap());
        assert_agrees(&group, &ranking, 200);
    }
    // Of slot 7 there is no worker: its clients go on by ranking.
    assert!(!group.steer(&serving([0, 1, 2, 3, 7]), &ranking).unwrap());
    assert!(group.steer(&[], &ranking).unwrap());
    let client = clients(1).next().unwrap();
    let _open = connect_from(client, &group);
    assert_eq!(arrived(&group, 1)[&client], 0);
}

#[test]
fn a_slots_workers_take_turns() {
    let mut group = ListenerGroup::new(&first(Family::V4), BACKLOG).unwrap();
    let cookie = |socket: BorrowedFd<'_>| sockopt::socket_cookie(socket).unwrap();
    let old = cookie(group.member(worker(0, 1)).unwrap());
    assert_eq!(cookie(group.member(worker(0, 1)).unwrap()), old, "it has one");
    let other = cookie(group.member(worker(1, 1)).unwrap());
    let new = cookie(group.member(worker(0, 2)).unwrap());
    assert_eq!(BTreeSet::from([old, new, other]).len(), 3);
    for generation in 3..9 {
        group.gone(worker(0, generation - 2));
        let expected = if generation % 2 == 0 { new } else { old };
        assert_eq!(cookie(group.member(worker(0, generation)).unwrap()), expected);
    }
    assert_eq!(group.members.len(), 3);
    // Clients of the one that was left last may still be on their way to it.
    group.gone(worker(0, 7));
    group.gone(worker(0, 8));
    for (generation, expected) in [(9, new), (10, old)] {
        assert_eq!(cookie(group.member(worker(0, generation)).unwrap()), expected);
    }
    for generation in 11..17 {
        group.member(worker(0, generation)).unwrap();
    }
    let error = group.member(worker(0, 17)).unwrap_err();
    assert!(matches!(error, GroupError::SlotFull(SlotId(0))), "{error}");
    assert!(group.member(worker(1, 2)).is_ok());
}

/// O_NONBLOCK, the backlog and options are of the socket, not of the worker's copy.
#[test]
fn a_member_is_as_new_for_the_next_worker() {
    let mut group = group(Family::V4, 1);
    let member = &group.members[0].listener;
    rustix::io::ioctl_fionbio(member, false).unwrap();
    sockopt::set_tcp_nodelay(member, false).unwrap();
    listen(member, 0).unwrap();
    group.gone(worker(0, 1));
    group.member(worker(0, 2)).unwrap();
    let member = &group.members[0].listener;
    assert!(rustix::fs::fcntl_getfl(member).unwrap().contains(rustix::fs::OFlags::NONBLOCK));
    assert!(sockopt::tcp_nodelay(member).unwrap());
    group.steer(&[(SlotId(0), worker(0, 2))], &ranking(1)).unwrap();
    let open: Vec<_> = clients(5).map(|client| connect_from(client, &group)).collect();
    assert_eq!(arrived(&group, 5).len(), open.len());
}

#[test]
fn a_switch_under_connects_loses_nobody() {
    let mut group = group(Family::V4, 1);
    group.member(worker(0, 2)).unwrap();
    let cookies: Vec<_> = group.holders().collect();
    let ranking = ranking(1);
    group.steer(&serving([0]), &ranking).unwrap();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, group.first.local().port()));
    let count = 2_000;
    let connecting = std::thread::spawn(move || {
        for _ in 0..count {
            let mut client = TcpStream::connect(address).unwrap();
            client.set_read_timeout(Some(PATIENCE)).unwrap();
            client.read_exact(&mut [0]).unwrap();
        }
    });
    let (mut taken, mut switches, mut turn) = ([0, 0], 0, 0_u32);
    while !connecting.is_finished() {
        // Not in step with the clients.
        turn = turn.wrapping_add(0x9e37_79b9);
        let now = worker(0, 1 + (turn >> 31));
        switches += u32::from(group.steer(&[(SlotId(0), now)], &ranking).unwrap());
        for (member, taken) in group.members.iter().zip(&mut taken) {
            while let Ok(accepted) = member.listener.accept() {
                TcpStream::from(accepted.socket).write_all(b"x").unwrap();
                *taken += 1;
            }
        }
    }
    connecting.join().unwrap();
    assert_eq!(taken[0] + taken[1], count);
    assert!(taken[0] > 100 && taken[1] > 100 && switches > 100, "{taken:?}, {switches} switches");
    assert!(group.holders().eq(cookies), "sockets have changed");
}

#[test]
fn a_member_that_was_shut_down_listens_again_and_the_order_is_right() {
    for family in [Family::V4, Family::Dual] {
        let (mut group, ranking) = (group(family, 5), ranking(5));
        for slot in [1, 0, 4, 2] {
            group.steer(&serving(0..5), &ranking).unwrap();
            shut_down(&group, slot);
            assert_eq!(group.check(), 1);
            assert_eq!(group.check(), 0);
            assert_eq!(group.order, Order::Known);
            // Unless it was the last one anyway.
            group.steer(&serving(0..5), &ranking).unwrap();
            assert_agrees(&group, &ranking, 300);
        }
    }
}

/// The first that goes leaves its place to the last, so that the order that remains depends on the order of going.
#[test]
fn the_order_is_found_out_after_several_have_gone() {
    for family in [Family::V4, Family::V6, Family::Dual] {
        for gone in [&[0, 1][..], &[1, 0], &[4, 2, 0], &[3, 1, 19, 7, 18], &[0, 19, 1]] {
            let (mut group, ranking) = (group(family, 20), ranking(20));
            group.steer(&serving(0..20), &ranking).unwrap();
            gone.iter().for_each(|slot| shut_down(&group, *slot));
            group.steer(&serving(0..20), &ranking).unwrap();
            assert_eq!(group.order, Order::Known);
            // Connections of its own, which workers would accept.
            group.members.iter().for_each(|member| while member.listener.accept().is_ok() {});
            if family != Family::V6 {
                assert_agrees(&group, &ranking, 200);
            }
        }
    }
}

#[test]
fn a_change_that_nobody_saw_is_found_out_when_in_doubt() {
    let (mut group, ranking) = (group(Family::V4, 4), ranking(4));
    group.steer(&serving(0..4), &ranking).unwrap();
    shut_down(&group, 1);
    listen(&group.members[place(&group, 1)].listener, BACKLOG).unwrap();
    assert!(!group.steer(&serving(0..4), &ranking).unwrap(), "it is unseen");
    group.doubt();
    group.steer(&serving(0..4), &ranking).unwrap();
    group.members.iter().for_each(|member| while member.listener.accept().is_ok() {});
    assert_agrees(&group, &ranking, 200);
    // They send segments as before.
    let client = connect_from(clients(1).next().unwrap(), &group);
    assert!(kernel::segment_size(&client).unwrap().unwrap() > 20_000);
}

#[test]
fn a_worker_that_listens_again_with_another_backlog_is_noticed() {
    let (mut group, ranking) = (group(Family::V4, 4), ranking(4));
    group.steer(&serving(0..4), &ranking).unwrap();
    let place = place(&group, 1);
    group.members[place].queue_limit =
        kernel::accept_limit(&group.members[place].listener).unwrap();
    assert_eq!(group.check(), 0);
    assert!(!group.members[place].is_restless);
    shut_down(&group, 1);
    listen(&group.members[place].listener, BACKLOG + 1).unwrap();
    assert_eq!(group.check(), 0);
    group.refresh().unwrap();
    group.members.iter().for_each(|member| while member.listener.accept().is_ok() {});
    assert_agrees(&group, &ranking, 200);
}

#[test]
fn members_whose_queues_are_full_are_sorted_out_later() {
    let (mut group, ranking) = (group(Family::V4, 6), ranking(6));
    group.set_backlog(0).unwrap();
    let full = [1, 4];
    for slot in full {
        group.steer(&serving([slot]), &ranking).unwrap();
        let _queued = connect_from(clients(1).next().unwrap(), &group);
        wait_for_queue(&group, worker(slot, 1), 1);
    }
    group.members.reverse();
    group.doubt();
    group.steer(&serving([0, 2, 3, 5]), &ranking).unwrap();
    assert_eq!(group.order, Order::Unknown);
    for member in &group.members {
        while !full.contains(&member.slot.0) && member.listener.accept().is_ok() {}
    }
    for client in clients(40) {
        let _open = connect_from(client, &group);
        let slot = ranking.first_of(ranking.steering().key(client), |slot| group.steers(slot));
        let place = place(&group, slot.unwrap().0);
        wait_for_queue(&group, worker(slot.unwrap().0, 1), 1);
        group.members[place].listener.accept().unwrap();
    }
    group.members.iter().for_each(|member| while member.listener.accept().is_ok() {});
    group.set_backlog(BACKLOG).unwrap();
    group.steer(&serving(0..6), &ranking).unwrap();
    assert_eq!(group.order, Order::Known);
    group.members.iter().for_each(|member| while member.listener.accept().is_ok() {});
    assert_agrees(&group, &ranking, 200);
}

#[test]
fn a_dead_workers_queue_stays_for_its_successor() {
    let (mut group, ranking) = (group(Family::V4, 2), ranking(2));
    // A worker that drains has another socket, and has left it empty since.
    group.member(worker(0, 2)).unwrap();
    group.steer(&serving(0..2), &ranking).unwrap();
    let own = |client: &IpAddr| ranking.first(ranking.steering().key(*client)) == Some(SlotId(0));
    let clients: Vec<_> = clients(40).filter(own).collect();
    let mut open: Vec<_> = clients.iter().map(|client| connect_from(*client, &group)).collect();
    group.gone(worker(0, 1));
    group.gone(worker(0, 2));
    // Others come to the slot that serves.
    group.steer(&serving([1]), &ranking).unwrap();
    let since = Timestamp::now();
    let successor = worker(0, 3);
    group.member(successor).unwrap();
    while group.queued(successor) != Some(u32::try_from(clients.len()).unwrap()) {
        assert!(Timestamp::now().since(since) < PATIENCE, "{:?}", group.queued(successor));
    }
    let place = group.place_held_by(successor).unwrap();
    while let Ok(accepted) = group.members[place].listener.accept() {
        TcpStream::from(accepted.socket).write_all(b"x").unwrap();
    }
    assert_eq!(group.queued(successor), Some(0));
    for client in &mut open {
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.read_exact(&mut [0]).unwrap();
    }
    assert_eq!(group.queued(worker(0, 1)), None);
}

#[test]
fn late_clients_of_a_worker_that_has_gone_are_accepted_and_counted() {
    let (mut group, ranking) = (group(Family::V4, 1), ranking(1));
    group.steer(&serving([0]), &ranking).unwrap();
    let mut open: Vec<_> = clients(3).map(|client| connect_from(client, &group)).collect();
    group.member(worker(0, 2)).unwrap();
    group.steer(&[(SlotId(0), worker(0, 2))], &ranking).unwrap();
    open.extend(clients(2).map(|client| connect_from(client, &group)));
    assert_eq!(group.strays(), 0, "its worker may still accept them");
    group.gone(worker(0, 1));
    group.steer(&[], &ranking).unwrap();
    assert_eq!(group.strays(), 0, "a successor may come");
    group.steer(&[(SlotId(0), worker(0, 2))], &ranking).unwrap();
    let (since, mut closed) = (Timestamp::now(), 0);
    while closed < 3 {
        closed += group.strays();
        assert!(Timestamp::now().since(since) < PATIENCE, "{closed} closed");
    }
    assert_eq!((closed, group.strays(), group.queued(worker(0, 2))), (3, 0, Some(2)));
    assert_eq!(open[0].read(&mut [0]).unwrap(), 0);
}

#[test]
fn a_socket_that_a_worker_has_made_blocking_keeps_nobody_waiting() {
    let (mut group, ranking) = (group(Family::V4, 1), ranking(1));
    group.steer(&serving([0]), &ranking).unwrap();
    let copy = group.member(worker(0, 1)).unwrap().try_clone_to_owned().unwrap();
    let late = connect_from(clients(1).next().unwrap(), &group);
    group.member(worker(0, 2)).unwrap();
    group.steer(&[(SlotId(0), worker(0, 2))], &ranking).unwrap();
    group.gone(worker(0, 1));
    rustix::io::ioctl_fionbio(&copy, false).unwrap();
    let (since, mut closed) = (Timestamp::now(), 0);
    while closed < 1 {
        closed += group.strays();
        assert!(Timestamp::now().since(since) < PATIENCE);
    }
    // Where the thread waits for ever, this one doesn't.
    rustix::io::ioctl_fionbio(&copy, false).unwrap();
    assert_eq!(group.strays(), 0);
    drop(late);
}

#[test]
fn a_socket_on_which_nobody_has_accepted_for_long_is_not_given_out_again() {
    let mut group = group(Family::V4, 1);
    let cookie = |socket: BorrowedFd<'_>| sockopt::socket_cookie(socket).unwrap();
    let first = cookie(group.member(worker(0, 1)).unwrap());
    group.gone(worker(0, 1));
    assert_eq!(cookie(group.member(worker(0, 2)).unwrap()), first, "it has ended soon");
    std::thread::sleep(super::PATIENCE);
    group.gone(worker(0, 2));
    assert_ne!(cookie(group.member(worker(0, 3)).unwrap()), first);
}

/// Waits until so many are in a worker's queue.
fn wait_for_queue(group: &ListenerGroup, worker: WorkerId, count: u32) {
    let since = Timestamp::now();
    while group.queued(worker) != Some(count) {
        assert!(Timestamp::now().since(since) < PATIENCE, "{:?} for {count}", group.queued(worker));
    }
}

#[test]
fn a_probe_finds_out_whether_a_worker_accepts() {
    for family in [Family::V4, Family::V6, Family::Dual] {
        let (mut group, ranking) = (group(family, 2), ranking(2));
        group.steer(&serving(0..2), &ranking).unwrap();
        let (new, now) = (worker(0, 2), Timestamp::now());
        assert!(matches!(group.probe(new), Err(GroupError::NoMember(_))));
        group.member(new).unwrap();
        let before = group.steered.program.clone();
        group.probe(new).unwrap();
        wait_for_queue(&group, new, 1);
        assert!((0..3).all(|n| !group.probed(new, now + SETTLE_TIME * n).unwrap()), "not accepted");
        assert_eq!(group.queued(worker(0, 1)), Some(0), "the one beside it serves on");
        if family != Family::V6 {
            assert_agrees_beside_probe(&group, &ranking);
        }
        let place = group.place_held_by(new).unwrap();
        let accepted = group.members[place].listener.accept().unwrap();
        assert!(group.probed(new, now + SETTLE_TIME * 4).unwrap());
        assert_eq!(group.steered.program, before, "its port is a client's again");
        assert!(!group.probed(new, now + SETTLE_TIME * 5).unwrap(), "it is over");
        let mut accepted = TcpStream::from(accepted.socket);
        accepted.set_nonblocking(false).unwrap();
        assert_eq!(accepted.read(&mut [0]).unwrap(), 0, "it is closed");
    }
}

/// Not of the member that is probed: its queue is looked at.
fn assert_agrees_beside_probe(group: &ListenerGroup, ranking: &KernelRanking) {
    for client in clients(100) {
        let _open = connect_from(client, group);
        let slot = ranking.first(ranking.steering().key(client)).unwrap();
        let place = place(group, slot.0);
        wait_for_queue(group, worker(slot.0, 1), 1);
        let accepted = group.members[place].listener.accept().unwrap();
        assert_eq!(accepted.client.ip(), client);
    }
}

#[test]
fn probes_are_bounded_and_end_with_their_workers() {
    let count = u16::try_from(MAX_PROBES).unwrap();
    let (mut group, ranking) = (group(Family::V4, count + 1), ranking(count + 1));
    assert!(matches!(group.probe(worker(0, 1)), Err(GroupError::NotSteered)));
    group.steer(&serving([0]), &ranking).unwrap();
    (0..count).for_each(|slot| group.probe(worker(slot, 1)).unwrap());
    group.probe(worker(0, 1)).unwrap();
    assert!(matches!(group.probe(worker(count, 1)), Err(GroupError::Probes)));
    group.gone(worker(3, 1));
    group.probe(worker(count, 1)).unwrap();
}

#[test]
fn a_successor_finds_the_members_by_their_names() {
    let kept = Kept::default();
    let front = first(Family::V4);
    let mut group = ListenerGroup::new(&front, BACKLOG).unwrap();
    group.member(worker(0, 1)).unwrap();
    group.keep_in(Box::new(kept.clone()));
    (1..5).for_each(|slot| _ = group.member(worker(slot, 1)).unwrap());
    let ranking = ranking(5);
    group.steer(&serving(0..5), &ranking).unwrap();
    shut_down(&group, 1);
    group.check();
    let holders: Vec<_> = group.holders().collect();
    let order = |group: &ListenerGroup| {
        group.members.iter().map(|member| member.cookie).collect::<Vec<_>>()
    };
    let before = order(&group);
    let copies: Vec<_> = group
        .members
        .iter()
        .map(|member| (member.holder.unwrap(), member.listener.try_clone().unwrap()))
        .collect();
    // After a crash: the store has copies, and so have the workers.
    drop(group);
    assert_eq!(kept.0.lock().unwrap().len(), 5);
    let mut group = ListenerGroup::adopt(&front, BACKLOG, &mut kept.left()).unwrap();
    assert_eq!((order(&group), group.order), (before.clone(), Order::Known));
    group.keep_in(Box::new(kept.clone()));
    for (worker, socket) in &copies {
        assert!(group.hold(*worker, socket.as_fd()));
    }
    assert!(!group.hold(worker(0, 9), front.as_fd()));
    assert!(group.holders().eq(holders.iter().copied()));
    group.steer(&serving(0..5), &ranking).unwrap();
    assert_agrees(&group, &ranking, 200);
    // After an upgrade.
    let mut descriptors = Descriptors::default();
    group.into_descriptors(&mut descriptors);
    let mut group = ListenerGroup::adopt(&front, BACKLOG, &mut descriptors).unwrap();
    assert!(descriptors.is_empty());
    assert_eq!(order(&group), before);
    holders.iter().for_each(|(worker, cookie)| assert!(group.hold_by_cookie(*worker, *cookie)));
    assert!(group.steer(&serving(0..5), &ranking).unwrap(), "the program isn't known");
    assert_agrees(&group, &ranking, 200);
    // A crash in the middle of a change of names.
    let member = &group.members[1];
    let twice = format!("group.{}.5.{}", member.slot, member.cookie);
    kept.keep(&twice, member.listener.as_fd());
    let elsewhere = first(Family::V4);
    kept.keep("group.6.6.1", elsewhere.as_fd());
    let mut torn = ListenerGroup::adopt(&front, BACKLOG, &mut kept.left()).unwrap();
    assert_eq!((order(&torn), torn.order), (before, Order::Unknown));
    torn.keep_in(Box::new(kept.clone()));
    assert!(kept.left().iter().map(|(name, _)| name).all(|name| !name.contains(".6.")));
    assert_eq!(kept.0.lock().unwrap().len(), 5);
}

#[test]
fn names_are_read_as_they_are_written() {
    let name = MemberName { slot: SlotId(3), index: 12, cookie: u64::MAX };
    assert_eq!(name.to_string(), "group.3.12.18446744073709551615");
    assert_eq!(MemberName::parse(&name.to_string()), Some(name));
    for wrong in ["group", "group.1", "group.1.2", "group.1.2.x", "group.1.2.3.4", "groups.1.2.3"] {
        assert_eq!(MemberName::parse(wrong), None, "{wrong}");
    }
}

#[test]
fn a_listener_that_is_not_shared_is_refused() {
    let settings = ListenerSettings { host: None, port: 0, backlog: 1 };
    let error = ListenerGroup::new(&Listener::bind(&settings).unwrap(), 1).unwrap_err();
    assert!(matches!(error, GroupError::NotShared(_)), "{error}");
}

/// Users change for a thread alone by these calls, and with root go all capabilities.
#[test]
fn no_rights_are_needed() {
    use rustix::process::{Gid, Uid};
    let unprivileged = std::thread::spawn(|| {
        if rustix::process::geteuid().is_root() {
            rustix::thread::set_thread_gid(Gid::from_raw(65_534)).unwrap();
            rustix::thread::set_thread_uid(Uid::from_raw(65_534)).unwrap();
        }
        assert!(rustix::thread::capabilities(None).unwrap().effective.is_empty());
        let (mut group, ranking) = (group(Family::Dual, 3), ranking(3));
        group.steer(&serving(0..3), &ranking).unwrap();
        assert_agrees(&group, &ranking, 200);
        group.doubt();
        group.probe(worker(0, 1)).unwrap();
        assert!(group.steer(&serving([1, 2]), &ranking).unwrap());
    });
    unprivileged.join().unwrap();
}

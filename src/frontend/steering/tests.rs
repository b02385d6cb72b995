use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use proptest::prelude::*;

use super::program::{CompileError, Family, MAX_INSTRUCTIONS, Pin, compile};
use super::*;
use crate::kernel::Instruction;

const USUAL: Prefixes = Prefixes { v4: 32, v6: 64 };

fn steering() -> Steering {
    Steering::new(b"secret", USUAL)
}

fn slots(weights: &[f64]) -> Vec<(SlotId, f64)> {
    (0..).map(SlotId).zip(weights.iter().copied()).collect()
}

fn ranking(weights: &[f64]) -> KernelRanking {
    KernelRanking::new(&steering(), &slots(weights))
}

/// The index of a slot's socket that tests take.
fn index(slot: SlotId) -> u16 {
    300 - slot.0
}

/// Runs a program as the kernel does, on a packet from its network header on. Reading beyond it ends it with 0.
fn run(program: &[Instruction], packet: &[u8]) -> u32 {
    let (mut a, mut x, mut memory, mut at) = (0_u32, 0_u32, [0_u32; 16], 0);
    loop {
        let Instruction { code, jt, jf, k } = program[at];
        at += 1;
        let read = |size: usize| {
            let start = k.wrapping_sub(0xfff0_0000) as usize;
            let bytes = packet.get(start..start + size)?;
            Some(bytes.iter().fold(0, |number, byte| number << 8 | u32::from(*byte)))
        };
        let branch = |so: bool| usize::from(if so { jt } else { jf });
        match code {
            0x00 => a = k,
            0x20 | 0x28 | 0x30 => match read([4, 2, 1][usize::from((code - 0x20) / 8)]) {
                Some(number) => a = number,
                None => return 0,
            },
            0x60 => a = memory[k as usize],
            0x61 => x = memory[k as usize],
            0x02 => memory[k as usize] = a,
            0x07 => x = a,
            0x54 => a &= k,
            0x24 => a = a.wrapping_mul(k),
            0x74 => a >>= k,
            0xa4 => a ^= k,
            0xac => a ^= x,
            0x05 => at += k as usize,
            0x15 => at += branch(a == k),
            0x2d => at += branch(a > x),
            0x06 => return k,
            0x16 => return a,
            other => panic!("no instruction {other:#x}"),
        }
    }
}

/// The first packet of a client, with so many bytes of IPv4 options, which look like its port.
fn packet(client: SocketAddr, options: usize) -> Vec<u8> {
    let mut packet = match client.ip() {
        IpAddr::V4(address) => {
            let mut header = vec![0; 20 + options];
            header[0] = 0x45 + u8::try_from(options / 4).unwrap();
            header[9] = 6;
            header[12..16].copy_from_slice(&address.octets());
            for pair in header[20..].chunks_mut(2) {
                pair.copy_from_slice(&client.port().to_be_bytes());
            }
            header
        }
        IpAddr::V6(address) => {
            let mut header = vec![0; 40];
            (header[0], header[6]) = (0x60, 6);
            header[8..24].copy_from_slice(&address.octets());
            header
        }
    };
    packet.extend(client.port().to_be_bytes());
    packet.extend([0; 18]);
    packet
}

fn families(client: IpAddr) -> [Family; 2] {
    [if client.is_ipv4() { Family::V4 } else { Family::V6 }, Family::Dual]
}

/// Some, and the same each time: all of 10.0.0.0/8, say.
fn clients(count: u32) -> impl Iterator<Item = IpAddr> {
    (0..count).map(|n| Ipv4Addr::from_bits(n.wrapping_mul(0x9e37_79b1)).into())
}

fn shares(ranking: &KernelRanking, clients: impl Iterator<Item = IpAddr>) -> Vec<u32> {
    let mut shares = vec![0; ranking.slots().len()];
    for client in clients {
        shares[ranking.first(ranking.steering().key(client)).unwrap().index()] += 1;
    }
    shares
}

#[test]
fn eight_slots_share_evenly_whatever_the_secret() {
    for secret in [&b""[..], b"secret", b"another"] {
        let ranking = KernelRanking::new(&Steering::new(secret, USUAL), &slots(&[1.0; 8]));
        let subnets =
            (0..100_000_u128).map(|n| Ipv6Addr::from_bits((0x2001_0db8 << 96) + (n << 64)).into());
        let neighbours = (0..100_000).map(|n| Ipv4Addr::from_bits(0x0a00_0000 + n).into());
        for shares in [
            shares(&ranking, clients(100_000)),
            shares(&ranking, neighbours),
            shares(&ranking, subnets),
        ] {
            let most = f64::from(*shares.iter().max().unwrap());
            assert!(most / 12_500.0 <= 1.03, "{shares:?}");
        }
    }
}

#[test]
fn a_ninth_slot_takes_its_share_and_moves_no_other_client() {
    let (eight, nine) = (ranking(&[1.0; 8]), ranking(&[1.0; 9]));
    let mut moved = 0;
    for client in clients(100_000) {
        let key = eight.steering().key(client);
        let (before, after) = (eight.first(key), nine.first(key));
        if before != after {
            assert_eq!(after, Some(SlotId(8)));
            moved += 1;
        }
    }
    assert!((10_600..=11_600).contains(&moved), "{moved} of 100,000 moved");
}

#[test]
fn weights_say_who_gets_how_much() {
    for weights in [
        &[2.0, 1.0, 1.0][..],
        &[0.5, 0.25, 0.25],
        &[1.0, 1.5, 2.5],
        &[1.0, 1.1, 1.2],
        &[1.0, 20.0, 3.0],
    ] {
        let total: f64 = weights.iter().sum();
        for (share, weight) in shares(&ranking(weights), clients(100_000)).iter().zip(weights) {
            let expected = weight / total * 100_000.0;
            assert!((f64::from(*share) / expected - 1.0).abs() <= 0.03, "{share} of {expected}");
        }
    }
}

#[test]
fn draws_are_few_and_bounded() {
    assert_eq!(numbers_of_draws(&[3.0; 5]), [1; 5]);
    assert_eq!(numbers_of_draws(&[2.0, 1.0, 1.0]), [2, 1, 1]);
    assert_eq!(numbers_of_draws(&[1.5, 1.0]), [3, 2]);
    assert_eq!(numbers_of_draws(&[]), [0; 0]);
    assert_eq!(numbers_of_draws(&[1.0, 100_000.0]), [1, 254]);
    assert_eq!(numbers_of_draws(&[1.0; 300]), [1; 300]);
}

#[test]
fn as_many_slots_as_promised_fit() {
    let compiled = |count: u16, pins: &[Pin]| {
        let ranking = ranking(&vec![1.0; count.into()]);
        let targets: Vec<_> = (0..count).map(|slot| (SlotId(slot), slot)).collect();
        compile(&ranking, &targets, pins, Family::Dual).map(|program| program.len())
    };
    let pin = Pin { source: SocketAddr::from(([127, 0, 0, 1], 9)), index: 9 };
    // What a kernel takes whose net.core.optmem_max is 20480.
    assert!(compiled(128, &[pin; 32]).unwrap() < 2_400);
    assert!(compiled(u16::try_from(MAX_DRAWS).unwrap(), &[pin; 16]).is_ok());
    let error = compiled(300, &[]).unwrap_err();
    let CompileError::TooLong(length) = error;
    assert!(length > MAX_INSTRUCTIONS && error.to_string().contains("fewer workers"), "{error}");
}

#[test]
fn the_secret_is_not_shown_and_changes_the_choice() {
    let others = Steering::new(b"other", USUAL);
    assert_ne!(others.hash([10, 0, 0, 1].into()), steering().hash([10, 0, 0, 1].into()));
    assert_eq!(format!("{others:?}"), "Steering { prefixes: Prefixes { v4: 32, v6: 64 }, .. }");
}

#[test]
fn an_address_is_one_client_however_it_comes() {
    for same in ["::ffff:10.1.2.3", "64:ff9b::10.1.2.3"] {
        assert_eq!(steering().hash(same.parse().unwrap()), steering().hash([10, 1, 2, 3].into()));
    }
}

#[test]
fn without_a_target_clients_go_to_the_first_socket() {
    let program = compile(&ranking(&[1.0; 3]), &[], &[], Family::Dual).unwrap();
    for client in ["10.0.0.1:1", "[2001:db8::1]:1"] {
        assert_eq!(run(&program, &packet(client.parse().unwrap(), 0)), 0);
    }
}

prop_compose! {
    fn address()(bits: u128, kind in 0..4_u8) -> IpAddr {
        match kind {
            0 | 1 => Ipv4Addr::from_bits(low_word(bits)).into(),
            2 => Ipv6Addr::from_bits(bits).into(),
            // Behind NAT64.
            _ => Ipv6Addr::from_bits(0x0064_ff9b << 96 | u128::from(low_word(bits))).into(),
        }
    }
}

proptest! {
    #[test]
    fn program_and_user_space_agree(
        secret: [u8; 4], v4 in 0..=32_u8, v6 in 0..=128_u8, equal: bool,
        clients in prop::collection::vec((address(), 1..u16::MAX), 1..40),
        slots in prop::collection::vec((0.2..4.0_f64, any::<bool>()), 0..20),
        pinned in prop::collection::vec((address(), 1..u16::MAX), 0..5), options in 0..3_usize,
    ) {
        let steering = Steering::new(&secret, Prefixes { v4, v6 });
        let weighted: Vec<_> = (0..).map(SlotId).zip(slots.iter().map(|(weight, _)| if equal { 1.0 } else { *weight })).collect();
        let serves = |slot: SlotId| slots[slot.index()].1;
        let ranking = KernelRanking::new(&steering, &weighted);
        let targets: Vec<_> = ranking.slots().iter().filter(|slot| serves(**slot)).map(|slot| (*slot, index(*slot))).collect();
        let pins: Vec<_> = (1000..).zip(&pinned).map(|(index, source)| Pin { source: (*source).into(), index }).collect();
        for client in clients.iter().chain(&pinned) {
            // A mapped address comes as IPv4.
            prop_assume!(!matches!(client.0, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some()));
            let belongs = ranking.first_of(steering.key(client.0), serves).map_or(0, index);
            let pin = pins.iter().find(|pin| pin.source == SocketAddr::from(*client)).filter(|_| client.0.is_ipv6() || options == 0);
            let expected = pin.map_or(belongs, |pin| pin.index);
            for family in families(client.0) {
                let program = compile(&ranking, &targets, &pins, family).unwrap();
                prop_assert_eq!(run(&program, &packet((*client).into(), options * 4)), u32::from(expected));
            }
        }
    }

    #[test]
    fn each_in_the_order_is_the_first_of_those_that_follow(
        hash: u32, weights in prop::collection::vec(0.1..9.0_f64, 0..20),
    ) {
        let (key, ranking) = (AffinityKey(hash.into()), ranking(&weights));
        let order = ranking.order(key);
        prop_assert_eq!(order.len(), weights.len());
        for (place, slot) in order.iter().enumerate() {
            let rest = &order[place..];
            prop_assert_eq!(ranking.first_of(key, |slot| rest.contains(&slot)), Some(*slot));
        }
    }

    #[test]
    fn losing_a_slot_moves_only_its_own_clients(hash: u32, slots in 2..40_usize, gone in 0..40_u16) {
        let (key, ranking) = (AffinityKey(hash.into()), ranking(&vec![1.0; slots]));
        let first = ranking.first(key).unwrap();
        let next = ranking.first_of(key, |slot| slot.0 != gone).unwrap();
        prop_assert!(next.0 != gone);
        prop_assert!(first.0 == gone || next == first);
    }
}

//! The kernel's program: the choice of [`KernelRanking`] as instructions of classic BPF, and probes in front of it.
//!
//! It reads the network header alone: the address of the client, and for probes its port. It returns the index of a
//! socket in the group.

use std::net::{IpAddr, SocketAddr};

use crate::frontend::steering::{Draw, FACTORS, KernelRanking};
use crate::kernel::Instruction;
use crate::protocol::ids::SlotId;

/// Instructions of a program, at most: the kernel's `BPF_MAXINSNS`.
pub const MAX_INSTRUCTIONS: usize = 4096;

/// The packets that a listening socket gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// An IPv4 socket.
    V4,
    /// An IPv6 socket that takes IPv6 alone.
    V6,
    /// An IPv6 socket that takes IPv4, too: such packets come as they are.
    Dual,
}

/// A connection from this address and port goes to the socket of that index, wherever its address belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pin {
    /// Where it comes from.
    pub source: SocketAddr,
    /// Where it goes.
    pub index: u16,
}

/// Why there is no program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// The kernel takes no more.
    #[error(
        "program of {0} instructions is too long for the kernel, which takes {MAX_INSTRUCTIONS}: \
         use fewer workers, or weights closer to each other"
    )]
    TooLong(usize),
}

/// The program that sends clients to the slots of `targets`, each to the socket of that index; with no target, to
/// socket 0.
///
/// A packet with IPv4 options or IPv6 extension headers matches no pin: its ports are elsewhere.
///
/// # Errors
///
/// If it is too long.
pub fn compile(
    ranking: &KernelRanking,
    targets: &[(SlotId, u16)],
    pins: &[Pin],
    family: Family,
) -> Result<Vec<Instruction>, CompileError> {
    let mut code = Assembler::default();
    match family {
        Family::V4 => {
            code.pins_v4(pins);
            code.push(LOAD_WORD, SOURCE_V4);
            code.hash_v4(ranking);
        }
        Family::V6 => {
            code.pins_v6(pins);
            let to_v4 = code.nat64();
            code.hash_v6(ranking);
            let to_rank = code.jump();
            code.land(to_v4);
            code.hash_v4(ranking);
            code.land(to_rank);
        }
        Family::Dual => {
            code.push(LOAD_BYTE, NETWORK);
            code.push(SHIFT_RIGHT, 4);
            code.branch(EQUAL, 4, 1, 0);
            let to_v6 = code.jump();
            code.pins_v4(pins);
            code.push(LOAD_WORD, SOURCE_V4);
            let to_v4 = code.jump();
            code.land(to_v6);
            code.pins_v6(pins);
            let nat64_to_v4 = code.nat64();
            code.hash_v6(ranking);
            let to_rank = code.jump();
            code.land(to_v4);
            code.land(nat64_to_v4);
            code.hash_v4(ranking);
            code.land(to_rank);
        }
    }
    code.rank(&ranking.draws, targets);
    if code.code.len() > MAX_INSTRUCTIONS {
        return Err(CompileError::TooLong(code.code.len()));
    }
    Ok(code.code)
}

/// The network header, as an offset: `SKF_NET_OFF`.
const NETWORK: u32 = 0xfff0_0000;
const NEXT_HEADER: u32 = NETWORK + 6;
const SOURCE_V4: u32 = NETWORK + 12;
const PORT_V4: u32 = NETWORK + 20;
const SOURCE_V6: [u32; 4] = [NETWORK + 8, NETWORK + 12, NETWORK + 16, NETWORK + 20];
const PORT_V6: u32 = NETWORK + 40;

/// A random number: `SKF_AD_OFF + SKF_AD_RANDOM`.
const RANDOM: u32 = 0xffff_f000 + 56;

/// Version 4, and a header of 5 words: no options.
const PLAIN_V4: u32 = 0x45;
const TCP: u32 = 6;
/// The first 32 bits of `64:ff9b::/96`.
const NAT64: u32 = 0x0064_ff9b;

// linux/bpf_common.h. A is the accumulator, X the index register, K the constant, M the memory.
const LOAD_CONSTANT: u16 = 0x00;
const LOAD_WORD: u16 = 0x20;
const LOAD_HALF: u16 = 0x28;
const LOAD_BYTE: u16 = 0x30;
const LOAD_MEMORY: u16 = 0x60;
const LOAD_X_MEMORY: u16 = 0x61;
const STORE: u16 = 0x02;
const COPY_TO_X: u16 = 0x07;
const AND: u16 = 0x54;
const MULTIPLY: u16 = 0x24;
const SHIFT_RIGHT: u16 = 0x74;
const XOR: u16 = 0xa4;
const XOR_X: u16 = 0xac;
const JUMP: u16 = 0x05;
const EQUAL: u16 = 0x15;
const GREATER_X: u16 = 0x2d;
const RETURN: u16 = 0x06;
const RETURN_A: u16 = 0x16;

/// Cells of the memory.
const HASH: u32 = 0;
const HIGHEST: u32 = 1;
const BEST: u32 = 2;

/// A jump whose target comes later.
#[derive(Clone, Copy, Debug)]
struct Jump(usize);

/// A program that grows.
#[derive(Debug, Default)]
struct Assembler {
    code: Vec<Instruction>,
}

impl Assembler {
    fn push(&mut self, code: u16, k: u32) {
        self.branch(code, k, 0, 0);
    }

    /// Jumps over so many instructions if so, over so many if not.
    fn branch(&mut self, code: u16, k: u32, jt: u8, jf: u8) {
        self.code.push(Instruction { code, jt, jf, k });
    }

    fn jump(&mut self) -> Jump {
        self.push(JUMP, 0);
        Jump(self.code.len())
    }

    /// A jump ends here. The target of one without a condition has 32 bits.
    fn land(&mut self, jump: Jump) {
        let distance = u32::try_from(self.code.len() - jump.0).unwrap_or(u32::MAX);
        self.code[jump.0 - 1].k = distance;
    }

    fn pins_v4(&mut self, pins: &[Pin]) {
        let pins = pins.iter().filter_map(|pin| match pin.source.ip() {
            IpAddr::V4(address) => Some((address.to_bits(), pin)),
            IpAddr::V6(_) => None,
        });
        let pins: Vec<_> = pins.collect();
        if pins.is_empty() {
            return;
        }
        self.push(LOAD_BYTE, NETWORK);
        self.branch(EQUAL, PLAIN_V4, 1, 0);
        let past = self.jump();
        for (address, pin) in pins {
            self.push(LOAD_WORD, SOURCE_V4);
            self.branch(EQUAL, address, 0, 3);
            self.port(PORT_V4, pin);
        }
        self.land(past);
    }

    fn pins_v6(&mut self, pins: &[Pin]) {
        let pins = pins.iter().filter_map(|pin| match pin.source.ip() {
            IpAddr::V6(address) => Some((address.to_bits(), pin)),
            IpAddr::V4(_) => None,
        });
        let pins: Vec<_> = pins.collect();
        if pins.is_empty() {
            return;
        }
        self.push(LOAD_BYTE, NEXT_HEADER);
        self.branch(EQUAL, TCP, 1, 0);
        let past = self.jump();
        for (address, pin) in pins {
            // To the next pin.
            for ((offset, shift), jf) in
                SOURCE_V6.into_iter().zip([96, 64, 32, 0]).zip([9, 7, 5, 3])
            {
                self.push(LOAD_WORD, offset);
                self.branch(EQUAL, super::low_word(address >> shift), 0, jf);
            }
            self.port(PORT_V6, pin);
        }
        self.land(past);
    }

    fn port(&mut self, offset: u32, pin: &Pin) {
        self.push(LOAD_HALF, offset);
        self.branch(EQUAL, pin.source.port().into(), 0, 1);
        self.push(RETURN, pin.index.into());
    }

    /// Jumps from an address behind NAT64, with its IPv4 address in A.
    fn nat64(&mut self) -> Jump {
        for ((offset, word), jf) in SOURCE_V6.into_iter().zip([NAT64, 0, 0]).zip([6, 4, 2]) {
            self.push(LOAD_WORD, offset);
            self.branch(EQUAL, word, 0, jf);
        }
        self.push(LOAD_WORD, SOURCE_V6[3]);
        self.jump()
    }

    /// From the address in A to the hash in A.
    fn hash_v4(&mut self, ranking: &KernelRanking) {
        let steering = &ranking.steering;
        if steering.is_random {
            self.push(LOAD_WORD, RANDOM);
            return;
        }
        self.push(AND, steering.mask_v4());
        self.push(XOR, steering.seeds.v4);
        self.mix();
    }

    /// To the hash in A.
    fn hash_v6(&mut self, ranking: &KernelRanking) {
        let steering = &ranking.steering;
        if steering.is_random {
            self.push(LOAD_WORD, RANDOM);
            return;
        }
        self.push(LOAD_CONSTANT, steering.seeds.v6);
        for (offset, mask) in SOURCE_V6.into_iter().zip(steering.masks_v6()) {
            if mask == 0 {
                continue;
            }
            self.push(STORE, HASH);
            self.push(LOAD_WORD, offset);
            self.push(AND, mask);
            self.push(LOAD_X_MEMORY, HASH);
            self.push(XOR_X, 0);
            self.mix();
        }
    }

    fn mix(&mut self) {
        self.half_mix();
        self.fold(16);
    }

    fn half_mix(&mut self) {
        self.fold(16);
        self.push(MULTIPLY, FACTORS[0]);
        self.fold(13);
        self.push(MULTIPLY, FACTORS[1]);
    }

    /// A becomes A xor A shifted.
    fn fold(&mut self, shift: u32) {
        self.push(COPY_TO_X, 0);
        self.push(SHIFT_RIGHT, shift);
        self.push(XOR_X, 0);
    }

    /// From the hash in A to the index of the slot whose draw is the highest.
    fn rank(&mut self, draws: &[Draw], targets: &[(SlotId, u16)]) {
        let index =
            |slot| targets.iter().find(|(target, _)| *target == slot).map(|(_, index)| *index);
        let draws = draws.iter().filter_map(|draw| Some((draw.seed, index(draw.slot)?)));
        let draws: Vec<_> = draws.collect();
        let Some((_, first)) = draws.first() else { return self.push(RETURN, 0) };
        if draws.iter().all(|(_, index)| index == first) {
            return self.push(RETURN, (*first).into());
        }
        self.push(STORE, HASH);
        for (number, (seed, index)) in draws.iter().enumerate() {
            self.push(LOAD_MEMORY, HASH);
            self.push(XOR, *seed);
            self.half_mix();
            if number > 0 {
                self.push(LOAD_X_MEMORY, HIGHEST);
                self.branch(GREATER_X, 0, 0, 3);
            }
            self.push(STORE, HIGHEST);
            self.push(LOAD_CONSTANT, (*index).into());
            self.push(STORE, BEST);
        }
        self.push(LOAD_MEMORY, BEST);
        self.push(RETURN_A, 0);
    }
}

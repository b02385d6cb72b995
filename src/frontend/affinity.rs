//! The affinity key of a client: address in, key out.
//!
//! Pure: no I/O, no allocation, no state. The key is the same on every machine and in every run,
//! as long as digest, secret and prefix lengths are.

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use md5::Md5;
use sha2::{Digest, Sha256};

use crate::protocol::ids::AffinityKey;

/// How many leading bits of an address name a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefixes {
    /// Of an IPv4 address, 0 to 32.
    pub v4: u8,
    /// Of an IPv6 address, 0 to 128. A subscriber is given a /64, and changes addresses inside it.
    pub v6: u8,
}

/// The digest that turns an address into a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DigestKind {
    /// MD5, as the sticky sessions of Node's tutorials.
    Md5,
    /// SHA-256.
    Sha256,
}

/// Turns client addresses into keys.
#[derive(Clone)]
pub struct Affinity {
    prefixes: Prefixes,
    /// Has taken in the secret already.
    seeded: Seeded,
}

#[derive(Clone)]
enum Seeded {
    Md5(Md5),
    Sha256(Sha256),
}

impl std::fmt::Debug for Affinity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Not the secret.
        f.debug_struct("Affinity").field("prefixes", &self.prefixes).finish_non_exhaustive()
    }
}

impl Affinity {
    /// With a `secret`, only those who know it can find addresses that share a worker; an
    /// empty one changes nothing.
    #[must_use]
    pub fn new(digest: DigestKind, secret: &[u8], prefixes: Prefixes) -> Self {
        let seeded = match digest {
            DigestKind::Md5 => Seeded::Md5(Md5::new().chain_update(secret)),
            DigestKind::Sha256 => Seeded::Sha256(Sha256::new().chain_update(secret)),
        };
        Self { prefixes, seeded }
    }

    /// The key of the client at `address`: the first 8 bytes, little-endian, of the digest of the
    /// address as text, folded and cut to its prefix.
    #[must_use]
    pub fn key(&self, address: IpAddr) -> AffinityKey {
        AffinityKey(self.digested(address, first_eight))
    }

    /// The part of the address that counts: it is folded and cut to its prefix.
    #[must_use]
    pub fn counts(&self, address: IpAddr) -> IpAddr {
        cut(fold(address), self.prefixes)
    }

    /// The whole digest that the key is the beginning of, in hexadecimal, and its name, as the
    /// setting has it. Not for the way of connections: it allocates.
    #[must_use]
    pub fn digest(&self, address: IpAddr) -> (&'static str, String) {
        let name = match &self.seeded {
            Seeded::Md5(_) => "md5",
            Seeded::Sha256(_) => "sha256",
        };
        (name, self.digested(address, hexadecimal))
    }

    fn digested<T>(&self, address: IpAddr, take: impl FnOnce(&[u8]) -> T) -> T {
        let mut text = [0; LONGEST];
        let mut rest = &mut text[..];
        // The longest address fits, so that this cannot fail.
        let _ = match self.counts(address) {
            IpAddr::V4(v4) => write_v4(&mut rest, v4),
            IpAddr::V6(v6) => write!(rest, "{v6}"),
        };
        let unused = rest.len();
        let text = &text[..LONGEST - unused];
        match &self.seeded {
            Seeded::Md5(state) => take(&state.clone().chain_update(text).finalize()),
            Seeded::Sha256(state) => take(&state.clone().chain_update(text).finalize()),
        }
    }
}

/// Bytes of the longest IPv6 address as text: `INET6_ADDRSTRLEN`.
const LONGEST: usize = 46;

/// IPv4 addresses that come as IPv6 are IPv4: mapped ones (`::ffff:a.b.c.d`, RFC 4291), as a
/// dual-stack listener reports them, and those behind NAT64 (`64:ff9b::/96`, RFC 6052).
#[must_use]
pub fn fold(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    match v6.octets() {
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
        | [0x00, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d] => {
            Ipv4Addr::new(a, b, c, d).into()
        }
        _ => address,
    }
}

fn cut(address: IpAddr, prefixes: Prefixes) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefixes.v4.min(32))).unwrap_or(0);
            Ipv4Addr::from_bits(v4.to_bits() & mask).into()
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefixes.v6.min(128))).unwrap_or(0);
            Ipv6Addr::from_bits(v6.to_bits() & mask).into()
        }
    }
}

/// As `Display` does, which takes a tenth of a microsecond more a connection.
fn write_v4(text: &mut impl Write, address: Ipv4Addr) -> io::Result<()> {
    let mut dot: &[u8] = b"";
    for octet in address.octets() {
        text.write_all(dot)?;
        dot = b".";
        let digits = [octet / 100, octet / 10 % 10, octet % 10].map(|digit| b'0' + digit);
        let leading_zeros = usize::from(octet < 100) + usize::from(octet < 10);
        text.write_all(&digits[leading_zeros..])?;
    }
    Ok(())
}

fn first_eight(digest: &[u8]) -> u64 {
    digest.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

fn hexadecimal(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WHOLE: Prefixes = Prefixes { v4: 32, v6: 128 };
    const USUAL: Prefixes = Prefixes { v4: 32, v6: 64 };

    fn key(prefixes: Prefixes, address: &str) -> AffinityKey {
        Affinity::new(DigestKind::Md5, b"", prefixes).key(address.parse().unwrap())
    }

    #[test]
    fn is_the_digest_of_the_text() {
        // md5("127.0.0.1") = f528764d 624db129 …, sha256("127.0.0.1") = 12ca17b4 9af22894 …
        assert_eq!(
            key(WHOLE, "127.0.0.1").0,
            u64::from_le_bytes(*b"\xf5\x28\x76\x4d\x62\x4d\xb1\x29")
        );
        let sha = Affinity::new(DigestKind::Sha256, b"", WHOLE).key(Ipv4Addr::LOCALHOST.into());
        assert_eq!(sha.0, u64::from_le_bytes(*b"\x12\xca\x17\xb4\x9a\xf2\x28\x94"));
    }

    #[test]
    fn the_whole_digest_is_told_with_what_it_was_made_of() {
        let client = "::ffff:127.0.0.1".parse().unwrap();
        let md5 = Affinity::new(DigestKind::Md5, b"", USUAL);
        assert_eq!(md5.counts(client), IpAddr::from(Ipv4Addr::LOCALHOST));
        assert_eq!(md5.digest(client), ("md5", "f528764d624db129b32c21fbca0cb8d6".to_owned()));
        let sha256 = Affinity::new(DigestKind::Sha256, b"secret", USUAL);
        let (name, text) = sha256.digest(client);
        assert_eq!((name, text.len()), ("sha256", 64));
        let first = u64::from_str_radix(&text[..16], 16).unwrap();
        assert_eq!(first.swap_bytes(), sha256.key(client).0);
    }

    #[test]
    fn one_client_has_one_key_however_its_address_is_written() {
        for same in ["::ffff:10.1.2.3", "64:ff9b::10.1.2.3", "64:ff9b::a01:203"] {
            assert_eq!(key(WHOLE, same), key(WHOLE, "10.1.2.3"), "{same}");
        }
        assert_ne!(key(WHOLE, "::10.1.2.3"), key(WHOLE, "10.1.2.3"));
        assert_ne!(key(WHOLE, "64:ff9b:1::10.1.2.3"), key(WHOLE, "10.1.2.3"));
    }

    #[test]
    fn prefixes_say_how_much_names_a_client() {
        assert_eq!(key(USUAL, "2001:db8:0:1::2"), key(USUAL, "2001:db8:0:1:ffff::9"));
        assert_ne!(key(USUAL, "2001:db8:0:1::2"), key(USUAL, "2001:db8:0:2::2"));
        let network = Prefixes { v4: 24, v6: 48 };
        assert_eq!(key(network, "10.1.2.3"), key(network, "10.1.2.250"));
        assert_ne!(key(network, "10.1.2.3"), key(network, "10.1.3.3"));
        let everybody = Prefixes { v4: 0, v6: 0 };
        assert_eq!(key(everybody, "10.1.2.3"), key(everybody, "250.250.250.250"));
        assert_eq!(key(everybody, "2001:db8::1"), key(everybody, "fe80::1"));
    }

    #[test]
    fn a_secret_moves_the_keys() {
        let with = |secret| Affinity::new(DigestKind::Md5, secret, WHOLE).key([10, 0, 0, 1].into());
        assert_ne!(with(b"a"), with(b"b"));
        assert_ne!(with(b"a"), with(b""));
    }

    #[test]
    fn an_ipv4_address_is_written_as_everybody_writes_it() {
        for octet in 0..=u8::MAX {
            for address in [Ipv4Addr::new(octet, 0, 10, 255), Ipv4Addr::new(1, 99, 100, octet)] {
                let mut text = Vec::new();
                write_v4(&mut text, address).unwrap();
                assert_eq!(String::from_utf8(text).unwrap(), address.to_string());
            }
        }
    }

    proptest! {
        #[test]
        fn mapped_addresses_are_their_ipv4(bits in any::<u32>(), v4 in 0..=32_u8) {
            let address = Ipv4Addr::from_bits(bits);
            let affinity = Affinity::new(DigestKind::Md5, b"", Prefixes { v4, v6: 64 });
            prop_assert_eq!(affinity.key(address.to_ipv6_mapped().into()), affinity.key(address.into()));
        }

        #[test]
        fn only_the_prefix_counts(bits in any::<u128>(), host in any::<u64>()) {
            let address = Ipv6Addr::from_bits(bits);
            let neighbour = Ipv6Addr::from_bits((bits & !u128::from(u64::MAX)) | u128::from(host));
            prop_assume!(fold(address.into()).is_ipv6() && fold(neighbour.into()).is_ipv6());
            let affinity = Affinity::new(DigestKind::Sha256, b"s", USUAL);
            prop_assert_eq!(affinity.key(address.into()), affinity.key(neighbour.into()));
        }
    }
}

use std::net::{IpAddr, SocketAddr, SocketAddrV6};

use proptest::prelude::*;

use super::*;
use crate::protocol::ids::{AffinityKey, ConnectionId, Timestamp};

fn addresses() -> impl Strategy<Value = SocketAddr> {
    let v4 = any::<([u8; 4], u16)>().prop_map(|(ip, port)| (IpAddr::from(ip), port).into());
    let v6 = any::<([u8; 16], u16, u32)>()
        .prop_map(|(ip, port, scope)| SocketAddrV6::new(ip.into(), port, 0, scope).into());
    prop_oneof![v4, v6]
}

fn records() -> impl Strategy<Value = ConnectionRecord> {
    (any::<(u64, u64, u64)>(), addresses(), addresses()).prop_map(
        |((id, at, key), client, local)| ConnectionRecord {
            id: ConnectionId(id),
            accepted_at: Timestamp(at),
            key: AffinityKey(key),
            client,
            local,
            tag: id ^ key,
        },
    )
}

proptest! {
    #[test]
    fn connections_survive_the_wire(sent in prop::collection::vec(records(), 1..=BATCH)) {
        let mut buffer = [0xff; MAX_TO_WORKER];
        let bytes = encode_connections(&mut buffer, sent.iter());
        let ToWorker::Connections(got) = decode_to_worker(bytes).unwrap() else {
            panic!("not connections")
        };
        prop_assert_eq!(got.iter().collect::<Vec<_>>(), sent);
    }

    #[test]
    fn ids_survive_the_wire(sent in prop::collection::vec(any::<u64>(), 1..=BATCH)) {
        let mut buffer = [0xff; MAX_IDS];
        let bytes = encode_refuse(&mut buffer, sent.iter().copied().map(ConnectionId));
        let ToPrimary::Refuse(got) = decode_to_primary(bytes).unwrap() else {
            panic!("not a refusal")
        };
        prop_assert_eq!(got.iter().map(|id| id.0).collect::<Vec<_>>(), sent);
    }

    #[test]
    fn no_bytes_panic_the_decoders(bytes in prop::collection::vec(any::<u8>(), 0..700)) {
        let _ = decode_to_primary(&bytes);
        let _ = decode_to_worker(&bytes);
    }

    #[test]
    fn no_bytes_behind_a_good_header_panic_the_decoders(
        kind in any::<u8>(), count in any::<u16>(),
        body in prop::collection::vec(any::<u8>(), 0..700),
    ) {
        let bytes = [&header(kind, count)[..], &body].concat();
        let _ = decode_to_primary(&bytes);
        let _ = decode_to_worker(&bytes);
    }
}

#[test]
fn a_record_stands_where_the_documentation_says() {
    let record = ConnectionRecord {
        id: ConnectionId(0x0807_0605_0403_0201),
        accepted_at: Timestamp(2),
        key: AffinityKey(3),
        client: "10.1.2.3:258".parse().unwrap(),
        local: "[2001:db8::1]:80".parse().unwrap(),
        tag: 7,
    };
    let mut buffer = [0; MAX_TO_WORKER];
    let bytes = encode_connections(&mut buffer, [&record].into_iter());
    assert_eq!(bytes.len(), 88);
    assert_eq!(&bytes[..8], b"SL\x01\x01\x01\x00\x00\x00");
    assert_eq!(&bytes[8..16], &[1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!((bytes[16], bytes[24]), (2, 3));
    assert_eq!(&bytes[32..48], &[4, 0, 2, 1, 0, 0, 0, 0, 10, 1, 2, 3, 0, 0, 0, 0]);
    assert_eq!(&bytes[56..68], &[6, 0, 80, 0, 0, 0, 0, 0, 0x20, 0x01, 0x0d, 0xb8]);
    assert_eq!(&bytes[80..], &[7, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn what_is_not_a_message_is_told_apart() {
    let cases: &[(&[u8], MessageError)] = &[
        (b"", MessageError::Short(0)),
        (b"SL\x01", MessageError::Short(3)),
        (b"XY\x01\x82\0\0\0\0", MessageError::Magic(b'X', b'Y')),
        (b"SL\x02\x82\0\0\0\0", MessageError::Version(2)),
        (b"SL\x01\x01\0\0\0\0", MessageError::Kind(1)),
        (b"SL\x01\x82\x01\0\0\0", MessageError::Length { kind: 0x82, count: 1, length: 8 }),
        (b"SL\x01\x83\0\0\0\0", MessageError::Length { kind: 0x83, count: 0, length: 8 }),
        (
            b"SL\x01\x83\x02\0\0\0\x01\0\0\0\0\0\0\0",
            MessageError::Length { kind: 0x83, count: 2, length: 16 },
        ),
    ];
    for (bytes, expected) in cases {
        assert_eq!(decode_to_primary(bytes).unwrap_err(), *expected);
    }
}

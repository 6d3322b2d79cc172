//! PROXY protocol version 2, by which a load balancer says whose connection it passes on:
//! <https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>, section 2.2.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const FIXED_BYTES: usize = 16;
/// Bytes of a header at most: its fixed part, two addresses and what a Network Load Balancer adds in TLVs.
pub(super) const MAX_BYTES: usize = 4_096;

/// What the beginning of a connection says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Header {
    /// More bytes are needed to tell.
    Incomplete,
    /// A header of `length` bytes; `source` is `None` where the balancer speaks for itself, as in health checks.
    Complete {
        source: Option<IpAddr>,
        length: usize,
    },
    Invalid,
}

pub(super) fn parse(bytes: &[u8]) -> Header {
    let known = bytes.len().min(SIGNATURE.len());
    if bytes[..known] != SIGNATURE[..known] {
        return Header::Invalid;
    }
    let Some(&[version_and_command, family, high, low]) = bytes.get(12..FIXED_BYTES) else { return Header::Incomplete };
    let length = FIXED_BYTES + usize::from(u16::from_be_bytes([high, low]));
    if version_and_command & 0xf0 != 0x20 || length > MAX_BYTES {
        return Header::Invalid;
    }
    let Some(addresses) = bytes.get(FIXED_BYTES..length) else { return Header::Incomplete };
    let source = match (version_and_command & 0x0f, family) {
        // LOCAL; and of PROXY those families that are not IP.
        (0, _) | (1, 0x00 | 0x31 | 0x32) => Some(None),
        (1, 0x11) => addresses.first_chunk::<4>().filter(|_| addresses.len() >= 12).map(|bytes| Some(v4(bytes))),
        (1, 0x21) => addresses.first_chunk::<16>().filter(|_| addresses.len() >= 36).map(|bytes| Some(v6(bytes))),
        _ => None,
    };
    source.map_or(Header::Invalid, |source| Header::Complete { source, length })
}

fn v4(bytes: &[u8; 4]) -> IpAddr {
    Ipv4Addr::from(*bytes).into()
}

fn v6(bytes: &[u8; 16]) -> IpAddr {
    IpAddr::from(Ipv6Addr::from(*bytes)).to_canonical()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    fn header(version_and_command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
        let length = u16::try_from(addresses.len()).unwrap().to_be_bytes();
        [SIGNATURE, &[version_and_command, family][..], &length, addresses].concat()
    }

    const TCP4: [u8; 12] = [203, 0, 113, 9, 10, 0, 0, 1, 0xc0, 0, 0, 80];

    #[rstest]
    #[case::tcp_over_ipv4(0x21, 0x11, TCP4.to_vec(), Some("203.0.113.9"))]
    #[case::with_tlvs(0x21, 0x11, [&TCP4[..], &[0xea, 0, 1, 7]].concat(), Some("203.0.113.9"))]
    #[case::tcp_over_ipv6(0x21, 0x21, [&[0x20, 1, 0x0d, 0xb8][..], &[0; 32]].concat(), Some("2001:db8::"))]
    #[case::health_check(0x20, 0x00, Vec::new(), None)]
    #[case::unspecified(0x21, 0x00, Vec::new(), None)]
    fn a_header_says_whose_connection_it_is(
        #[case] command: u8,
        #[case] family: u8,
        #[case] addresses: Vec<u8>,
        #[case] source: Option<&str>,
    ) {
        let mut bytes = header(command, family, &addresses);
        let (length, source) = (bytes.len(), source.map(|source| source.parse().unwrap()));
        for end in 0..length {
            assert_eq!(parse(&bytes[..end]), Header::Incomplete);
        }
        bytes.extend(b"POST / HTTP/1.1\r\n");
        assert_eq!(parse(&bytes), Header::Complete { source, length });
    }

    #[rstest]
    #[case::http(b"POST / HTTP/1.1\r\n".to_vec())]
    #[case::version_1(b"PROXY TCP4 203.0.113.9 10.0.0.1 1 2\r\n".to_vec())]
    #[case::another_version(header(0x31, 0x11, &TCP4))]
    #[case::another_command(header(0x22, 0x11, &TCP4))]
    #[case::too_short_for_its_family(header(0x21, 0x11, &TCP4[..11]))]
    #[case::udp(header(0x21, 0x12, &TCP4))]
    #[case::too_long(header(0x21, 0x11, &[0; MAX_BYTES]))]
    fn anything_else_is_invalid(#[case] bytes: Vec<u8>) {
        assert_eq!(parse(&bytes), Header::Invalid);
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_odd(tail in prop::collection::vec(any::<u8>(), 0..100)) {
            parse(&[SIGNATURE, &tail[..]].concat());
            parse(&tail);
        }
    }
}

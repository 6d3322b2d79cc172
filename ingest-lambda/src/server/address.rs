//! Whose request it is: the address of the connection, or what proxies that are trusted say in `X-Forwarded-For`.

use std::net::IpAddr;

use crate::front_door::client_address;

/// Networks of proxies that append the address they saw to `X-Forwarded-For`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedProxies(Vec<Network>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    prefix_bits: u32,
}

/// A text that is no network.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("holds {0:?}; it takes networks such as 10.0.0.0/8 and 2001:db8::/32, separated by commas")]
pub struct NoNetwork(String);

impl TrustedProxies {
    /// Reads networks, separated by commas.
    ///
    /// # Errors
    ///
    /// When one is malformed.
    pub fn parse(text: &str) -> Result<Self, NoNetwork> {
        let network = |text: &str| Network::parse(text).ok_or_else(|| NoNetwork(text.to_owned()));
        text.split(',').map(str::trim).filter(|text| !text.is_empty()).map(network).collect::<Result<_, _>>().map(Self)
    }

    /// The client's address: the last one in `X-Forwarded-For` that is no trusted proxy's, as far as trusted proxies wrote it.
    #[must_use]
    pub fn client(&self, peer: IpAddr, forwarded_for: Option<&str>) -> IpAddr {
        let mut client = peer;
        for hop in forwarded_for.unwrap_or_default().rsplit(',') {
            if !self.trusts(client) {
                break;
            }
            let Some(address) = client_address(hop.trim()) else { break };
            client = address;
        }
        client
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }
}

impl Network {
    fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let address: IpAddr = address.parse().ok()?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let prefix_bits = prefix.map_or(Some(width), |prefix| prefix.parse().ok().filter(|bits| *bits <= width))?;
        Some(Self { address, prefix_bits })
    }

    fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                (u32::from(own) ^ u32::from(other)).checked_shr(32 - self.prefix_bits).unwrap_or(0) == 0
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                (u128::from(own) ^ u128::from(other)).checked_shr(128 - self.prefix_bits).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::nobody_is_trusted("", "198.51.100.7", Some("203.0.113.9"), "198.51.100.7")]
    #[case::a_proxy_says("10.0.0.0/8", "10.1.2.3", Some("203.0.113.9"), "203.0.113.9")]
    #[case::a_client_lies("10.0.0.0/8", "10.1.2.3", Some("192.0.2.1, 203.0.113.9"), "203.0.113.9")]
    #[case::two_proxies("10.0.0.0/8,192.0.2.0/24", "10.1.2.3", Some("203.0.113.9, 192.0.2.1"), "203.0.113.9")]
    #[case::a_stranger_says("10.0.0.0/8", "198.51.100.7", Some("203.0.113.9"), "198.51.100.7")]
    #[case::nothing_is_said("10.0.0.0/8", "10.1.2.3", None, "10.1.2.3")]
    #[case::nonsense_is_said("10.0.0.0/8", "10.1.2.3", Some("203.0.113.9, unknown"), "10.1.2.3")]
    #[case::with_a_port("10.0.0.0/8", "10.1.2.3", Some("203.0.113.9:443"), "203.0.113.9")]
    #[case::ipv6("2001:db8::/32", "2001:db8::1", Some("2001:db9::7"), "2001:db9::7")]
    #[case::one_address("10.1.2.3", "10.1.2.3", Some("203.0.113.9"), "203.0.113.9")]
    #[case::its_neighbour("10.1.2.3", "10.1.2.4", Some("203.0.113.9"), "10.1.2.4")]
    #[case::everybody("0.0.0.0/0", "198.51.100.7", Some("203.0.113.9"), "203.0.113.9")]
    fn the_client_is_who_the_last_trusted_proxy_saw(
        #[case] trusted: &str,
        #[case] peer: &str,
        #[case] forwarded_for: Option<&str>,
        #[case] client: &str,
    ) {
        let trusted = TrustedProxies::parse(trusted).unwrap();
        assert_eq!(trusted.client(peer.parse().unwrap(), forwarded_for), client.parse::<IpAddr>().unwrap());
    }

    #[rstest]
    #[case("10.0.0.0/33")]
    #[case("10.0.0/8")]
    #[case("10.0.0.0/8;10.1.0.0/16")]
    #[case("::/129")]
    #[case("10.0.0.0/")]
    fn what_is_no_network_is_named(#[case] text: &str) {
        assert_eq!(TrustedProxies::parse(text), Err(NoNetwork(text.to_owned())));
    }
}

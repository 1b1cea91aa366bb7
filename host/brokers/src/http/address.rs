//! What kind of place an IP address is, so that outgoing requests stay where they belong.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where an address leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The public internet.
    Public,
    /// This machine.
    Loopback,
    /// A private network.
    Private,
    /// Nowhere that a request should go: link-local (where clouds keep their metadata),
    /// multicast, unspecified and reserved addresses.
    Forbidden,
}

impl Place {
    /// The place of an address. One that wraps an IPv4 address is where that one is.
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::of_v4(address),
            IpAddr::V6(address) => Self::of_v6(address),
        }
    }

    fn of_v4(address: Ipv4Addr) -> Self {
        match address.octets() {
            [127, ..] => Self::Loopback,
            [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Self::Private,
            // Shared by a provider's customers (RFC 6598). Some clouds keep metadata there.
            [100, 100, 100, 200] => Self::Forbidden,
            [100, 64..=127, ..] => Self::Private,
            // This network, link-local, protocol assignments and 6to4 relays.
            [0, ..] | [169, 254, ..] | [192, 0, 0, _] | [192, 88, 99, _] => Self::Forbidden,
            // Documentation and benchmarks.
            [192, 0, 2, _] | [198, 18..=19, ..] | [198, 51, 100, _] | [203, 0, 113, _] => {
                Self::Forbidden
            }
            // Multicast, reserved and broadcast.
            [224..=255, ..] => Self::Forbidden,
            _ => Self::Public,
        }
    }

    fn of_v6(address: Ipv6Addr) -> Self {
        if address == Ipv6Addr::LOCALHOST {
            return Self::Loopback;
        }
        // The metadata service of a cloud, amid private addresses.
        if address == Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254) {
            return Self::Forbidden;
        }
        if let Some(embedded) = embedded_v4(address) {
            return match Self::of_v4(embedded) {
                // What is local as IPv4 is not meant when it is written like this.
                Self::Public => Self::Public,
                _ if address.to_ipv4_mapped().is_some() => Self::of_v4(embedded),
                _ => Self::Forbidden,
            };
        }
        match address.segments() {
            [0xfc00..=0xfdff, ..] => Self::Private,
            // Protocol assignments (Teredo is one), documentation and segment routing.
            [0x2001, 0..=0x01ff, ..] | [0x2001, 0x0db8, ..] | [0x3fff, 0..=0x0fff, ..] => {
                Self::Forbidden
            }
            [0x2000..=0x3fff, ..] => Self::Public,
            _ => Self::Forbidden,
        }
    }
}

/// The IPv4 address that an IPv6 address stands for: mapped, compatible, NAT64 or 6to4.
fn embedded_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let join = |high: u16, low: u16| Ipv4Addr::from(u32::from(high) << 16 | u32::from(low));
    match address.segments() {
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] => Some(join(high, low)),
        [0x0064, 0xff9b, 0, 0, 0, 0, high, low] => Some(join(high, low)),
        [0x2002, high, low, ..] => Some(join(high, low)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(place: Place, addresses: &[&str]) {
        for address in addresses {
            assert_eq!(Place::of(address.parse().unwrap()), place, "{address}");
        }
    }

    #[test]
    fn an_address_is_where_it_leads_however_it_is_written() {
        places(
            Place::Public,
            &[
                "1.1.1.1",
                "172.15.0.1",
                "172.32.0.1",
                "100.128.0.1",
                "2606:4700::1111",
            ],
        );
        places(
            Place::Public,
            &["::ffff:1.1.1.1", "64:ff9b::1.1.1.1", "2002:101:101::1"],
        );
        places(
            Place::Loopback,
            &["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"],
        );
        places(
            Place::Private,
            &[
                "10.0.0.1",
                "172.16.0.1",
                "192.168.1.1",
                "100.64.0.1",
                "fd12::1",
                "::ffff:10.0.0.1",
            ],
        );
    }

    #[test]
    fn metadata_link_local_multicast_and_reserved_addresses_are_forbidden() {
        places(
            Place::Forbidden,
            &[
                "169.254.169.254",
                "fd00:ec2::254",
                "100.100.100.200",
                "::ffff:169.254.169.254",
            ],
        );
        places(
            Place::Forbidden,
            &[
                "0.0.0.0",
                "0.1.2.3",
                "255.255.255.255",
                "224.0.0.1",
                "240.0.0.1",
                "198.18.0.1",
            ],
        );
        places(
            Place::Forbidden,
            &[
                "::",
                "fe80::1",
                "ff02::1",
                "2001::1",
                "2001:db8::1",
                "100::1",
            ],
        );
        // Local addresses in disguise.
        places(
            Place::Forbidden,
            &[
                "::127.0.0.1",
                "64:ff9b::127.0.0.1",
                "64:ff9b::10.0.0.1",
                "2002:7f00:1::",
                "2002:a9fe:a9fe::1",
                "64:ff9b:1::1",
            ],
        );
    }
}

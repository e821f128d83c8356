//! Which addresses a node may ask: those that are routable from everywhere, and those that its configuration allows. Pure.
//!
//! The tables are IANA's registries of special-purpose addresses, and what of the IPv6 space is no global unicast.
//!
//! # Invariants
//!
//! - **What is not known to be routable is refused.** Of IPv6 that is all outside `2000::/3`.
//! - **An IPv4 address inside an IPv6 one is judged as well**: allowing a network of translators does not allow what is behind them.
//!
//! Checked by this file's tests, range by range.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6(first: [u16; 4], prefix: u8) -> Ipv6Net {
    let [a, b, c, d] = first;
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0), prefix)
}

/// IPv4 that is not routable from everywhere.
#[rustfmt::skip]
const SPECIAL_V4: [Ipv4Net; 18] = [
    v4(0, 0, 0, 0, 8),       // this network, and no address at all
    v4(10, 0, 0, 0, 8),      // private
    v4(100, 64, 0, 0, 10),   // shared by a provider's customers
    v4(127, 0, 0, 0, 8),     // loopback
    v4(168, 63, 129, 16, 32), // a cloud's host, as its guests see it: in no registry
    v4(169, 254, 0, 0, 16),  // link-local: metadata of clouds, among others
    v4(172, 16, 0, 0, 12),   // private
    v4(192, 0, 0, 0, 24),    // protocol assignments
    v4(192, 0, 2, 0, 24),    // documentation
    v4(192, 31, 196, 0, 24), // AS112
    v4(192, 52, 193, 0, 24), // AMT
    v4(192, 88, 99, 0, 24),  // relays of 6to4
    v4(192, 168, 0, 0, 16),  // private
    v4(192, 175, 48, 0, 24), // AS112
    v4(198, 18, 0, 0, 15),   // benchmarking
    v4(198, 51, 100, 0, 24), // documentation
    v4(203, 0, 113, 0, 24),  // documentation
    v4(224, 0, 0, 0, 3),     // multicast, reserved, broadcast
];

/// Where IPv6 is routable from everywhere, but for [`SPECIAL_V6`].
const GLOBAL_V6: Ipv6Net = v6([0x2000, 0, 0, 0], 3);

/// What of it is not.
#[rustfmt::skip]
const SPECIAL_V6: [Ipv6Net; 6] = [
    v6([0x2001, 0, 0, 0], 23),          // protocol assignments: Teredo, benchmarking, ORCHID
    v6([0x2001, 0x0db8, 0, 0], 32),     // documentation
    v6([0x2002, 0, 0, 0], 16),          // 6to4
    v6([0x2620, 0x004f, 0x8000, 0], 48), // AS112
    v6([0x3ffe, 0, 0, 0], 16),          // the first trial of IPv6
    v6([0x3fff, 0, 0, 0], 20),          // documentation
];

/// Forms of IPv6 addresses that have an IPv4 one in them: as it is mapped, was compatible, and is translated; also by a network's own
/// translators, of which those with 96 bits before it are known here.
#[rustfmt::skip]
const AT_THE_END: [Ipv6Net; 4] = [
    Ipv6Net::new_assert(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96),
    Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 96),
    Ipv6Net::new_assert(Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96),
    v6([0x64, 0xff9b, 1, 0], 48),
];
const SIX_TO_FOUR: Ipv6Net = v6([0x2002, 0, 0, 0], 16);
const TEREDO: Ipv6Net = v6([0x2001, 0, 0, 0], 32);

/// The IPv4 address that is in an IPv6 one.
fn inner(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let at = |from: usize| {
        let octets = address.octets();
        Ipv4Addr::new(octets[from], octets[from + 1], octets[from + 2], octets[from + 3])
    };
    if AT_THE_END.iter().any(|form| form.contains(&address)) {
        // What is left at the beginning of the compatible ones means something else.
        let is_own = address.is_unspecified() || address.is_loopback();
        return (!is_own).then(|| at(12));
    }
    if SIX_TO_FOUR.contains(&address) {
        return Some(at(2));
    }
    // Teredo's clients are written with all bits turned round.
    TEREDO.contains(&address).then(|| Ipv4Addr::from_bits(!at(12).to_bits()))
}

/// Whether an address is routable from everywhere, by itself.
fn is_global(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !SPECIAL_V4.iter().any(|special| special.contains(&address)),
        IpAddr::V6(address) => {
            let special = SPECIAL_V6.iter().any(|special| special.contains(&address));
            GLOBAL_V6.contains(&address) && !special
        }
    }
}

/// What a node's configuration says of addresses.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Networks {
    allow: Vec<IpNet>,
    deny: Vec<IpNet>,
}

impl Networks {
    /// `allow`: what may be asked although it is not routable from everywhere. `deny`: what may not in any case.
    #[must_use]
    pub fn new(allow: Vec<IpNet>, deny: Vec<IpNet>) -> Self {
        Self { allow, deny }
    }

    /// Whether a connection may go there.
    #[must_use]
    pub fn may(&self, address: IpAddr) -> bool {
        let holds = |networks: &[IpNet]| networks.iter().any(|network| network.contains(&address));
        if holds(&self.deny) {
            return false;
        }
        let inner = match address {
            IpAddr::V4(_) => None,
            IpAddr::V6(address) => inner(address),
        };
        let inside = inner.is_none_or(|inner| self.may(inner.into()));
        inside && (is_global(address) || holds(&self.allow))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(allow: &[&str], deny: &[&str]) -> Networks {
        let parsed = |all: &[&str]| all.iter().map(|one| one.parse().unwrap()).collect();
        Networks::new(parsed(allow), parsed(deny))
    }

    #[track_caller]
    fn check(networks: &Networks, addresses: &[&str], expected: bool) {
        for address in addresses {
            assert_eq!(networks.may(address.parse().unwrap()), expected, "{address}");
        }
    }

    #[test]
    fn what_is_routable_may_be_asked() {
        #[rustfmt::skip]
        check(&Networks::default(), &[
            "1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255",
            "128.0.0.0", "168.63.129.15", "168.63.129.17", "169.253.255.255", "169.255.0.0", "172.15.255.255", "172.32.0.0", "192.0.1.0", "192.0.3.0",
            "192.167.255.255", "192.169.0.0", "198.17.255.255", "198.20.0.0", "198.51.99.255", "198.51.101.0",
            "203.0.112.255", "203.0.114.0", "223.255.255.255",
            "2000::1", "2001:200::1", "2001:4860:4860::8888", "2001:db7:ffff::", "2001:db9::", "2003::1",
            "2606:4700::1111", "3ffd::1", "3fff:1000::1",
        ], true);
    }

    #[test]
    fn every_range_that_is_not_is_refused_at_both_ends() {
        #[rustfmt::skip]
        check(&Networks::default(), &[
            "0.0.0.0", "0.255.255.255", "10.0.0.0", "10.255.255.255", "100.64.0.0", "100.127.255.255",
            "127.0.0.0", "127.0.0.1", "127.255.255.255", "168.63.129.16", "169.254.0.0", "169.254.169.254", "169.254.255.255",
            "172.16.0.0", "172.31.255.255", "192.0.0.0", "192.0.0.255", "192.0.2.0", "192.0.2.255",
            "192.31.196.1", "192.52.193.1", "192.88.99.0", "192.88.99.255", "192.168.0.0", "192.168.255.255",
            "192.175.48.1", "198.18.0.0", "198.19.255.255", "198.51.100.0", "198.51.100.255", "203.0.113.0",
            "203.0.113.255", "224.0.0.0", "239.255.255.255", "240.0.0.0", "255.255.255.254", "255.255.255.255",
            "::", "::1", "::2", "100::1", "100:0:0:1::1", "1fff:ffff::", "4000::", "5f00::1",
            "2001::1", "2001:2::1", "2001:10::1", "2001:20::1", "2001:30::1", "2001:1ff:ffff::", "2001:db8::",
            "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", "2002::1", "2620:4f:8000::1", "3ffe::1", "3fff::",
            "3fff:fff:ffff::", "fc00::", "fd00:ec2::254", "fdff:ffff::", "fe80::1", "febf::1", "fec0::1",
            "feff::1", "ff00::", "ff02::1", "ffff:ffff::",
        ], false);
    }

    #[test]
    fn an_address_in_another_one_hides_nothing() {
        #[rustfmt::skip]
        let forms = [
            "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::ffff:169.254.169.254", "::127.0.0.1", "::8.8.8.8", "::ffff:0:127.0.0.1",
            "64:ff9b::127.0.0.1", "64:ff9b::8.8.8.8", "64:ff9b:1::10.0.0.1", "2002:7f00:1::", "2002:808:808::1",
            "2001:0:7f00:1::f7f7:f7f7", "2001::80ff:fffe",
        ];
        check(&Networks::default(), &forms, false);
        let translators =
            networks(&["64:ff9b::/96", "::ffff:0:0/96", "2002::/16", "2001::/32"], &[]);
        #[rustfmt::skip]
        check(&translators, &["64:ff9b::8.8.8.8", "::ffff:8.8.8.8", "2002:808:808::1", "2001:0:1:1::f7f7:f7f7"], true);
        #[rustfmt::skip]
        check(&translators, &["64:ff9b::10.0.0.1", "::ffff:127.0.0.1", "2002:7f00:1::", "2001:0:1:1::80ff:fffe", "127.0.0.1"], false);
    }

    #[test]
    fn configuration_allows_and_denies() {
        let some = networks(&["10.1.0.0/16", "fd00:1::/32"], &["10.1.9.0/24", "8.8.8.0/24"]);
        check(&some, &["10.1.0.1", "10.1.255.255", "fd00:1::1", "8.8.4.4"], true);
        check(&some, &["10.2.0.1", "10.1.9.7", "8.8.8.8", "fd00:2::1", "::ffff:10.1.0.1"], false);
        let all = networks(&["0.0.0.0/0", "::/0"], &["169.254.0.0/16"]);
        check(&all, &["127.0.0.1", "::1", "::ffff:127.0.0.1", "fe80::1", "ff02::1"], true);
        #[rustfmt::skip]
        check(&all, &["169.254.169.254", "::ffff:169.254.169.254", "64:ff9b::169.254.1.1", "64:ff9b:1::169.254.169.254"], false);
    }
}

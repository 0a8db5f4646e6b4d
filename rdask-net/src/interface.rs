//! The machine's network interfaces: which addresses to bind, to advertise and to expect.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use thiserror::Error;

/// Names that container runtimes and hypervisors give to bridges no other node can reach.
const BRIDGE_PREFIXES: [&str; 11] =
    ["docker", "br-", "cni", "virbr", "veth", "flannel", "cali", "podman", "lxc", "lxd", "tunl"];

/// What to assume of an interface that doesn't tell: every Ethernet carries it.
const MTU_DEFAULT: usize = 1500;

/// An address of this machine could not be found.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum InterfaceError {
    /// The system does not list its interfaces.
    #[error("the system does not list its network interfaces")]
    List(#[source] io::Error),
    /// There is no such interface, or it has no address.
    #[error("no usable address on interface {name:?}; interfaces with one: {known}")]
    Unknown {
        /// The interface asked for.
        name: String,
        /// Those that exist, with an address each.
        known: String,
    },
    /// The system has no route to an address.
    #[error("this node has no route to {to}; is the network it is in reachable from here?")]
    NoRoute {
        /// Where the route should lead.
        to: SocketAddr,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

/// One address of one interface that is up.
#[derive(Clone, Debug)]
struct InterfaceAddress {
    interface: String,
    address: IpAddr,
}

/// The address to bind for an interface such as `ib0`: its first IPv4 address, else an IPv6
/// address that other nodes can reach.
///
/// # Errors
///
/// [`InterfaceError::Unknown`] names the interfaces that exist.
pub fn address_of(name: &str) -> Result<IpAddr, InterfaceError> {
    let all = interface_addresses().map_err(InterfaceError::List)?;
    let of_name = || all.iter().filter(|one| one.interface == name).map(|one| one.address);
    if let Some(address) = of_name().find(IpAddr::is_ipv4).or_else(|| of_name().next()) {
        return Ok(address);
    }
    let mut known: BTreeMap<&str, IpAddr> = BTreeMap::new();
    for one in &all {
        known.entry(&one.interface).or_insert(one.address);
    }
    let known: Vec<String> =
        known.iter().map(|(name, address)| format!("{name} ({address})")).collect();
    Err(InterfaceError::Unknown { name: name.to_owned(), known: known.join(", ") })
}

/// The addresses under which other nodes may reach this one, IPv4 first: all but loopback and
/// container bridges; loopback if there is nothing else.
///
/// # Errors
///
/// [`InterfaceError::List`] if the system does not list its interfaces.
pub fn advertised_addresses() -> Result<Vec<IpAddr>, InterfaceError> {
    let all = interface_addresses().map_err(InterfaceError::List)?;
    Ok(choose_advertised(&all))
}

/// The local address from which packets to `to` leave, as the routing table decides. Nothing is
/// sent.
///
/// # Errors
///
/// [`InterfaceError::NoRoute`] if the system has no route there.
pub fn route_to(to: SocketAddr) -> Result<IpAddr, InterfaceError> {
    let any = match to {
        SocketAddr::V4(_) => SocketAddr::from(([0, 0, 0, 0], 0)),
        SocketAddr::V6(_) => SocketAddr::from(([0_u16; 8], 0)),
    };
    UdpSocket::bind(any)
        .and_then(|socket| {
            socket.connect(to)?;
            socket.local_addr()
        })
        .map(|local| local.ip())
        .map_err(|source| InterfaceError::NoRoute { to, source })
}

/// The largest IP packet, in bytes, that the interface of a local address carries; 1500 if it
/// doesn't tell.
pub fn mtu_of(address: IpAddr) -> usize {
    MtuTable::read().of_local(address)
}

/// The largest IP packet that a path carries, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PathMtu {
    /// This, for sure: the path is this node's loopback.
    Known(usize),
    /// What the first interface carries. What lies behind it may carry less.
    AtMost(usize),
}

/// The MTU of each local address, read once: asking the system per connection costs more than it
/// tells.
#[derive(Clone, Debug)]
pub(crate) struct MtuTable {
    mtu: BTreeMap<IpAddr, usize>,
    loopback: usize,
}

impl MtuTable {
    pub(crate) fn read() -> Self {
        let all = interface_addresses().unwrap_or_default();
        let mtu: BTreeMap<IpAddr, usize> =
            all.iter().map(|one| (one.address, interface_mtu(&one.interface))).collect();
        let localhost = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let loopback = mtu.get(&localhost).copied().unwrap_or(MTU_DEFAULT);
        Self { mtu, loopback }
    }

    /// The MTU on the way to a peer, as far as this node knows. Packets to one of the node's own
    /// addresses go over loopback, whatever interface the address belongs to.
    pub(crate) fn towards(&self, local: Option<IpAddr>, remote: IpAddr) -> PathMtu {
        let remote = remote.to_canonical();
        if remote.is_loopback() || self.mtu.contains_key(&remote) {
            return PathMtu::Known(self.loopback);
        }
        PathMtu::AtMost(local.map_or(MTU_DEFAULT, |local| self.of_local(local)))
    }

    fn of_local(&self, local: IpAddr) -> usize {
        self.mtu.get(&local.to_canonical()).copied().unwrap_or(MTU_DEFAULT)
    }
}

fn choose_advertised(all: &[InterfaceAddress]) -> Vec<IpAddr> {
    let is_bridge = |one: &&InterfaceAddress| {
        BRIDGE_PREFIXES.iter().any(|prefix| one.interface.starts_with(prefix))
    };
    let mut chosen: Vec<IpAddr> = all
        .iter()
        .filter(|one| !one.address.is_loopback() && !is_bridge(one))
        .map(|one| one.address)
        .collect();
    if chosen.is_empty() {
        chosen = all.iter().map(|one| one.address).filter(IpAddr::is_loopback).collect();
    }
    // Stable: the system's order of interfaces stays within each family.
    chosen.sort_by_key(IpAddr::is_ipv6);
    chosen
}

/// Every address of every interface that is up, but for link-local ones: those need a scope that
/// other nodes can't know.
fn interface_addresses() -> io::Result<Vec<InterfaceAddress>> {
    let mut all = Vec::new();
    for entry in getifaddrs()? {
        if !entry.flags.contains(InterfaceFlags::IFF_UP) {
            continue;
        }
        let Some(storage) = entry.address else {
            continue;
        };
        let address = if let Some(v4) = storage.as_sockaddr_in() {
            IpAddr::V4(v4.ip())
        } else if let Some(v6) = storage.as_sockaddr_in6() {
            IpAddr::V6(v6.ip())
        } else {
            continue;
        };
        let link_local = match address {
            IpAddr::V4(v4) => v4.is_link_local(),
            IpAddr::V6(v6) => v6.is_unicast_link_local(),
        };
        if !link_local {
            all.push(InterfaceAddress { interface: entry.interface_name, address });
        }
    }
    Ok(all)
}

fn interface_mtu(interface: &str) -> usize {
    // An alias such as "eth0:1" has the MTU of its interface.
    let device = interface.split(':').next().unwrap_or(interface);
    std::fs::read_to_string(format!("/sys/class/net/{device}/mtu"))
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(MTU_DEFAULT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on(interface: &str, address: &str) -> InterfaceAddress {
        InterfaceAddress { interface: interface.to_owned(), address: address.parse().unwrap() }
    }

    #[test]
    fn bridges_and_loopback_are_not_advertised_and_ipv4_comes_first() {
        let all = [
            on("lo", "127.0.0.1"),
            on("eth0", "fd00::1"),
            on("ib0", "10.1.0.1"),
            on("docker0", "172.17.0.1"),
            on("virbr0", "192.168.122.1"),
        ];
        let chosen: Vec<String> = choose_advertised(&all).iter().map(IpAddr::to_string).collect();
        assert_eq!(chosen, ["10.1.0.1", "fd00::1"]);
    }

    #[test]
    fn loopback_is_advertised_when_there_is_nothing_else() {
        let all = [on("lo", "127.0.0.1"), on("docker0", "172.17.0.1")];
        assert_eq!(choose_advertised(&all), ["127.0.0.1".parse::<IpAddr>().unwrap()]);
    }

    #[test]
    fn the_loopback_interface_has_its_address() {
        assert_eq!(address_of("lo").unwrap(), IpAddr::V4(Ipv4Addr::LOCALHOST));
    }

    #[test]
    fn an_unknown_interface_is_answered_with_those_that_exist() {
        let error = address_of("no-such0").unwrap_err().to_string();
        assert!(error.contains("\"no-such0\"") && error.contains("lo (127.0.0.1)"), "{error}");
    }

    #[test]
    fn the_route_to_loopback_is_loopback() {
        let to = SocketAddr::from(([127, 0, 0, 1], 9));
        assert_eq!(route_to(to).unwrap(), IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
}

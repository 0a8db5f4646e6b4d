//! Where to listen, as people write it.

use std::net::{IpAddr, ToSocketAddrs};

/// An address, or a name of this node, as Dask takes it.
pub(crate) fn host(text: &str) -> Result<IpAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    if text.contains([':', '/']) {
        return Err("write an address or a name alone: ports have a flag of their own".to_owned());
    }
    let found = (text, 0).to_socket_addrs().map_err(|error| {
        format!("it is no address, and no name that this node can look up: {error}")
    })?;
    choose(text, found.map(|address| address.ip()).collect())
}

/// Of a name's addresses the first that other nodes can reach, too. Many systems have their own
/// name on loopback as well, where workers of other nodes would look in vain.
fn choose(name: &str, addresses: Vec<IpAddr>) -> Result<IpAddr, String> {
    let outside = addresses.iter().find(|address| !address.is_loopback());
    match outside.or(addresses.first()) {
        None => Err("the name has no address".to_owned()),
        Some(address) if address.is_loopback() && name != "localhost" => Err(format!(
            "{name} is {address} on this node, where no other node can reach it: give its address, \
             or its network by --interface"
        )),
        Some(address) => Ok(*address),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn addresses_and_names_are_hosts() {
        assert_eq!(host("10.0.0.7"), Ok("10.0.0.7".parse().unwrap()));
        assert_eq!(host("::1"), Ok("::1".parse().unwrap()));
        assert!(host("localhost").unwrap().is_loopback());
        for text in ["tcp://n1:8786", "n1:8786", "no such name"] {
            assert!(host(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_name_stands_for_an_address_that_others_can_reach() {
        let both = addresses(&["127.0.1.1", "10.0.0.7", "10.0.0.8"]);
        assert_eq!(choose("n1", both), Ok("10.0.0.7".parse().unwrap()));
        let error = choose("n1", addresses(&["127.0.1.1"])).unwrap_err();
        assert!(error.contains("127.0.1.1") && error.contains("--interface"), "{error}");
        assert!(choose("n1", Vec::new()).is_err());
    }
}

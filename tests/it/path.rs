//! A path between peers that can be cut: a relay of datagrams that drops them when told to.

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::cluster::Cluster;

/// The way to a scheduler.
pub(crate) struct Path {
    address: SocketAddr,
    is_cut: Arc<AtomicBool>,
}

impl Path {
    /// Threads carry datagrams until the tests end.
    pub(crate) fn to(server: SocketAddr) -> Self {
        let front = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = front.local_addr().unwrap();
        let is_cut = Arc::new(AtomicBool::new(false));
        let cut = Arc::clone(&is_cut);
        std::thread::spawn(move || {
            let mut backs: BTreeMap<SocketAddr, UdpSocket> = BTreeMap::new();
            let mut buffer = [0; 1 << 16];
            loop {
                let (length, from) = front.recv_from(&mut buffer).unwrap();
                if cut.load(Ordering::Relaxed) {
                    continue;
                }
                let back = backs.entry(from).or_insert_with(|| {
                    let back = UdpSocket::bind("127.0.0.1:0").unwrap();
                    back.connect(server).unwrap();
                    let (other, front) = (back.try_clone().unwrap(), front.try_clone().unwrap());
                    let cut = Arc::clone(&cut);
                    std::thread::spawn(move || carry_back(&other, &front, from, &cut));
                    back
                });
                // The server may be gone.
                drop(back.send(&buffer[..length]));
            }
        });
        Self { address, is_cut }
    }

    /// A scheduler file that leads over this path alone.
    pub(crate) fn file(&self, cluster: &Cluster) -> PathBuf {
        let mut file = cluster.read_file();
        (file.addresses, file.tls_addresses) = (vec![self.address], Vec::new());
        let path = cluster.folder().join(format!("by-{}.json", self.address.port()));
        file.write(&path).unwrap();
        path
    }

    /// Drops whatever comes from now on.
    pub(crate) fn cut(&self) {
        self.is_cut.store(true, Ordering::Relaxed);
    }

    /// Carries again.
    pub(crate) fn heal(&self) {
        self.is_cut.store(false, Ordering::Relaxed);
    }
}

fn carry_back(back: &UdpSocket, front: &UdpSocket, to: SocketAddr, cut: &AtomicBool) {
    let mut buffer = [0; 1 << 16];
    while let Ok(length) = back.recv(&mut buffer) {
        if !cut.load(Ordering::Relaxed) {
            // The client may be gone.
            drop(front.send_to(&buffer[..length], to));
        }
    }
}

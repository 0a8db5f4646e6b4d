//! Nodes with a network of their own: a network namespace each, whose interface ends in this
//! program, which carries the packets between them and does to them what a bad network does.
//!
//! The kernel's own means would be rules that blackhole and `netem` that loses; not every kernel
//! has both, and these packets behave the same: nobody is told that one was lost.

mod hub;
mod tun;

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, ensure};
use nix::sched::{CloneFlags, setns};

pub(crate) use hub::Faults;
use hub::Hub;

/// The name of a node's interface.
pub(crate) const INTERFACE: &str = "ib0";

/// Larger than Ethernet's: fewer packets for the same bytes, since each costs us two calls.
const MTU: u32 = 9000;

/// Nodes and the hub between them. Dropping it ends all of it.
#[derive(Debug)]
pub(crate) struct Net {
    // Before the namespaces: its threads use their interfaces.
    hub: Hub,
    nodes: BTreeMap<String, Node>,
}

/// A namespace, open as long as its holder lives.
#[derive(Debug)]
struct Node {
    holder: Child,
    number: u8,
}

impl Drop for Node {
    fn drop(&mut self) {
        // Nothing depends on how it ends.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

impl Net {
    /// Why there can't be such a network here, if so.
    pub(crate) fn missing() -> Option<String> {
        if !nix::unistd::geteuid().is_root() {
            return Some("network namespaces need root".to_owned());
        }
        for tool in ["ip", "nsenter", "unshare", "hostname"] {
            let mut help = Command::new(tool);
            help.arg("--help").stdout(Stdio::null()).stderr(Stdio::null());
            if help.status().is_err() {
                return Some(format!("no command {tool}"));
            }
        }
        if !Path::new("/dev/net/tun").exists() {
            return Some("no /dev/net/tun".to_owned());
        }
        let tried = Self::new(["x"]).err();
        tried.map(|error| format!("no network namespaces: {error:#}"))
    }

    /// A network of nodes of these names.
    pub(crate) fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> anyhow::Result<Self> {
        let mut nodes = BTreeMap::new();
        let mut interfaces = Vec::new();
        for (name, number) in names.into_iter().zip(1..=u8::MAX - 1) {
            let node = Node { holder: hold_namespaces(name)?, number };
            interfaces.push(plug_in(&node).with_context(|| format!("node {name}"))?);
            nodes.insert(name.to_owned(), node);
        }
        Ok(Self { hub: Hub::start(interfaces)?, nodes })
    }

    /// A command that runs on a node. `nsenter` becomes the program: the process is its own.
    pub(crate) fn command(&self, node: &str, program: &Path) -> anyhow::Result<Command> {
        let node = self.nodes.get(node).with_context(|| format!("no node {node}"))?;
        let mut command = enter(&node.holder);
        command.arg("--").arg(program);
        Ok(command)
    }

    /// Sets what happens to packets from one node to another, of both by their names.
    pub(crate) fn set(&self, from: &str, to: &str, faults: Faults) -> anyhow::Result<()> {
        let number = |name| Ok::<_, anyhow::Error>(self.nodes.get(name).context("no node")?.number);
        self.hub.set(number(from)?, number(to)?, faults);
        Ok(())
    }

    /// Sets what happens to all packets to and from a node.
    pub(crate) fn set_node(&self, node: &str, faults: Faults) -> anyhow::Result<()> {
        for other in self.nodes.keys().filter(|other| *other != node) {
            self.set(node, other, faults)?;
            self.set(other, node, faults)?;
        }
        Ok(())
    }

    /// Sets what happens to all packets.
    pub(crate) fn set_all(&self, faults: Faults) -> anyhow::Result<()> {
        self.nodes.keys().try_for_each(|node| self.set_node(node, faults))
    }

    /// How many packets were carried, and how many not.
    pub(crate) fn counts(&self) -> (u64, u64) {
        self.hub.counts()
    }
}

/// A process with namespaces of its own, that ends with us: it reads what nobody writes.
fn hold_namespaces(name: &str) -> anyhow::Result<Child> {
    let script = "hostname \"$1\" && ip link set lo up && echo ready && exec cat";
    let mut holder = Command::new("unshare")
        .args(["--net", "--uts", "sh", "-c", script, "sh", name])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut line = [0; 6];
    let out = holder.stdout.as_mut().context("it was piped")?;
    if std::io::Read::read_exact(out, &mut line).is_err() {
        let output = holder.wait_with_output()?;
        anyhow::bail!("{}", String::from_utf8_lossy(&output.stderr).trim_end());
    }
    Ok(holder)
}

fn enter(holder: &Child) -> Command {
    let mut command = Command::new("nsenter");
    let namespace = |kind: &str| format!("/proc/{}/ns/{kind}", holder.id());
    command.arg(format!("--net={}", namespace("net")));
    command.arg(format!("--uts={}", namespace("uts")));
    command
}

/// Makes a node's interface; its other end is returned.
fn plug_in(node: &Node) -> anyhow::Result<File> {
    let path = PathBuf::from(format!("/proc/{}/ns/net", node.holder.id()));
    // Only this thread goes there, and it does nothing else.
    let made = std::thread::spawn(move || -> anyhow::Result<File> {
        let namespace = File::open(path)?;
        setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET)?;
        Ok(tun::create(INTERFACE)?)
    });
    let interface = made.join().expect("it does not panic")?;
    let address = format!("{}.{}/24", hub::NET.map(|byte| byte.to_string()).join("."), node.number);
    let mtu = MTU.to_string();
    for words in [
        vec!["address", "add", &address, "dev", INTERFACE],
        vec!["link", "set", INTERFACE, "mtu", &mtu, "txqueuelen", "10000", "up"],
    ] {
        let output = enter(&node.holder).args(["--", "ip"]).args(words).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(interface)
}

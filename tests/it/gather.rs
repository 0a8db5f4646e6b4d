//! Values that a client fetches from workers which go meanwhile.

use std::time::{Duration, Instant};

use rdask::{Client, Remote};

use crate::cluster::Cluster;
use crate::proc::{children, go_on, kill_9, stand_still, wait_until};

/// Much less than a client waits for a holder that says nothing, and more than it takes to find out
/// that a node is silent and to make its values again.
const SOON: Duration = Duration::from_secs(24);

const LENGTH: usize = 1 << 20;

fn filled(value: u8) -> Vec<u8> {
    vec![value; LENGTH]
}

/// A value that the first worker has. The second one may make it again.
fn held_by_first(client: &Client, cluster: &Cluster) -> Remote<Vec<u8>> {
    let second: Vec<u32> = children(cluster.nannies[1].pid());
    stand_still(&second);
    let value = client.submit(filled, (7,));
    value.wait().unwrap();
    go_on(&second);
    value
}

/// Gathers while something happens to the holder, and says how long that took.
fn gather_while(value: &Remote<Vec<u8>>, happens: impl FnOnce()) -> Duration {
    std::thread::scope(|scope| {
        let begun = Instant::now();
        let gathering = scope.spawn(|| value.result().unwrap());
        happens();
        assert!(gathering.join().unwrap() == filled(7));
        begun.elapsed()
    })
}

pub(crate) fn a_gather_goes_on_when_the_node_of_the_holder_falls_silent() {
    let cluster = Cluster::new(2, 1);
    let client = cluster.client();
    let value = held_by_first(&client, &cluster);
    let nanny = cluster.nannies[0].pid();
    let frozen: Vec<u32> = children(nanny).into_iter().chain([nanny]).collect();
    stand_still(&frozen);
    // Its kernel takes the request, and nobody answers it.
    let took = gather_while(&value, || {});
    go_on(&frozen);
    assert!(took < SOON, "{took:?}");
}

pub(crate) fn a_gather_goes_on_when_the_holder_is_killed() {
    let cluster = Cluster::new(2, 1);
    let client = cluster.client();
    let value = held_by_first(&client, &cluster);
    let holder = children(cluster.nannies[0].pid())[0];
    stand_still(&[holder]);
    let took = gather_while(&value, || {
        // Whether the request has come by then or not.
        std::thread::sleep(Duration::from_millis(200));
        kill_9(holder);
    });
    assert!(took < SOON, "{took:?}");
    wait_until("it is replaced", || {
        children(cluster.nannies[0].pid()).iter().any(|pid| *pid != holder)
    });
}

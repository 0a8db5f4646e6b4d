//! Control links: who gets one, what arrives, and how an end is told.

use rdask_net::{
    DialError, Endpoint, FRAME_BYTES_MAX, Incoming, KeyRequest, LinkError, PeerRole, Target,
    Transport, push_frame,
};

use crate::cluster::{Cluster, Ends, accept_control, endpoint, on_both_transports, run, soon};

on_both_transports!(
    frames_go_both_ways_in_order,
    a_joiner_gets_a_name_and_uses_it,
    a_wrong_name_is_refused,
    the_reason_for_closing_arrives_after_the_last_frame,
    a_dialer_closes_with_a_reason_too,
    finishing_is_a_clean_end,
    a_dropped_link_is_lost_and_not_ended,
    only_schedulers_take_control_links,
    a_receive_that_is_dropped_loses_nothing,
    closing_an_endpoint_ends_its_accept,
    three_hundred_peers_at_once_all_get_in,
);

async fn frames_go_both_ways_in_order(transport: Transport) {
    let cluster = Cluster::new(transport);
    let scheduler = cluster.scheduler().await;
    let client = cluster.endpoint(PeerRole::Client, 1).await;
    let (mut near, mut far) = cluster.linked(&client, &scheduler).await;
    assert_eq!(far.receiver.peer(), &cluster.name(PeerRole::Client, 1));
    assert_eq!(near.receiver.peer(), &cluster.name(PeerRole::Scheduler, 0));

    let mut frames = Vec::new();
    for number in 0_u32..50_000 {
        push_frame(&mut frames, |out| out.extend_from_slice(&number.to_le_bytes())).unwrap();
    }
    let sending = async {
        far.sender.send(&frames).await.unwrap();
        far
    };
    let receiving = async {
        let mut next = 0_u32;
        while next < 50_000 {
            let mut body = near.receiver.recv().await.unwrap();
            while let Some(bytes) = body {
                assert_eq!(bytes[..], next.to_le_bytes());
                next += 1;
                body = near.receiver.try_recv_buffered().unwrap();
            }
        }
        near
    };
    let (mut far, mut near) =
        soon("50,000 frames", async { tokio::join!(sending, receiving) }).await;
    let longest = vec![7; FRAME_BYTES_MAX];
    let ((), body) = tokio::join!(near.send(&longest), far.receive());
    assert_eq!(body.unwrap().unwrap(), longest);
}

async fn a_joiner_gets_a_name_and_uses_it(transport: Transport) {
    let cluster = Cluster::new(transport);
    let scheduler = cluster.scheduler().await;
    let joiner = cluster.endpoint(PeerRole::Join, 0).await;
    let (mut near, mut far) = cluster.linked(&joiner, &scheduler).await;
    assert_eq!(far.receiver.peer().role(), PeerRole::Join);

    let request = KeyRequest::new().unwrap();
    near.send(request.csr_der()).await;
    let csr = far.receive().await.unwrap().unwrap();
    far.send(&cluster.authority.sign(&csr, &cluster.name(PeerRole::Process, 4)).unwrap()).await;
    let leaf = near.receive().await.unwrap().unwrap();
    let identity = request.into_identity(cluster.authority.ca_der(), leaf.to_vec()).unwrap();
    joiner.set_identity(identity);

    let (_near, far) = cluster.linked(&joiner, &scheduler).await;
    assert_eq!(far.receiver.peer(), &cluster.name(PeerRole::Process, 4));
    // The new name also works for listening.
    let client = cluster.endpoint(PeerRole::Client, 1).await;
    let mut stream = soon("a data dial", client.open_data(&joiner.target())).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut stream, b"get").await.unwrap();
    let accepted = crate::cluster::accept_data(&joiner).await;
    assert_eq!(accepted.peer(), &cluster.name(PeerRole::Client, 1));
}

async fn a_wrong_name_is_refused(transport: Transport) {
    let cluster = Cluster::new(transport);
    let scheduler = cluster.scheduler().await;
    let client = cluster.endpoint(PeerRole::Client, 1).await;
    let to = Target { name: cluster.name(PeerRole::Process, 9), ..scheduler.target() };
    let error = soon("a refusal", client.dial_control(&to)).await.unwrap_err();
    assert!(matches!(error, DialError::Unreachable { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("p9.r1.rdask") && text.contains("scheduler.r1.rdask"), "{text}");
}

async fn the_reason_for_closing_arrives_after_the_last_frame(transport: Transport) {
    let cluster = Cluster::new(transport);
    let scheduler = cluster.scheduler().await;
    let client = cluster.endpoint(PeerRole::Client, 1).await;
    let (mut near, mut far) = cluster.linked(&client, &scheduler).await;
    far.send(&[1; 200_000]).await;
    let closing = far.sender.close("the scheduler was stopped by its user");
    let receiving = async {
        assert_eq!(near.receive().await.unwrap().unwrap().len(), 200_000);
        near.receive().await.unwrap_err()
    };
    let ((), error) = soon("a close", async { tokio::join!(closing, receiving) }).await;
    let LinkError::Closed { reason, .. } = error else { panic!("{error}") };
    assert_eq!(reason, "the scheduler was stopped by its user");
}

async fn a_dialer_closes_with_a_reason_too(transport: Transport) {
    let cluster = Cluster::new(transport);
    let scheduler = cluster.scheduler().await;
    let client = cluster.endpoint(PeerRole::Client, 1).await;
    let (near, mut far) = cluster.linked(&client, &scheduler).await;
    let closing = near.sender.close("enough");
    let ((), got) = soon("a close", async { tokio::join!(closing, far.receive()) }).await;
    assert!(matches!(got, Err(LinkError::Closed { reason, .. }) if reason == "enough"));
}

async fn finishing_is_a_clean_end(transport: Transport) {
    let cluster = Cluster::new(transport);
    let scheduler = cluster.scheduler().await;
    let client = cluster.endpoint(PeerRole::Client, 1).await;
    let (mut near, mut far) = cluster.linked(&client, &scheduler).await;
    near.send(b"last").await;
    let (finished, body) =
        soon("the end", async { tokio::join!(near.sender.finish(), far.receive()) }).await;
    finished.unwrap();
    assert_eq!(body.unwrap().unwrap(), "last");
    assert!(far.receive().await.unwrap().is_none());
    // The other direction is still open.
    far.send(b"after").await;
    let body = soon("a frame", near.receiver.recv()).await;
    assert_eq!(body.unwrap().unwrap(), "after");
}

async fn a_dropped_link_is_lost_and_not_ended(transport: Transport) {
    let cluster = Cluster::new(transport);
    let scheduler = cluster.scheduler().await;
    let client = cluster.endpoint(PeerRole::Client, 1).await;
    let (near, mut far) = cluster.linked(&client, &scheduler).await;
    drop(near);
    let error = far.receive().await.unwrap_err();
    assert!(matches!(error, LinkError::Lost { .. }), "{error}");
}

async fn only_schedulers_take_control_links(transport: Transport) {
    let cluster = Cluster::new(transport);
    let nanny = cluster.endpoint(PeerRole::Nanny, 1).await;
    let client = cluster.endpoint(PeerRole::Client, 1).await;
    let link = soon("a dial", client.dial_control(&nanny.target())).await.unwrap();
    let error = Ends::of(link).receive().await.unwrap_err();
    let LinkError::Closed { reason, .. } = error else { panic!("{error}") };
    assert!(reason.contains("dial the scheduler"), "{reason}");
}

async fn a_receive_that_is_dropped_loses_nothing(transport: Transport) {
    let cluster = Cluster::new(transport);
    let scheduler = cluster.scheduler().await;
    let client = cluster.endpoint(PeerRole::Client, 1).await;
    let (mut near, mut far) = cluster.linked(&client, &scheduler).await;
    let sending = async {
        for number in 0_u32..2_000 {
            near.send(&number.to_le_bytes()).await;
            tokio::task::yield_now().await;
        }
    };
    let receiving = async {
        let mut next = 0_u32;
        while next < 2_000 {
            // The other branch wins often, and the receive is dropped half-way.
            tokio::select! {
                biased;
                body = far.receiver.recv() => {
                    assert_eq!(body.unwrap().unwrap()[..], next.to_le_bytes());
                    next += 1;
                }
                () = tokio::task::yield_now() => {}
            }
        }
    };
    soon("2,000 frames", async { tokio::join!(sending, receiving) }).await;
}

async fn closing_an_endpoint_ends_its_accept(transport: Transport) {
    let cluster = Cluster::new(transport);
    let scheduler = cluster.scheduler().await;
    let waiting = scheduler.clone();
    let waiting = tokio::spawn(async move { waiting.accept().await });
    soon("a close", scheduler.close()).await;
    assert!(soon("the end of accept", waiting).await.unwrap().is_none());
}

/// More than may be pending unproven, and more than wait to be accepted. A dial that a busy machine
/// didn't get to in 5 s is made again, as joiners do.
async fn three_hundred_peers_at_once_all_get_in(transport: Transport) {
    let cluster = Cluster::new(transport);
    let scheduler = cluster.scheduler().await;
    let mut dials = tokio::task::JoinSet::new();
    for id in 0..4 {
        let client = cluster.endpoint(PeerRole::Client, id).await;
        for _ in 0..75 {
            let (client, to) = (client.clone(), scheduler.target());
            dials.spawn(async move { while !is_welcome(&client, &to).await {} });
        }
    }
    let greeting = tokio::spawn(async move {
        let mut links = Vec::new();
        while let Some(Incoming::Control(link)) = scheduler.accept().await {
            let mut far = Ends::of(link);
            let mut frames = Vec::new();
            push_frame(&mut frames, |out| out.extend_from_slice(b"welcome")).unwrap();
            // Whoever gave up in the meantime dials again.
            if far.sender.send(&frames).await.is_ok() {
                links.push(far);
            }
        }
    });
    while let Some(done) = dials.join_next().await {
        done.unwrap();
    }
    greeting.abort();
}

async fn is_welcome(client: &Endpoint, to: &Target) -> bool {
    let Ok(link) = client.dial_control(to).await else {
        return false;
    };
    let (mut sender, mut receiver) = link.split();
    let mut frames = Vec::new();
    push_frame(&mut frames, |out| out.extend_from_slice(b"hello")).unwrap();
    sender.send(&frames).await.is_ok() && matches!(receiver.recv().await, Ok(Some(_)))
}

#[test]
fn auto_falls_back_to_tls_where_quic_gets_no_answer() {
    run(async {
        let cluster = Cluster::new(Transport::Auto);
        let scheduler = cluster.scheduler().await;
        let client = cluster.endpoint(PeerRole::Client, 1).await;
        // A socket that nobody reads stands for a network that swallows UDP.
        let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let quic = vec![silent.local_addr().unwrap()];
        let to = Target { quic, ..scheduler.target() };
        let link = soon("a dial", client.dial_control(&to)).await.unwrap();
        assert!(!link.is_quic());
        // From now on nobody waits for QUIC to fail again.
        let second =
            tokio::time::timeout(std::time::Duration::from_secs(4), client.dial_control(&to));
        assert!(!second.await.unwrap().unwrap().is_quic());
    });
}

#[test]
fn auto_prefers_quic() {
    run(async {
        let cluster = Cluster::new(Transport::Auto);
        let scheduler = cluster.scheduler().await;
        let client = cluster.endpoint(PeerRole::Client, 1).await;
        let link = soon("a dial", client.dial_control(&scheduler.target())).await.unwrap();
        assert!(link.is_quic());
    });
}

#[test]
fn a_dead_address_delays_no_one_for_long() {
    run(async {
        let cluster = Cluster::new(Transport::Quic);
        let scheduler = cluster.scheduler().await;
        let client = cluster.endpoint(PeerRole::Client, 1).await;
        let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut to = scheduler.target();
        to.quic.insert(0, silent.local_addr().unwrap());
        let dialled =
            tokio::time::timeout(std::time::Duration::from_secs(3), client.dial_control(&to));
        dialled.await.expect("the second address was not tried in time").unwrap();
    });
}

#[test]
fn a_frozen_peer_is_noticed_at_the_idle_time() {
    let cluster = Cluster::new(Transport::Quic);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (address, links) = std::sync::mpsc::channel();
    let identity = cluster.identity(PeerRole::Scheduler, 0);
    let listening = std::thread::spawn(move || {
        run(async move {
            let scheduler = endpoint(identity, Transport::Quic).await;
            address.send(scheduler.target()).unwrap();
            let mut far = Ends::of(accept_control(&scheduler).await);
            far.receive().await.unwrap();
            far.send(b"welcome").await;
            let before = std::time::Instant::now();
            let error = far.receive().await.unwrap_err();
            assert!(matches!(error, LinkError::Silent { .. }), "{error}");
            let waited = before.elapsed().as_secs_f64();
            assert!((3.0..6.0).contains(&waited), "noticed after {waited} s");
        });
    });
    let to = links.recv().unwrap();
    let kept = runtime.block_on(async {
        let client = cluster.endpoint(PeerRole::Client, 1).await;
        let mut near = Ends::of(client.dial_control(&to).await.unwrap());
        near.send(b"hello").await;
        assert_eq!(near.receive().await.unwrap().unwrap(), "welcome");
        (client, near)
    });
    // From here on the client's runtime stands still, like a stopped process.
    listening.join().unwrap();
    drop(kept);
}

#[test]
fn a_port_that_nobody_has_open_is_refused_at_once() {
    run(async {
        let cluster = Cluster::new(Transport::Quic);
        let scheduler = cluster.scheduler().await;
        let client = cluster.endpoint(PeerRole::Client, 1).await;
        let port = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let to = Target { quic: vec![port], ..scheduler.target() };
        let dialled =
            tokio::time::timeout(std::time::Duration::from_secs(2), client.dial_control(&to));
        let error = dialled.await.expect("the closed port was waited for").unwrap_err();
        assert!(error.to_string().contains("nobody listens there"), "{error}");
    });
}

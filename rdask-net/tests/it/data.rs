//! Data streams: whole, fast, and never taken for complete when they are not.

use std::time::Instant;

use rdask_net::{DataStream, DialError, PeerRole, Target, Transport};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::cluster::{Cluster, accept_data, on_both_transports, run, soon};

on_both_transports!(
    a_get_brings_every_byte,
    many_gets_share_what_there_is,
    a_dropped_stream_is_no_clean_end,
    joiners_get_no_data,
    pings_pass_bulk,
);

/// Answers each get with as many bytes as it asks for.
async fn serve(mut stream: DataStream) {
    let length = stream.read_u64_le().await.unwrap();
    let chunk = bytes::Bytes::from(vec![5_u8; 256 << 10]);
    let mut left = length as usize;
    while left > 0 {
        let part = chunk.slice(..left.min(chunk.len()));
        left -= part.len();
        stream.write_bytes(part).await.unwrap();
    }
    stream.finish().await.unwrap();
}

async fn get(mut stream: DataStream, length: u64) -> u64 {
    stream.write_u64_le(length).await.unwrap();
    stream.finish().await.unwrap();
    let mut buffer = vec![0; 256 << 10];
    // Compared as slices: byte by byte a debug build is slower than the wire.
    let expected = vec![5; buffer.len()];
    let mut total = 0;
    loop {
        match stream.read(&mut buffer).await.unwrap() {
            0 => return total,
            count => {
                assert!(buffer[..count] == expected[..count]);
                total += count as u64;
            }
        }
    }
}

async fn a_get_brings_every_byte(transport: Transport) {
    let cluster = Cluster::new(transport);
    let holder = cluster.endpoint(PeerRole::Process, 1).await;
    let fetcher = cluster.endpoint(PeerRole::Process, 2).await;
    for length in [0, 1, 300_000, 50_000_000] {
        let serving = async { serve(accept_data(&holder).await).await };
        let getting =
            async { get(fetcher.open_data(&holder.target()).await.unwrap(), length).await };
        let ((), total) = soon("a get", async { tokio::join!(serving, getting) }).await;
        assert_eq!(total, length);
    }
}

async fn many_gets_share_what_there_is(transport: Transport) {
    let cluster = Cluster::new(transport);
    let holder = cluster.endpoint(PeerRole::Process, 1).await;
    let fetcher = cluster.endpoint(PeerRole::Process, 2).await;
    let to = holder.target();
    let mut gets = tokio::task::JoinSet::new();
    for _ in 0..40 {
        let (fetcher, to) = (fetcher.clone(), to.clone());
        gets.spawn(async move { get(fetcher.open_data(&to).await.unwrap(), 100_000).await });
    }
    let mut served = tokio::task::JoinSet::new();
    for _ in 0..40 {
        served.spawn(serve(accept_data(&holder).await));
    }
    while let Some(total) = soon("a get", gets.join_next()).await {
        assert_eq!(total.unwrap(), 100_000);
    }
    while let Some(done) = soon("a serve", served.join_next()).await {
        done.unwrap();
    }
}

async fn a_dropped_stream_is_no_clean_end(transport: Transport) {
    let cluster = Cluster::new(transport);
    let holder = cluster.endpoint(PeerRole::Process, 1).await;
    let fetcher = cluster.endpoint(PeerRole::Process, 2).await;
    for code in [None, Some(17)] {
        let mut near = soon("a dial", fetcher.open_data(&holder.target())).await.unwrap();
        near.write_all(b"half of it").await.unwrap();
        near.flush().await.unwrap();
        let mut far = accept_data(&holder).await;
        let mut start = [0; 4];
        far.read_exact(&mut start).await.unwrap();
        match code {
            Some(code) => near.reset(code),
            None => drop(near),
        }
        let error = soon("an end", far.read_to_end(&mut Vec::new())).await.unwrap_err();
        if transport == Transport::Quic {
            assert_eq!(DataStream::reset_code(&error), Some(code.unwrap_or(0)), "{error}");
        }
    }
}

async fn joiners_get_no_data(transport: Transport) {
    let cluster = Cluster::new(transport);
    let holder = cluster.endpoint(PeerRole::Process, 1).await;
    let joiner = cluster.endpoint(PeerRole::Join, 0).await;
    let refused = async {
        let mut stream = joiner.open_data(&holder.target()).await.ok()?;
        stream.write_all(b"get").await.ok()?;
        // Whatever is read here is no answer to a get: it ends in an error or in a refusal.
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.ok()?;
        (!answer.starts_with(&[0xff; 4])).then_some(answer)
    };
    tokio::select! {
        answer = refused => assert_eq!(answer, None),
        incoming = holder.accept() => panic!("a joiner came out of accept: {incoming:?}"),
    }
}

/// The size is small enough for a debug build; the example `wire` measures the rest.
async fn pings_pass_bulk(transport: Transport) {
    let cluster = Cluster::new(transport);
    let scheduler = cluster.scheduler().await;
    let worker = cluster.endpoint(PeerRole::Process, 1).await;
    let (mut near, mut far) = cluster.linked(&worker, &scheduler).await;
    let echo = tokio::spawn(async move {
        while let Ok(Some(body)) = far.receive().await {
            far.send(&body).await;
        }
    });
    let to = scheduler.target();
    let opened = soon("a dial", worker.open_data(&to)).await;
    let getting = tokio::spawn(get(opened.unwrap(), 200_000_000));
    let serving = tokio::spawn(serve(accept_data(&scheduler).await));
    let mut pings = Vec::new();
    while !getting.is_finished() {
        let before = Instant::now();
        near.send(b"ping").await;
        near.receive().await.unwrap().unwrap();
        pings.push(before.elapsed());
    }
    assert_eq!(getting.await.unwrap(), 200_000_000);
    serving.await.unwrap();
    echo.abort();
    pings.sort();
    let p99 = pings[pings.len() * 99 / 100];
    assert!(pings.len() > 20, "only {} pings passed", pings.len());
    assert!(p99.as_millis() < 20, "p99 of {} pings was {p99:?}", pings.len());
}

#[test]
fn an_idle_pool_dials_again_after_the_peer_restarted() {
    run(async {
        let cluster = Cluster::new(Transport::Quic);
        let fetcher = cluster.endpoint(PeerRole::Process, 2).await;
        for _ in 0..2 {
            let holder = cluster.endpoint(PeerRole::Process, 1).await;
            let serving = async { serve(accept_data(&holder).await).await };
            let getting =
                async { get(fetcher.open_data(&holder.target()).await.unwrap(), 1000).await };
            let ((), total) = soon("a get", async { tokio::join!(serving, getting) }).await;
            assert_eq!(total, 1000);
            holder.close().await;
        }
    });
}

#[test]
fn who_waits_for_a_dial_shares_how_it_ends() {
    run(async {
        const STREAMS: usize = 16;
        let cluster = Cluster::new(Transport::Quic);
        let fetcher = cluster.endpoint(PeerRole::Process, 2).await;
        // Open, and silent.
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let name = cluster.name(PeerRole::Process, 1);
        let to = Target { quic: vec![address], tls: Vec::new(), name };
        let mut opening = tokio::task::JoinSet::new();
        for _ in 0..STREAMS {
            let (fetcher, to) = (fetcher.clone(), to.clone());
            opening.spawn(async move { fetcher.open_data(&to).await.map(drop) });
        }
        // One dial takes 5 s, and one after the other they would take 80.
        while let Some(opened) = soon("a failure", opening.join_next()).await {
            assert!(matches!(opened.unwrap(), Err(DialError::Shared(_))));
        }
        // Who comes later finds out by itself: somebody listens there by now.
        let holder = cluster.endpoint(PeerRole::Process, 1).await;
        soon("a dial", fetcher.open_data(&holder.target())).await.unwrap();
        assert!(soon("a dial", fetcher.reach(&to)).await.is_ok(), "it is connected");
    });
}

//! Measures the wires on loopback: two processes' worth of endpoints, each on a runtime and thread
//! of its own. One JSON line per sample: data alone, pings alone, both at once, per transport.
//!
//!     cargo run --release -p rdask-net --example wire -- [megabytes]

use std::io::Write;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rdask_net::{
    Authority, DataStream, Endpoint, EndpointConfig, FrameReceiver, FrameSender, Identity,
    Incoming, Link, PeerName, PeerRole, Target, Transport, push_frame,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

type AnyError = Box<dyn std::error::Error>;

/// What one write hands to the transport.
const CHUNK_BYTES: usize = 256 << 10;

fn main() -> Result<(), AnyError> {
    let megabytes: u64 = std::env::args().nth(1).map_or(Ok(1000), |text| text.parse())?;
    for transport in [Transport::Quic, Transport::Tls] {
        let authority = Authority::new("bench")?;
        let scheduler = authority.issue(&PeerName::scheduler("bench")?)?;
        let worker = authority.issue(&PeerName::new(PeerRole::Process, 1, "bench")?)?;
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || block_on(listen(scheduler, transport, sender)));
        let to = receiver.recv()?;
        block_on(measure(worker, to, transport, megabytes * 1_000_000))?;
    }
    Ok(())
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime can be built").block_on(future)
}

async fn bind(identity: Identity, transport: Transport) -> Result<Endpoint, AnyError> {
    let config = EndpointConfig::new(identity).on_loopback().with_transport(transport);
    Ok(Endpoint::bind(config).await?)
}

/// Echoes frames and answers gets, for ever.
async fn listen(identity: Identity, transport: Transport, bound: mpsc::Sender<Target>) {
    let endpoint = bind(identity, transport).await.expect("loopback can be bound");
    bound.send(endpoint.target()).expect("the main thread waits");
    while let Some(incoming) = endpoint.accept().await {
        match incoming {
            Incoming::Control(link) => drop(tokio::spawn(echo(link))),
            Incoming::Data { stream, .. } => drop(tokio::spawn(serve(stream))),
        }
    }
}

async fn echo(link: Link) {
    let (mut sender, mut receiver) = link.split();
    while let Ok(Some(body)) = receiver.recv().await {
        let mut frames = Vec::new();
        let pushed = push_frame(&mut frames, |out| out.extend_from_slice(&body));
        if pushed.is_err() || sender.send(&frames).await.is_err() {
            return;
        }
    }
}

async fn serve(mut stream: DataStream) -> std::io::Result<()> {
    let mut left = stream.read_u64_le().await?;
    let chunk = Bytes::from(vec![5_u8; CHUNK_BYTES]);
    while left > 0 {
        let part = chunk.slice(..chunk.len().min(left as usize));
        left -= part.len() as u64;
        stream.write_bytes(part).await?;
    }
    stream.finish().await
}

async fn measure(
    identity: Identity,
    to: Target,
    transport: Transport,
    bytes: u64,
) -> Result<(), AnyError> {
    let endpoint = bind(identity, transport).await?;
    let (mut sender, mut receiver) = endpoint.dial_control(&to).await?.split();
    let until = Instant::now() + Duration::from_secs(1);
    report(transport, "alone", pings(&mut sender, &mut receiver, || Instant::now() < until).await?);
    for _ in 0..3 {
        let seconds = get(endpoint.clone(), to.clone(), bytes).await?;
        line(transport, "data alone", "GB/s", bytes as f64 / 1e9 / seconds);
    }
    let (endpoint, to) = (endpoint.clone(), to.clone());
    let getting =
        tokio::spawn(
            async move { get(endpoint, to, bytes).await.map_err(|error| error.to_string()) },
        );
    let times = pings(&mut sender, &mut receiver, || !getting.is_finished()).await?;
    report(transport, "beside data", times);
    line(transport, "data beside pings", "GB/s", bytes as f64 / 1e9 / getting.await??);
    Ok(())
}

async fn get(endpoint: Endpoint, to: Target, bytes: u64) -> Result<f64, AnyError> {
    let begin = Instant::now();
    let mut stream = endpoint.open_data(&to).await?;
    stream.write_u64_le(bytes).await?;
    stream.finish().await?;
    let mut buffer = vec![0; 1 << 20];
    let mut total = 0;
    loop {
        match stream.read(&mut buffer).await? {
            0 if total == bytes => return Ok(begin.elapsed().as_secs_f64()),
            0 => return Err("the stream ended early".into()),
            count => total += count as u64,
        }
    }
}

/// Sends 64 bytes every 2 ms and waits for each echo; sorted times in milliseconds.
async fn pings(
    sender: &mut FrameSender,
    receiver: &mut FrameReceiver,
    go_on: impl Fn() -> bool,
) -> Result<Vec<f64>, AnyError> {
    let mut frame = Vec::new();
    push_frame(&mut frame, |out| out.extend_from_slice(&[0; 64]))?;
    let mut times = Vec::new();
    while go_on() {
        tokio::time::sleep(Duration::from_millis(2)).await;
        let before = Instant::now();
        sender.send(&frame).await?;
        receiver.recv().await?.ok_or("the echo ended")?;
        times.push(before.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    Ok(times)
}

fn report(transport: Transport, what: &str, times: Vec<f64>) {
    for (name, share) in [("p50", 0.5), ("p99", 0.99), ("max", 1.0)] {
        let index = ((times.len() as f64 * share) as usize).min(times.len().saturating_sub(1));
        if let Some(time) = times.get(index) {
            line(transport, &format!("ping {what} {name}"), "ms", *time);
        }
    }
}

fn line(transport: Transport, scenario: &str, unit: &str, value: f64) {
    let text = format!(
        "{{\"transport\":\"{transport:?}\",\"scenario\":\"{scenario}\",\"unit\":\"{unit}\",\"value\":{value:.3}}}"
    );
    writeln!(std::io::stdout(), "{text}").expect("stdout is open");
}

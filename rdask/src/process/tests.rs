//! The runtime driven through its channels, as a scheduler would.

use std::sync::atomic::{AtomicU32, Ordering};

use rdask_core::blob::Blob;
use rdask_core::failure::FailureKind;
use rdask_core::id::{ArrayId, ClientId, FunctionKey, StealId};
use rdask_core::message::{Assign, Contact, End, Feed, Finished, Place, Source};
use rdask_core::range::Range;

use super::*;
use crate::context::{context, park_while, try_context};
use crate::task::submission::{ManyTasks, map};

const ME: ProcessId = ProcessId(3);

fn array(number: u32) -> ArrayId {
    let client = ClientId(1);
    ArrayId { client, number }
}

fn source(number: u32, index: u32, place: Place) -> Source {
    Source { task: TaskId { array: array(number), index }, part: 0, place }
}

/// Assignment `id` of tasks `start..` of array `id`, one for each of `tasks`.
fn assignment(id: u32, start: u32, tasks: &ManyTasks) -> Assign {
    let ends = tasks.ends.iter().map(|end| u32::try_from(*end).unwrap());
    let payload = Blob::new(ends.collect(), tasks.inline.clone().into()).unwrap();
    Assign {
        assignment: AssignmentId(u64::from(id)),
        array: array(id),
        range: Range::new(start, start + payload.count()),
        function: FunctionKey(tasks.function.key),
        name: None,
        depth: 0,
        priority: 0,
        threads: 1,
        parts: 1,
        nested_here: false,
        inline_max: 1024,
        timeout: None,
        payload,
        params: vec![Feed::Inline],
        runs: Vec::new(),
    }
}

/// The other end of a process's channels.
struct Driver {
    to: Sender<ToProcess>,
    from: Receiver<FromProcess>,
    values: Values,
    process: tokio::task::JoinHandle<String>,
}

impl Driver {
    fn start(slots: u32) -> Self {
        Self::start_with(slots, ME, DataPlane::Local)
    }

    fn start_with(slots: u32, process: ProcessId, data: DataPlane) -> Self {
        let (to, from_scheduler) = mpsc::channel(64);
        let (to_scheduler, from) = mpsc::channel(64);
        let runtime = ProcessRuntime::new(ProcessSetup {
            board: Board::default(),
            process,
            slots,
            home: Home {
                worker: "w".to_owned(),
                node: "n".to_owned(),
                client: crate::NestedClient::default(),
            },
            to_scheduler,
            from_scheduler,
            data,
        });
        Self { to, from, values: runtime.values(), process: tokio::spawn(runtime.run()) }
    }

    async fn tell(&self, message: ToProcess) {
        self.to.send(message).await.unwrap();
    }

    async fn assign(&self, assign: Assign) {
        self.tell(ToProcess::Assign(assign)).await;
    }

    async fn hear(&mut self) -> FromProcess {
        let patience = Duration::from_secs(20);
        let heard = tokio::time::timeout(patience, self.from.recv()).await;
        heard.expect("the process says something").expect("it lives")
    }

    /// Reports until `count` tasks have ended.
    async fn ended(&mut self, count: u32) -> Vec<Finished> {
        let mut all = Vec::new();
        let mut left = count;
        while left > 0 {
            if let FromProcess::Report { number, finished } = self.hear().await {
                left -= finished.iter().map(|it| it.range.len()).sum::<u32>();
                all.extend(finished);
                self.tell(ToProcess::Seen { report: number }).await;
            }
        }
        all
    }

    /// Ends the process; it must have nothing left to say.
    async fn exit(mut self) {
        let reason = "enough".to_owned();
        self.tell(ToProcess::Exit { reason }).await;
        assert_eq!(self.process.await.unwrap(), "enough");
        assert_eq!(self.from.recv().await, None);
    }
}

fn inline<T: crate::Data>(finished: &Finished) -> Vec<T> {
    let End::Inline(blob) = &finished.end else { panic!("{finished:?}") };
    let decoded = blob.iter().map(|bytes| crate::codec::decode(bytes).unwrap());
    decoded.collect()
}

fn double(x: u32) -> u32 {
    x * 2
}

#[tokio::test]
async fn an_array_of_tiny_tasks_ends_with_its_results() {
    let mut driver = Driver::start(2);
    let tasks = map(double, 0..10_000u32).unwrap();
    driver.assign(assignment(1, 7, &tasks)).await;
    let mut ended = driver.ended(10_000).await;
    ended.sort_by_key(|it| it.range.start);
    let results: Vec<u32> = ended.iter().flat_map(inline::<u32>).collect();
    assert!(results.iter().copied().eq((0..10_000).map(double)));
    driver.exit().await;
}

fn picky(x: u32) -> Vec<u8> {
    assert!(x != 2, "not two");
    vec![7; if x == 1 { 5000 } else { 5 }]
}

#[tokio::test]
async fn large_results_stay_and_panics_are_reported_with_their_place() {
    let mut driver = Driver::start(1);
    let tasks = map(picky, 0..4u32).unwrap();
    driver.assign(assignment(1, 0, &tasks)).await;
    let ended = driver.ended(4).await;
    for finished in &ended {
        for index in finished.range {
            match (&finished.end, index) {
                (End::Stored(sizes), 1) => assert!(sizes[0] >= 5000),
                (End::Failed(failure), 2) => {
                    assert_eq!(failure.kind, FailureKind::Panicked);
                    assert_eq!(failure.message, "not two");
                    assert!(failure.location.as_ref().unwrap().contains("tests.rs"));
                    assert_eq!(failure.node.as_deref(), Some("n"));
                    assert_eq!(failure.run, 1);
                }
                (End::Inline(_), 0 | 3) => {}
                other => panic!("{other:?}"),
            }
        }
    }
    let held = source(1, 1, Place::Here).task;
    let bytes = driver.values.get(held, 0).unwrap().unwrap();
    assert_eq!(crate::codec::decode::<Vec<u8>>(&bytes).unwrap(), vec![7; 5000]);
    let ranges = vec![(array(1), Range::new(0, 4))];
    driver.tell(ToProcess::Drop { ranges }).await;
    while !driver.values.store.is_empty() {
        tokio::task::yield_now().await;
    }
    driver.exit().await;
}

fn longer(mut list: Vec<u8>) -> Vec<u8> {
    list.push(1);
    list
}

#[tokio::test]
async fn a_chain_hands_its_values_on() {
    let mut driver = Driver::start(2);
    let first = map(longer, [vec![0u8; 3000], vec![0u8; 3]]).unwrap();
    driver.assign(assignment(1, 0, &first)).await;
    for id in 2..6 {
        let before = |index| source(id - 1, index, Place::Here);
        let next = Assign {
            payload: Blob::empty(2),
            params: vec![Feed::Each(vec![before(0), before(1)])],
            ..assignment(id, 0, &first)
        };
        driver.assign(next).await;
    }
    let ended = driver.ended(10).await;
    let last = ended.iter().find(|it| it.array == array(5) && it.range.contains(1));
    assert_eq!(inline::<Vec<u8>>(last.unwrap()).pop().unwrap().len(), 8);
    let held = source(5, 0, Place::Here).task;
    let bytes = driver.values.get(held, 0).unwrap().unwrap();
    let value: Vec<u8> = crate::codec::decode(&bytes).unwrap();
    assert_eq!(value.len(), 3005);
    driver.exit().await;
}

static PARKED: AtomicU32 = AtomicU32::new(0);
static NESTED: AtomicU32 = AtomicU32::new(0);

fn waits(_: u32) -> u32 {
    park_while(|| {
        PARKED.fetch_add(1, Ordering::SeqCst);
        while NESTED.load(Ordering::SeqCst) == 0 {
            std::thread::yield_now();
        }
    });
    context().run()
}

fn nested(_: u32) {
    NESTED.fetch_add(1, Ordering::SeqCst);
}

#[tokio::test]
async fn runs_that_wait_make_room_for_what_they_wait_for() {
    let mut driver = Driver::start(1);
    let tasks = map(waits, 0..3u32).unwrap();
    let runs = vec![(Range::one(2), 9)];
    driver.assign(Assign { runs, ..assignment(1, 0, &tasks) }).await;
    let mut heard = Vec::new();
    while PARKED.load(Ordering::SeqCst) < 3 {
        if let Ok(message) = driver.from.try_recv() {
            heard.push(message);
        }
        tokio::task::yield_now().await;
    }
    driver.assign(assignment(2, 0, &map(nested, 0..1u32).unwrap())).await;
    let ended = driver.ended(4).await;
    let of_parents = ended.iter().filter(|it| it.array == array(1));
    let mut runs: Vec<u32> = of_parents.flat_map(inline::<u32>).collect();
    runs.sort_unstable();
    assert_eq!(runs, [1, 1, 9]);
    assert!(heard.iter().any(|it| matches!(it, FromProcess::Parked { runs: 1.., .. })));
    driver.exit().await;
}

fn until_cancelled(_: u32) -> String {
    let context = context();
    while !context.is_cancelled() {
        std::thread::yield_now();
    }
    format!("{} {} {}", context.task(), context.worker(), context.node())
}

#[tokio::test]
async fn a_cancelled_run_sees_its_token_and_the_rest_does_not_start() {
    let mut driver = Driver::start(1);
    let tasks = map(until_cancelled, 0..5u32).unwrap();
    driver.assign(assignment(1, 0, &tasks)).await;
    let range = Range::new(0, 4);
    driver.tell(ToProcess::Cancel { array: array(1), range }).await;
    let steal = ToProcess::Steal { steal: StealId(1), assignment: AssignmentId(1), count: 9 };
    driver.tell(steal).await;
    let mut gave_up = Vec::new();
    let mut results = Vec::new();
    let mut left = 4;
    while left > 0 {
        match driver.hear().await {
            FromProcess::GaveUp { ranges, .. } => gave_up = ranges,
            FromProcess::Report { finished, .. } => {
                left -= finished.iter().map(|it| it.range.len()).sum::<u32>();
                let ran = finished.iter().filter(|it| it.end != End::Cancelled);
                results.extend(ran.flat_map(inline::<String>));
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(gave_up, [Range::one(4)]);
    let ran: Vec<String> = (0..results.len()).map(|nth| format!("c1.1.{nth} w n")).collect();
    assert_eq!(results, ran);
    assert!(try_context().is_none());
    driver.exit().await;
}

#[tokio::test]
async fn an_unknown_function_is_an_error() {
    let mut driver = Driver::start(1);
    let tasks = map(double, 0..2u32).unwrap();
    let function = FunctionKey(42);
    driver.assign(Assign { function, ..assignment(1, 0, &tasks) }).await;
    for finished in driver.ended(2).await {
        let End::Failed(failure) = finished.end else { panic!("{finished:?}") };
        assert_eq!(failure.kind, FailureKind::Unrunnable);
        assert_eq!(failure.message, "this program has no task function 000000000000002a");
    }
    driver.exit().await;
}

#[tokio::test]
async fn a_lost_link_ends_the_process() {
    let driver = Driver::start(1);
    drop(driver.to);
    assert_eq!(driver.process.await.unwrap(), "the link to the scheduler was lost");
}

#[tokio::test]
async fn inputs_come_from_other_processes_and_what_nobody_has_is_missed() {
    use rdask_net::{Authority, EndpointConfig, PeerName, PeerRole, Target};

    const HOLDER: ProcessId = ProcessId(4);
    let authority = Authority::new("r1").unwrap();
    let bind = async |id: ProcessId| {
        let name = PeerName::new(PeerRole::Process, u64::from(id.0), "r1").unwrap();
        let identity = authority.issue(&name).unwrap();
        let config = EndpointConfig::new(identity).on_loopback();
        Endpoint::bind(config).await.unwrap()
    };
    let (mine, theirs) = (bind(ME).await, bind(HOLDER).await);
    let contact = Contact { quic: theirs.addresses(), tls: theirs.tls_addresses() };
    // There is none.
    let scheduler = PeerName::scheduler("r1").unwrap();
    let scheduler = Target { quic: Vec::new(), tls: Vec::new(), name: scheduler };
    let mut holder =
        Driver::start_with(1, HOLDER, DataPlane::Network(Routes::new(theirs, scheduler.clone())));
    let mut driver = Driver::start_with(1, ME, DataPlane::Network(Routes::new(mine, scheduler)));

    let first = map(longer, [vec![0u8; 3000]]).unwrap();
    holder.assign(assignment(1, 0, &first)).await;
    holder.ended(1).await;
    let process = HOLDER;
    driver.tell(ToProcess::Peer { process, contact }).await;
    let held = |index| Feed::One(source(1, index, Place::Held(vec![HOLDER])));
    let next = |id, feed| Assign {
        payload: Blob::empty(1),
        params: vec![feed],
        ..assignment(id, 0, &first)
    };
    driver.assign(next(2, held(0))).await;
    let fetched = driver.hear().await;
    let values = vec![ValueId::of(&source(1, 0, Place::Here))];
    assert_eq!(fetched, FromProcess::Holds { values });
    let counted = driver.hear().await;
    assert!(matches!(counted, FromProcess::Fetched { bytes: 3000.., .. }), "{counted:?}");
    let ended = driver.ended(1).await;
    assert!(matches!(ended[0].end, End::Stored(_)), "{ended:?}");
    assert_eq!(driver.values.store.len(), 2);

    driver.assign(next(3, held(1))).await;
    let missed = FromProcess::Missed {
        task: source(1, 1, Place::Here).task,
        holder: HOLDER,
        denied: true,
        given_back: vec![(AssignmentId(3), Range::one(0))],
    };
    assert_eq!(driver.hear().await, missed);
    driver.exit().await;
    holder.exit().await;
}

fn noop(_: u32) {}

/// Prints what a task costs. It should be well under 500 ns on two slots in release builds; the
/// bound allows for a busy machine.
#[tokio::test]
async fn a_million_tiny_tasks_cost_little() {
    const COUNT: u32 = 1_000_000;
    const CUT: u32 = 62_500;
    let mut driver = Driver::start(2);
    let tasks = map(noop, 0..CUT).unwrap();
    let assigns: Vec<Assign> = (0..COUNT / CUT).map(|id| assignment(id, 0, &tasks)).collect();
    let begun = Instant::now();
    let to = driver.to.clone();
    let assigning = tokio::spawn(async move {
        for assign in assigns {
            to.send(ToProcess::Assign(assign)).await.unwrap();
        }
    });
    driver.ended(COUNT).await;
    let took = begun.elapsed();
    assigning.await.unwrap();
    let each = took.as_nanos() / u128::from(COUNT);
    std::io::Write::write_all(
        &mut std::io::stderr(),
        format!("a million tiny tasks: {took:?}, {each} ns each\n").as_bytes(),
    )
    .unwrap();
    if !cfg!(debug_assertions) {
        assert!(took < Duration::from_secs(2), "{took:?}");
    }
    driver.exit().await;
}

/// Prints what one task costs alone: over a channel, to a slot, and back.
#[tokio::test]
async fn one_task_at_a_time_takes_microseconds() {
    const COUNT: u32 = 2000;
    let mut driver = Driver::start(2);
    let tasks = map(double, 0..1u32).unwrap();
    let begun = Instant::now();
    for id in 0..COUNT {
        driver.assign(assignment(id, 0, &tasks)).await;
        driver.ended(1).await;
    }
    let each = begun.elapsed() / COUNT;
    std::io::Write::write_all(
        &mut std::io::stderr(),
        format!("one task at a time: {each:?} each\n").as_bytes(),
    )
    .unwrap();
    assert!(each < Duration::from_millis(20), "{each:?}");
    driver.exit().await;
}

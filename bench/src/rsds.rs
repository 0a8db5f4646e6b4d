//! The graphs on which RSDS (WORKS 2020) was compared with Dask's scheduler, made from their
//! published numbers of tasks, dependencies and the longest path.

use crate::graph::Graph;

/// A graph, by name, and what was published of it.
#[derive(Debug)]
pub(crate) struct Published {
    pub(crate) name: &'static str,
    tasks: u32,
    edges: usize,
    longest_path: u32,
    family: Family,
}

/// How its tasks depend on each other.
#[derive(Clone, Copy, Debug)]
enum Family {
    /// As many sources as said, and one task on all of them.
    Merge(u32),
    /// The same; a source sleeps so many microseconds.
    MergeSlow(u32, u32),
    /// Pairs of neighbours, on so many levels.
    Tree(u32),
    /// The product of a bag of so many partitions with itself.
    Bag(u32),
    /// A matrix of so many blocks squared, transposed and added.
    Numpy(u32),
    /// A table of so many partitions, grouped.
    Groupby(u32),
    /// A table of so many partitions, joined with itself.
    Join(u32),
    /// A grid of so many chunks, averaged by week.
    Xarray(u32),
    /// So many tasks on their own.
    Vectorizer(u32),
    /// Three features of each of so many texts.
    Wordbag(u32),
}

impl Published {
    const fn new(name: &'static str, family: Family, published: (u32, usize, u32)) -> Self {
        let (tasks, edges, longest_path) = published;
        Self { name, tasks, edges, longest_path, family }
    }

    const fn tree(name: &'static str, levels: u32) -> Self {
        let tasks = (1 << levels) - 1;
        Self::new(name, Tree(levels), (tasks, tasks as usize - 1, levels - 1))
    }

    /// The graph.
    ///
    /// # Panics
    /// If it is not what was published.
    pub(crate) fn graph(&self) -> Graph {
        let graph = self.family.graph();
        let made = (graph.tasks(), graph.edges(), graph.longest_path());
        let published = (self.tasks, self.edges, self.longest_path);
        assert_eq!(made, published, "tasks, edges, longest path of {}", self.name);
        graph
    }
}

use Family::{Bag, Groupby, Join, Merge, MergeSlow, Numpy, Tree, Vectorizer, Wordbag, Xarray};

/// All graphs with published numbers: tasks, edges, longest path.
pub(crate) static GRAPHS: &[Published] = &[
    Published::new("merge-10K", Merge(10_000), (10_001, 10_000, 1)),
    Published::new("merge-15K", Merge(15_000), (15_001, 15_000, 1)),
    Published::new("merge-20K", Merge(20_000), (20_001, 20_000, 1)),
    Published::new("merge-25K", Merge(25_000), (25_001, 25_000, 1)),
    Published::new("merge-30K", Merge(30_000), (30_001, 30_000, 1)),
    Published::new("merge-50K", Merge(50_000), (50_001, 50_000, 1)),
    Published::new("merge-100K", Merge(100_000), (100_001, 100_000, 1)),
    Published::new("merge_slow-5K-0.1", MergeSlow(5_000, 100_000), (5_001, 5_000, 1)),
    Published::new("merge_slow-20K-0.1", MergeSlow(20_000, 100_000), (20_001, 20_000, 1)),
    Published::new("merge_slow-20K-0.01", MergeSlow(20_000, 10_000), (20_001, 20_000, 1)),
    Published::new("tree-15", Tree(15), (32_767, 32_766, 14)),
    // Of other sizes than published, to see what the size costs.
    Published::tree("tree-10", 10),
    Published::tree("tree-13", 13),
    Published::tree("tree-17", 17),
    Published::tree("tree-20", 20),
    Published::new("xarray-25", Xarray(3), (552, 862, 10)),
    Published::new("xarray-5", Xarray(55), (9_258, 14_976, 10)),
    Published::new("bag-25K-10", Bag(10), (236, 415, 6)),
    Published::new("bag-25K-50", Bag(50), (5_458, 10_357, 7)),
    Published::new("bag-50K-50", Bag(50), (5_458, 10_357, 7)),
    Published::new("bag-25K-100", Bag(100), (21_631, 41_430, 8)),
    Published::new("bag-25K-200", Bag(200), (86_116, 165_715, 9)),
    Published::new("numpy-50K-10", Numpy(10), (209, 228, 7)),
    Published::new("numpy-50K-50", Numpy(50), (4_892, 5_491, 9)),
    Published::new("numpy-50K-100", Numpy(100), (19_334, 21_783, 10)),
    Published::new("numpy-50K-200", Numpy(200), (77_067, 86_966, 11)),
    Published::new("groupby-90-1S-8H", Groupby(270), (1_434, 1_973, 7)),
    Published::new("groupby-360-1S-8H", Groupby(1_080), (5_714, 7_873, 8)),
    Published::new("groupby-90-1S-1H", Groupby(2_160), (11_424, 15_743, 8)),
    Published::new("groupby-1440-1S-8H", Groupby(4_320), (22_842, 31_481, 9)),
    Published::new("groupby-2880-1S-16H", Groupby(4_320), (22_842, 31_481, 9)),
    Published::new("groupby-360-1S-1H", Groupby(8_640), (45_674, 62_953, 9)),
    Published::new("groupby-2880-1S-8H", Groupby(8_640), (45_674, 62_953, 9)),
    Published::new("groupby-1440-1S-1H", Groupby(34_560), (182_682, 251_801, 10)),
    Published::new("join-1-1S-1H", Join(24), (673, 1_224, 5)),
    Published::new("join-1-2s-1H", Join(24), (673, 1_224, 5)),
    Published::new("join-1-1S-1T", Join(1_440), (72_001, 125_568, 11)),
    Published::new("vectorizer-1M-300", Vectorizer(301), (301, 0, 0)),
    Published::new("wordbag-100K-50", Wordbag(50), (250, 200, 2)),
];

/// The graph of a name.
pub(crate) fn find(name: &str) -> Option<&'static Published> {
    GRAPHS.iter().find(|one| one.name == name)
}

impl Family {
    fn graph(self) -> Graph {
        let mut graph = Graph::default();
        match self {
            Merge(n) => merge(&mut graph, n, 0),
            MergeSlow(n, micros) => merge(&mut graph, n, micros),
            Tree(levels) => {
                let leaves = graph.sources(1 << (levels - 1));
                graph.tree(leaves, 2);
            }
            Bag(partitions) => bag(&mut graph, partitions),
            Numpy(blocks) => numpy(&mut graph, blocks),
            Groupby(partitions) => groupby(&mut graph, partitions),
            Join(partitions) => join(&mut graph, partitions),
            Xarray(chunks) => xarray(&mut graph, chunks),
            Vectorizer(n) => drop(graph.sources(n)),
            Wordbag(texts) => {
                for _ in 0..texts {
                    let text = graph.add(&[]);
                    let [words, _] = [graph.add(&[text]), graph.add(&[text])];
                    graph.each(&[words, words]);
                }
            }
        }
        graph
    }
}

fn merge(graph: &mut Graph, n: u32, micros: u32) {
    let sources = graph.sources(n);
    if micros > 0 {
        graph.sleep(&sources, micros);
    }
    graph.add(&sources);
}

fn bag(graph: &mut Graph, partitions: u32) {
    let made = graph.sources(partitions);
    let filtered = graph.each(&made);
    let mut counts = Vec::new();
    for one in &filtered {
        for other in &filtered {
            let product = graph.add(&[*one, *other]);
            counts.push(graph.add(&[product]));
        }
    }
    graph.tree(counts, 8);
}

fn numpy(graph: &mut Graph, blocks: u32) {
    let half = blocks / 2;
    // Of the upper left quarter nothing is needed.
    let at = |i: u32, j: u32| (i * blocks + j) as usize;
    let mut sources = vec![None; (blocks * blocks) as usize];
    for i in 0..blocks {
        for j in (0..blocks).filter(|j| i >= half || *j >= half) {
            sources[at(i, j)] = Some(graph.add(&[]));
        }
    }
    let source = |i, j| sources[at(i, j)].expect("one index is in the second half");
    let mut sums = Vec::new();
    for i in 0..blocks {
        let mut row = Vec::new();
        for j in half..blocks {
            let sum = graph.add(&[source(i, j), source(j, i)]);
            row.push(graph.add(&[sum]));
        }
        let row = graph.tree(row, 4);
        sums.push(graph.add(&[row]));
    }
    graph.tree(sums, 4);
}

fn groupby(graph: &mut Graph, partitions: u32) {
    let made = graph.sources(partitions);
    let (mut groups, mut rests) = (Vec::new(), Vec::new());
    for (nth, made) in made.into_iter().enumerate() {
        groups.push(graph.add(&[made]));
        let predicate = graph.add(&[made]);
        // The first partition is at a boundary.
        let passed = if nth == 0 { graph.add(&[made]) } else { made };
        let filtered = graph.add(&[passed, predicate]);
        rests.push(graph.add(&[filtered]));
    }
    let grouped = graph.tree(groups, 8);
    let mean = graph.add(&[grouped]);
    let spread = graph.add(&[mean]);
    let rest = graph.tree(rests, 8);
    graph.add(&[spread, rest]);
}

/// A shuffle by tasks, in as many stages as keep the fan-in at 32.
fn join(graph: &mut Graph, partitions: u32) {
    const FAN_IN_MAX: u32 = 32;
    let mut stages = 1;
    while FAN_IN_MAX.pow(stages) < partitions {
        stages += 1;
    }
    let mut width = 1_u32;
    while width.pow(stages) < partitions {
        width += 1;
    }
    let all = width.pow(stages);
    let mut current = graph.sources(all);
    for stage in 0..stages {
        let split = graph.each(&current);
        let step = width.pow(stage);
        let outputs = if stage + 1 == stages { partitions } else { all };
        let mut next = Vec::new();
        for output in 0..outputs {
            let first = output - output / step % width * step;
            let from: Vec<u32> =
                (0..width).map(|nth| split[(first + nth * step) as usize]).collect();
            let got = graph.each(&from);
            next.push(graph.add(&got));
        }
        current = next;
    }
    let merged = graph.each(&current);
    graph.add(&merged);
}

/// The number of passes by a chunk's side is a stand-in: their sum is as published.
fn xarray(graph: &mut Graph, chunks: u32) {
    const WEEKS: u32 = 52;
    let (passes, side_passes) = if chunks <= 3 { (3, 3 * chunks) } else { (2, 287) };
    let weeks = graph.sources(WEEKS);
    graph.add(&weeks);
    let mut sums = Vec::new();
    for chunk in 0..chunks {
        let load = graph.add(&[]);
        let taken: Vec<u32> = weeks.iter().map(|week| graph.add(&[load, *week])).collect();
        let means = graph.each(&taken);
        let anomalies = graph.each(&means);
        let mut joined = graph.add(&anomalies);
        for _ in 0..passes {
            joined = graph.add(&[joined]);
        }
        let mut side = load;
        for _ in 0..side_passes / chunks + u32::from(chunk < side_passes % chunks) {
            side = graph.add(&[side]);
        }
        let difference = graph.add(&[joined, side]);
        sums.push(graph.add(&[difference]));
    }
    graph.tree(sums, 8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_graph_is_as_published() {
        for one in GRAPHS {
            // It asserts tasks, edges and the longest path itself.
            assert_eq!(one.graph().tasks(), one.tasks);
            assert!(find(one.name).is_some_and(|found| std::ptr::eq(found, one)), "{}", one.name);
        }
    }

    #[test]
    fn only_sources_of_slow_merges_sleep() {
        for one in GRAPHS {
            let graph = one.graph();
            let slept = graph.sleep_s();
            let expected = match one.family {
                MergeSlow(n, micros) => f64::from(n) * f64::from(micros) / 1e6,
                _ => 0.0,
            };
            assert!((slept - expected).abs() < 1e-6, "{}: {slept} s", one.name);
        }
    }
}

//! A graph of tasks, to be submitted task by task.

use serde_json::{Value, json};

/// Tasks in an order in which each comes after all that it depends on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Graph {
    /// Task `i` depends on those before `ends[i]` that no task before it depends on.
    ends: Vec<usize>,
    inputs: Vec<u32>,
    /// How long tasks sleep, where they do.
    naps: Vec<(u32, u32)>,
}

impl Graph {
    /// A task that depends on these. Who is named twice counts once.
    pub(crate) fn add(&mut self, inputs: &[u32]) -> u32 {
        let task = self.ends.len() as u32;
        let start = self.inputs.len();
        for input in inputs {
            assert!(*input < task, "a task depends on earlier ones");
            // Long lists are of distinct tasks; only short ones are looked through.
            if inputs.len() > SHORT || !self.inputs[start..].contains(input) {
                self.inputs.push(*input);
            }
        }
        self.ends.push(self.inputs.len());
        task
    }

    /// As many tasks that depend on nothing.
    pub(crate) fn sources(&mut self, count: u32) -> Vec<u32> {
        (0..count).map(|_| self.add(&[])).collect()
    }

    /// For each of these a task that depends on it alone.
    pub(crate) fn each(&mut self, of: &[u32]) -> Vec<u32> {
        of.iter().map(|one| self.add(&[*one])).collect()
    }

    /// A reduction with nodes of up to `fan_in`: a group of one is passed on as it is.
    pub(crate) fn tree(&mut self, mut level: Vec<u32>, fan_in: usize) -> u32 {
        while level.len() > fan_in {
            let mut next = Vec::with_capacity(level.len().div_ceil(fan_in));
            for group in level.chunks(fan_in) {
                next.push(if let [only] = group { *only } else { self.add(group) });
            }
            level = next;
        }
        self.add(&level)
    }

    /// These tasks sleep so many microseconds each.
    pub(crate) fn sleep(&mut self, tasks: &[u32], micros: u32) {
        self.naps.extend(tasks.iter().map(|task| (*task, micros)));
        self.naps.sort_unstable();
    }

    /// How many tasks there are.
    pub(crate) fn tasks(&self) -> u32 {
        self.ends.len() as u32
    }

    /// How many dependencies.
    pub(crate) fn edges(&self) -> usize {
        self.inputs.len()
    }

    /// What a task depends on.
    pub(crate) fn inputs_of(&self, task: u32) -> &[u32] {
        let start = task.checked_sub(1).map_or(0, |before| self.ends[before as usize]);
        &self.inputs[start..self.ends[task as usize]]
    }

    /// How long a task sleeps, in microseconds.
    pub(crate) fn nap_of(&self, task: u32) -> u32 {
        let found = self.naps.binary_search_by_key(&task, |(task, _)| *task);
        found.map_or(0, |nth| self.naps[nth].1)
    }

    /// All of it, for who is not in Rust.
    pub(crate) fn json(&self) -> Value {
        let inputs: Vec<&[u32]> = (0..self.tasks()).map(|task| self.inputs_of(task)).collect();
        json!({ "inputs": inputs, "naps_us": self.naps })
    }

    /// How long all sleep together, in seconds.
    pub(crate) fn sleep_s(&self) -> f64 {
        self.naps.iter().map(|(_, micros)| f64::from(*micros) / 1e6).sum()
    }

    /// The edges of the longest path.
    pub(crate) fn longest_path(&self) -> u32 {
        let depths = self.fold(|_, inputs: &[u32]| inputs.iter().max().map_or(0, |most| most + 1));
        depths.into_iter().max().unwrap_or(0)
    }

    /// The tasks that none depends on.
    pub(crate) fn sinks(&self) -> Vec<u32> {
        let mut is_sink = vec![true; self.ends.len()];
        self.inputs.iter().for_each(|input| is_sink[*input as usize] = false);
        (0..self.tasks()).filter(|task| is_sink[*task as usize]).collect()
    }

    /// The value of every task, one after the other: `value` makes it of those of its inputs.
    pub(crate) fn fold<T: Copy>(&self, value: impl Fn(u32, &[T]) -> T) -> Vec<T> {
        let mut values: Vec<T> = Vec::with_capacity(self.ends.len());
        let mut own = Vec::new();
        for task in 0..self.tasks() {
            own.clear();
            own.extend(self.inputs_of(task).iter().map(|input| values[*input as usize]));
            values.push(value(task, &own));
        }
        values
    }
}

/// Lists up to this length may name a task twice.
const SHORT: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_passes_on_what_has_no_neighbour() {
        let mut graph = Graph::default();
        let leaves = graph.sources(5);
        let root = graph.tree(leaves, 2);
        // 5 leaves make 2 and 1 passed on, those make 1 and 1, and these the root.
        assert_eq!((graph.tasks(), graph.edges(), graph.longest_path()), (9, 8, 3));
        assert_eq!(graph.sinks(), [root]);
        let sums = graph.fold(|task, inputs: &[u64]| match inputs {
            [] => u64::from(task),
            inputs => inputs.iter().sum(),
        });
        assert_eq!(sums[root as usize], 1 + 2 + 3 + 4);
    }

    #[test]
    fn who_is_named_twice_counts_once() {
        let mut graph = Graph::default();
        let one = graph.add(&[]);
        let two = graph.add(&[one, one]);
        assert_eq!(graph.inputs_of(two), [one]);
        graph.sleep(&[two], 7);
        assert_eq!((graph.nap_of(one), graph.nap_of(two)), (0, 7));
        assert_eq!(graph.json(), json!({ "inputs": [[], [0]], "naps_us": [[1, 7]] }));
    }
}

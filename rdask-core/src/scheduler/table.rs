//! One value for every task of an array or batch, stored as fits it.
//!
//! Arrays keep intervals: their cost follows the number of changes. Batches keep a plain vector:
//! their tasks go their own ways, and an interval each would cost more than it says.

use crate::range::{Range, RangeMap};

/// A total map from task index to `V`.
#[derive(Clone, Debug)]
pub(crate) enum Table<V> {
    Intervals(RangeMap<V>),
    Dense(Vec<V>),
}

impl<V: Copy + PartialEq> Table<V> {
    /// A table of `len` tasks that says `value` for each.
    pub(crate) fn filled(dense: bool, len: u32, value: V) -> Self {
        if dense {
            Self::Dense(vec![value; len as usize])
        } else {
            Self::Intervals(RangeMap::filled(Range::new(0, len), value))
        }
    }

    /// The value at `index`.
    ///
    /// # Panics
    /// If `index` is not a task's.
    pub(crate) fn get(&self, index: u32) -> V {
        match self {
            Self::Intervals(map) => *map.get(index).expect("a table is total"),
            Self::Dense(values) => values[index as usize],
        }
    }

    /// Sets all of `range`.
    pub(crate) fn set(&mut self, range: Range, value: V) {
        match self {
            Self::Intervals(map) => map.insert(range, value),
            Self::Dense(values) => values[range.start as usize..range.end as usize].fill(value),
        }
    }

    /// The first run of equal values from `range.start` on, cut to `range`.
    fn run(&self, range: Range) -> (Range, V) {
        match self {
            Self::Intervals(map) => {
                let (whole, value) = map.interval(range.start).expect("a table is total");
                (whole.intersection(range), *value)
            }
            Self::Dense(values) => {
                let value = values[range.start as usize];
                let rest = &values[range.start as usize..range.end as usize];
                let len = rest.iter().take_while(|other| **other == value).count();
                (Range::new(range.start, range.start + len as u32), value)
            }
        }
    }

    /// The runs of equal values in `range`, in order.
    pub(crate) fn runs(&self, range: Range) -> Runs<'_, V> {
        Runs { table: self, rest: range }
    }

    /// The runs of equal values in `range`, owned, for loops that change the table.
    pub(crate) fn runs_vec(&self, range: Range) -> Vec<(Range, V)> {
        self.runs(range).collect()
    }
}

/// See [`Table::runs`].
#[derive(Debug)]
pub(crate) struct Runs<'a, V> {
    table: &'a Table<V>,
    rest: Range,
}

impl<V: Copy + PartialEq> Iterator for Runs<'_, V> {
    type Item = (Range, V);

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let (run, value) = self.table.run(self.rest);
        self.rest.start = run.end;
        Some((run, value))
    }
}

//! Consecutive task indexes, sets of them and maps over them.
//!
//! [`RangeSet`] and [`RangeMap`] keep maximal intervals: two neighbours that say the same are one
//! entry. So their size follows the number of *changes* along an array, not its length.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// The task indexes from `start` up to, but without, `end`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Range {
    /// The first index.
    pub start: u32,
    /// One past the last index.
    pub end: u32,
}

impl fmt::Debug for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.start, self.end)
    }
}

impl Range {
    /// The range `start..end`; empty if `end` is not beyond `start`.
    #[must_use]
    pub fn new(start: u32, end: u32) -> Self {
        Self { start, end: end.max(start) }
    }

    /// The range of one index.
    #[must_use]
    pub fn one(index: u32) -> Self {
        Self { start: index, end: index.saturating_add(1) }
    }

    /// How many indexes it holds.
    #[must_use]
    pub fn len(self) -> u32 {
        self.end.saturating_sub(self.start)
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.end <= self.start
    }

    /// Whether `index` is in it.
    #[must_use]
    pub fn contains(self, index: u32) -> bool {
        self.start <= index && index < self.end
    }

    /// Whether all of `other` is in it.
    #[must_use]
    pub fn covers(self, other: Self) -> bool {
        other.is_empty() || (self.start <= other.start && other.end <= self.end)
    }

    /// The indexes in both.
    #[must_use]
    pub fn intersection(self, other: Self) -> Self {
        Self::new(self.start.max(other.start), self.end.min(other.end))
    }

    /// The indexes in order.
    pub fn iter(self) -> std::ops::Range<u32> {
        self.start..self.end
    }
}

impl IntoIterator for Range {
    type Item = u32;
    type IntoIter = std::ops::Range<u32>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// A map from index to value, kept as maximal intervals of equal values. Indexes may be absent.
#[derive(Clone)]
pub struct RangeMap<V> {
    entries: BTreeMap<u32, (u32, V)>,
}

impl<V> Default for RangeMap<V> {
    fn default() -> Self {
        Self { entries: BTreeMap::new() }
    }
}

impl<V: fmt::Debug> fmt::Debug for RangeMap<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entries =
            self.entries.iter().map(|(start, (end, value))| (Range::new(*start, *end), value));
        f.debug_map().entries(entries).finish()
    }
}

impl<V: Clone + PartialEq> RangeMap<V> {
    /// A map without entries.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A map that says `value` for all of `range`.
    #[must_use]
    pub fn filled(range: Range, value: V) -> Self {
        let mut map = Self::new();
        map.insert(range, value);
        map
    }

    /// Whether no index has a value.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many intervals it takes to say it all.
    #[must_use]
    pub fn interval_count(&self) -> usize {
        self.entries.len()
    }

    /// The value at `index`.
    #[must_use]
    pub fn get(&self, index: u32) -> Option<&V> {
        self.interval(index).map(|(_, value)| value)
    }

    /// The maximal interval around `index`, and its value.
    #[must_use]
    pub fn interval(&self, index: u32) -> Option<(Range, &V)> {
        let (start, (end, value)) = self.entries.range(..=index).next_back()?;
        (index < *end).then(|| (Range::new(*start, *end), value))
    }

    /// All intervals in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (Range, &V)> {
        self.entries.iter().map(|(start, (end, value))| (Range::new(*start, *end), value))
    }

    /// The intervals inside `range`, cut to it, in order.
    pub fn within(&self, range: Range) -> impl Iterator<Item = (Range, &V)> {
        let first = match self.entries.range(..=range.start).next_back() {
            Some((start, (end, _))) if *end > range.start => *start,
            _ => range.start,
        };
        self.entries
            .range(first..range.end.max(first))
            .map(move |(start, (end, value))| (Range::new(*start, *end).intersection(range), value))
            .filter(|(part, _)| !part.is_empty())
    }

    /// Sets all of `range` to `value`, whatever was there.
    pub fn insert(&mut self, range: Range, value: V) {
        if range.is_empty() {
            return;
        }
        self.remove(range);
        let mut whole = range;
        if let Some((start, (end, before))) = self.entries.range(..range.start).next_back()
            && *end == range.start
            && *before == value
        {
            whole.start = *start;
        }
        if let Some((end, after)) = self.entries.get(&range.end)
            && *after == value
        {
            whole.end = *end;
            self.entries.remove(&range.end);
        }
        self.entries.insert(whole.start, (whole.end, value));
    }

    /// Takes all values out of `range`.
    pub fn remove(&mut self, range: Range) {
        if range.is_empty() {
            return;
        }
        if let Some((start, (end, value))) = self.entries.range(..range.start).next_back()
            && *end > range.start
        {
            let (start, end, value) = (*start, *end, value.clone());
            self.entries.insert(start, (range.start, value.clone()));
            if end > range.end {
                self.entries.insert(range.end, (end, value));
                return;
            }
        }
        while let Some((&start, _)) = self.entries.range(range.start..range.end).next() {
            if let Some((end, value)) = self.entries.remove(&start)
                && end > range.end
            {
                self.entries.insert(range.end, (end, value));
            }
        }
    }

    /// Replaces each interval inside `range` by what `change` makes of it; `None` takes it out.
    /// Indexes without a value stay without.
    pub fn update(&mut self, range: Range, mut change: impl FnMut(Range, &V) -> Option<V>) {
        let parts: Vec<(Range, V)> =
            self.within(range).map(|(part, value)| (part, value.clone())).collect();
        for (part, value) in parts {
            match change(part, &value) {
                Some(new) if new == value => {}
                Some(new) => self.insert(part, new),
                None => self.remove(part),
            }
        }
    }
}

/// A set of indexes, kept as maximal intervals, with its size at hand.
#[derive(Clone, Default)]
pub struct RangeSet {
    ranges: RangeMap<()>,
    len: u64,
}

impl fmt::Debug for RangeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl FromIterator<Range> for RangeSet {
    fn from_iter<I: IntoIterator<Item = Range>>(ranges: I) -> Self {
        let mut set = Self::default();
        ranges.into_iter().for_each(|range| set.insert(range));
        set
    }
}

impl From<Range> for RangeSet {
    fn from(range: Range) -> Self {
        Self::from_iter([range])
    }
}

impl PartialEq for RangeSet {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl RangeSet {
    /// A set without indexes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many indexes it holds.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether `index` is in it.
    #[must_use]
    pub fn contains(&self, index: u32) -> bool {
        self.ranges.get(index).is_some()
    }

    /// Whether all of `range` is in it.
    #[must_use]
    pub fn covers(&self, range: Range) -> bool {
        range.is_empty()
            || self.ranges.interval(range.start).is_some_and(|(whole, ())| whole.end >= range.end)
    }

    /// The maximal interval around `index`.
    #[must_use]
    pub fn interval(&self, index: u32) -> Option<Range> {
        self.ranges.interval(index).map(|(range, ())| range)
    }

    /// The first interval.
    #[must_use]
    pub fn first(&self) -> Option<Range> {
        self.ranges.iter().next().map(|(range, ())| range)
    }

    /// The intervals in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Range> {
        self.ranges.iter().map(|(range, ())| range)
    }

    /// The intervals inside `range`, cut to it.
    pub fn within(&self, range: Range) -> impl Iterator<Item = Range> {
        self.ranges.within(range).map(|(part, ())| part)
    }

    /// Whether it holds any index of `range`.
    #[must_use]
    pub fn intersects(&self, range: Range) -> bool {
        self.within(range).next().is_some()
    }

    /// How many indexes of `range` it holds.
    #[must_use]
    pub fn count_within(&self, range: Range) -> u64 {
        self.within(range).map(|part| u64::from(part.len())).sum()
    }

    /// Adds all of `range`.
    pub fn insert(&mut self, range: Range) {
        self.len += u64::from(range.len()) - self.count_within(range);
        self.ranges.insert(range, ());
    }

    /// Takes all of `range` out.
    pub fn remove(&mut self, range: Range) {
        self.len -= self.count_within(range);
        self.ranges.remove(range);
    }

    /// Takes out the first interval, but at most `count_max` of its indexes.
    pub fn take_first(&mut self, count_max: u32) -> Option<Range> {
        let first = self.first()?;
        let taken = Range::new(first.start, first.end.min(first.start.saturating_add(count_max)));
        self.remove(taken);
        (!taken.is_empty()).then_some(taken)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SPAN: usize = 40;

    fn range() -> impl Strategy<Value = Range> {
        (0..SPAN as u32, 0..SPAN as u32).prop_map(|(a, b)| Range::new(a.min(b), a.max(b)))
    }

    fn check(map: &RangeMap<u8>, model: &[Option<u8>]) {
        for (index, expected) in model.iter().enumerate() {
            assert_eq!(map.get(index as u32), expected.as_ref());
        }
        let all: Vec<_> = map.iter().collect();
        for pair in all.windows(2) {
            let ((a, x), (b, y)) = (pair[0], pair[1]);
            assert!(a.end < b.start || (a.end == b.start && x != y), "not maximal: {map:?}");
        }
    }

    proptest! {
        #[test]
        fn a_map_says_what_a_plain_vector_says(
            steps in prop::collection::vec((range(), prop::option::of(0u8..3)), 0..60),
            window in range(),
        ) {
            let (mut map, mut model) = (RangeMap::new(), vec![None; SPAN]);
            for (range, value) in steps {
                match value {
                    Some(value) => map.insert(range, value),
                    None => map.remove(range),
                }
                range.iter().for_each(|index| model[index as usize] = value);
                check(&map, &model);
            }
            let mut seen = [None; SPAN];
            for (part, value) in map.within(window) {
                prop_assert!(window.covers(part) && !part.is_empty());
                part.iter().for_each(|index| seen[index as usize] = Some(*value));
            }
            for index in 0..SPAN {
                let expected = if window.contains(index as u32) { model[index] } else { None };
                prop_assert_eq!(seen[index], expected);
            }
            map.update(window, |_, value| (*value != 0).then(|| value + 1));
            for index in window {
                let cell = &mut model[index as usize];
                *cell = cell.and_then(|value| (value != 0).then(|| value + 1));
            }
            check(&map, &model);
        }

        #[test]
        fn a_set_counts_its_members(steps in prop::collection::vec((range(), any::<bool>()), 0..60)) {
            let (mut set, mut model) = (RangeSet::new(), [false; SPAN]);
            for (range, present) in steps {
                if present { set.insert(range) } else { set.remove(range) }
                range.iter().for_each(|index| model[index as usize] = present);
                prop_assert_eq!(set.len(), model.iter().filter(|in_it| **in_it).count() as u64);
                for (index, expected) in model.iter().enumerate() {
                    prop_assert_eq!(set.contains(index as u32), *expected);
                }
            }
            let before = set.len();
            if let Some(taken) = set.take_first(3) {
                prop_assert!(taken.len() <= 3);
                prop_assert_eq!(set.len() + u64::from(taken.len()), before);
            }
        }
    }
}

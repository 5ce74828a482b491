//! Which files of one partition are put together, by their sizes. Pure.
//!
//! Many small commits should not have a large file written anew each time. So a file joins smaller ones only when it is at most
//! [`GROWTH`] times as large as all of them: the file that holds its rows afterwards is half as large again at least. Rows are thus written anew a number of times that grows with the logarithm of the size of a good
//! file, and the files that wait become larger in a geometric progression, so that they are few. Size-tiered compaction of log-structured
//! stores (`size_ratio` of RocksDB's universal compaction) is the same thing.

use std::cmp::Reverse;

/// A file joins smaller ones that have a share of its size together: one in so many.
const GROWTH: u64 = 2;
/// Files under this share of a good size (4 KiB of 128 MiB) count as large as that: they are little but metadata.
const LEAST_SHARE: u64 = 32_768;

/// A file of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) bytes: u64,
    /// Whether the file is written anew even alone.
    pub(super) must: bool,
}

/// What makes files worth being put together.
#[derive(Debug, Clone, Copy)]
pub(super) struct Packing {
    /// Bytes of a good file.
    pub(super) target: u64,
    /// Bytes of files that are put together at once.
    pub(super) capacity: u64,
    /// Files from which on it is worth it.
    pub(super) least: usize,
    /// Whether only files go together that came after each other.
    pub(super) in_order: bool,
}

/// Bytes from which on a file is large enough.
pub(super) fn enough(target: u64) -> u64 {
    target / 4 * 3
}

impl Packing {
    /// The places in `files` of those that go together. `files` are those of one partition that are worth being looked at, in the
    /// order in which they came; so are the places in each group.
    pub(super) fn groups(&self, files: &[Piece]) -> Vec<Vec<usize>> {
        let pool = self.joining(files, (0..files.len()).collect());
        let bins = if self.in_order { self.next_fit(files, pool) } else { self.first_fit(files, pool) };
        let groups = bins.into_iter().filter_map(|bin| self.group(files, bin));
        groups.collect()
    }

    /// Those that must be written anew, and those that are not too large to join them and the smaller ones; a file alone joins nothing.
    fn joining(&self, files: &[Piece], mut places: Vec<usize>) -> Vec<usize> {
        places.sort_by_key(|place| (!files[*place].must, files[*place].bytes, *place));
        let (mut smaller, mut joining) = (0_u64, 0);
        for (at, place) in places.iter().enumerate() {
            let weight = files[*place].bytes.max(self.target / LEAST_SHARE);
            if files[*place].must || weight <= smaller.saturating_mul(GROWTH) {
                joining = at + 1;
            }
            smaller = smaller.saturating_add(weight);
        }
        places.truncate(joining);
        places
    }

    fn next_fit(&self, files: &[Piece], mut pool: Vec<usize>) -> Vec<Vec<usize>> {
        pool.sort_unstable();
        let (mut bins, mut bytes): (Vec<Vec<usize>>, u64) = (Vec::new(), 0);
        for place in pool {
            let size = files[place].bytes;
            match bins.last_mut() {
                Some(bin) if bytes.saturating_add(size) <= self.capacity => {
                    bin.push(place);
                    bytes += size;
                }
                _ => {
                    bins.push(vec![place]);
                    bytes = size;
                }
            }
        }
        bins
    }

    /// First-fit decreasing. Files of like size (by powers of 4) stay in the order in which they came: rows that came together mostly
    /// have near times.
    fn first_fit(&self, files: &[Piece], mut pool: Vec<usize>) -> Vec<Vec<usize>> {
        let least = pool.iter().map(|place| files[*place].bytes).min().unwrap_or_default();
        pool.sort_by_key(|place| (Reverse(files[*place].bytes.max(1).ilog2() / 2), *place));
        let mut open: Vec<(u64, Vec<usize>)> = Vec::new();
        let mut full = Vec::new();
        for place in pool {
            let size = files[place].bytes;
            let at = open.iter().position(|(bytes, _)| bytes.saturating_add(size) <= self.capacity);
            let at = at.unwrap_or_else(|| {
                open.push((0, Vec::new()));
                open.len() - 1
            });
            let (bytes, bin) = &mut open[at];
            bin.push(place);
            *bytes = bytes.saturating_add(size);
            if bytes.saturating_add(least) > self.capacity {
                full.push(open.remove(at).1);
            }
        }
        full.into_iter().chain(open.into_iter().map(|(_, bin)| bin)).collect()
    }

    /// What of a bin is worth it.
    fn group(&self, files: &[Piece], bin: Vec<usize>) -> Option<Vec<usize>> {
        let mut group = self.joining(files, bin);
        let bytes: u64 = group.iter().map(|place| files[*place].bytes).sum();
        let is_worth_it = group.iter().any(|place| files[*place].must)
            || (group.len() > 1 && (group.len() >= self.least || bytes >= enough(self.target)));
        group.sort_unstable();
        is_worth_it.then_some(group)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;
    const TARGET: u64 = 128 * MIB;
    const PACKING: Packing = Packing { target: TARGET, capacity: TARGET, least: 5, in_order: false };

    fn pieces(mib: &[u64]) -> Vec<Piece> {
        mib.iter().map(|mib| Piece { bytes: mib * MIB, must: false }).collect()
    }

    #[test]
    fn a_large_file_waits_until_small_ones_are_worth_it() {
        assert_eq!(PACKING.groups(&pieces(&[90, 1, 1, 1, 1, 1])), [vec![1, 2, 3, 4, 5]]);
        assert_eq!(PACKING.groups(&pieces(&[90, 40, 2, 2, 2])), Vec::<Vec<usize>>::new());
        assert_eq!(PACKING.groups(&pieces(&[60, 10, 2, 2, 2])), Vec::<Vec<usize>>::new());
        assert_eq!(PACKING.groups(&pieces(&[60, 30, 20])), [vec![0, 1, 2]], "together they are of a good size");
        assert_eq!(PACKING.groups(&pieces(&[5, 10, 1, 1, 1])), [vec![0, 1, 2, 3, 4]]);
        assert_eq!(PACKING.groups(&pieces(&[1, 1, 1, 1])), Vec::<Vec<usize>>::new());
    }

    #[test]
    fn what_must_be_written_takes_small_ones_along() {
        let mut files = pieces(&[90, 3, 1]);
        files[1].must = true;
        assert_eq!(PACKING.groups(&files), [vec![1, 2]]);
        let mut alone = pieces(&[300, 90]);
        alone[0].must = true;
        assert_eq!(PACKING.groups(&alone), [vec![0]], "a file that is too large is cut");
        assert_eq!(PACKING.groups(&pieces(&[3])), Vec::<Vec<usize>>::new());
    }

    #[test]
    fn groups_fit_into_a_good_file_and_hold_what_came_together() {
        let groups = PACKING.groups(&pieces(&[70, 50, 70, 50, 6, 6]));
        assert_eq!(groups, [vec![0, 1, 4], vec![2, 3, 5]]);
        let small = pieces(&[1; 300]);
        let groups = PACKING.groups(&small);
        assert_eq!(groups, [(0..128).collect::<Vec<_>>(), (128..256).collect(), (256..300).collect()]);
        let in_order = Packing { in_order: true, ..PACKING };
        assert_eq!(in_order.groups(&pieces(&[70, 50, 70, 50, 6, 6])), [vec![0, 1], vec![2, 3, 4]]);
    }

    /// A table of one partition that is compacted after each day, with what was written.
    #[derive(Default)]
    struct Life {
        files: Vec<u64>,
        came: u64,
        rewritten: u64,
    }

    impl Life {
        fn day(&mut self, sizes: &[u64], packing: &Packing) {
            self.files.extend(sizes);
            self.came += sizes.iter().sum::<u64>();
            let small: Vec<u64> = self.files.iter().copied().filter(|bytes| *bytes < enough(TARGET)).collect();
            self.files.retain(|bytes| *bytes >= enough(TARGET));
            let pieces: Vec<_> = small.iter().map(|bytes| Piece { bytes: *bytes, must: false }).collect();
            let groups = packing.groups(&pieces);
            let mut taken = BTreeSet::new();
            for group in &groups {
                assert!(group.is_sorted() && group.len() > 1 && group.iter().all(|place| taken.insert(*place)));
                let bytes: u64 = group.iter().map(|place| small[*place]).sum();
                assert!(bytes <= TARGET);
                self.rewritten += bytes;
                self.files.push(bytes);
            }
            self.files.extend(small.iter().enumerate().filter(|(at, _)| !taken.contains(at)).map(|(_, bytes)| bytes));
        }
    }

    proptest! {
        #[test]
        fn days_of_small_commits_leave_few_files_and_write_each_byte_a_few_times(
            days in prop::collection::vec(prop::collection::vec(10_000_u64..(8 * MIB), 0..40), 1..200),
        ) {
            let mut life = Life::default();
            for day in &days {
                life.day(day, &PACKING);
                prop_assert_eq!(life.files.iter().sum::<u64>(), life.came);
                // Those of half a good size, and those that wait: four small ones, and larger ones, each over twice all smaller ones.
                let most = life.came / (TARGET / 2) + 4 + 10;
                prop_assert!(life.files.len() as u64 <= most, "{} files, expected at most {most}", life.files.len());
            }
            prop_assert!(life.rewritten <= 8 * life.came, "{} of {}", life.rewritten, life.came);
        }

        #[test]
        fn every_file_that_must_be_written_is_in_one_group_and_no_group_is_too_large(
            files in prop::collection::vec((1_u64..(400 * MIB), any::<bool>()), 0..80),
            in_order: bool,
        ) {
            let pieces: Vec<_> = files
                .iter()
                .map(|(bytes, must)| Piece { bytes: *bytes, must: *must })
                .filter(|piece| piece.must || piece.bytes < enough(TARGET))
                .collect();
            let groups = Packing { in_order, ..PACKING }.groups(&pieces);
            let all: Vec<usize> = groups.iter().flatten().copied().collect();
            let once: BTreeSet<usize> = all.iter().copied().collect();
            prop_assert_eq!(all.len(), once.len());
            for (place, piece) in pieces.iter().enumerate() {
                prop_assert!(!piece.must || once.contains(&place));
            }
            for group in &groups {
                let bytes: u64 = group.iter().map(|place| pieces[*place].bytes).sum();
                prop_assert!(bytes <= TARGET || group.len() == 1);
                prop_assert!(group.len() > 1 || pieces[group[0]].must);
            }
        }
    }

    #[test]
    fn a_day_of_small_commits_does_not_rewrite_the_days_before() {
        let mut life = Life::default();
        for _ in 0..365 {
            life.day(&[50_000; 20], &PACKING);
        }
        assert!(life.rewritten <= 7 * life.came, "{} of {}", life.rewritten, life.came);
        assert!(life.files.len() <= 12, "{:?}", life.files);
    }
}

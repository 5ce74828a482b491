//! The table properties that steer commits, by their standard names, with Iceberg's defaults where nothing else is said.

use std::str::FromStr;
use std::time::Duration;

use iceberg::spec::TableMetadata;

use shared::random::Random;
use shared::{Error, Result, pause};

/// How long a commit keeps trying once its rows are written.
const DEADLINE: Duration = Duration::from_secs(60);
/// Shortest pause between two tries.
const SHORTEST: Duration = Duration::from_millis(2);
/// Longest pause after a try that took no time, as one whose answer was lost.
const LONGEST: Duration = Duration::from_millis(500);
/// The longest pause, in tries, and as a part of the deadline. Of writers that are on their way at the same time one arrives and
/// the others have worked for nothing, so the more there are the more of them should be waiting.
const TRIES_IN_A_PAUSE: u32 = 64;
const PAUSES_TO_THE_DEADLINE: u32 = 8;
/// From this number of manifests on the newest are merged, so that planning a scan stays cheap.
const MERGE_MANIFESTS: usize = 100;
const MANIFEST_BYTES: i64 = 8 << 20;

/// # Errors
/// `Invalid`, naming the property, for a value that can't be read.
pub fn read<T: FromStr>(metadata: &TableMetadata, key: &str, expected: &str) -> Result<Option<T>> {
    let Some(found) = metadata.properties().get(key) else { return Ok(None) };
    let value = found.trim().parse().map(Some);
    value.map_err(|_| Error::invalid(format!("table property `{key}`: expected {expected}, found `{found}`")))
}

/// How a commit is tried again.
#[derive(Debug, Clone, Copy)]
pub struct Retries {
    pub deadline: Duration,
    /// Tries in all.
    attempts: u32,
    shortest: Option<Duration>,
    longest: Option<Duration>,
}

impl Default for Retries {
    fn default() -> Self {
        Self { deadline: DEADLINE, attempts: u32::MAX, shortest: None, longest: None }
    }
}

impl Retries {
    pub fn of(metadata: &TableMetadata) -> Result<Self> {
        let millis = |key| Ok::<_, Error>(read(metadata, key, "a number of milliseconds")?.map(Duration::from_millis));
        let retries: Option<u32> = read(metadata, "commit.retry.num-retries", "a number of tries")?;
        Ok(Self {
            deadline: millis("commit.retry.total-timeout-ms")?.unwrap_or(DEADLINE),
            attempts: retries.map_or(u32::MAX, |retries| retries.saturating_add(1)),
            shortest: millis("commit.retry.min-wait-ms")?,
            longest: millis("commit.retry.max-wait-ms")?,
        })
    }

    pub fn allow(&self, attempts: u32) -> bool {
        attempts < self.attempts
    }

    /// The pause after an answer that was lost, or a look-up that failed.
    pub fn pause(&self, random: &dyn Random, attempts: u32) -> Duration {
        let longest = self.longest.unwrap_or(LONGEST);
        pause::after(random, attempts, self.shortest.unwrap_or(SHORTEST * 5), longest)
    }

    /// The pause after a try that took so long and that others came before: at first it is about as long as the try itself, as
    /// that is when the others are done.
    pub fn pause_after(&self, random: &dyn Random, attempts: u32, took: Duration) -> Duration {
        let longest =
            || took.saturating_mul(TRIES_IN_A_PAUSE).min(self.deadline / PAUSES_TO_THE_DEADLINE).max(SHORTEST);
        let longest = self.longest.unwrap_or_else(longest);
        let first = self.shortest.unwrap_or(SHORTEST).max(took);
        pause::after(random, attempts.saturating_sub(1), first, longest)
    }
}

/// When small manifests are merged.
#[derive(Debug, Clone, Copy)]
pub struct ManifestMerging {
    enabled: bool,
    min_count: usize,
    target_bytes: i64,
}

impl ManifestMerging {
    pub fn of(metadata: &TableMetadata) -> Result<Self> {
        let min_count = read(metadata, "commit.manifest.min-count-to-merge", "a number of manifests")?;
        let target_bytes = read(metadata, "commit.manifest.target-size-bytes", "a number of bytes")?;
        Ok(Self {
            enabled: read(metadata, "commit.manifest-merge.enabled", "`true` or `false`")?.unwrap_or(true),
            min_count: min_count.unwrap_or(MERGE_MANIFESTS),
            target_bytes: target_bytes.unwrap_or(MANIFEST_BYTES),
        })
    }

    /// Which manifests, given by length, newest first, become one. The oldest are packed first, so that full ones stay as they
    /// are; the newest wait until they are many.
    pub fn bins(&self, lengths: &[i64]) -> Vec<Vec<usize>> {
        let alone = |places: &[usize]| places.iter().map(|i| vec![*i]).collect::<Vec<_>>();
        let places: Vec<usize> = (0..lengths.len()).collect();
        if !self.enabled {
            return alone(&places);
        }
        let mut packed: Vec<Vec<usize>> = Vec::new();
        let mut bytes = 0;
        for (place, length) in lengths.iter().enumerate().rev() {
            match packed.last_mut() {
                Some(bin) if bytes + length <= self.target_bytes => {
                    bin.insert(0, place);
                    bytes += length;
                }
                _ => {
                    packed.push(vec![place]);
                    bytes = *length;
                }
            }
        }
        packed.reverse();
        let mut bins = Vec::new();
        for (i, bin) in packed.into_iter().enumerate() {
            match i {
                0 if bin.len() < self.min_count => bins.extend(alone(&bin)),
                _ => bins.push(bin),
            }
        }
        bins
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::random::SystemRandom;

    #[test]
    fn pauses_grow_from_the_length_of_a_try_to_a_bound() {
        let retries = Retries::default();
        let took = Duration::from_millis(10);
        let longest =
            |attempts, took| (0..200).map(|_| retries.pause_after(&SystemRandom, attempts, took)).max().unwrap();
        assert!(longest(1, took) <= took);
        assert!((took..=took * 8).contains(&longest(4, took)));
        assert!((took * 8..=took * TRIES_IN_A_PAUSE).contains(&longest(30, took)));
        assert!(longest(30, DEADLINE) <= DEADLINE / PAUSES_TO_THE_DEADLINE);
        let asked = Retries { shortest: Some(took * 10), longest: Some(took * 20), ..retries };
        let pauses: Vec<_> = (0..200).map(|_| asked.pause_after(&SystemRandom, 30, took)).collect();
        assert!(pauses.iter().max().unwrap() > &(took * 10) && pauses.iter().max().unwrap() <= &(took * 20));
    }

    #[test]
    fn old_manifests_are_packed_and_the_newest_wait_until_they_are_many() {
        let merging = ManifestMerging { enabled: true, min_count: 3, target_bytes: 10 };
        assert_eq!(merging.bins(&[1, 1]), [vec![0], vec![1]]);
        assert_eq!(merging.bins(&[1, 1, 1]), [vec![0, 1, 2]]);
        assert_eq!(merging.bins(&[1, 1, 9, 4, 5]), [vec![0], vec![1, 2], vec![3, 4]]);
        assert_eq!(merging.bins(&[1, 12, 12]), [vec![0], vec![1], vec![2]]);
        assert_eq!(merging.bins(&[]), Vec::<Vec<usize>>::new());
        let never = ManifestMerging { enabled: false, ..merging };
        assert_eq!(never.bins(&[1, 1, 1]), [vec![0], vec![1], vec![2]]);
    }
}

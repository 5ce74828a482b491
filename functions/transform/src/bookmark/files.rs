//! Bookmarks over file tables: which files were read, kept in step with the token of the target table.

use std::collections::BTreeMap;

use engine::Input;
use format::listing::TableFiles;
use serde::{Deserialize, Serialize};
use shared::Result;
use shared::catalog::Table;
use shared::ports::Ports;
use shared::state::{Expect, State, change_json, get_json, put_json};

use super::{Bookmark, Reader, Reading, rewritten};
use crate::listed::{self, parse_url};
use crate::record::ReadMode;

/// Files by URL, with their etag.
type Files = BTreeMap<String, Option<String>>;

/// The state document of a job that reads a file table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Seen {
    generation: u64,
    files: Files,
    /// What is about to be committed.
    announced: Option<Announced>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Announced {
    generation: u64,
    files: Files,
    /// Whether these are all the files, not only further ones.
    whole: bool,
}

/// What a job does next.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Nothing,
    /// Read what `announced` names.
    Read {
        mode: ReadMode,
        seen: Seen,
    },
    /// Read everything, because of `why`.
    Again {
        why: String,
        seen: Seen,
    },
}

/// What is about to be read of a file table: the document that says so before it is committed.
#[derive(Debug)]
pub struct Announcement {
    seen: Seen,
    expect: Expect,
}

impl Announcement {
    /// # Errors
    /// `Conflict` when another run of the job announced at the same time; what the state answers.
    pub(super) async fn store(&self, ports: &Ports, reader: Reader<'_>) -> Result<()> {
        put_json(ports.state.as_ref(), &key(reader), &self.seen, self.expect.clone()).await.map(|_| ())
    }
}

/// Decides what to read of the file table `entry`; `committed` is the generation that the target table's token names.
pub(super) async fn look(
    ports: &Ports,
    reader: Reader<'_>,
    entry: &Table,
    committed: Option<u64>,
) -> Result<(Reading, Option<Announcement>)> {
    let table = &entry.input.name;
    let listed = list(ports, entry).await?;
    let (seen, expect) = match get_json::<Seen>(ports.state.as_ref(), &key(reader)).await? {
        Some((seen, version)) => (seen, Expect::Version(version)),
        None => (Seen::default(), Expect::Absent),
    };
    let (mode, seen, note) = match decide(seen, committed, listed) {
        Step::Nothing => return Ok((Reading::nothing(), None)),
        Step::Read { mode, seen } => (mode, seen, None),
        Step::Again { why, seen } => {
            let note = rewritten(reader, Reading::full(), why)?.note;
            (ReadMode::FullAfterRewrite, seen, note)
        }
    };
    let announced = seen.announced.clone().unwrap_or_default();
    let urls = announced.files.keys().map(|url| parse_url(url)).collect::<Result<Vec<_>>>()?;
    let bookmark = Bookmark::Files { table: table.clone(), generation: announced.generation };
    let reading = Reading { note, ..Reading::of(mode, table, Input::Files(urls), bookmark) };
    Ok((reading, Some(Announcement { seen, expect })))
}

/// Makes the files of a committed generation the ones that were read.
pub(super) async fn settle(state: &dyn State, reader: Reader<'_>, generation: u64) -> Result<()> {
    let Some((seen, version)) = get_json::<Seen>(state, &key(reader)).await? else { return Ok(()) };
    match seen.settled(Some(generation)) {
        Some(seen) => put_json(state, &key(reader), &seen, Expect::Version(version)).await.map(|_| ()),
        None => Ok(()),
    }
}

/// A file whose rows were erased: it was read before, and need not be read again.
#[derive(Debug, Clone)]
pub struct Replaced {
    pub url: String,
    /// Its etag before and now.
    pub before: Option<String>,
    pub now: Option<String>,
}

impl Replaced {
    /// Takes note of it for a job that has read the file as it was before.
    ///
    /// # Errors
    /// What the state answers.
    pub async fn note(&self, ports: &Ports, workflow: &str, job: &str) -> Result<()> {
        let known = key_of(workflow, job);
        let note = |seen: &mut Seen| {
            let announced = seen.announced.as_mut().map(|announced| &mut announced.files);
            let mut changed = false;
            for files in [Some(&mut seen.files), announced].into_iter().flatten() {
                if let Some(etag) = files.get_mut(&self.url).filter(|etag| **etag == self.before) {
                    etag.clone_from(&self.now);
                    changed = true;
                }
            }
            changed
        };
        change_json(ports.state.as_ref(), &*ports.random, &known, note).await.map(|_: Seen| ())
    }
}

fn decide(seen: Seen, committed: Option<u64>, listed: Files) -> Step {
    let highest = seen.highest().max(committed.unwrap_or(0));
    let announce = |seen: Seen, files: Files, whole: bool| {
        let announced = Some(Announced { generation: highest + 1, files, whole });
        Seen { announced, ..seen }
    };
    let Some(settled) = seen.clone().settled(committed) else {
        let why = "the list of files that were read before is lost".into();
        return Step::Again { why, seen: announce(seen, listed, true) };
    };
    let changed = listed.iter().find(|(url, etag)| settled.files.get(*url).is_some_and(|before| before != *etag));
    if let Some((url, _)) = changed {
        let why = format!("`{url}` was read before and has been changed since");
        return Step::Again { why, seen: announce(settled, listed, true) };
    }
    let new: Files = listed.into_iter().filter(|(url, _)| !settled.files.contains_key(url)).collect();
    if new.is_empty() {
        return Step::Nothing;
    }
    let mode = if committed.is_none() { ReadMode::Full } else { ReadMode::Incremental };
    Step::Read { mode, seen: announce(settled, new, false) }
}

impl Seen {
    fn highest(&self) -> u64 {
        self.announced.as_ref().map_or(0, |announced| announced.generation).max(self.generation)
    }

    /// The document as the committed generation proves it; `None` when the two don't belong together.
    fn settled(self, committed: Option<u64>) -> Option<Self> {
        let highest = self.highest();
        let Self { generation, files, announced } = self;
        match (committed, announced) {
            // The target table is new: everything is to be read, under a generation that no older table could name.
            (None, _) => Some(Self { generation: highest, ..Self::default() }),
            (Some(committed), Some(announced)) if committed == announced.generation => {
                let mut files = if announced.whole { Files::new() } else { files };
                files.extend(announced.files);
                Some(Self { generation: committed, files, announced: None })
            }
            (Some(committed), _) if committed == generation => Some(Self { generation, files, announced: None }),
            _ => None,
        }
    }
}

/// Every file of the table.
///
/// # Errors
/// `Invalid` beside files that a crawl left out: what they hold would be passed over.
async fn list(ports: &Ports, entry: &Table) -> Result<Files> {
    entry.check()?;
    let table = TableFiles::of(&entry.input)?;
    for left_out in table.left_out_beside(&listed::folders(ports, entry).await?)? {
        table.refuse(&ports.storage, &left_out).await?;
    }
    let files = listed::files(ports, entry).await?;
    Ok(files.into_iter().map(|file| (file.url.to_string(), file.meta.e_tag)).collect())
}

fn key(reader: Reader<'_>) -> String {
    key_of(reader.workflow, reader.job)
}

fn key_of(workflow: &str, job: &str) -> String {
    format!("bookmarks/{workflow}/{job}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn files(all: &[(&str, &str)]) -> Files {
        all.iter().map(|(url, etag)| ((*url).to_owned(), Some((*etag).to_owned()))).collect()
    }

    fn announced(step: &Step) -> &Announced {
        match step {
            Step::Read { seen, .. } | Step::Again { seen, .. } => seen.announced.as_ref().unwrap(),
            Step::Nothing => panic!("nothing was announced"),
        }
    }

    fn seen_of(step: Step) -> Seen {
        match step {
            Step::Read { seen, .. } | Step::Again { seen, .. } => seen,
            Step::Nothing => panic!("nothing was announced"),
        }
    }

    #[test]
    fn only_files_that_were_not_committed_are_read() {
        let first = decide(Seen::default(), None, files(&[("a", "1")]));
        assert!(matches!(&first, Step::Read { mode: ReadMode::Full, .. }));
        let seen = seen_of(first).settled(Some(1)).unwrap();
        assert_eq!(decide(seen.clone(), Some(1), files(&[("a", "1")])), Step::Nothing);
        let second = decide(seen, Some(1), files(&[("a", "1"), ("b", "1")]));
        assert!(matches!(&second, Step::Read { mode: ReadMode::Incremental, .. }));
        assert_eq!(announced(&second).files, files(&[("b", "1")]));
    }

    #[test]
    fn an_announcement_counts_only_if_the_token_names_it() {
        let seen = seen_of(decide(Seen::default(), None, files(&[("a", "1")]))).settled(Some(1)).unwrap();
        let crashed = seen_of(decide(seen, Some(1), files(&[("a", "1"), ("b", "1")])));
        let before_commit = decide(crashed.clone(), Some(1), files(&[("a", "1"), ("b", "1")]));
        assert_eq!(announced(&before_commit).files, files(&[("b", "1")]));
        assert_ne!(announced(&before_commit).generation, crashed.announced.as_ref().unwrap().generation);
        assert_eq!(decide(crashed, Some(2), files(&[("a", "1"), ("b", "1")])), Step::Nothing);
    }

    #[test]
    fn a_changed_file_or_a_lost_list_means_everything() {
        let seen = seen_of(decide(Seen::default(), None, files(&[("a", "1"), ("b", "1")]))).settled(Some(1)).unwrap();
        let now = files(&[("a", "2"), ("b", "1")]);
        let changed = decide(seen, Some(1), now.clone());
        assert!(matches!(&changed, Step::Again { why, .. } if why.contains("`a`")));
        assert_eq!(announced(&changed).files, now);
        let lost = decide(Seen::default(), Some(7), now.clone());
        assert_eq!((announced(&lost).files.clone(), announced(&lost).generation), (now, 8));
    }

    #[test]
    fn a_new_target_table_reads_everything_again() {
        let seen = seen_of(decide(Seen::default(), None, files(&[("a", "1")]))).settled(Some(1)).unwrap();
        let step = decide(seen, None, files(&[("a", "1")]));
        assert!(matches!(&step, Step::Read { mode: ReadMode::Full, .. }));
        assert_eq!(announced(&step).generation, 2);
    }

    proptest! {
        /// Whatever crashes where, every file is committed exactly once.
        #[test]
        fn every_file_is_committed_once(rounds in proptest::collection::vec((0usize..4, 0u8..3), 1..20)) {
            let mut listed = Files::new();
            let mut document = Seen::default();
            let mut token: Option<u64> = None;
            let mut read: BTreeMap<String, usize> = BTreeMap::new();
            let (last, rounds) = ((0, 2), rounds);
            for (new_files, crash) in rounds.into_iter().chain([last]) {
                for _ in 0..new_files {
                    listed.insert(format!("f{}", listed.len()), Some("1".into()));
                }
                let step = decide(document.clone(), token, listed.clone());
                if step == Step::Nothing {
                    continue;
                }
                document = seen_of(step);
                if crash == 0 {
                    continue; // Before the commit.
                }
                let committed = document.announced.clone().unwrap();
                token = Some(committed.generation);
                for url in committed.files.keys() {
                    *read.entry(url.clone()).or_default() += 1;
                }
                if crash == 2 {
                    document = document.settled(token).unwrap();
                }
            }
            prop_assert_eq!(read.len(), listed.len());
            prop_assert!(read.values().all(|times| *times == 1));
        }
    }
}

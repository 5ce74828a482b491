//! A deterministic simulation of processes over ports in memory, after those of FoundationDB and SlateDB: one seed says how long
//! each call takes, which fail, whose reply is lost, at which a process is killed, and what the clocks say. The same seed gives the
//! same run.
//!
//! A [`World`] has the time, virtual and paused (`#[tokio::test(start_paused = true)]`: it goes on when all wait), and what goes
//! wrong. A process is a future over [`Ports`] of its own; whoever is killed is started anew, without anything that it held in
//! memory. A call waits for some virtual time, takes effect alone, and waits again; both before and after its effect its process
//! may be killed.

mod ports;
mod store;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::{Future, pending};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use shared::clock::Clock;
use shared::ports::Ports;
use shared::random::{Random, SeededRandom, mix};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use self::store::TimedStore;

/// The first time of a world, milliseconds since the epoch: later than any that a library takes from the machine.
const FIRST_MS: i64 = 4_102_444_800_000;

/// How often a call meets what, of a thousand.
#[derive(Debug, Clone, Copy)]
pub struct Rates {
    /// Nothing happens, the caller is told to try again.
    pub busy: u64,
    /// It takes effect, the caller is told that nobody knows.
    pub lost: u64,
    /// Its process is killed, half of the times before it takes effect, half after.
    pub killed: u64,
    /// It takes seconds.
    pub slow: u64,
}

/// The time and the misfortunes that all processes of a simulation share.
pub struct World {
    seed: u64,
    rates: Rates,
    began: Instant,
    /// Milliseconds that the clocks were put forward, or back.
    jumped_ms: AtomicI64,
    is_quiet: AtomicBool,
    /// Milliseconds since it began at which somebody wakes.
    wakes: Mutex<BTreeSet<u64>>,
    /// Held by the call that takes effect.
    effects: tokio::sync::Mutex<()>,
    /// What happened, in order.
    log: Mutex<Vec<String>>,
    counts: Mutex<BTreeMap<String, u64>>,
    /// When each object was written, as objects in memory bear the time of the machine.
    written_ms: Arc<Mutex<BTreeMap<String, i64>>>,
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World").field("seed", &self.seed).finish_non_exhaustive()
    }
}

impl Clock for World {
    fn now_ms(&self) -> i64 {
        let passed = i64::try_from(self.began.elapsed().as_millis()).unwrap_or(i64::MAX);
        FIRST_MS + passed + self.jumped_ms.load(Ordering::SeqCst)
    }
}

impl World {
    /// The world of a seed. In a runtime whose time is paused.
    pub fn new(seed: u64, rates: Rates) -> Arc<Self> {
        Arc::new(Self {
            seed,
            rates,
            began: Instant::now(),
            jumped_ms: AtomicI64::new(0),
            is_quiet: AtomicBool::new(false),
            wakes: Mutex::default(),
            effects: tokio::sync::Mutex::new(()),
            log: Mutex::default(),
            counts: Mutex::default(),
            written_ms: Arc::default(),
        })
    }

    /// Waits for a virtual time of milliseconds, longer where somebody else wakes then. Work on threads of the machine holds the time up,
    /// but which of two that wake together goes on first would be a matter of those threads. Pauses of the code itself, after a
    /// conflict say, may still end together with another wake.
    pub async fn sleep(&self, ms: u64) {
        let passed = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let at = {
            let mut wakes = self.wakes.lock().unwrap();
            let at = (passed + ms.max(1)..).find(|at| !wakes.contains(at)).expect("expected a time that is free");
            *wakes = wakes.split_off(&passed);
            wakes.insert(at);
            at
        };
        sleep_until(self.began + Duration::from_millis(at)).await;
    }

    /// Puts the clocks forward, or back; timers go on as they were.
    pub fn jump(&self, ms: i64) {
        self.jumped_ms.fetch_add(ms, Ordering::SeqCst);
        self.note(format_args!("the clocks jump by {ms} ms"));
    }

    /// Nothing goes wrong from here on.
    pub fn calm(&self) {
        self.is_quiet.store(true, Ordering::SeqCst);
        self.note(format_args!("all is calm"));
    }

    pub fn is_calm(&self) -> bool {
        self.is_quiet.load(Ordering::SeqCst)
    }

    /// The ports of whoever nothing goes wrong for: objects of `ports`, which are in memory, bear the time of this world.
    pub fn sound(self: &Arc<Self>, ports: &Ports) -> Ports {
        let storage = ports.storage.wrapped(|store| TimedStore::wrap(self, store));
        Ports { storage, ..ports.clone() }
    }

    /// Counts that something happened.
    pub fn count(&self, what: &str) {
        *self.counts.lock().unwrap().entry(what.to_owned()).or_default() += 1;
    }

    /// How often what happened, kills, lost replies and busy calls among it: a simulation in which something never did has not
    /// tested it.
    pub fn counts(&self) -> BTreeMap<String, u64> {
        self.counts.lock().unwrap().clone()
    }

    /// Chance of one purpose, which no other purpose disturbs.
    pub fn random(&self, purpose: &str) -> SeededRandom {
        SeededRandom::new(self.mixed(purpose, 0, 0))
    }

    /// Writes something into the log.
    pub fn note(&self, line: fmt::Arguments<'_>) {
        let at = self.began.elapsed().as_millis();
        self.log.lock().unwrap().push(format!("{at:>9} {line}"));
    }

    /// What happened, in order; the same for the same seed.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// Runs `main` over ports of its own, and anew after each time that it was killed, until it ends by itself.
    pub async fn run<F, W>(self: &Arc<Self>, name: &str, sound: &Ports, main: F)
    where
        F: Fn(Ports) -> W,
        W: Future<Output = ()> + Send + 'static,
    {
        for life in 0.. {
            let process = Process::new(self, name, life);
            let mut work = tokio::spawn(main(process.ports(sound)));
            tokio::select! {
                biased;
                () = process.death.notified() => {
                    work.abort();
                    let _ = (&mut work).await;
                    self.note(format_args!("{name} was killed"));
                    self.sleep(process.random.between(10, 3_000)).await;
                }
                ended = &mut work => return ended.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic())),
            }
        }
    }

    fn mixed(&self, name: &str, life: u64, call: u64) -> u64 {
        let named = name.bytes().fold(self.seed, |hash, byte| mix(hash ^ u64::from(byte)));
        mix(mix(named ^ life) ^ call)
    }
}

/// A number between two, both included.
pub trait Between {
    fn between(&self, least: u64, most: u64) -> u64;
}

impl<R: Random + ?Sized> Between for R {
    fn between(&self, least: u64, most: u64) -> u64 {
        least + (self.bits() >> 64) as u64 % (most - least + 1)
    }
}

/// One life of a process.
#[derive(Debug, Clone)]
struct Process {
    world: Arc<World>,
    name: Arc<str>,
    life: u64,
    calls: Arc<AtomicU64>,
    is_dead: Arc<AtomicBool>,
    death: Arc<Notify>,
    random: Arc<SeededRandom>,
}

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    KilledBefore,
    Busy,
    Lost,
    KilledAfter,
}

/// How a call failed for its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failure {
    /// Nothing happened.
    Busy,
    /// It took effect.
    Lost,
}

impl Process {
    fn new(world: &Arc<World>, name: &str, life: u64) -> Self {
        Self {
            world: Arc::clone(world),
            name: name.into(),
            life,
            calls: Arc::default(),
            is_dead: Arc::default(),
            death: Arc::default(),
            random: Arc::new(SeededRandom::new(world.mixed(name, life, u64::MAX))),
        }
    }

    /// Does `work`, unless something goes wrong.
    async fn call<T, E>(
        &self,
        what: &str,
        failed: impl Fn(Failure) -> Result<T, E>,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let number = self.calls.fetch_add(1, Ordering::SeqCst);
        let dice = SeededRandom::new(self.world.mixed(&self.name, self.life, number));
        let trouble = self.trouble(&dice);
        self.wait(&dice).await;
        match trouble {
            Some(Trouble::KilledBefore) => self.die(what).await,
            Some(Trouble::Busy) => {
                self.note(what, "is busy");
                return failed(Failure::Busy);
            }
            _ => {}
        }
        let alone = self.world.effects.lock().await;
        if self.is_dead.load(Ordering::SeqCst) {
            drop(alone);
            return pending().await;
        }
        let done = work.await;
        self.note(what, if done.is_ok() { "is done" } else { "is refused" });
        drop(alone);
        self.wait(&dice).await;
        match trouble {
            Some(Trouble::KilledAfter) => self.die(what).await,
            Some(Trouble::Lost) if done.is_ok() => {
                self.note(what, "loses its reply");
                failed(Failure::Lost)
            }
            _ => done,
        }
    }

    fn trouble(&self, dice: &SeededRandom) -> Option<Trouble> {
        let Rates { busy, lost, killed, .. } = self.world.rates;
        let (roll, half) = (dice.between(0, 999), dice.between(0, 1));
        let trouble = match roll {
            _ if self.world.is_calm() => None,
            roll if roll < busy => Some(Trouble::Busy),
            roll if roll < busy + lost => Some(Trouble::Lost),
            roll if roll < busy + lost + killed && half == 0 => Some(Trouble::KilledBefore),
            roll if roll < busy + lost + killed => Some(Trouble::KilledAfter),
            _ => None,
        };
        if let Some(trouble) = trouble {
            self.world.count(&format!("{trouble:?}"));
        }
        trouble
    }

    async fn wait(&self, dice: &SeededRandom) {
        let is_slow = !self.world.is_calm() && dice.between(0, 999) < self.world.rates.slow;
        let most = if is_slow { 8_000 } else { 25 };
        self.world.sleep(dice.between(1, most)).await;
        self.stop_if_dead().await;
    }

    /// What a dead process began never goes on.
    async fn stop_if_dead(&self) {
        if self.is_dead.load(Ordering::SeqCst) {
            pending().await
        }
    }

    async fn die<T>(&self, what: &str) -> T {
        self.note(what, "is where it is killed");
        self.is_dead.store(true, Ordering::SeqCst);
        self.death.notify_one();
        pending().await
    }

    fn note(&self, what: &str, outcome: &str) {
        self.world.note(format_args!("{}#{}: {what} {outcome}", self.name, self.life));
    }
}

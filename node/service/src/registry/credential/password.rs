//! Passwords that people chose: argon2id, which takes 22 ms and 19 MiB each time, so that nobody tries many. And those that another
//! system hashed ([`foreign`]), which take as long as it wanted.
//!
//! ```text
//!   password ──► known for a while? ──yes──► it is right          (a keyed hash: a microsecond)
//!                     │ no
//!                     ▼
//!                waits (bounded) ──► one of cores − 1 that hash ──► right: known from now on
//! ```
//!
//! # Invariants
//!
//! - **Bounded**: [`WAITING_MAX`] wait for each that hashes, and [`FOREIGN_WAITING_MAX`] with a hash of another system; one more is
//!   told that it is busy, and counted. Checked below.
//! - **What is remembered is no password**: a hash under a key that this process drew and never writes, over all of what is
//!   kept of the credential, so a changed one is not known. Only right ones are remembered. Checked below.
//! - **Whether a credential still counts is not remembered**: callers read the device's row first.

use std::{
    collections::HashSet,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread::available_parallelism,
    time::{Duration, Instant},
};

use argon2::{Algorithm, Argon2, Params, Version};
use hmac::{Hmac, Mac};
use moorline_core::{
    TenantId, Text,
    foreign_hash::{ForeignHash, Form},
};
use prometheus::{IntCounterVec, IntGauge, Opts, Registry};
use sha2::Sha256;
use tokio::{sync::Semaphore, task::spawn_blocking};
use zeroize::Zeroizing;

use super::{
    foreign::{self, Foreign},
    kind::HASH_BYTES,
};

/// Memory of one hash: OWASP's least for argon2id with two passes.
const MEMORY_KIB: u32 = 19_456;
const PASSES: u32 = 2;
const LANES: u32 = 1;
/// What a row may ask for at most: one that asks for more was not written by us.
const MEMORY_KIB_MAX: u32 = 64 * 1024;
const PASSES_MAX: u32 = 8;
/// Bytes of a salt.
pub const SALT_BYTES: usize = 16;
/// Hashes that wait for each one that runs: a second and a half of them, within which a client still waits.
pub const WAITING_MAX: usize = 64;
/// The same of hashes of other systems, each of which may take ten times as long: so those that wait with them wait no longer for it.
pub const FOREIGN_WAITING_MAX: usize = 8;
/// Bytes of a password, of which one that is longer is none: what is hashed has to end, and SHA-512-crypt takes the square of it.
pub const PASSWORD_BYTES_MAX: usize = 256;
/// Passwords that are known, in each of two generations: 6 MiB together.
const KNOWN_MAX: usize = 65_536;
/// How long a generation takes new ones. A password is known for this long to twice as long.
const GENERATION: Duration = Duration::from_secs(5 * 60);
/// Bytes of the key of this process.
pub(crate) const BOOT_KEY_BYTES: usize = 32;

/// What is kept of a password that somebody chose.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SlowHash {
    /// Memory that it takes.
    pub memory_kib: u32,
    /// How often it goes over it.
    pub passes: u32,
    /// How many threads may.
    pub lanes: u32,
    /// Random.
    pub salt: [u8; SALT_BYTES],
    /// What came out.
    pub hash: [u8; HASH_BYTES],
}

impl fmt::Debug for SlowHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SlowHash").finish_non_exhaustive()
    }
}

/// Whose password it is.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The device's tenant.
    pub tenant: TenantId,
    /// Its name.
    pub device: &'a Text,
    /// Which of its credentials.
    pub id: u64,
}

/// As many wait as may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Busy;

type Known = HashSet<[u8; HASH_BYTES]>;

struct Generations {
    current: Known,
    before: Known,
    since: Instant,
}

/// Hashes and checks chosen passwords.
pub struct Passwords {
    pepper: Zeroizing<[u8; HASH_BYTES]>,
    boot: Zeroizing<[u8; BOOT_KEY_BYTES]>,
    hashing: Arc<Semaphore>,
    chosen: Line,
    foreign: Line,
    known: Mutex<Generations>,
    metrics: Metrics,
}

impl fmt::Debug for Passwords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Passwords").field("waiting_max", &self.chosen.max).finish_non_exhaustive()
    }
}

/// Those that wait for their turn, or have it.
#[derive(Debug)]
struct Line {
    waiting: AtomicUsize,
    max: usize,
}

impl Line {
    fn of(max: usize) -> Self {
        Self { waiting: AtomicUsize::new(0), max }
    }
}

#[derive(Debug, Clone)]
struct Metrics {
    hashes: IntCounterVec,
    foreign: IntCounterVec,
    waiting: IntGauge,
}

impl Metrics {
    fn new() -> Self {
        let hashes = Opts::new(
            "moorline_password_checks_total",
            "Chosen passwords that were hashed, known already, or too many at once",
        );
        let hashes = IntCounterVec::new(hashes, &["result"]).expect("a well-formed name");
        let foreign = Opts::new(
            "moorline_foreign_hash_checks_total",
            "Passwords that were compared with another system's hash, known already, or too many at once",
        );
        let foreign = IntCounterVec::new(foreign, &["form", "result"]).expect("a well-formed name");
        for result in ["hashed", "known", "busy"] {
            hashes.with_label_values(&[result]);
            for form in Form::ALL {
                foreign.with_label_values(&[form.name(), result]);
            }
        }
        let waiting = IntGauge::new(
            "moorline_password_checks_waiting",
            "Passwords that wait until they are hashed, of either sort",
        );
        Self { hashes, foreign, waiting: waiting.expect("a well-formed name") }
    }

    fn count(&self, form: Option<Form>, result: &str) {
        match form {
            None => self.hashes.with_label_values(&[result]).inc(),
            Some(form) => self.foreign.with_label_values(&[form.name(), result]).inc(),
        }
    }
}

/// One that waits, or is hashed.
struct Waiting<'a>(&'a Line, &'a IntGauge);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
        self.1.dec();
    }
}

impl Passwords {
    /// With what is mixed into every hash, a key that this process drew, and as many at once as there are cores but one.
    #[must_use]
    pub fn new(pepper: [u8; HASH_BYTES], boot: [u8; BOOT_KEY_BYTES]) -> Self {
        let cores = available_parallelism().map_or(1, usize::from);
        Self::with(pepper, boot, cores.saturating_sub(1).max(1))
    }

    fn with(pepper: [u8; HASH_BYTES], boot: [u8; BOOT_KEY_BYTES], at_once: usize) -> Self {
        let known =
            Generations { current: Known::new(), before: Known::new(), since: Instant::now() };
        Self {
            pepper: Zeroizing::new(pepper),
            boot: Zeroizing::new(boot),
            hashing: Arc::new(Semaphore::new(at_once)),
            chosen: Line::of(at_once * WAITING_MAX),
            foreign: Line::of(at_once * FOREIGN_WAITING_MAX),
            known: Mutex::new(known),
            metrics: Metrics::new(),
        }
    }

    /// Has its metrics shown.
    ///
    /// # Errors
    ///
    /// When a metric of the same name is registered already.
    pub fn register(&self, registry: &Registry) -> prometheus::Result<()> {
        registry.register(Box::new(self.metrics.hashes.clone()))?;
        registry.register(Box::new(self.metrics.foreign.clone()))?;
        registry.register(Box::new(self.metrics.waiting.clone()))
    }

    /// What is kept of a new password.
    ///
    /// # Errors
    ///
    /// [`Busy`].
    pub async fn hash(&self, password: &[u8], salt: [u8; SALT_BYTES]) -> Result<SlowHash, Busy> {
        let (memory_kib, passes, lanes) = (MEMORY_KIB, PASSES, LANES);
        let plan = SlowHash { memory_kib, passes, lanes, salt, hash: [0; HASH_BYTES] };
        let hash = self.run_slow(password, plan).await?;
        Ok(SlowHash { hash, ..plan })
    }

    /// What is kept of a password that another system hashed: nothing that says without the cluster's key which passwords fit.
    #[must_use]
    pub fn keep(&self, place: Place<'_>, hash: &ForeignHash) -> Foreign {
        let ForeignHash { form, cost, salt, hash } = hash;
        let hash = foreign::keyed(&*self.pepper, place, hash);
        Foreign { form: *form, cost: *cost, salt: salt.clone(), hash }
    }

    /// Whether it is the password that a hash was made of.
    ///
    /// # Errors
    ///
    /// [`Busy`].
    pub async fn verify(
        &self,
        place: Place<'_>,
        kept: &SlowHash,
        password: &[u8],
    ) -> Result<bool, Busy> {
        let mark = self.mark(place, [&kept.salt, &kept.hash], password);
        if self.knows(&mark) {
            self.metrics.count(None, "known");
            return Ok(true);
        }
        if kept.memory_kib > MEMORY_KIB_MAX || kept.passes > PASSES_MAX || kept.lanes > LANES {
            return Ok(false);
        }
        let hash = self.run_slow(password, *kept).await?;
        let same = same(&hash, &kept.hash);
        if same {
            self.learn(mark, Instant::now());
        }
        Ok(same)
    }

    /// Whether it is the password that another system made a hash of.
    ///
    /// # Errors
    ///
    /// [`Busy`].
    pub async fn verify_foreign(
        &self,
        place: Place<'_>,
        kept: &Foreign,
        password: &[u8],
    ) -> Result<bool, Busy> {
        // A row that asks for more was not written by us.
        if password.len() > PASSWORD_BYTES_MAX || !kept.form.takes(kept.cost) {
            return Ok(false);
        }
        let mark = self.mark(place, [&kept.salt, &kept.hash], password);
        if self.knows(&mark) {
            self.metrics.count(Some(kept.form), "known");
            return Ok(true);
        }
        let (plan, password) = (kept.clone(), Zeroizing::new(password.to_vec()));
        let hash = self.run(&self.foreign, Some(kept.form), move || plan.of(&password)).await?;
        let same = same(&foreign::keyed(&*self.pepper, place, &hash), &kept.hash);
        if same {
            self.learn(mark, Instant::now());
        }
        Ok(same)
    }

    /// Takes as long as [`Self::verify`] of a wrong password: for who is not there.
    ///
    /// # Errors
    ///
    /// [`Busy`].
    pub async fn pretend(&self, password: &[u8]) -> Result<(), Busy> {
        self.hash(password, [0; SALT_BYTES]).await.map(drop)
    }

    async fn run_slow(&self, password: &[u8], plan: SlowHash) -> Result<[u8; HASH_BYTES], Busy> {
        let (password, pepper) = (Zeroizing::new(password.to_vec()), self.pepper.clone());
        self.run(&self.chosen, None, move || hashed(&*pepper, &password, &plan)).await
    }

    async fn run<T: Send + 'static>(
        &self,
        line: &Line,
        form: Option<Form>,
        work: impl FnOnce() -> Option<T> + Send + 'static,
    ) -> Result<T, Busy> {
        let before = line.waiting.fetch_add(1, Ordering::Relaxed);
        self.metrics.waiting.inc();
        let _waiting = Waiting(line, &self.metrics.waiting);
        if before >= line.max {
            self.metrics.count(form, "busy");
            return Err(Busy);
        }
        let turn = Arc::clone(&self.hashing).acquire_owned().await;
        let turn = turn.expect("nobody closes it");
        self.metrics.count(form, "hashed");
        // Whoever is hung up on meanwhile has its turn all the same.
        let hashed = spawn_blocking(move || {
            let hash = work();
            drop(turn);
            hash
        });
        hashed.await.ok().flatten().ok_or(Busy)
    }

    fn mark(&self, place: Place<'_>, kept: [&[u8]; 2], password: &[u8]) -> [u8; HASH_BYTES] {
        let mut mac =
            <Hmac<Sha256> as Mac>::new_from_slice(&*self.boot).expect("any length will do");
        mac.update(&place.tenant.0.to_be_bytes());
        mac.update(&place.id.to_be_bytes());
        for part in [place.device.as_bytes(), kept[0], kept[1]] {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        mac.update(password);
        mac.finalize().into_bytes().into()
    }

    fn knows(&self, mark: &[u8; HASH_BYTES]) -> bool {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.turn(Instant::now());
        known.current.contains(mark) || known.before.contains(mark)
    }

    fn learn(&self, mark: [u8; HASH_BYTES], now: Instant) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.turn(now);
        known.current.insert(mark);
    }
}

impl Generations {
    fn turn(&mut self, now: Instant) {
        let age = now.saturating_duration_since(self.since);
        if age >= GENERATION || self.current.len() >= KNOWN_MAX {
            self.before = std::mem::take(&mut self.current);
            if age >= 2 * GENERATION {
                self.before.clear();
            }
            self.since = now;
        }
    }
}

fn hashed(pepper: &[u8], password: &[u8], plan: &SlowHash) -> Option<[u8; HASH_BYTES]> {
    let params = Params::new(plan.memory_kib, plan.passes, plan.lanes, Some(HASH_BYTES)).ok()?;
    let argon =
        Argon2::new_with_secret(pepper, Algorithm::Argon2id, Version::V0x13, params).ok()?;
    let mut hash = [0; HASH_BYTES];
    argon.hash_password_into(password, &plan.salt, &mut hash).ok()?;
    Some(hash)
}

/// In the same time whatever differs.
fn same(one: &[u8; HASH_BYTES], other: &[u8; HASH_BYTES]) -> bool {
    one.iter().zip(other).fold(0, |differs, (one, other)| differs | (one ^ other)) == 0
}

#[cfg(test)]
mod tests {
    use std::future::Future;

    use futures_util::{FutureExt, future::join_all};

    use super::*;

    const DEVICE: fn() -> Text = || Text::from("pump");

    fn done<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    fn count(passwords: &Passwords, result: &str) -> u64 {
        passwords.metrics.hashes.with_label_values(&[result]).get()
    }

    fn foreign_count(passwords: &Passwords, form: Form, result: &str) -> u64 {
        passwords.metrics.foreign.with_label_values(&[form.name(), result]).get()
    }

    #[test]
    fn a_right_password_is_hashed_once_and_then_known() {
        let passwords = Passwords::with([1; 32], [2; 32], 1);
        let device = DEVICE();
        let place = Place { tenant: TenantId(7), device: &device, id: 3 };
        done(async {
            let kept = passwords.hash(b"secret", [9; SALT_BYTES]).await.unwrap();
            assert_eq!(passwords.verify(place, &kept, b"secreT").await, Ok(false));
            assert_eq!(count(&passwords, "known"), 0, "a wrong one is not remembered");
            assert_eq!(passwords.verify(place, &kept, b"secret").await, Ok(true));
            let hashed = count(&passwords, "hashed");
            for _ in 0..100 {
                assert_eq!(passwords.verify(place, &kept, b"secret").await, Ok(true));
            }
            assert_eq!((count(&passwords, "hashed"), count(&passwords, "known")), (hashed, 100));
            // Another credential with the same password, and the same one with a new password.
            let other = Place { id: 4, ..place };
            assert_eq!(passwords.verify(other, &kept, b"secret").await, Ok(true));
            let changed = passwords.hash(b"other", [9; SALT_BYTES]).await.unwrap();
            assert_eq!(passwords.verify(place, &changed, b"secret").await, Ok(false));
            let elsewhere = Passwords::with([8; 32], [2; 32], 1);
            assert_eq!(elsewhere.verify(place, &kept, b"secret").await, Ok(false), "no pepper");
        });
    }

    #[test]
    fn more_than_may_wait_are_told_so_at_once() {
        let passwords = Passwords::with([1; 32], [2; 32], 1);
        done(async {
            let turn = passwords.hashing.acquire().await.unwrap();
            let waiting: Vec<_> = (0..WAITING_MAX)
                .map(|_| Box::pin(passwords.pretend(b"x")))
                .map(|mut one| {
                    assert_eq!((&mut one).now_or_never(), None);
                    one
                })
                .collect();
            assert_eq!(passwords.pretend(b"x").now_or_never(), Some(Err(Busy)));
            assert_eq!(count(&passwords, "busy"), 1);
            // Who is hung up on makes room.
            let left = waiting.into_iter().take(2);
            drop(turn);
            assert!(join_all(left).await.into_iter().all(|ended| ended == Ok(())));
            assert_eq!(passwords.chosen.waiting.load(Ordering::Relaxed), 0);
        });
    }

    #[test]
    fn a_password_that_another_system_hashed_is_compared_once_and_then_known() {
        let passwords = Passwords::with([1; 32], [2; 32], 1);
        let device = DEVICE();
        let place = Place { tenant: TenantId(7), device: &device, id: 3 };
        let other = Place { id: 4, ..place };
        // Made by another tool: `foreign.rs` has more of them.
        let bcrypt = "$2a$06$m0CrhHm10qJ3lXRY.5zDGO3rS2KdeeWLuGmsfGlMfOxih58VYVfxe";
        let kept = passwords.keep(place, &ForeignHash::read(bcrypt).unwrap());
        let (form, long) = (Form::Bcrypt, [b'a'; PASSWORD_BYTES_MAX + 1]);
        done(async {
            for wrong in [&b""[..], b"b", b"aa", b"a\0", bcrypt.as_bytes()] {
                assert_eq!(passwords.verify_foreign(place, &kept, wrong).await, Ok(false));
            }
            assert_eq!(foreign_count(&passwords, form, "hashed"), 5);
            for _ in 0..3 {
                assert_eq!(passwords.verify_foreign(place, &kept, b"a").await, Ok(true));
            }
            let counts = ["hashed", "known"].map(|result| foreign_count(&passwords, form, result));
            assert_eq!(counts, [6, 2]);
            assert_eq!(passwords.verify_foreign(other, &kept, b"a").await, Ok(false), "its row");
            let elsewhere = Passwords::with([8; 32], [2; 32], 1);
            assert_eq!(elsewhere.verify_foreign(place, &kept, b"a").await, Ok(false), "no pepper");
            let dear = Foreign { cost: 31, ..kept.clone() };
            assert_eq!(
                passwords.verify_foreign(place, &dear, b"a").now_or_never(),
                Some(Ok(false))
            );
            let ended = passwords.verify_foreign(place, &kept, &long).now_or_never();
            assert_eq!(ended, Some(Ok(false)), "nobody is kept busy by it");
        });
    }

    #[test]
    fn those_that_wait_for_a_foreign_hash_are_few_and_others_come_in() {
        let passwords = Passwords::with([1; 32], [2; 32], 1);
        let device = DEVICE();
        let place = Place { tenant: TenantId(7), device: &device, id: 3 };
        let bcrypt = "$2a$06$m0CrhHm10qJ3lXRY.5zDGO3rS2KdeeWLuGmsfGlMfOxih58VYVfxe";
        let kept = passwords.keep(place, &ForeignHash::read(bcrypt).unwrap());
        done(async {
            let turn = passwords.hashing.acquire().await.unwrap();
            let mut waiting: Vec<_> = (0..FOREIGN_WAITING_MAX)
                .map(|_| Box::pin(passwords.verify_foreign(place, &kept, b"a")))
                .collect();
            assert!(waiting.iter_mut().all(|one| one.now_or_never().is_none()));
            let more = passwords.verify_foreign(place, &kept, b"a").now_or_never();
            assert_eq!(more, Some(Err(Busy)));
            assert_eq!(foreign_count(&passwords, Form::Bcrypt, "busy"), 1);
            assert_eq!(passwords.pretend(b"x").now_or_never(), None, "that is another line");
            assert_eq!(count(&passwords, "busy"), 0);
            drop(turn);
            assert!(join_all(waiting).await.into_iter().all(|ended| ended == Ok(true)));
            assert_eq!(passwords.foreign.waiting.load(Ordering::Relaxed), 0);
        });
    }

    #[test]
    fn what_is_known_is_forgotten_with_time_and_when_there_are_many() {
        let passwords = Passwords::with([1; 32], [2; 32], 1);
        let start = Instant::now();
        passwords.learn([7; 32], start);
        let mut known = passwords.known.lock().unwrap();
        known.turn(start + GENERATION);
        assert!(known.before.contains(&[7; 32]));
        known.turn(start + 2 * GENERATION);
        assert!(!known.before.contains(&[7; 32]));
        for number in 0..3 * KNOWN_MAX {
            known.turn(start + 2 * GENERATION);
            let mut mark = [0; 32];
            mark[..8].copy_from_slice(&(number as u64).to_be_bytes());
            known.current.insert(mark);
        }
        assert!(known.current.len() + known.before.len() <= 2 * KNOWN_MAX);
    }
}

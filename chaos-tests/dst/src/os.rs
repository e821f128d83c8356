//! Time and randomness of the process, taken from the seed: what the standard library and every dependency ask the C
//! library for is answered here.
//!
//! # Invariants
//!
//! - **Nothing real is seen inside a simulation**: neither the wall clock, nor the monotonic one, nor the system's random
//!   numbers (hash maps' keys, `rand::rng()`). Checked by `run --twice`: two processes, one trace.
//! - **The monotonic clock is tokio's**, to the nanosecond: a loop that sleeps until a deadline of the one and looks at the
//!   other would else never end.
#![expect(unsafe_code, unreachable_pub, reason = "two functions of the C library are replaced")]

use std::{
    cell::Cell,
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::runtime::Handle;

/// The wall clock at the beginning of every simulation, and how far the monotonic clock is by then.
pub(crate) const WALL_START: Duration = Duration::from_secs(1_700_000_000);
const MONOTONIC_START: Duration = Duration::from_secs(1_000);
/// Step of the SplitMix64 generator.
const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

static SIMULATED: AtomicBool = AtomicBool::new(false);
static ELAPSED_NANOS: AtomicU64 = AtomicU64::new(0);
static RANDOM: AtomicU64 = AtomicU64::new(0);
static WALL_SKEW_MS: AtomicI64 = AtomicI64::new(0);

thread_local! {
    /// Set while tokio is asked for its time, which must not ask here again.
    static RUNTIME_ASKED: Cell<bool> = const { Cell::new(false) };
}

/// From now on time stands still, and random numbers come from `seed`. To be called before the thread that simulates
/// begins: hash maps keep the keys they got first.
pub(crate) fn simulate(seed: u64) {
    RANDOM.store(mix(seed ^ GAMMA), Ordering::SeqCst);
    SIMULATED.store(true, Ordering::SeqCst);
}

/// The simulation is over: real time again.
pub(crate) fn end() {
    SIMULATED.store(false, Ordering::SeqCst);
}

/// Sets how long the simulation has been going on.
pub(crate) fn set_elapsed(elapsed: Duration) {
    ELAPSED_NANOS.store(u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX), Ordering::SeqCst);
}

/// How far the wall clock is off from now on, in milliseconds: set while a process looks at it, which it does once.
pub(crate) fn set_wall_skew(skew_ms: i64) {
    WALL_SKEW_MS.store(skew_ms, Ordering::SeqCst);
}

fn wall() -> Duration {
    let skew = WALL_SKEW_MS.load(Ordering::SeqCst);
    let by = Duration::from_millis(skew.unsigned_abs());
    let now = WALL_START + elapsed();
    if skew < 0 { now.saturating_sub(by) } else { now + by }
}

/// How long the simulation has been going on.
pub(crate) fn elapsed() -> Duration {
    Duration::from_nanos(ELAPSED_NANOS.load(Ordering::SeqCst))
}

/// CPU time that this process has used.
pub(crate) fn cpu() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is valid for a write.
    unsafe {
        libc::syscall(libc::SYS_clock_gettime, libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time)
    };
    let (seconds, nanos) = (time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs());
    Duration::from_secs(seconds) + Duration::from_nanos(nanos)
}

/// How long the runtime of this moment has been going on, counted from the beginning of the simulation.
fn of_runtime() -> Duration {
    static START: OnceLock<Instant> = OnceLock::new();
    if RUNTIME_ASKED.get() || Handle::try_current().is_err() {
        return elapsed();
    }
    RUNTIME_ASKED.set(true);
    let now = tokio::time::Instant::now().into_std();
    // What this clock says with nothing elapsed, and outside of every runtime.
    let start = *START.get_or_init(|| Instant::now() - elapsed());
    RUNTIME_ASKED.set(false);
    now.duration_since(start)
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn random() -> u64 {
    mix(RANDOM.fetch_add(GAMMA, Ordering::SeqCst))
}

/// In place of the C library's.
///
/// # Safety
///
/// `time` must be null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(
    clock: libc::clockid_t,
    time: *mut libc::timespec,
) -> libc::c_int {
    let start = match clock {
        libc::CLOCK_REALTIME | libc::CLOCK_REALTIME_COARSE => WALL_START,
        libc::CLOCK_MONOTONIC
        | libc::CLOCK_MONOTONIC_RAW
        | libc::CLOCK_MONOTONIC_COARSE
        | libc::CLOCK_BOOTTIME => MONOTONIC_START,
        _ => Duration::MAX,
    };
    if start == Duration::MAX || time.is_null() || !SIMULATED.load(Ordering::SeqCst) {
        // SAFETY: handed through as it came.
        let answer = unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) };
        return libc::c_int::try_from(answer).unwrap_or(-1);
    }
    let now = if start == MONOTONIC_START { start + of_runtime() } else { wall() };
    let seconds = libc::time_t::try_from(now.as_secs()).unwrap_or(libc::time_t::MAX);
    let value = libc::timespec { tv_sec: seconds, tv_nsec: libc::c_long::from(now.subsec_nanos()) };
    // SAFETY: not null, and the caller gives a place for it.
    unsafe { time.write(value) };
    0
}

/// In place of the C library's.
///
/// # Safety
///
/// `buffer` must be valid for writes of `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(
    buffer: *mut libc::c_void,
    length: libc::size_t,
    flags: libc::c_uint,
) -> libc::ssize_t {
    if buffer.is_null() || !SIMULATED.load(Ordering::SeqCst) {
        // SAFETY: handed through as it came.
        let answer = unsafe { libc::syscall(libc::SYS_getrandom, buffer, length, flags) };
        return libc::ssize_t::try_from(answer).unwrap_or(-1);
    }
    // SAFETY: the caller gives a place of this length.
    let bytes = unsafe { std::slice::from_raw_parts_mut(buffer.cast::<u8>(), length) };
    for chunk in bytes.chunks_mut(8) {
        chunk.copy_from_slice(&random().to_le_bytes()[..chunk.len()]);
    }
    libc::ssize_t::try_from(length).unwrap_or(-1)
}

//! What the kernel says a process used (CPU time and memory, from `/proc`), and how many descriptors it may have.

use std::time::Duration;

use anyhow::Context;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// CPU time all threads of these processes have used so far.
pub(crate) fn cpu_time(pids: &[u32]) -> anyhow::Result<Duration> {
    let ticks_per_second = rustix::param::clock_ticks_per_second();
    let mut ticks = 0;
    for pid in pids {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))
            .with_context(|| format!("process {pid} is gone"))?;
        ticks += cpu_ticks(&stat).with_context(|| format!("/proc/{pid}/stat: {stat:?}"))?;
    }
    Ok(Duration::from_secs_f64(ticks as f64 / ticks_per_second as f64))
}

/// Resident memory of these processes together, in bytes.
pub(crate) fn resident_bytes(pids: &[u32]) -> anyhow::Result<u64> {
    let page = rustix::param::page_size() as u64;
    let mut pages = 0;
    for pid in pids {
        let statm = std::fs::read_to_string(format!("/proc/{pid}/statm"))
            .with_context(|| format!("process {pid} is gone"))?;
        let resident = statm.split_whitespace().nth(1).and_then(|field| field.parse::<u64>().ok());
        pages += resident.with_context(|| format!("/proc/{pid}/statm: {statm:?}"))?;
    }
    Ok(pages * page)
}

/// Lets this process, and those it starts, have as many descriptors as they may. What that is stays for
/// [`descriptors_max`] to say.
pub(crate) fn raise_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, ..limit };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        eprintln!("moorline: the limit of descriptors stays at {:?}: {error}", limit.current);
    }
}

/// How many descriptors this process may have, and those that it starts.
pub(crate) fn descriptors_max() -> usize {
    let limit = getrlimit(Resource::Nofile).current;
    limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX)
}

/// utime + stime: the 14th and 15th field of proc(5) stat, counted after the command's closing bracket.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_with_brackets_does_not_confuse() {
        let stat = "7 (a) b) S 1 2 3 4 5 6 7 8 9 10 30 12 0 0 20";
        assert_eq!(cpu_ticks(stat), Some(42));
        assert_eq!(cpu_ticks("nonsense"), None);
    }
}

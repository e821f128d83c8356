//! What nodes use, as their own metrics say it: before the clients of a run come, and when they are gone.

use std::time::Duration;

use moorline_oracle::loads::{Load, Usage};
use moorline_oracle::{Op, Phase};
use tokio::time::{Instant, sleep};

use crate::admin;
use crate::client::Shared;
use crate::recorder::Actor;

/// How long connections may take to be gone once their clients are.
const GONE_MAX: Duration = Duration::from_secs(20);
/// How often it is looked.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long a pool of threads may take to let go of those that have nothing to do.
const IDLE: Duration = Duration::from_secs(11);

fn value(metrics: &str, name: &str) -> Option<f64> {
    let of = |line: &str| {
        let rest = line.strip_prefix(name)?;
        rest.starts_with([' ', '{']).then(|| rest.rsplit(' ').next()?.parse::<f64>().ok())?
    };
    let mut values = metrics.lines().filter_map(of).peekable();
    values.peek()?;
    Some(values.sum())
}

fn usage(metrics: &str, drained: bool) -> Option<Usage> {
    /// Bytes of a MiB.
    const MIB: f64 = 1_048_576.0;
    let whole = |name| value(metrics, name).map(|value| value as u64);
    Some(Usage {
        drained,
        files: whole("process_open_fds")?,
        threads: whole("process_threads")?,
        memory_mib: (value(metrics, "process_resident_memory_bytes")? / MIB) as u64,
        connections: whole("moorline_connections").unwrap_or(0),
    })
}

/// By how much the counts of a node differ; `None` of one that does not say it.
fn off(metrics: &str) -> Option<u64> {
    value(metrics, "moorline_accounting_imbalance").map(|off| off as u64)
}

/// Notes whether what every node counts adds up: exact at any moment, so nothing has to settle.
pub async fn note_accounts(shared: &Shared) {
    for peer in shared.peers.iter().filter(|peer| peer.is_up()) {
        let metrics = admin::metrics(peer.admin).await.unwrap_or_default();
        if let Some(off) = off(&metrics) {
            let actor = Actor { name: "harness", node: Some(peer.id) };
            shared.recorder.note(actor, Phase::Ok, Op::Load(Load::Accounts { off }));
        }
    }
}

/// Notes what every node uses. When all is `drained`, waits for connections to be gone, and for threads to have idled.
pub async fn note(shared: &Shared, drained: bool) {
    let deadline = Instant::now() + GONE_MAX;
    if drained {
        sleep(IDLE).await;
    }
    for peer in shared.peers.iter().filter(|peer| peer.is_up()) {
        loop {
            let metrics = admin::metrics(peer.admin).await.unwrap_or_default();
            let used = usage(&metrics, drained);
            let waits = used.is_none_or(|used| drained && used.connections > 0);
            if waits && Instant::now() < deadline {
                sleep(LOOK_EVERY).await;
                continue;
            }
            // Of one that does not say it the judge hears nothing.
            if let Some(used) = used {
                let actor = Actor { name: "harness", node: Some(peer.id) };
                shared.recorder.note(actor, Phase::Ok, Op::Load(Load::Usage(used)));
            }
            break;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_is_read_from_metrics_and_labels_are_summed() {
        let metrics = "# HELP process_open_fds x\nprocess_open_fds 12\nprocess_threads 9\n\
            process_resident_memory_bytes 209715200\nmoorline_connections{listener=\"mqtt\"} 3\n\
            moorline_connections{listener=\"http\"} 4\nmoorline_connections_opened_total 99\n";
        let expected =
            Usage { drained: true, files: 12, threads: 9, memory_mib: 200, connections: 7 };
        assert_eq!(usage(metrics, true), Some(expected));
        assert_eq!(usage("process_open_fds 12\n", true), None);
        let accounts = "moorline_accounting_imbalance{where=\"queues\"} 2\n\
            moorline_accounting_imbalance{where=\"publishes\"} 1\n";
        assert_eq!((off(accounts), off(metrics)), (Some(3), None));
    }
}

//! What nodes use: when all clients are gone, open files and threads are what they were before they came, and memory is within a
//! margin of it. What a run stored stays, so memory has room for that; what belongs to a connection or a request does not stay.

use std::collections::{BTreeMap, BTreeSet};

use super::{USAGE, named};
use crate::history::{Event, Fault, Op};
use crate::loads::{Load, Usage};
use crate::verdict::Check;

/// Open files more than before: files of the log and of the state, and connections between nodes.
const FILES_MORE_MAX: u64 = 32;
/// Threads more than before: those of the pool for blocking work end when they have had none for a while.
const THREADS_MORE_MAX: u64 = 12;
/// Memory more than before, in MiB: tables in memory fill up to their limits, and caches.
const MEMORY_MORE_MIB_MAX: u64 = 192;

/// Compares before and after, node by node.
pub fn check(events: &[Event]) -> Option<Check> {
    let mut before: BTreeMap<Option<u32>, &Usage> = BTreeMap::new();
    let mut after: BTreeMap<Option<u32>, &Usage> = BTreeMap::new();
    let mut gone: BTreeSet<Option<u32>> = BTreeSet::new();
    for event in events {
        if let Op::Fault { fault: Fault::Leave | Fault::Remove, .. } = event.op {
            gone.insert(event.node);
        }
        if let Some(Load::Usage(usage)) = Load::of(event) {
            (if usage.drained { &mut after } else { &mut before }).insert(event.node, usage);
        }
    }
    if before.is_empty() {
        return None;
    }
    let mut check = named(USAGE);
    let mut details = Vec::new();
    // Who is no member any more uses nothing.
    for (node, before) in before.iter().filter(|(node, _)| !gone.contains(node)) {
        let number = node.unwrap_or(0);
        let Some(after) = after.get(node) else {
            check.unclear(|| format!("node {number} did not say what it uses in the end"));
            continue;
        };
        #[rustfmt::skip]
        let table = [
            ("open files",    before.files,      after.files,      FILES_MORE_MAX),
            ("threads",       before.threads,    after.threads,    THREADS_MORE_MAX),
            ("MiB of memory", before.memory_mib, after.memory_mib, MEMORY_MORE_MIB_MAX),
        ];
        for (what, before, after, more_max) in table {
            if after > before + more_max {
                check.violated(|| format!("node {number}: {after} {what}, {before} before"));
            }
        }
        if after.connections > 0 {
            check.violated(|| {
                format!("node {number}: {} connections, and no client", after.connections)
            });
        }
        details.push(format!(
            "node {number}: files {} to {}, threads {} to {}, MiB {} to {}",
            before.files,
            after.files,
            before.threads,
            after.threads,
            before.memory_mib,
            after.memory_mib
        ));
    }
    check.detail = details.join("; ");
    Some(check)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Op, Phase};
    use crate::planted::Story;

    const BEFORE: Usage =
        Usage { drained: false, files: 100, threads: 20, memory_mib: 200, connections: 8 };

    fn found(after: Option<Usage>) -> u64 {
        let mut story = Story::new();
        for usage in [Some(BEFORE), after].into_iter().flatten() {
            story.push("harness", Phase::Ok, Some(1), Op::Load(Load::Usage(usage)));
        }
        story.found(USAGE)
    }

    #[test]
    fn a_node_that_keeps_what_its_clients_needed_is_found() {
        let after = Usage { drained: true, connections: 0, ..BEFORE };
        #[rustfmt::skip]
        let table = [
            (Some(after),                                0),
            (Some(Usage { files: 110, ..after }),        0),
            (Some(Usage { files: 400, ..after }),        1),
            (Some(Usage { threads: 90, ..after }),       1),
            (Some(Usage { memory_mib: 2_000, ..after }), 1),
            (Some(Usage { connections: 3, ..after }),    1),
            (None,                                       1),
        ];
        for (at, (after, violations)) in table.into_iter().enumerate() {
            assert_eq!(found(after), violations, "line {at}");
        }
    }
}

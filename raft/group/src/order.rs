//! Who should lead a group: one order of its voters that every node computes alike.
//!
//! The first of them is the preferred leader, so that leaders are spread evenly while all nodes live; the others follow
//! in an order that differs from shard to shard, so that a dead node's groups are spread over the survivors.

use moorline_core::ShardId;

/// The voters, best placed first.
pub(crate) fn leaders(shard: ShardId, voters: &[u64]) -> Vec<u64> {
    let mut voters = voters.to_vec();
    voters.sort_unstable();
    voters.dedup();
    if voters.is_empty() {
        return voters;
    }
    // Shard s prefers voter s - 1; the meta group takes the last voter, which has the fewest shards if they do not
    // divide evenly.
    let shard = usize::from(shard.0);
    let (round, first) = match shard.checked_sub(1) {
        None => (0, voters.len() - 1),
        Some(number) => (number / voters.len(), number % voters.len()),
    };
    voters.rotate_left(first);
    let others = &mut voters[1..];
    if !others.is_empty() {
        let turn = round % others.len();
        others.rotate_left(turn);
    }
    voters
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_node_is_preferred_equally_often() {
        for (shards, nodes) in [(3_u16, 3_u64), (6, 3), (12, 3), (10, 5)] {
            let voters: Vec<u64> = (1..=nodes).collect();
            let mut led = vec![0_u32; voters.len() + 1];
            for shard in 1..=shards {
                led[leaders(ShardId(shard), &voters)[0] as usize] += 1;
            }
            let even = u32::from(shards) / voters.len() as u32;
            assert_eq!(led[1..], vec![even; voters.len()], "{shards} shards, {nodes} nodes");
        }
    }

    #[test]
    fn a_dead_nodes_groups_go_to_different_survivors() {
        let next = |shard| leaders(ShardId(shard), &[1, 2, 3])[1];
        // Node 1 is preferred by 1, 4, 7 and 10.
        assert_eq!([1, 4, 7, 10].map(next), [2, 3, 2, 3]);
    }

    #[test]
    fn all_voters_are_in_the_order_whatever_their_ids_and_number() {
        #[rustfmt::skip]
        let table: [(u16, &[u64], &[u64]); 6] = [
            (0, &[1, 2, 3],    &[3, 1, 2]),
            (2, &[30, 10, 20], &[20, 30, 10]),
            (1, &[7],          &[7]),
            (5, &[7],          &[7]),
            (3, &[1, 2],       &[1, 2]),
            (1, &[],           &[]),
        ];
        for (shard, voters, expected) in table {
            assert_eq!(leaders(ShardId(shard), voters), expected, "shard {shard} of {voters:?}");
        }
    }
}

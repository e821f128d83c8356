//! What an idle connection costs. Alone in its process, since it looks at the whole of it.
#![allow(clippy::unwrap_used)]

mod support;

use support::{answer, edge, expect, puback, publish};
use tokio::io::AsyncWriteExt;

/// What the process has in memory, in bytes.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_are_small() {
    const CONNECTIONS: usize = 400;
    // The client's end of each is in it as well.
    const BYTES_MAX: usize = 8 * 1024;
    let edge = edge(|_| {});
    let mut clients = vec![edge.connected().await];
    let before = resident();
    for _ in 0..CONNECTIONS {
        let (mut client, inbox) = edge.connected().await;
        client.write_all(&publish(1)).await.unwrap();
        answer(&inbox, edge.published().0);
        expect(&mut client, &puback(1)).await;
        clients.push((client, inbox));
    }
    let each = resident().saturating_sub(before) / CONNECTIONS;
    println!("{each} bytes each");
    assert!(each < BYTES_MAX, "{each} bytes each");
}

//! What a row costs in an overlay: `cargo run --release -p moorline-storage --example overlay_speed`.

use std::{hint::black_box, sync::Arc, time::SystemTime};

use bytes::Bytes;
use moorline_core::ShardId;
use moorline_storage::{
    Rows, View,
    key::{Key, Kind},
    mem::MemStore,
    overlay::Overlay,
};

const ROWS: u64 = 1_000_000;

fn key(session: u64, offset: u64) -> Bytes {
    Key::new(ShardId(1), 77, Kind::Item, 16).u64(session).u64(offset).done()
}

/// Runs `work` once per row and prints what one costs.
fn timed(what: &str, mut work: impl FnMut(u64)) {
    #[expect(clippy::disallowed_methods, reason = "this is what the program is for")]
    let now = SystemTime::now;
    let since = now();
    for row in 0..ROWS {
        work(row);
    }
    let spent = now().duration_since(since).unwrap_or_default();
    println!("{what:<32} {:>6.0} ns", spent.as_secs_f64() * 1e9 / ROWS as f64);
}

fn main() {
    let value = Bytes::from(vec![0; 256]);
    let mut overlay = Overlay::new(Arc::new(MemStore::new()));
    timed("put and delete, window 1,000", |row| {
        overlay.put_fresh(key(row % 64, row), value.clone());
        if let Some(old) = row.checked_sub(1_000) {
            overlay.delete(key(old % 64, old));
        }
    });
    timed("put, growing", |row| overlay.put_fresh(key(100 + row % 64, row), value.clone()));
    timed("put again", |row| overlay.put(key(100 + row % 64, row), value.clone()));
    timed("get", |row| {
        black_box(overlay.get(&key(100 + row % 64, row)).is_ok());
    });
    println!("{} rows, {} MiB", overlay.active_len(), overlay.bytes() / (1024 * 1024));
}

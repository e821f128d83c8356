//! What remembering costs: nanoseconds of each note, and bytes of each device.
//!
//! ```sh
//! cargo run --release -p moorline-explain --example explain_bench
//! ```
//!
//! A publish of QoS 1 by a device is one note, one place that it went to, and one answer; a delivery one note and one acknowledgement.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use moorline_core::{TenantId, Text, UnixMillis};
use moorline_explain::{Became, Limits, Note, Place, Route, Stage, Trail, Trails};

const TENANT: TenantId = TenantId(1);
const ROUNDS: u32 = 1_000_000;
const DEVICES: usize = 20_000;

fn publish(trail: &Trail, token: u64, topic: &Text, payload: &[u8]) {
    let note = Note::of_message(UnixMillis(token), Stage::Publish, topic, payload, 1);
    trail.add(Note { conn: 1, token, became: Became::Waiting, ..note });
    let route = Route::to(Place::Shard(3), Became::Done);
    trail.routed(1, token, Route { sessions: Some(1), index: Some(token), ..route });
    trail.became(1, Stage::Publish, token, UnixMillis(token + 2), Became::Done);
}

fn deliver(trail: &Trail, token: u64, topic: &Text, payload: &[u8]) {
    let note = Note::of_message(UnixMillis(token), Stage::Deliver, topic, payload, 1);
    trail.add(Note { conn: 1, token, became: Became::Waiting, ..note });
    trail.became(1, Stage::Deliver, token, UnixMillis(token + 2), Became::Done);
}

fn each(took: Duration, rounds: u32) -> f64 {
    took.as_secs_f64() * 1e9 / f64::from(rounds)
}

fn main() {
    let topic = Text::from("hall/3/machine/17/temperature");
    println!("{:<44} {:>8}", "", "ns");
    for bytes in [16, 256, 4_096] {
        let payload = vec![7; bytes];
        let trails = Trails::new(Limits::default());
        let device = Text::from("pump-1");
        let Some(trail) = trails.of(TENANT, &device) else { return };
        for (what, act) in [
            ("publish, its place and its answer", publish as fn(&Trail, u64, &Text, &[u8])),
            ("delivery and its acknowledgement", deliver),
        ] {
            let began = Instant::now();
            for token in 0..u64::from(ROUNDS) {
                act(&trail, token, black_box(&topic), black_box(&payload));
            }
            let name = format!("{what}, {bytes} B");
            println!("{name:<44} {:>8.0}", each(began.elapsed(), ROUNDS));
        }
    }
    let trails = Trails::new(Limits::default());
    let names: Vec<_> = (0..DEVICES).map(|of| Text::from(format!("pump-{of}"))).collect();
    let began = Instant::now();
    for token in 0..8 {
        for name in &names {
            let Some(trail) = trails.of(TENANT, name) else { continue };
            publish(&trail, token, &topic, b"21.5");
        }
    }
    let rounds = u32::try_from(DEVICES * 8).unwrap_or(u32::MAX);
    let name = format!("the same of {DEVICES} devices in turn, looked up");
    println!("{name:<44} {:>8.0}", each(began.elapsed(), rounds));
    println!("\n{:<44} {:>8} {:>10}", "notes of each device", "bytes", "MiB of all");
    for notes in [1, 8, 16, 48] {
        let trails = Trails::new(Limits { bytes: usize::MAX, ..Limits::default() });
        for name in &names {
            let Some(trail) = trails.of(TENANT, name) else { continue };
            (0..notes).for_each(|token| publish(&trail, token, &topic, b"21.5"));
        }
        let held = trails.held();
        let mib = held.bytes / (1024 * 1024);
        println!("{notes:<44} {:>8} {mib:>10}", held.bytes / held.devices.max(1));
    }
}

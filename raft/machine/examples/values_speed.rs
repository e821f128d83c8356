//! How long a replica takes for telemetry, compared to an event alone: messages of five keys from many devices, in an overlay
//! over a store in memory, with a checkpoint now and then.
//!
//! `cargo run --release --example values_speed -p moorline-machine`

#![allow(clippy::disallowed_methods, reason = "a measurement reads the clock")]

mod bench;

use std::time::Duration;

use bytes::Bytes;
use moorline_core::{Double, Text, Value};
use moorline_machine::{
    Answer, Command, EventCommand, ValueCommand,
    events::{AppendEvent, EventKind, NewEvent, Retention},
    registry::PutDevice,
    values::{NewPoint, Record, RecordRules, WithEvent},
};

use bench::{Bench, Failed, TENANT};

const DEVICES: u64 = 10_000;
const BATCH: u64 = 64;
const BATCHES: u64 = 4_000;
const KEEP: Retention = Retention { keep_s: 3_600, bytes_max: 8 << 30 };

fn devices(bench: &mut Bench) -> Result<Vec<(Text, u64)>, Failed> {
    let mut made = Vec::new();
    for n in 0..DEVICES {
        let device = Text::from(format!("pump-{n:06}"));
        let put = PutDevice {
            tenant: TENANT,
            device: device.clone(),
            enabled: true,
            credentials: Vec::new(),
            settings: Bytes::from_static(b"{}"),
            if_version: None,
            devices_max: u32::MAX,
        };
        let [Answer::Device { born, .. }] = bench.apply(&[Command::PutDevice(put)])?[..] else {
            return Err("no device".into());
        };
        made.push((device, born));
    }
    Ok(made)
}

fn event() -> NewEvent {
    NewEvent {
        kind: EventKind::Datapoint,
        channel: "telemetry".into(),
        content_type: 1,
        body: Bytes::from_static(
            br#"{"temperature":21.5,"pressure":1013,"flow":3.25,"open":true,"state":"running"}"#,
        ),
        by: 3,
    }
}

fn record(device: &Text, born: u64, event: Option<WithEvent>) -> Command {
    let double = |value| Value::Double(Double::nearest(value));
    let values = [
        ("temperature", double(21.5)),
        ("pressure", Value::Long(1013)),
        ("flow", double(3.25)),
        ("open", Value::Bool(true)),
        ("state", Value::Text("running".into())),
    ];
    let values = values.map(|(key, value)| (Text::from(key), value)).into();
    let points = vec![NewPoint { ts_ms: None, values }];
    let (device, history) = (device.clone(), Some(KEEP));
    let rules = RecordRules::First;
    let record = Record { tenant: TENANT, device, born, rules, points, history, event };
    Command::Values(ValueCommand::Record(record))
}

fn measure(name: &str, of: impl Fn(&Text, u64) -> Command) -> Result<u128, Failed> {
    let mut bench = Bench::new()?;
    let devices = devices(&mut bench)?;
    bench.spent = Duration::ZERO;
    for batch in 0..BATCHES {
        let commands = (batch * BATCH..(batch + 1) * BATCH).map(|n| {
            let (device, born) = &devices[usize::try_from(n % DEVICES).expect("an index")];
            of(device, *born)
        });
        let commands: Vec<_> = commands.collect();
        bench.apply(&commands)?;
    }
    let each = bench.spent.as_nanos() / u128::from(BATCHES * BATCH);
    println!("{name:<32} {each:>6} ns");
    Ok(each)
}

fn main() -> Result<(), Failed> {
    let with = || Some(WithEvent { event: event(), retention: KEEP });
    let append = measure("an event", |device, born| {
        let (device, born) = (device.clone(), Some(born));
        let append = AppendEvent { tenant: TENANT, device, born, event: event(), retention: KEEP };
        Command::Events(EventCommand::Append(append))
    })?;
    measure("latest and history", |device, born| record(device, born, None))?;
    let all = measure("event, latest and history", |device, born| record(device, born, with()))?;
    println!("all three cost {}.{:02} times an event", all / append, all * 100 / append % 100);
    Ok(())
}

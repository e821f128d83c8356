//! `moorline pub` and `moorline sub`: an MQTT 5 client by `rumqttc`, so that the tools do not share our codec's mistakes.

use std::{
    collections::BTreeSet,
    io::{BufRead, Write},
    time::Duration,
};

use anyhow::{Context, bail};
use rumqttc::v5::{
    AsyncClient, Event, EventLoop, MqttOptions,
    mqttbytes::{QoS, v5::Packet},
};

use crate::cli::{ClientArgs, PubArgs, SubArgs};

/// How long the broker may take to answer anything.
const ANSWER_WAIT: Duration = Duration::from_secs(15);
/// Messages on their way to the broker at once.
const WINDOW: u16 = 256;
/// Keep-alive of these tools.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// The requests the client library buffers.
const REQUESTS_MAX: usize = 1024;
/// How long a durable subscriber's session outlives it: a week.
const DURABLE_EXPIRY_S: u32 = 7 * 24 * 3600;

fn options(args: &ClientArgs, verb: &str) -> MqttOptions {
    let id =
        args.id.clone().unwrap_or_else(|| format!("moorline-{verb}-{:08x}", rand::random::<u32>()));
    let mut options = MqttOptions::new(id, &args.host, args.port);
    options.set_keep_alive(KEEP_ALIVE);
    options.set_outgoing_inflight_upper_limit(WINDOW);
    options.set_clean_start(true);
    options
}

fn qos(level: u8) -> QoS {
    match level {
        0 => QoS::AtMostOnce,
        1 => QoS::AtLeastOnce,
        _ => QoS::ExactlyOnce,
    }
}

async fn next(events: &mut EventLoop) -> anyhow::Result<Event> {
    tokio::time::timeout(ANSWER_WAIT + KEEP_ALIVE, events.poll())
        .await
        .context("the broker does not answer")?
        .map_err(|error| anyhow::anyhow!("{error}"))
}

/// Publishes one message, or each line of standard input, and waits until all are acknowledged.
pub(crate) async fn publish(args: PubArgs) -> anyhow::Result<()> {
    let (client, mut events) = AsyncClient::new(options(&args.client, "pub"), REQUESTS_MAX);
    let mut lines: Box<dyn Iterator<Item = std::io::Result<String>>> = match args.message {
        Some(message) => Box::new(std::iter::once(Ok(message))),
        None => Box::new(std::io::stdin().lock().lines()),
    };
    let level = qos(args.client.qos);
    let (mut handed, mut sent, mut acked, mut unmatched) = (0_u64, 0_u64, 0_u64, 0_u64);
    let mut open = true;
    loop {
        while open && handed - sent.min(handed) < u64::from(WINDOW) {
            let Some(line) = lines.next() else {
                open = false;
                break;
            };
            client.publish(&args.client.topic, level, false, line?).await?;
            handed += 1;
        }
        let answered = if level == QoS::AtMostOnce { sent } else { acked };
        if !open && answered == handed {
            client.disconnect().await?;
            if unmatched > 0 {
                eprintln!("moorline: {unmatched} of {handed} reached no subscriber");
            }
            return Ok(());
        }
        match next(&mut events).await? {
            Event::Incoming(Packet::PubAck(ack)) => {
                acked += 1;
                unmatched += u64::from(is_unmatched(ack.reason as u8, &ack.reason)?);
            }
            Event::Incoming(Packet::PubRec(ack)) => {
                unmatched += u64::from(is_unmatched(ack.reason as u8, &ack.reason)?);
            }
            Event::Incoming(Packet::PubComp(_)) => acked += 1,
            Event::Incoming(Packet::Disconnect(goodbye)) => {
                bail!("the broker closed: {:?}", goodbye.reason_code)
            }
            Event::Outgoing(rumqttc::Outgoing::Publish(_)) => sent += 1,
            Event::Incoming(_) | Event::Outgoing(_) => {}
        }
    }
}

/// Whether an answer says that nobody wanted the message.
fn is_unmatched(code: u8, reason: &dyn std::fmt::Debug) -> anyhow::Result<bool> {
    if code >= 0x80 {
        bail!("the broker refused a message: {reason:?}");
    }
    Ok(code != 0)
}

/// Subscribes and prints `topic payload` lines until told to stop.
pub(crate) async fn subscribe(args: SubArgs) -> anyhow::Result<()> {
    let mut options = options(&args.client, "sub");
    if args.durable {
        options.set_clean_start(false);
        options.set_session_expiry_interval(Some(DURABLE_EXPIRY_S));
    }
    options.set_manual_acks(true);
    let (client, mut events) = AsyncClient::new(options, REQUESTS_MAX);
    // QoS 2 messages that are not complete: while there are any, the broker would have to keep them for us.
    let mut incomplete = BTreeSet::new();
    let mut printed = 0;
    while args.count.is_none_or(|count| printed < count) || !incomplete.is_empty() {
        match next(&mut events).await? {
            Event::Incoming(Packet::ConnAck(ack)) => {
                if !ack.session_present {
                    client.subscribe(&args.client.topic, qos(args.client.qos)).await?;
                }
            }
            Event::Incoming(Packet::SubAck(ack)) => {
                if let Some(refused) = ack.return_codes.iter().find(|code| is_refusal(code)) {
                    bail!("the broker refused {:?}: {refused:?}", args.client.topic);
                }
            }
            // It waits for whoever takes the session up, if it is a durable one.
            Event::Incoming(Packet::Publish(_)) if args.count == Some(printed) => {}
            Event::Incoming(Packet::Publish(publish)) => {
                let mut out = std::io::stdout().lock();
                out.write_all(&publish.topic)?;
                out.write_all(b" ")?;
                out.write_all(&publish.payload)?;
                out.write_all(b"\n")?;
                out.flush()?;
                printed += 1;
                // Only what was written is acknowledged.
                client.ack(&publish).await?;
                if publish.qos == QoS::ExactlyOnce {
                    incomplete.insert(publish.pkid);
                }
            }
            Event::Outgoing(rumqttc::Outgoing::PubComp(id)) => {
                incomplete.remove(&id);
            }
            Event::Incoming(Packet::Disconnect(goodbye)) => {
                bail!("the broker closed: {:?}", goodbye.reason_code)
            }
            Event::Incoming(_) | Event::Outgoing(_) => {}
        }
    }
    client.disconnect().await?;
    while !matches!(next(&mut events).await?, Event::Outgoing(rumqttc::Outgoing::Disconnect)) {}
    Ok(())
}

fn is_refusal(code: &rumqttc::v5::mqttbytes::v5::SubscribeReasonCode) -> bool {
    !matches!(code, rumqttc::v5::mqttbytes::v5::SubscribeReasonCode::Success(_))
}

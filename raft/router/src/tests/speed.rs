//! What a command costs in the router, both ends together; run by hand:
//! `cargo test --release -p moorline-router -- --ignored --nocapture speed`

use super::*;

/// CPU time of this process so far.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<_> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn speed() {
    const COMMANDS: u32 = 1_000_000;
    /// Commands unanswered at once: 64 publishers with a window of 32.
    const WINDOW: u32 = 2_048;
    for (name, node) in [("local leader", 0), ("remote leader", 1)] {
        let cluster = Cluster::start(3, |_| Fault::None).await;
        let node = &cluster.nodes[node];
        let (listener, told) = listener();
        let publish = moorline_machine::Command::Publish {
            tenant: moorline_core::TenantId(1),
            from: None,
            message: moorline_core::Message {
                topic: "devices/17/temperature".into(),
                qos: moorline_core::QoS::AtLeastOnce,
                retain: false,
                properties: Bytes::new(),
                expires_at: None,
                payload: vec![7; 256].into(),
            },
        };
        cluster.log.lock().unwrap().machine.accept_all = true;
        let (cpu_before, begin) = (cpu(), Instant::now());
        let mut answered = 0;
        for submitted in 0..COMMANDS {
            while submitted - answered >= WINDOW {
                told.recv_timeout(PATIENCE).unwrap().1.unwrap();
                answered += 1;
            }
            node.router.submit(SHARD, &publish, Done::Token(listener.clone(), submitted.into()));
        }
        for _ in answered..COMMANDS {
            told.recv_timeout(PATIENCE).unwrap().1.unwrap();
        }
        let (took, cpu) = (begin.elapsed(), cpu() - cpu_before);
        let each = cpu.as_secs_f64() * 1e6 / f64::from(COMMANDS);
        let runs = node.metric("moorline_router_runs_total");
        println!(
            "{name}: {:.0} commands/s, {each:.2} µs CPU per command, {:.1} commands per run",
            f64::from(COMMANDS) / took.as_secs_f64(),
            f64::from(COMMANDS) / runs,
        );
    }
}

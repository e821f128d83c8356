//! The report of a run for people, one HTML file without scripts or anything from elsewhere, and for programs, `summary.json`.
//!
//! Both follow from the history alone, so that they can be made again from a history that was kept.

mod draw;

use std::collections::BTreeMap;

use moorline_oracle::checks::coverage::Reached;
use moorline_oracle::gaps::Spread;
use moorline_oracle::history::{Fault, Header};
use moorline_oracle::recovery::{Recovery, Tally, WORKLOADS, Work, Workload, workload};
use moorline_oracle::{Event, Op, Outcome, Phase, Verdict};
use serde::Serialize;

use draw::{Scale, bands, draining, lanes, scatter, seconds, throughput};

/// What a run came to, for programs.
#[derive(Debug, Serialize)]
pub struct Summary {
    /// The seed.
    pub seed: u64,
    /// The verdict, check by check, with first counterexamples.
    pub verdict: Verdict,
    /// What came of the requests of each workload.
    pub totals: BTreeMap<Workload, Tally>,
    /// How long requests took that were answered, in nanoseconds.
    pub latencies: BTreeMap<Workload, Spread>,
    /// By kind of fault, how long each workload was gone.
    pub recovery: Vec<KindOfRecovery>,
    /// Fault by fault.
    pub recoveries: Vec<Recovery>,
    /// Changes of leaders.
    pub leader_changes: u64,
    /// Snapshots installed.
    pub snapshots: u64,
}

/// A request that ended: when, how long it took, how.
type Point = (u64, u64, Phase);

fn points(events: &[Event]) -> BTreeMap<Workload, Vec<Point>> {
    let mut begun: BTreeMap<(Workload, u64, u64), u64> = BTreeMap::new();
    let mut points: BTreeMap<Workload, Vec<Point>> = BTreeMap::new();
    for event in events {
        let Some(workload) = workload(&event.op) else { continue };
        let key = match &event.op {
            Op::Publish { conn, message, .. } => {
                (workload, *conn, message.seq << 16 | u64::from(message.publisher))
            }
            Op::Record { op, .. } | Op::Mail { op, .. } => (workload, *op, 0),
            Op::Connect { .. }
            | Op::Leave { .. }
            | Op::Subscribe { .. }
            | Op::Deliver { .. }
            | Op::Ack { .. }
            | Op::Fault { .. }
            | Op::Digest { .. }
            | Op::Mark { .. }
            | Op::Revoke { .. }
            | Op::Log { .. }
            | Op::Leads { .. }
            | Op::Snapshots { .. }
            | Op::Load(_) => continue,
        };
        if event.ph == Phase::Invoke {
            begun.insert(key, event.ns);
        } else if let Some(since) = begun.remove(&key) {
            points.entry(workload).or_default().push((event.ns, event.ns - since, event.ph));
        }
    }
    points
}

impl Summary {
    /// Of a history that was judged.
    pub fn of(header: &Header, events: &[Event], verdict: &Verdict) -> Self {
        let work = Work::of(events);
        let reached = Reached::of(events);
        let took = |points: Vec<Point>| {
            let ok = points.into_iter().filter(|(.., ph)| *ph == Phase::Ok);
            Spread::of(ok.map(|(_, took, _)| took).collect())
        };
        let latencies = points(events).into_iter().map(|(of, points)| (of, took(points)));
        Self {
            seed: header.seed,
            verdict: verdict.clone(),
            totals: work.totals,
            latencies: latencies.collect(),
            recovery: by_kind(&work.recoveries),
            recoveries: work.recoveries,
            leader_changes: reached.leader_changes,
            snapshots: reached.snapshots,
        }
    }

    /// As JSON, in lines.
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("only strings and numbers")
    }
}

/// Text that is no markup.
fn plain(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// How an outcome is drawn.
fn class(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Pass => "ok",
        Outcome::Inconclusive => "info",
        Outcome::Fail => "fail",
    }
}

fn class_of(ph: Phase) -> &'static str {
    match ph {
        Phase::Invoke | Phase::Ok => "ok",
        Phase::Fail => "fail",
        Phase::Info => "info",
    }
}

fn word(workload: Workload) -> &'static str {
    match workload {
        Workload::Publish => "publishes",
        Workload::Registry => "registry",
        Workload::Mailbox => "mailboxes",
    }
}

/// The whole page.
pub fn html(header: &Header, events: &[Event], summary: &Summary) -> String {
    let end = events.last().map_or(1, |event| event.ns.max(1));
    let scale = Scale { seconds: seconds(end) };
    let bands = bands(events, end);
    let verdict = &summary.verdict;
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Chaos run, seed {}</title><style>{STYLE}</style>\
         <h1>Chaos run, seed {}: <b class=\"{}\">{}</b></h1><p>{}</p><p><code>{}</code></p>",
        header.seed,
        header.seed,
        class(verdict.outcome),
        verdict.outcome,
        plain(&header.machine),
        plain(&header.command.join(" ")),
    );
    page += "<h2>Nodes</h2>";
    page += &lanes(events, &bands, &scale);
    page += "<h2>Answers a second</h2>";
    let (work, draining) = (Work::of(events), draining(events));
    for workload in WORKLOADS {
        page += &throughput(workload, &work, draining, &bands, &scale);
    }
    page += "<h2>Latency</h2>";
    for (workload, points) in points(events) {
        page += &scatter(workload, &points, &bands, &scale);
    }
    page += &recoveries(&summary.recoveries);
    page += &checks(verdict);
    page += &totals(summary);
    page + "</html>\n"
}

/// Colours by class; no fonts or pictures from elsewhere.
const STYLE: &str = "body{font:14px sans-serif;margin:24px;max-width:1150px;color:#222}\
    td,th{padding:2px 10px;text-align:left;vertical-align:top}table{border-collapse:collapse}tr{border-bottom:1px solid #ddd}\
    code{font-size:12px}svg{display:block;margin:4px 0;background:#fafafa}svg text{font:11px sans-serif;fill:#444}\
    .ok{color:#1a7f37;fill:#1a7f37;stroke:#1a7f37}.fail{color:#cf222e;fill:#cf222e;stroke:#cf222e}\
    .info{color:#9a6700;fill:#d4a72c;stroke:#d4a72c}b{stroke:none}.lane{fill:#dafbe1}.band{fill:#cf222e;opacity:.12}\
    .lead{stroke:#0969da;stroke-width:2}.line{fill:none;stroke-width:1.2}.dot{stroke:none;opacity:.5}";

/// How long a fault of each kind kept work away.
fn recoveries(all: &[Recovery]) -> String {
    let mut text = "<h2>Time to recovery</h2><p>From the fault to the first second in which a workload is back to 80 % of its usual work: \
        the median, and the longest. What did not come back before the next fault counts up to that.</p><table><tr><th>fault</th>\
        <th>times</th><th>ready again</th><th>publishes</th><th>registry</th><th>mailboxes</th></tr>"
        .to_owned();
    for one in by_kind(all) {
        let name = if one.leader {
            format!("{:?} of a leader", one.fault)
        } else {
            format!("{:?}", one.fault)
        };
        text +=
            &format!("<tr><td>{name}</td><td>{}</td><td>{}</td>", one.times, shown(&one.ready_s));
        for workload in WORKLOADS {
            text += &format!("<td>{}</td>", shown(&one.back_s[&workload]));
        }
        text += "</tr>";
    }
    text + "</table>"
}

fn shown(seconds: &[f64]) -> String {
    let middle = seconds.get(seconds.len() / 2);
    middle
        .zip(seconds.last())
        .map_or("never".to_owned(), |(middle, most)| format!("{middle:.1} s, {most:.1} s"))
}

/// How long faults of one kind kept work away.
#[derive(Debug, Serialize)]
pub struct KindOfRecovery {
    /// What was done.
    pub fault: Fault,
    /// Whether to a node that led a group.
    pub leader: bool,
    /// How often.
    pub times: usize,
    /// Seconds until the node was ready again, ascending.
    pub ready_s: Vec<f64>,
    /// Seconds until each workload was back, ascending.
    pub back_s: BTreeMap<Workload, Vec<f64>>,
}

/// Of all recoveries, by what was done and whether to a leader.
pub fn by_kind(all: &[Recovery]) -> Vec<KindOfRecovery> {
    let mut kinds: BTreeMap<(Fault, bool), KindOfRecovery> = BTreeMap::new();
    for (at, one) in all.iter().enumerate() {
        let second = |ns: u64| ns / 1_000_000_000;
        let next = all[at + 1..].iter().find(|next| second(next.ns) > second(one.ns));
        let most = next.map_or(0.0, |next| seconds(next.ns - one.ns));
        let kind = kinds.entry((one.fault, one.leader)).or_insert_with(|| KindOfRecovery {
            fault: one.fault,
            leader: one.leader,
            times: 0,
            ready_s: Vec::new(),
            back_s: WORKLOADS.into_iter().map(|workload| (workload, Vec::new())).collect(),
        });
        kind.times += 1;
        kind.ready_s.extend(one.ready_ns.map(seconds));
        for (workload, back) in &one.back_s {
            let back = back.map_or(most, |back| seconds(back * 1_000_000_000));
            kind.back_s.entry(*workload).or_default().push(back);
        }
    }
    let mut kinds: Vec<KindOfRecovery> = kinds.into_values().collect();
    for kind in &mut kinds {
        kind.ready_s.sort_by(f64::total_cmp);
        kind.back_s.values_mut().for_each(|all| all.sort_by(f64::total_cmp));
    }
    kinds
}

fn checks(verdict: &Verdict) -> String {
    let mut text = "<h2>Invariants</h2><table><tr><th>check</th><th>outcome</th><th>found</th><th>looked at; counterexamples</th></tr>".to_owned();
    for check in &verdict.checks {
        let examples = check.examples.iter();
        let first: String = examples
            .map(|one| {
                format!("<br><code class=\"{}\">{}</code>", class(check.outcome), plain(one))
            })
            .collect();
        text += &format!(
            "<tr><td>{}</td><td class=\"{}\">{}</td><td>{}</td><td>{}{first}</td></tr>",
            plain(&check.name),
            class(check.outcome),
            check.outcome,
            check.found,
            plain(&check.detail)
        );
    }
    text + "</table>"
}

fn totals(summary: &Summary) -> String {
    let mut text = "<h2>Requests</h2><table><tr><th></th><th>ok</th><th>fail</th><th>unknown</th><th>p50</th><th>max</th></tr>".to_owned();
    for (workload, tally) in &summary.totals {
        let took = summary.latencies.get(workload).copied().unwrap_or_default();
        text += &format!(
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{:.1} ms</td><td>{:.1} ms</td></tr>",
            word(*workload),
            tally.ok,
            tally.fail,
            tally.unknown,
            seconds(took.p50_ns) * 1_000.0,
            seconds(took.max_ns) * 1_000.0
        );
    }
    text += &format!(
        "</table><p>{} changes of leaders, {} snapshots installed.</p>",
        summary.leader_changes, summary.snapshots
    );
    text
}

#[cfg(test)]
mod tests {
    use moorline_oracle::history::{FORMAT, Stage};
    use moorline_oracle::verdict::{Check, Counts};

    use super::*;

    #[test]
    fn a_page_stands_alone_and_shows_what_happened() {
        let event = |i: u64, ph, op| Event {
            i,
            ns: i * 1_000_000_000,
            p: "x".into(),
            ph,
            op,
            node: Some(2),
            err: None,
        };
        let fault = |fault| Op::Fault { fault, leader: true };
        let ask = moorline_oracle::requests::RecordAsk::Get;
        let record = || Op::Record { op: 1, device: "d".into(), ask, answer: None };
        let events = [
            event(0, Phase::Ok, Op::Mark { stage: Stage::Publishing }),
            event(1, Phase::Ok, fault(Fault::Kill)),
            event(2, Phase::Invoke, record()),
            event(3, Phase::Ok, record()),
            event(4, Phase::Ok, fault(Fault::Ready)),
            event(5, Phase::Ok, Op::Leads { shard: 1, leader: 2, term: 7 }),
        ];
        let mut check = Check::new("order");
        check.violated(|| "<b> came before a".to_owned());
        let verdict = Verdict::of(vec![check], Counts::default());
        let command = vec!["run".to_owned()];
        let header = Header { format: FORMAT, seed: 9, command, machine: "m".into(), wanted: None };
        let summary = Summary::of(&header, &events, &verdict);
        let page = html(&header, &events, &summary);
        for part in [
            "seed 9",
            "FAIL",
            "node 2",
            "Kill, 1.0 s to 4.0 s",
            "term 7",
            "&lt;b&gt; came",
            "3.0 s",
        ] {
            assert!(page.contains(part), "{part}");
        }
        for foreign in ["<script", "http://", "https://", "<b> came", "url("] {
            assert!(!page.contains(foreign), "{foreign}");
        }
        assert!(summary.json().contains("\"registry\""));
        assert_eq!(summary.latencies[&Workload::Registry].max_ns, 1_000_000_000);
    }
}

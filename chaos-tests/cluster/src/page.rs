//! The report of a run for people, one HTML file without scripts or anything from elsewhere, and for programs, `summary.json`.
//!
//! Both follow from the history alone, so that they can be made again from a history that was kept.

use std::collections::BTreeMap;

use moorline_oracle::checks::coverage::Reached;
use moorline_oracle::gaps::Spread;
use moorline_oracle::history::{Fault, Header};
use moorline_oracle::recovery::{Recovery, Tally, WORKLOADS, Work, Workload, workload};
use moorline_oracle::{Event, Op, Outcome, Phase, Verdict};
use serde::Serialize;

/// Width of a drawing, in pixels.
const WIDTH: f64 = 1_100.0;
/// Where time begins in it: left of that are names.
const LEFT: f64 = 90.0;
/// Height of a node's lane.
const LANE: f64 = 26.0;
/// Height of a chart.
const CHART: f64 = 120.0;
/// Most points of a scatter: a browser draws them without a wait.
const POINTS_MAX: usize = 6_000;
/// Nanoseconds of a second.
const SECOND_NS: f64 = 1e9;
/// Shortest and longest latency drawn, in seconds, as powers of ten.
const DECADES: (f64, f64) = (-4.0, 1.5);

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
    /// Fault by fault, how long each workload was gone.
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

/// Time as a place in a drawing.
struct Scale {
    seconds: f64,
}

impl Scale {
    fn x(&self, ns: u64) -> f64 {
        LEFT + (WIDTH - LEFT) * seconds(ns) / self.seconds
    }
}

#[expect(clippy::cast_precision_loss, reason = "a drawing of pixels")]
fn seconds(ns: u64) -> f64 {
    ns as f64 / SECOND_NS
}

#[expect(clippy::cast_precision_loss, reason = "a drawing of pixels")]
fn float(number: u64) -> f64 {
    number as f64
}

/// When a node was not itself: from, until, why.
struct Band {
    node: u32,
    from: u64,
    until: u64,
    fault: Fault,
}

fn bands(events: &[Event], end: u64) -> Vec<Band> {
    let mut bands: Vec<Band> = Vec::new();
    for event in events {
        let (Op::Fault { fault, .. }, Some(node), Phase::Ok) = (&event.op, event.node, event.ph)
        else {
            continue;
        };
        if moorline_oracle::recovery::strikes(*fault) {
            bands.push(Band { node, from: event.ns, until: end, fault: *fault });
        } else if *fault == Fault::Ready {
            let open = bands.iter_mut().filter(|band| band.node == node && band.until == end);
            open.for_each(|band| band.until = event.ns);
        }
    }
    bands
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
    let work = Work::of(events);
    for workload in WORKLOADS {
        page += &throughput(workload, &work, &bands, &scale);
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

fn svg(height: f64, inside: &str) -> String {
    format!("<svg width=\"{WIDTH}\" height=\"{height}\" role=\"img\">{inside}</svg>")
}

fn shades(bands: &[Band], scale: &Scale, height: f64) -> String {
    let mut text = String::new();
    for band in bands {
        let (x, until) = (scale.x(band.from), scale.x(band.until));
        let width = (until - x).max(1.0);
        text += &format!(
            "<rect class=\"band\" x=\"{x:.1}\" y=\"0\" width=\"{width:.1}\" height=\"{height}\"/>"
        );
    }
    text
}

fn colour(fault: Fault) -> &'static str {
    match fault {
        Fault::Pause => "#8250df",
        Fault::Cut | Fault::CutIn | Fault::CutOut => "#0550ae",
        Fault::FsyncStall | Fault::FsyncError | Fault::DiskFull => "#953800",
        Fault::Terminate => "#6e7781",
        Fault::Kill
        | Fault::Resume
        | Fault::Heal
        | Fault::PowerLoss
        | Fault::TornWrites
        | Fault::Restart
        | Fault::Ready
        | Fault::Join
        | Fault::Leave
        | Fault::Remove
        | Fault::Refuse
        | Fault::DiskHealed
        | Fault::Ended => "#cf222e",
    }
}

fn lanes(events: &[Event], bands: &[Band], scale: &Scale) -> String {
    let mut nodes: Vec<u32> = events.iter().filter_map(|event| event.node).collect();
    nodes.sort_unstable();
    nodes.dedup();
    let mut text = String::new();
    let mut y = 0.0;
    for node in &nodes {
        text += &format!(
            "<text x=\"4\" y=\"{:.1}\">node {node}</text><rect class=\"lane\" x=\"{LEFT}\" y=\"{:.1}\" width=\"{}\" height=\"{}\"/>",
            y + 16.0,
            y + 3.0,
            WIDTH - LEFT,
            LANE - 6.0
        );
        for band in bands.iter().filter(|band| band.node == *node) {
            let (x, width) = (scale.x(band.from), scale.x(band.until) - scale.x(band.from));
            text += &format!(
                "<rect x=\"{x:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{}\" fill=\"{}\" opacity=\".7\"><title>{:?}, {:.1} s to {:.1} s</title></rect>",
                y + 3.0,
                width.max(1.0),
                LANE - 6.0,
                colour(band.fault),
                band.fault,
                seconds(band.from),
                seconds(band.until),
            );
        }
        for event in events {
            let Op::Leads { shard, leader, term } = event.op else { continue };
            if leader == *node {
                let x = scale.x(event.ns);
                text += &format!(
                    "<line class=\"lead\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{:.1}\" y2=\"{:.1}\"><title>leads shard {shard} in term {term}</title></line>",
                    y + 2.0,
                    y + LANE - 2.0
                );
            }
        }
        y += LANE;
    }
    svg(y + 4.0, &text)
        + "<p>Red: killed; violet: paused; blue: cut off; brown: disk; grey: asked to stop. A blue stroke: leads a group from here on.</p>"
}

fn throughput(workload: Workload, work: &Work, bands: &[Band], scale: &Scale) -> String {
    let Some(seconds) = work.seconds.get(&workload) else { return String::new() };
    let counts = |tally: &Tally| [tally.ok, tally.fail, tally.unknown];
    let most = seconds.values().flat_map(counts).max().unwrap_or(1).max(1);
    let mut text = shades(bands, scale, CHART);
    let last = seconds.keys().next_back().copied().unwrap_or(0);
    for (kind, class) in ["ok", "fail", "info"].into_iter().enumerate() {
        let mut line = String::new();
        for second in 0..=last {
            let count = seconds.get(&second).map_or(0, |tally| counts(tally)[kind]);
            let x = scale.x(second * 1_000_000_000);
            let y = CHART - 4.0 - (CHART - 12.0) * float(count) / float(most);
            line += &format!("{x:.1},{y:.1} ");
        }
        text +=
            &format!("<polyline class=\"line {class}\" style=\"fill:none\" points=\"{line}\"/>");
    }
    text += &format!(
        "<text x=\"4\" y=\"14\">{}</text><text x=\"4\" y=\"30\">up to {most}/s</text>",
        word(workload)
    );
    svg(CHART, &text)
}

fn scatter(workload: Workload, points: &[Point], bands: &[Band], scale: &Scale) -> String {
    let mut text = shades(bands, scale, CHART);
    let each = points.len().div_ceil(POINTS_MAX).max(1);
    for (at, &(ns, took, ph)) in points.iter().enumerate() {
        // The slow and the odd ones all, of the others as many as fit.
        if at % each != 0 && ph == Phase::Ok && seconds(took) < 1.0 {
            continue;
        }
        let decade = seconds(took.max(1)).log10().clamp(DECADES.0, DECADES.1);
        let y = CHART - 4.0 - (CHART - 8.0) * (decade - DECADES.0) / (DECADES.1 - DECADES.0);
        let (x, class) = (scale.x(ns), class_of(ph));
        text += &format!("<circle class=\"dot {class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"1.3\"/>");
    }
    for (decade, name) in
        [(-3.0, "1 ms"), (-2.0, "10 ms"), (-1.0, "100 ms"), (0.0, "1 s"), (1.0, "10 s")]
    {
        let y = CHART - 4.0 - (CHART - 8.0) * (decade - DECADES.0) / (DECADES.1 - DECADES.0);
        text += &format!(
            "<line x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#ddd\"/><text x=\"50\" y=\"{:.1}\">{name}</text>",
            y + 4.0
        );
    }
    text += &format!("<text x=\"4\" y=\"14\">{}</text>", word(workload));
    svg(CHART, &text)
}

fn recoveries(all: &[Recovery]) -> String {
    let mut text = "<h2>Time to recovery</h2><table><tr><th>at</th><th>fault</th><th>node</th><th>ready after</th>\
        <th>publishes back after</th><th>registry</th><th>mailboxes</th></tr>"
        .to_owned();
    for one in all {
        let role = if one.leader { " (leader)" } else { "" };
        let ready = one.ready_ns.map_or("never".to_owned(), |ns| format!("{:.1} s", seconds(ns)));
        text += &format!(
            "<tr><td>{:.1} s</td><td>{:?}</td><td>{}{role}</td><td>{ready}</td>",
            seconds(one.ns),
            one.fault,
            one.node.unwrap_or(0)
        );
        for workload in WORKLOADS {
            let back = match one.back_s.get(&workload) {
                Some(Some(seconds)) => format!("{seconds} s"),
                Some(None) => "not before the next".to_owned(),
                None => String::new(),
            };
            text += &format!("<td>{back}</td>");
        }
        text += "</tr>";
    }
    text + "</table>"
}

fn checks(verdict: &Verdict) -> String {
    let mut text = "<h2>Invariants</h2><table><tr><th>check</th><th>outcome</th><th>found</th><th>looked at; first counterexample</th></tr>".to_owned();
    for check in &verdict.checks {
        let first = check.examples.first().map_or(String::new(), |first| {
            format!("<br><code class=\"{}\">{}</code>", class(check.outcome), plain(first))
        });
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

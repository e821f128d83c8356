//! The drawings of a report: who was up and who led, answers a second, latencies. SVG without scripts.

use std::collections::BTreeSet;

use moorline_oracle::history::{Fault, Stage};
use moorline_oracle::recovery::{Tally, Work, Workload};
use moorline_oracle::{Event, Op, Phase};

use super::{Point, class_of, word};

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

/// Time as a place in a drawing.
pub(super) struct Scale {
    pub(super) seconds: f64,
}

impl Scale {
    pub(super) fn x(&self, ns: u64) -> f64 {
        LEFT + (WIDTH - LEFT) * seconds(ns) / self.seconds
    }
}

#[expect(clippy::cast_precision_loss, reason = "a drawing of pixels")]
/// Nanoseconds as seconds.
pub(super) fn seconds(ns: u64) -> f64 {
    ns as f64 / SECOND_NS
}

#[expect(clippy::cast_precision_loss, reason = "a drawing of pixels")]
fn float(number: u64) -> f64 {
    number as f64
}

/// When a node was not itself: from, until, why.
pub(super) struct Band {
    node: u32,
    from: u64,
    until: u64,
    fault: Fault,
}

/// Finds them.
pub(super) fn bands(events: &[Event], end: u64) -> Vec<Band> {
    let mut bands: Vec<Band> = Vec::new();
    for event in events {
        let (Op::Fault { fault, .. }, Some(node), Phase::Ok) = (&event.op, event.node, event.ph)
        else {
            continue;
        };
        if fault.strikes() {
            bands.push(Band { node, from: event.ns, until: end, fault: *fault });
        } else if fault.ends() {
            let open = bands.iter_mut().filter(|band| band.node == node && band.until == end);
            open.for_each(|band| band.until = event.ns);
        }
    }
    bands
}

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
        Fault::Cut
        | Fault::CutIn
        | Fault::CutOut
        | Fault::CutClients
        | Fault::Flap
        | Fault::Reset => "#0550ae",
        Fault::Slow => "#1b7c83",
        Fault::Clock | Fault::Damage => "#9a6700",
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
        | Fault::SnapshotCut
        | Fault::PartKill
        | Fault::PauseKill
        | Fault::Ended => "#cf222e",
    }
}

/// When a node was a member: from, until.
fn membership(events: &[Event], node: u32, end: u64) -> (u64, u64) {
    let of = |wanted: &[Fault]| {
        let mut found = events.iter().filter(|event| event.node == Some(node));
        let is = |op: &Op| matches!(op, Op::Fault { fault, .. } if wanted.contains(fault));
        found.find(|event| is(&event.op)).map(|event| event.ns)
    };
    (of(&[Fault::Join]).unwrap_or(0), of(&[Fault::Leave, Fault::Remove]).unwrap_or(end))
}

/// Who was a member, who was not itself, who led.
pub(super) fn lanes(events: &[Event], bands: &[Band], scale: &Scale) -> String {
    let nodes: BTreeSet<u32> = events.iter().filter_map(|event| event.node).collect();
    let end = events.last().map_or(1, |event| event.ns);
    let mut text = String::new();
    let mut y = 0.0;
    for &node in &nodes {
        let (from, until) = membership(events, node, end);
        let (x, height) = (scale.x(from), LANE - 6.0);
        text += &format!(
            "<text x=\"4\" y=\"{:.1}\">node {node}</text><rect class=\"lane\" x=\"{x:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{height}\"/>",
            y + 16.0,
            y + 3.0,
            scale.x(until) - x,
        );
        for band in bands.iter().filter(|band| band.node == node) {
            let (x, width) = (scale.x(band.from), scale.x(band.until) - scale.x(band.from));
            text += &format!(
                "<rect x=\"{x:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{height}\" fill=\"{}\" opacity=\".7\"><title>{:?}, {:.1} s to {:.1} s</title></rect>",
                y + 3.0,
                width.max(1.0),
                colour(band.fault),
                band.fault,
                seconds(band.from),
                seconds(band.until),
            );
        }
        text += &leads(events, node, y, scale);
        y += LANE;
    }
    svg(y + 4.0, &text) + &legend()
}

fn leads(events: &[Event], node: u32, y: f64, scale: &Scale) -> String {
    let mut text = String::new();
    for event in events {
        let Op::Leads { shard, leader, term } = event.op else { continue };
        if leader == node {
            let x = scale.x(event.ns);
            text += &format!(
                "<line class=\"lead\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{:.1}\" y2=\"{:.1}\"><title>leads shard {shard} in term {term}</title></line>",
                y + 2.0,
                y + LANE - 2.0
            );
        }
    }
    text
}

fn legend() -> String {
    let mut text = "<p>".to_owned();
    for (fault, what) in [
        (Fault::Kill, "killed, or without power"),
        (Fault::Pause, "stopped"),
        (Fault::Cut, "off the network"),
        (Fault::Slow, "bad lines"),
        (Fault::FsyncStall, "disk"),
        (Fault::Terminate, "asked to end"),
    ] {
        text += &format!("<b style=\"color:{}\">&#9632;</b> {what} &nbsp; ", colour(fault));
    }
    text + "A blue stroke: leads a group from here on. A lane is as long as the node was a member.</p>"
}

/// Until when clients worked, in whole seconds.
pub(super) fn draining(events: &[Event]) -> u64 {
    let mark = events.iter().find(|event| event.op == Op::Mark { stage: Stage::Draining });
    mark.map_or(u64::MAX, |event| event.ns / 1_000_000_000)
}

/// Answers a second.
pub(super) fn throughput(
    workload: Workload,
    work: &Work,
    draining: u64,
    bands: &[Band],
    scale: &Scale,
) -> String {
    let Some(seconds) = work.seconds.get(&workload) else { return String::new() };
    let counts = |tally: &Tally| [tally.ok, tally.fail, tally.unknown];
    // What is asked in one go at the end says nothing of the run.
    let during = seconds.range(..=draining);
    let most = during.flat_map(|(_, tally)| counts(tally)).max().unwrap_or(1).max(1);
    let mut text = shades(bands, scale, CHART);
    let last = seconds.keys().next_back().copied().unwrap_or(0);
    for (kind, class) in ["ok", "fail", "info"].into_iter().enumerate() {
        let mut line = String::new();
        for second in 0..=last {
            let count = seconds.get(&second).map_or(0, |tally| counts(tally)[kind].min(most));
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

/// How long each request took.
pub(super) fn scatter(
    workload: Workload,
    points: &[Point],
    bands: &[Band],
    scale: &Scale,
) -> String {
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
            "<line x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#ddd\"/><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{name}</text>",
            LEFT - 4.0,
            y + 4.0
        );
    }
    text += &format!("<text x=\"4\" y=\"{:.1}\">{}</text>", CHART - 6.0, word(workload));
    svg(CHART, &text)
}

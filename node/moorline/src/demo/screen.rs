//! What the demo shows: a hello with lines to paste, then one screen that is drawn again every second.

use std::{
    collections::BTreeMap, fmt::Write as _, io::Write as _, net::SocketAddr, path::Path,
    time::Instant,
};

use hyper::Method;

use super::{ReadyNode, nodes::State};
use crate::{cluster::ClusterView, http};

/// Counters whose rates are shown, with what they are called on the screen.
const RATES: [(&str, &str); 3] = [
    ("moorline_messages_received_total", "in/s"),
    ("moorline_messages_delivered_total", "out/s"),
    ("moorline_deliveries_acked_total", "acked/s"),
];

/// Clear the screen, cursor home.
const CLEAR: &str = "\x1b[2J\x1b[H";

/// The first thing printed once all nodes are ready.
pub(super) fn hello(nodes: &[ReadyNode], dir: &Path) -> String {
    let (first, last) = (&nodes[0], &nodes[nodes.len() - 1]);
    let mut out =
        format!("\nA cluster of {} is ready; its files are in {}.\n", nodes.len(), dir.display());
    if nodes.len() == 1 {
        out += "One node has no second copy: it survives a crash of its process, not the loss of its disk.\n";
    }
    for node in nodes {
        let ReadyNode { id, mqtt, ws, http, mqtts, https, api, admin, pid, .. } = node;
        let with = |at: &Option<SocketAddr>, before: &str| {
            at.map(|at| format!("   {before}{at}")).unwrap_or_default()
        };
        let secure = [with(mqtts, "mqtts "), with(https, "https://"), with(api, "api https://")];
        writeln!(
            out,
            "  node {id}   mqtt {mqtt}{}{}   metrics http://{admin}/metrics   pid {pid}",
            with(ws, "ws://"),
            with(http, "http://"),
        )
        .expect("a String takes everything");
        if secure.iter().any(|at| !at.is_empty()) {
            writeln!(out, "     by TLS{}", secure.concat()).expect("a String takes everything");
        }
    }
    write!(
        out,
        "\nTry, in another terminal:\n  \
         mosquitto_sub -h 127.0.0.1 -p {} -t 'demo/#' -q 1 -i reader -c -v\n  \
         mosquitto_pub -h 127.0.0.1 -p {} -t demo/hello -q 1 -m 'acknowledged means on a majority of disks'\n  \
         kill -9 {}\n  \
         {} cluster status --admin {}\n{}\
         Ctrl-C stops the cluster; the next demo in the same directory goes on with its data.\n",
        last.mqtt.port(),
        first.mqtt.port(),
        first.pid,
        program(),
        last.admin,
        by_tls(first),
    )
    .expect("a String takes everything");
    out
}

/// The same by TLS: clients have to trust the demo's authority.
fn by_tls(node: &ReadyNode) -> String {
    let (Some(mqtts), Some(api), Some(ca)) = (node.mqtts, node.api, &node.ca) else {
        return String::new();
    };
    let (mqtts, api, ca) = (mqtts.port(), api.port(), ca.display());
    format!(
        "by TLS:\n  \
         mosquitto_pub --cafile '{ca}' -h localhost -p {mqtts} -t demo/hello -q 1 -m 'the same by TLS'\n  \
         curl --cacert '{ca}' https://localhost:{api}/health/ready\n"
    )
}

/// How this program is called from another terminal: by where it is, unless a shell finds it.
fn program() -> String {
    const NAME: &str = "moorline";
    let found = std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path).any(|directory| directory.join(NAME).is_file())
    });
    match std::env::current_exe() {
        Ok(path) if !found => path.display().to_string(),
        Ok(_) | Err(_) => NAME.to_owned(),
    }
}

/// The live screen.
#[derive(Debug)]
pub(super) struct Screen {
    live: bool,
    before: BTreeMap<(u64, &'static str), f64>,
    at: Instant,
}

impl Screen {
    /// A screen that draws nothing unless `live`.
    pub(super) fn new(live: bool) -> Self {
        Self { live, before: BTreeMap::new(), at: Instant::now() }
    }

    /// Draws it.
    pub(super) async fn draw(
        &mut self,
        nodes: &[ReadyNode],
        states: &[State],
        views: &[Option<ClusterView>],
    ) -> anyhow::Result<()> {
        if !self.live {
            return Ok(());
        }
        let took = self.at.elapsed().as_secs_f64().max(0.001);
        self.at = Instant::now();
        let mut out = format!("{CLEAR}moorline demo\n\n");
        out += "  node  mqtt              state          leads  ";
        RATES.iter().for_each(|(_, title)| write!(out, "{title:>9}").expect("a String"));
        out += "  pid\n";
        for ((node, state), view) in nodes.iter().zip(states).zip(views) {
            let metrics = self.metrics(node).await;
            let state = match (state, view) {
                (State::Dead(since), _) => format!("DEAD {:.0} s", since.as_secs_f64()),
                (State::Up, Some(view)) if view.ready => "ready".to_owned(),
                (State::Up, Some(_)) => "recovering".to_owned(),
                (State::Up, None) => "starting".to_owned(),
            };
            let leads = leads(views, node.id);
            write!(
                out,
                "  {:<4}  {:<16}  {state:<13}  {leads:<5}  ",
                node.id,
                node.mqtt.to_string()
            )?;
            for (name, _) in RATES {
                let now = metrics.as_ref().map_or(0.0, |text| sum(text, name));
                let before = self.before.insert((node.id, name), now).unwrap_or(now);
                write!(out, "{:>9.0}", ((now - before) / took).max(0.0))?;
            }
            writeln!(out, "  {}", node.pid)?;
        }
        out += &hello(nodes, Path::new("the demo's directory"));
        let mut terminal = std::io::stdout().lock();
        terminal.write_all(out.as_bytes())?;
        terminal.flush()?;
        Ok(())
    }

    async fn metrics(&self, node: &ReadyNode) -> Option<String> {
        let admin = node.admin.to_string();
        let (_, body) = http::request(Method::GET, &admin, "/metrics", Vec::new()).await.ok()?;
        String::from_utf8(body.to_vec()).ok()
    }
}

/// How many groups a node leads, by any node's view.
fn leads(views: &[Option<ClusterView>], node: u64) -> usize {
    let own =
        |view: &&ClusterView| view.groups.iter().filter(|group| group.leader == Some(node)).count();
    views.iter().flatten().map(|view| own(&view)).max().unwrap_or(0)
}

/// The sum over all labels of a metric in the Prometheus text format.
fn sum(text: &str, name: &str) -> f64 {
    text.lines()
        .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_summed_over_its_labels_and_no_other() {
        let text =
            "# HELP a_total x\na_total{q=\"0\"} 2\na_total{q=\"1\"} 3\na_total_more 9\nb 1\n";
        assert!((sum(text, "a_total") - 5.0).abs() < f64::EPSILON);
    }
}

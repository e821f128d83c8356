//! One node: its files, its process, what it says.

use std::{
    fs::{self, File},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{
    http,
    wait::{READY, SOON, until, until_true},
};

/// The program under test.
pub(crate) const MOORLINE: &str = env!("CARGO_BIN_EXE_moorline");
/// By how much counts differ that must be equal.
const IMBALANCE: &str = "moorline_accounting_imbalance{";
/// How much of a node's log is printed when a test fails.
const LOG_LINES_MAX: usize = 80;

/// A node of a cluster. Ends with its handle.
pub(crate) struct Node {
    pub(crate) id: u64,
    pub(crate) mqtt: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) cluster: SocketAddr,
    pub(crate) config: PathBuf,
    pub(crate) data: PathBuf,
    /// Environment of the process, for the next start.
    pub(crate) env: Vec<(String, String)>,
    dir: PathBuf,
    starts: u32,
    child: Option<Child>,
}

impl Node {
    /// A node that does not run yet.
    pub(crate) fn new(
        id: u64,
        dir: &Path,
        data: PathBuf,
        [mqtt, admin, cluster]: [SocketAddr; 3],
    ) -> Self {
        let config = dir.join(format!("node{id}.toml"));
        let dir = dir.to_owned();
        Self {
            id,
            mqtt,
            admin,
            cluster,
            config,
            data,
            env: Vec::new(),
            dir,
            starts: 0,
            child: None,
        }
    }

    /// Starts its process; does not wait for it.
    pub(crate) fn start(&mut self) {
        assert!(self.child.is_none(), "node {} runs", self.id);
        self.starts += 1;
        let log = File::create(self.log_file()).unwrap();
        let child = Command::new(MOORLINE)
            .args(["server", "--stop-with-stdin", "--config"])
            .arg(&self.config)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn();
        self.child = Some(child.unwrap());
    }

    /// SIGKILL, as a power failure of the process.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Kills it if it runs.
    pub(crate) fn end(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Gone already is as good.
            drop(child.kill());
            drop(child.wait());
        }
    }

    /// Where counts of messages differ that must be equal, as the node says it now: nothing, if it is well. Of one that does
    /// not run, stands still or does not answer nothing can be said.
    pub(crate) fn imbalances(&self) -> Vec<String> {
        let Some(child) = &self.child else { return Vec::new() };
        // `pid (name) state …`; one that stands still would only keep the test waiting.
        let stat = fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap_or_default();
        if !stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['R', 'S', 'D'])) {
            return Vec::new();
        }
        let Ok(answer) = http::get(self.admin, "/metrics") else { return Vec::new() };
        let accounts = answer.body.lines().filter(|line| line.starts_with(IMBALANCE));
        accounts.filter(|line| !line.ends_with(" 0")).map(str::to_owned).collect()
    }

    /// SIGTERM, and waits for the end.
    #[track_caller]
    pub(crate) fn stop(&mut self) -> ExitStatus {
        assert_eq!(self.imbalances(), [""; 0], "node {}", self.id);
        self.signal(Signal::TERM);
        self.wait_for_end(SOON)
    }

    /// Its process, which runs.
    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// SIGSTOP: it holds its sockets and does nothing, from when this returns.
    pub(crate) fn pause(&self) {
        self.signal(Signal::STOP);
        let tasks = format!("/proc/{}/task", self.child.as_ref().expect("it runs").id());
        until_true(&format!("node {} stands still", self.id), SOON, || {
            fs::read_dir(&tasks).unwrap().flatten().all(|task| {
                // `pid (name) state …`; a thread that is just gone does nothing either.
                let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
                stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('T'))
            })
        });
    }

    /// SIGCONT.
    pub(crate) fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// SIGHUP: it reads its certificates again.
    pub(crate) fn hang_up(&self) {
        self.signal(Signal::HUP);
    }

    fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("it runs");
        kill_process(Pid::from_raw(child.id().cast_signed()).unwrap(), signal).unwrap();
    }

    /// Waits until the process ends by itself.
    #[track_caller]
    pub(crate) fn wait_for_end(&mut self, within: Duration) -> ExitStatus {
        let child = self.child.as_mut().expect("it runs");
        let what = format!("node {} ends", self.id);
        let status = until(&what, within, || child.try_wait().unwrap());
        self.child = None;
        status
    }

    /// Starts it, and waits until it has refused to run, giving advice that contains all these words.
    #[track_caller]
    pub(crate) fn must_refuse_to_run(&mut self, advice: &[&str]) {
        self.start();
        let status = self.wait_for_end(READY);
        let log = self.log();
        assert!(!status.success(), "node {} ended with {status}:\n{log}", self.id);
        for word in advice {
            assert!(log.contains(word), "no {word:?} in the log of node {}:\n{log}", self.id);
        }
    }

    /// Waits until it serves clients.
    #[track_caller]
    pub(crate) fn wait_ready(&mut self) {
        let what = format!("node {} is ready", self.id);
        // Ready is said a moment before the MQTT port is there.
        until_true(&what, READY, || {
            self.answers() && self.is_ready() && TcpStream::connect(self.mqtt).is_ok()
        });
    }

    /// Whether its admin API answers.
    ///
    /// # Panics
    ///
    /// If its process has ended: then nothing will.
    #[track_caller]
    pub(crate) fn answers(&mut self) -> bool {
        let ended = self.child.as_mut().expect("it runs").try_wait().unwrap();
        assert!(ended.is_none(), "node {} ended: {ended:?}:\n{}", self.id, self.log());
        http::get(self.admin, "/health/live").is_ok()
    }

    /// Starts it and waits until it serves clients.
    #[track_caller]
    pub(crate) fn start_ready(&mut self) {
        self.start();
        self.wait_ready();
    }

    /// Whether it says that it serves clients.
    pub(crate) fn is_ready(&self) -> bool {
        http::get(self.admin, "/health/ready").is_ok_and(|answer| answer.status == 200)
    }

    /// The cluster as it sees it.
    pub(crate) fn view(&self) -> Option<Value> {
        let answer = http::get(self.admin, "/api/v1/cluster").ok()?;
        (answer.status == 200).then(|| answer.json())
    }

    /// One field of one group in its view.
    pub(crate) fn group(&self, shard: u16, field: &str) -> Option<Value> {
        let view = self.view()?;
        let groups = view["groups"].as_array()?;
        let group = groups.iter().find(|group| group["shard"] == shard)?;
        Some(group[field].clone())
    }

    /// What the process of now, or the one before, said.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    fn log_file(&self) -> PathBuf {
        self.dir.join(format!("node{}.{}.log", self.id, self.starts))
    }

    /// Prints the end of what it said, for a test that failed.
    pub(crate) fn print_log(&self) {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let from = lines.len().saturating_sub(LOG_LINES_MAX);
        println!("--- node {}, start {}, last lines of {}:", self.id, self.starts, lines.len());
        for line in &lines[from..] {
            println!("{line}");
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.end();
    }
}

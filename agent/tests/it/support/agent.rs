//! The agent, as a process with a directory of its own.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use tempfile::TempDir;

use super::{
    cluster::{DEVICE, FLEET, SECRET},
    sdk::Sdk,
    until,
};

/// The environment of an agent, and its directory.
pub(crate) struct Place {
    temporary: TempDir,
    variables: Vec<(String, String)>,
}

impl Place {
    /// For an agent of these nodes, without TLS.
    pub(crate) fn new(nodes: &[SocketAddr]) -> Self {
        let nodes: Vec<String> = nodes.iter().map(ToString::to_string).collect();
        let mut place = Self { temporary: tempfile::tempdir().unwrap(), variables: Vec::new() };
        place.set("FOSTROM_FLEET_ID", FLEET);
        place.set("FOSTROM_DEVICE_ID", DEVICE);
        place.set("FOSTROM_DEVICE_SECRET", SECRET);
        place.set("MOORLINE_NODES", &nodes.join(","));
        place.set("MOORLINE_PLAINTEXT", "1");
        let directory = place.directory().to_str().unwrap().to_owned();
        place.set("MOORLINE_AGENT_DIR", &directory);
        place
    }

    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.variables.retain(|(other, _)| other != name);
        self.variables.push((name.to_owned(), value.to_owned()));
    }

    pub(crate) fn directory(&self) -> PathBuf {
        self.temporary.path().join("fostrom")
    }

    pub(crate) fn file(&self, name: &str, content: &str) -> String {
        let path = self.temporary.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_moorline-agent"));
        let variables = self.variables.iter().map(|(name, value)| (name, value));
        command.args(arguments).env_clear().envs(variables).stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    pub(crate) fn output(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs one that has to succeed; what it printed.
    pub(crate) fn prints(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    /// Runs one that has to fail; what it said.
    pub(crate) fn complains(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        assert!(!output.status.success(), "{arguments:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    pub(crate) fn sdk(&self) -> Sdk {
        Sdk::new(&self.directory())
    }

    /// Runs the agent here until it is dropped.
    pub(crate) async fn run(self) -> Agent {
        self.run_with(&[]).await
    }

    pub(crate) async fn run_with(self, options: &[&str]) -> Agent {
        let log = std::fs::File::create(self.temporary.path().join("log")).unwrap();
        let arguments: Vec<&str> = ["run"].iter().chain(options).copied().collect();
        let child = self.command(&arguments).stdout(log.try_clone().unwrap()).stderr(log).spawn();
        let agent = Agent { child: child.unwrap(), place: self };
        let socket = agent.place.directory().join("agent.sock");
        until("the agent listens", || std::os::unix::net::UnixStream::connect(&socket).is_ok())
            .await;
        agent
    }
}

/// A running agent.
pub(crate) struct Agent {
    pub(crate) child: Child,
    pub(crate) place: Place,
}

impl Agent {
    pub(crate) fn sdk(&self) -> Sdk {
        self.place.sdk()
    }

    /// Resident memory, in KiB.
    pub(crate) fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse().unwrap()
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        log_of(self.place.temporary.path())
    }
}

fn log_of(path: &Path) -> String {
    std::fs::read_to_string(path.join("log")).unwrap_or_default()
}

impl Drop for Agent {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the agent said:\n{}", self.log());
        }
        // It may have ended by itself.
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}

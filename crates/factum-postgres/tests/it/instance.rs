//! A server of a test's own that can be killed and started again.

use std::{
    env, fs,
    fs::File,
    net::{Ipv4Addr, TcpListener},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use tempfile::TempDir;

/// As in xtask: the server ends with this process, however that ends.
const KEEPER: &str = "trap '' INT TERM HUP; signal=$1; shift; \
    \"$@\" </dev/null & cat >/dev/null; kill -s \"$signal\" $! 2>/dev/null; wait $!";

/// A process that ends with this one.
#[derive(Debug)]
pub(crate) struct Kept(Child);

impl Kept {
    /// Runs a program as a user without special rights, until the drop sends it this signal. Its
    /// output goes to `log`.
    pub(crate) fn spawn(program: &Path, signal: &str, arguments: &[&str], log: &Path) -> Self {
        let mut keeper = as_user(Path::new("/bin/sh"));
        keeper.args(["-c", KEEPER, "keeper", signal]).arg(program).args(arguments);
        let log = File::options().create(true).append(true).open(log).unwrap();
        keeper.stdin(Stdio::piped()).stdout(log.try_clone().unwrap()).stderr(log);
        Self(keeper.spawn().unwrap())
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        self.0.wait().unwrap();
    }
}

/// A free port.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

/// A folder that the servers' user owns.
pub(crate) fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    give(folder.path());
    folder
}

/// Gives a file or folder to the servers' user.
pub(crate) fn give(path: &Path) {
    if let Some((uid, gid)) = user() {
        std::os::unix::fs::chown(path, Some(uid), Some(gid)).unwrap();
    }
}

/// A server with data of its own.
#[derive(Debug)]
pub(crate) struct Instance {
    folder: TempDir,
    settings: Vec<String>,
    port: u16,
    process: Option<Kept>,
}

impl Instance {
    /// A server with these settings, such as `wal_level=replica`.
    pub(crate) fn start(settings: &[&str]) -> Self {
        let mut instance = Self::with(settings);
        let mut init = program("initdb");
        init.args(["-A", "trust", "-U", "factum", "-E", "UTF8", "--locale=C", "--no-sync", "-D"]);
        assert!(init.arg(instance.data()).stdout(Stdio::null()).status().unwrap().success());
        instance.restart();
        instance
    }

    /// A copy of a running server: either its standby, or a backup with a history of its own.
    pub(crate) fn copy_of(other: &Self, is_standby: bool) -> Self {
        let mut instance = Self::with(&[]);
        let mut copy = program("pg_basebackup");
        copy.args(["-h", "127.0.0.1", "-p", &other.port.to_string(), "-U", "factum", "-c", "fast"]);
        if is_standby {
            copy.arg("-R");
        }
        assert!(copy.arg("-D").arg(instance.data()).status().unwrap().success());
        instance.restart();
        instance
    }

    fn with(settings: &[&str]) -> Self {
        let settings = settings.iter().map(|it| (*it).to_owned()).collect();
        Self { folder: folder(), settings, port: free_port(), process: None }
    }

    pub(crate) fn url(&self) -> String {
        format!("postgres://factum@127.0.0.1:{}/postgres", self.port)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Ends every process of the server at once, as a crash of the machine would.
    pub(crate) fn kill(&mut self) {
        let text = fs::read_to_string(self.data().join("postmaster.pid")).unwrap();
        let pid = text.lines().next().unwrap().trim().to_owned();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        let children = children.unwrap_or_default();
        let all = std::iter::once(pid.as_str()).chain(children.split_whitespace());
        // One of the children may have ended in the meantime.
        let _ = Command::new("kill").arg("-9").args(all).stderr(Stdio::null()).status();
        self.end();
    }

    /// Starts it again, on the same port and data.
    #[expect(clippy::disallowed_methods, reason = "a server tells nobody that it is up")]
    pub(crate) fn restart(&mut self) {
        self.end();
        for _ in 0..100 {
            self.spawn();
            for round in 0..600 {
                let mut ready = program("pg_isready");
                ready.args(["-q", "-h", "127.0.0.1", "-p", &self.port.to_string()]);
                if ready.status().unwrap().success() {
                    return;
                }
                // Recovery takes longer while the disk is busy.
                if round > 20 && !self.is_running() {
                    break;
                }
                thread::sleep(Duration::from_millis(50));
            }
            // The killed processes may still hold their memory.
            self.end();
        }
        panic!("the server does not come up: {}", self.folder.path().display());
    }

    fn is_running(&self) -> bool {
        let pid = fs::read_to_string(self.data().join("postmaster.pid")).unwrap_or_default();
        let pid = pid.lines().next().unwrap_or_default().trim();
        !pid.is_empty() && Path::new("/proc").join(pid).exists()
    }

    fn spawn(&mut self) {
        let data = self.data().display().to_string();
        let port = self.port.to_string();
        let mut arguments = vec!["-D", &data, "-p", &port];
        let settings = self.settings.iter().map(String::as_str);
        let all = ["listen_addresses=127.0.0.1", "unix_socket_directories="];
        arguments.extend(all.into_iter().chain(settings).flat_map(|setting| ["-c", setting]));
        let log = self.folder.path().join("log");
        self.process = Some(Kept::spawn(&bin().join("postgres"), "QUIT", &arguments, &log));
    }

    fn end(&mut self) {
        self.process = None;
    }
}

fn bin() -> PathBuf {
    let variable = "FACTUM_POSTGRES_BIN";
    PathBuf::from(env::var_os(variable).unwrap_or_else(|| {
        panic!(
            "no PostgreSQL programs to start a server with: run `cargo xtask test`, or set \
             {variable} to the folder that they are in"
        )
    }))
}

fn program(name: &str) -> Command {
    as_user(&bin().join(name))
}

/// The user that PostgreSQL runs as if this process is root.
fn user() -> Option<(u32, u32)> {
    let number = |arguments: &[&str]| -> u32 {
        let output = Command::new("id").args(arguments).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
    };
    (number(&["-u"]) == 0).then(|| (number(&["-u", "postgres"]), number(&["-g", "postgres"])))
}

fn as_user(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir("/");
    if let Some((uid, gid)) = user() {
        command.uid(uid).gid(gid);
    }
    command
}

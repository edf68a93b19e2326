//! A throw-away server on this machine, with its own data folder, a port of the loopback interface,
//! and PostgreSQL's default settings. It ends with this process, however that ends.

use std::{
    env, fs,
    net::{Ipv4Addr, TcpListener},
    os::unix::{fs::chown, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use tempfile::TempDir;

/// The folder of the programs, if it is not Debian's.
const PROGRAMS: &str = "FACTUM_POSTGRES_BIN";
const DEBIAN: &str = "/usr/lib/postgresql";
/// The user that runs the server if this process is root, because PostgreSQL refuses to run as
/// root. Debian's package makes this user.
const USER: &str = "postgres";
const SETTINGS: &[&str] =
    &["listen_addresses=127.0.0.1", "unix_socket_directories=", "max_connections=300"];
/// Runs a command until its input is closed, then removes its folder.
const KEEPER: &str = "\
trap '' INT TERM HUP
folder=$1; shift
\"$@\" </dev/null &
cat >/dev/null
kill -s QUIT $! 2>/dev/null
wait $!
rm -rf -- \"$folder\"";

pub(crate) struct Server {
    keeper: Child,
    folder: Option<TempDir>,
    pub(crate) url: String,
}

impl Server {
    /// Starts a server that keeps its data on this disk.
    pub(crate) fn start(disk: &Path) -> Result<Self, String> {
        let programs = programs()?;
        let user = user()?;
        let folder = tempfile::Builder::new().prefix("peers-postgres-").tempdir_in(disk);
        let folder = folder.map_err(|e| format!("--disk can't be written to: {e}"))?;
        if let Some((uid, gid)) = user {
            let given = chown(folder.path(), Some(uid), Some(gid));
            given.map_err(|e| format!("the server's folder can't be given to {USER}: {e}"))?;
        }
        let data = folder.path().join("data").display().to_string();
        let mut init = command(&programs.join("initdb"), user);
        init.args(["-A", "trust", "-U", "factum", "-E", "UTF8", "--locale=C", "--no-sync", "-D"]);
        let made = init.arg(&data).stdout(Stdio::null()).status();
        if !made.is_ok_and(|status| status.success()) {
            return Err(format!("initdb failed, its words are above: {}", programs.display()));
        }
        let port = free_port().map_err(|e| format!("no free port: {e}"))?.to_string();
        let program = programs.join("postgres").display().to_string();
        let mut keeper = command(Path::new("/bin/sh"), user);
        keeper.args(["-c", KEEPER, "keeper"]).arg(folder.path());
        keeper.args([&program, "-D", &data, "-p", &port]);
        keeper.args(SETTINGS.iter().flat_map(|setting| ["-c", setting]));
        let keeper = keeper.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let keeper = keeper.spawn().map_err(|e| format!("no shell for the server: {e}"))?;
        let url = format!("postgres://factum@127.0.0.1:{port}/postgres");
        let server = Self { keeper, folder: Some(folder), url };
        if is_ready(&programs, &port) { Ok(server) } else { Err(not_up(&programs)) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        // The folder is removed after the server has ended.
        let _ = self.keeper.wait();
        drop(self.folder.take());
    }
}

fn programs() -> Result<PathBuf, String> {
    if let Some(programs) = env::var_os(PROGRAMS) {
        return Ok(programs.into());
    }
    let versions = fs::read_dir(DEBIAN).into_iter().flatten().flatten();
    let newest = versions
        .map(|version| version.path())
        .filter(|version| version.join("bin/postgres").exists())
        .max_by_key(|version| {
            version.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok())
        });
    newest.map(|version| version.join("bin")).ok_or_else(|| {
        format!("no PostgreSQL in {DEBIAN}: install it, set {PROGRAMS}, or give --url")
    })
}

/// The user and the group that the server runs as, if this process is root.
fn user() -> Result<Option<(u32, u32)>, String> {
    let number = |arguments: &[&str]| {
        let output = Command::new("id").args(arguments).output().ok()?;
        String::from_utf8_lossy(&output.stdout).trim().parse::<u32>().ok()
    };
    if number(&["-u"]) != Some(0) {
        return Ok(None);
    }
    let ids = number(&["-u", USER]).zip(number(&["-g", USER]));
    ids.map(Some).ok_or_else(|| format!("PostgreSQL is not to be root's: make a user {USER}"))
}

fn command(program: &Path, user: Option<(u32, u32)>) -> Command {
    let mut command = Command::new(program);
    // A folder that any user may enter.
    command.current_dir("/");
    if let Some((uid, gid)) = user {
        command.uid(uid).gid(gid);
    }
    command
}

fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

fn is_ready(programs: &Path, port: &str) -> bool {
    (0..400).any(|_| {
        let mut ready = Command::new(programs.join("pg_isready"));
        let status = ready.args(["-q", "-h", "127.0.0.1", "-p", port]).status();
        let is_ready = status.is_ok_and(|status| status.success());
        if !is_ready {
            thread::sleep(Duration::from_millis(50));
        }
        is_ready
    })
}

fn not_up(programs: &Path) -> String {
    format!("the server does not come up, give --url of another: {}", programs.display())
}

//! A server's process, which ends with this one, however this one ends.

use std::{
    fs::{self, File},
    io,
    net::{Ipv4Addr, TcpListener},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use crate::failure::Failure;

/// Runs a command, and ends it when this shell's input is closed. The other end of that pipe is
/// here; the system closes it when this process is gone, even by Ctrl-C or SIGKILL.
const KEEPER: &str = "\
trap '' INT TERM HUP
signal=$1; folder=$2; shift 2
\"$@\" </dev/null &
cat >/dev/null
kill -s \"$signal\" $! 2>/dev/null
wait $!
rm -rf -- \"$folder\"";

/// A user without special rights, for servers that refuse to run as root.
#[derive(Debug, Clone, Copy)]
pub(crate) struct User {
    uid: u32,
    gid: u32,
}

impl User {
    /// The user of this name if this process is root; otherwise `None`.
    pub(crate) fn instead_of_root(name: &str) -> Result<Option<Self>, Failure> {
        if number(&["-u"])? != 0 {
            return Ok(None);
        }
        Ok(Some(Self { uid: number(&["-u", name])?, gid: number(&["-g", name])? }))
    }

    /// Makes the user the owner of a folder.
    pub(crate) fn own(user: Option<Self>, folder: &Path) -> Result<(), Failure> {
        fs::create_dir_all(folder)?;
        if let Some(user) = user {
            std::os::unix::fs::chown(folder, Some(user.uid), Some(user.gid))?;
        }
        Ok(())
    }
}

fn number(arguments: &[&str]) -> Result<u32, Failure> {
    let output = Command::new("id").args(arguments).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim().parse().map_err(|_| {
        let user = arguments.last().unwrap_or(&"");
        Failure::Server(format!("the system has no such user, make one: user={user}"))
    })
}

/// A command that runs as that user.
pub(crate) fn command(program: &Path, user: Option<User>) -> Command {
    let mut command = Command::new(program);
    // A folder that any user may enter.
    command.current_dir("/");
    if let Some(User { uid, gid }) = user {
        command.uid(uid).gid(gid);
    }
    command
}

/// A server's process. Its drop ends the server, and removes its folder.
#[derive(Debug)]
pub(crate) struct Guarded {
    keeper: Child,
}

impl Guarded {
    /// Starts a command; `signal` ends it, and then `folder` is removed.
    pub(crate) fn spawn(
        command: &[&str],
        user: Option<User>,
        signal: &str,
        folder: &Path,
        log: &Path,
    ) -> Result<Self, Failure> {
        let mut keeper = self::command(Path::new("/bin/sh"), user);
        keeper.args(["-c", KEEPER, "keeper", signal]).arg(folder).args(command);
        let log = File::create(log)?;
        let keeper = keeper.stdin(Stdio::piped()).stdout(log.try_clone()?).stderr(log).spawn()?;
        Ok(Self { keeper })
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        // Waits for its end, so that the server is gone after the drop.
        let _ = self.keeper.wait();
    }
}

/// A free port on this machine.
pub(crate) fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// Waits until a condition holds; `false` if it does not after this many seconds.
#[expect(clippy::disallowed_methods, reason = "a server does not announce that it is up")]
pub(crate) fn wait_until(seconds: u32, mut is_so: impl FnMut() -> bool) -> bool {
    for _ in 0..seconds * 20 {
        if is_so() {
            return true;
        }
        thread::sleep(Duration::from_millis(50));
    }
    false
}

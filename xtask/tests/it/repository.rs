//! The files of this repository.

use std::{env, fs, path::PathBuf};

/// A file, its path from the root with `/` between folders.
#[derive(Debug)]
pub(crate) struct SourceFile {
    pub(crate) path: String,
    pub(crate) text: String,
}

impl SourceFile {
    /// Its name without folders.
    pub(crate) fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }
}

/// The workspace's folder.
pub(crate) fn root() -> PathBuf {
    // Read at run time if possible, because several checkouts may share a build folder.
    let here = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let here = here.unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    here.parent().expect("xtask is a folder of the workspace").into()
}

/// Every text file of the repository, without build output, history and a demo's data.
pub(crate) fn files() -> Vec<SourceFile> {
    let root = root();
    let mut folders = vec![root.clone()];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        // Cargo marks its build folders like this, whatever their names are.
        if folder.join("CACHEDIR.TAG").exists() {
            continue;
        }
        for entry in fs::read_dir(&folder).expect("a folder of ours can be listed") {
            let path = entry.expect("a folder of ours can be listed").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_symlink() || [".git", "factum-data"].contains(&name.as_str()) {
                continue;
            } else if path.is_dir() {
                folders.push(path);
            } else if let Ok(text) = fs::read_to_string(&path) {
                let path =
                    path.strip_prefix(&root).unwrap_or(&path).to_string_lossy().replace('\\', "/");
                files.push(SourceFile { path, text });
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

/// The Rust files of crates, examples and xtask.
pub(crate) fn rust_files() -> Vec<SourceFile> {
    let folders = ["crates/", "examples/", "xtask/"];
    let ours = |path: &str| folders.iter().any(|folder| path.starts_with(folder));
    let rust: Vec<_> =
        files().into_iter().filter(|it| ours(&it.path) && it.path.ends_with(".rs")).collect();
    // A rule that is applied to nothing would pass.
    assert!(rust.len() > 20, "only {} Rust files were found", rust.len());
    rust
}

/// Fails with one line for each breach.
#[track_caller]
pub(crate) fn assert_none(breaches: &[String]) {
    assert!(breaches.is_empty(), "{} found:\n{}\n", breaches.len(), breaches.join("\n"));
}

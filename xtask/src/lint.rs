//! `cargo xtask lint`: format, clippy and documentation, each with warnings denied, and whether
//! every crate can be packaged for the registry.

use std::process::Command;

use crate::{
    cargo::cargo,
    failure::{Failure, Verdict},
};

const WHOLE: [&str; 2] = ["--workspace", "--all-features"];

/// Runs all lints, even after one has failed, so that one run shows everything there is to correct.
pub(crate) fn run() -> Result<Verdict, Failure> {
    let mut failed = Vec::new();
    let checks = [
        ("rustfmt", rustfmt(), "run `cargo fmt --all`"),
        ("clippy", clippy(), "correct what it says above"),
        ("rustdoc", rustdoc(), "correct what it says above"),
        ("package", package(), "give a dependency on one of ours a version, a dev-dependency none"),
    ];
    for (name, mut check, remedy) in checks {
        println!("{name}");
        if !check.status()?.success() {
            failed.push(format!("{name} failed: {remedy}"));
        }
    }
    if failed.is_empty() {
        println!("lint: nothing found");
        return Ok(Verdict::Passed);
    }
    println!("lint: {}", failed.join("; "));
    Ok(Verdict::Failed)
}

fn rustfmt() -> Command {
    let mut command = cargo();
    command.args(["fmt", "--all", "--check"]);
    command
}

fn clippy() -> Command {
    let mut command = cargo();
    command.arg("clippy").args(WHOLE).args(["--all-targets", "--", "-D", "warnings"]);
    command
}

fn rustdoc() -> Command {
    let mut command = cargo();
    command.arg("doc").args(WHOLE).arg("--no-deps").env("RUSTDOCFLAGS", "-D warnings");
    command
}

/// Packs every crate as the registry would get it. They are not built again from the packages,
/// which takes as long as the whole build.
fn package() -> Command {
    let mut command = cargo();
    command.args(["package", "--workspace", "--no-verify", "--allow-dirty", "--quiet"]);
    command
}

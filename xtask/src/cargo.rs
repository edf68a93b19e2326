//! The cargo that runs this program, and its knowledge of the workspace.

use std::{
    collections::HashMap,
    env, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::failure::Failure;

/// A call of cargo in the workspace's root.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

fn root() -> PathBuf {
    // Read at run time if possible, because several checkouts may share a build folder.
    let here = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let here = here.unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    here.parent().map(PathBuf::from).unwrap_or(here)
}

/// A crate of the workspace.
#[derive(Debug)]
pub(crate) struct Package {
    pub(crate) name: String,
    /// True if it has a library, and so documentation to test.
    pub(crate) library: bool,
    id: String,
}

/// The workspace's crates.
pub(crate) fn packages() -> Result<Vec<Package>, Failure> {
    let mut command = cargo();
    command.args(["metadata", "--no-deps", "--format-version", "1"]).stderr(Stdio::inherit());
    let output = command.output()?;
    if !output.status.success() {
        return Err(Failure::Build);
    }
    let answer: Value = serde_json::from_slice(&output.stdout)?;
    let packages = answer["packages"].as_array().into_iter().flatten();
    let package = |it: &Value| Package {
        name: text(&it["name"]),
        library: it["targets"].as_array().into_iter().flatten().any(|target| {
            let kind = &target["kind"][0];
            kind == "lib" || kind == "proc-macro"
        }),
        id: text(&it["id"]),
    };
    Ok(packages.map(package).collect())
}

/// Builds the tests that these arguments select. Returns the name of each test's suite, by the file
/// name of its executable.
pub(crate) fn build(
    arguments: &[&str],
    packages: &[Package],
) -> Result<HashMap<String, String>, Failure> {
    let mut command = cargo();
    command.arg("test").args(arguments);
    command.args(["--no-run", "--message-format", "json-render-diagnostics"]);
    // The compiler's own lines go to the terminal; only the list of artifacts is parsed.
    let output = command.stderr(Stdio::inherit()).stdout(Stdio::piped()).output()?;
    if !output.status.success() {
        return Err(Failure::Build);
    }
    let lines = io::BufRead::lines(output.stdout.as_slice());
    let mut suites = HashMap::new();
    for line in lines {
        let message: Value = serde_json::from_str(&line?)?;
        if let Some((file, suite)) = artifact(&message, packages) {
            suites.insert(file, suite);
        }
    }
    Ok(suites)
}

fn artifact(message: &Value, packages: &[Package]) -> Option<(String, String)> {
    if message["profile"]["test"] != true {
        return None;
    }
    let file = Path::new(message["executable"].as_str()?).file_name()?.to_str()?;
    let package = packages.iter().find(|it| message["package_id"] == it.id)?;
    let target = text(&message["target"]["name"]);
    let kind = match message["target"]["kind"][0].as_str()? {
        kind @ ("test" | "bench" | "example" | "bin") => format!("{kind} {target}"),
        _ => "unit".into(),
    };
    Some((file.into(), format!("{}, {kind}", package.name)))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_artifact_names_its_crate_and_kind() {
        let packages = [Package { name: "factum-kernel".into(), library: true, id: "id".into() }];
        let artifact = |test: bool, kind: &str, executable: Value| {
            let target = json!({ "name": "it", "kind": [kind] });
            let profile = json!({ "test": test });
            let message = json!({ "package_id": "id", "executable": executable,
                "target": target, "profile": profile });
            artifact(&message, &packages).map(|(_, suite)| suite)
        };
        let file = json!("deps/it-12ab");
        assert_eq!(artifact(true, "test", file.clone()).unwrap(), "factum-kernel, test it");
        assert_eq!(artifact(true, "lib", file.clone()).unwrap(), "factum-kernel, unit");
        assert_eq!(artifact(false, "bin", file), None);
        assert_eq!(artifact(true, "lib", Value::Null), None);
    }
}

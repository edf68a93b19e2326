//! `cargo xtask test`: one build, then every suite, a table, and one closing line.

use std::{
    collections::HashMap,
    io::{self, BufRead, BufReader},
    time::Instant,
};

use crate::{
    cargo::{Package, build, cargo, packages},
    command::{Length, Only, TestOptions},
    failure::{Failure, Verdict},
    server::{self, Needy, Servers},
    suite::{Suite, Suites},
    table::{summary, table},
};

/// The tests that only `--full` runs: suite, and description. This is the only list of them; the
/// tests themselves look at [`FULL`].
const LONG: &[(&str, &str)] = &[
    ("factum-kernel, test it", "976 of 1,000 random histories with snapshots"),
    ("factum-journal, unit", "97,000 of 100,000 mutations of each segment in the fuzzer's corpus"),
    ("factum-journal, test it", "150 of 200 SIGKILLs of a writer under load"),
    ("factum-sqlite, test it", "108 of 120 SIGKILLs of a writer under load"),
    ("factum-postgres, test it", "5,760 of 6,400 appends of four racing processes"),
    ("factum-runtime, test it", "144 of 160 days of two runtimes whose every answer is checked"),
    ("factum-projection, test it", "104 of 120 SIGKILLs of projections into tables"),
    ("factum-cli, test it", "180 of 200 SIGKILLs of the demo, 45 of 50 on PostgreSQL"),
];

/// The variable that is set for the tests of a full run.
const FULL: &str = "FACTUM_TEST_FULL";

pub(crate) fn run(options: &TestOptions) -> Result<Verdict, Failure> {
    let (packages, left) = select(packages()?, &options.only)?;
    let mut selected = match &options.only {
        Only::Crate(name) => vec!["--package", name, "--all-features"],
        _ => vec!["--workspace", "--all-features"],
    };
    selected.extend(left.iter().flat_map(|name| ["--exclude", name]));

    println!("building the tests");
    // Without a choice of targets cargo builds the examples as programs, which tests then run.
    let mut names = build(&selected, &packages)?;
    names.extend(documented(&packages));
    let servers = match options.only {
        Only::Embedded => Servers::start(std::iter::empty())?,
        _ => Servers::start(packages.iter().map(|package| package.name.as_str()))?,
    };
    let filter: Vec<_> = match options.only {
        Only::Embedded => server::modules().collect(),
        _ => Vec::new(),
    };
    let suites = test(&selected, &filter, names, options.length, &servers)?;
    drop(servers);
    let mut left = left.clone();
    for (crates, tests) in filter {
        left.extend(crates.iter().map(|name| format!("{name}, {tests}")));
    }

    println!("\n{}", table(&suites, &left));
    if options.length == Length::Short {
        println!("{}", left_out(LONG));
    }
    println!("{}", summary(&suites, &left));
    let failed = suites.iter().any(|suite| suite.failed > 0);
    Ok(if failed { Verdict::Failed } else { Verdict::Passed })
}

/// The crates to test, and the names of those that are left out because they need a server.
fn select(packages: Vec<Package>, only: &Only) -> Result<(Vec<Package>, Vec<String>), Failure> {
    let name = match only {
        Only::All => return Ok((packages, Vec::new())),
        Only::Embedded => {
            let (left, packages): (Vec<_>, Vec<_>) =
                packages.into_iter().partition(|package| server::is_needed_by(&package.name));
            return Ok((packages, left.into_iter().map(|package| package.name).collect()));
        }
        Only::Crate(name) => name,
    };
    let mut known: Vec<_> = packages.iter().map(|package| package.name.clone()).collect();
    known.sort();
    let selected: Vec<_> = packages.into_iter().filter(|package| package.name == *name).collect();
    if selected.is_empty() {
        return Err(Failure::UnknownCrate { name: name.clone(), known: known.join(", ") });
    }
    Ok((selected, Vec::new()))
}

/// The suites of documentation, by the names that rustdoc gives them.
fn documented(packages: &[Package]) -> HashMap<String, String> {
    let libraries = packages.iter().filter(|package| package.library);
    let suite = |name: &String| (name.replace('-', "_"), format!("{name}, documentation"));
    libraries.map(|package| suite(&package.name)).collect()
}

/// Runs `cargo test` with these arguments and without these tests. Prints a line for each suite,
/// and all output of failed ones.
fn test(
    arguments: &[&str],
    without: &[Needy],
    names: HashMap<String, String>,
    length: Length,
    servers: &Servers,
) -> Result<Vec<Suite>, Failure> {
    let start = now();
    // One pipe for both, so that cargo's headings and the tests' results keep their order in time.
    let (lines, writer) = io::pipe()?;
    let mut command = cargo();
    command.arg("test").args(arguments).args(["--no-fail-fast", "--color", "never", "--"]);
    command.args(without.iter().flat_map(|(_, tests)| ["--skip", tests]));
    match length {
        Length::Short => command.env_remove(FULL),
        Length::Full => command.env(FULL, "1"),
    };
    command.envs(servers.variables());
    let mut child = command.stdout(writer.try_clone()?).stderr(writer).spawn()?;
    // The command holds the other end of the pipe, which must be closed for the lines to end.
    drop(command);

    let mut suites = Suites::new(names);
    let mut ended = Vec::new();
    for line in BufReader::new(lines).split(b'\n') {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        if line.contains("has been running for over") {
            println!("{line}");
        }
        ended.extend(suites.line(&line, start.elapsed()).inspect(say));
    }
    let cargo_failed = !child.wait()?.success();
    ended.extend(suites.end(start.elapsed(), cargo_failed).into_iter().inspect(say));
    Ok(ended)
}

fn say(suite: &Suite) {
    if suite.failed > 0 {
        println!("\n{}", suite.output.join("\n"));
        println!("{}: FAILED: {} of {}", suite.name, suite.failed, suite.tests());
    } else if suite.tests() > 0 {
        println!("{}: {} passed in {:.1} s", suite.name, suite.passed, suite.took.as_secs_f64());
    }
}

fn left_out(long: &[(&str, &str)]) -> String {
    if long.is_empty() {
        return "left out: nothing".into();
    }
    let left: Vec<_> = long.iter().map(|(suite, what)| format!("{suite}: {what}")).collect();
    format!("left out (`cargo xtask test --full` runs it):\n  {}", left.join("\n  "))
}

#[expect(clippy::disallowed_methods, reason = "the seconds in the table are real ones")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_said_even_if_it_is_nothing() {
        assert_eq!(left_out(&[]), "left out: nothing");
        let said = left_out(&[("factum-cli", "90 rounds of 100"), ("factum", "a month")]);
        assert!(said.ends_with("\n  factum-cli: 90 rounds of 100\n  factum: a month"), "{said}");
    }
}

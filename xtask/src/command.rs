//! The command line.

use crate::failure::Failure;

pub(crate) const HELP: &str = "\
The chores of this workspace.

usage: cargo xtask <command>

commands:
  test [--full] [--only CRATE | --only embedded]
          Build everything once, run every test and documentation test, and print a
          table of the suites with their seconds. The last line is `N passed, N failed`.
          Servers that tests need are started for the run, on this machine alone, and
          stopped after it; FACTUM_POSTGRES_URL names one to use instead.
          --full        run also the tests that take too long for every run; a short
                        run names what it left out (tests see FACTUM_TEST_FULL=1)
          --only CRATE  the tests of one crate
          --only embedded
                        leave out the crates and tests that need a server, and say so
  lint    rustfmt, clippy and rustdoc, each with warnings denied
  help    this text

exit codes:
  0  all is well
  1  a test failed, or a lint found something
  2  the command line is wrong
  3  it could not be done: cargo did not run, or the workspace does not build
";

/// The command that was given.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Help,
    Test(TestOptions),
    Lint,
}

/// The tests to run: of which crates, and how many.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct TestOptions {
    pub(crate) length: Length,
    pub(crate) only: Only,
}

/// The crates to test.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) enum Only {
    #[default]
    All,
    /// The crates and tests that need no server.
    Embedded,
    Crate(String),
}

/// The length of a run: with or without the tests that take too long for every run.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Length {
    #[default]
    Short,
    Full,
}

impl Command {
    pub(crate) fn parse(mut args: impl Iterator<Item = String>) -> Result<Self, Failure> {
        let Some(command) = args.next() else { return Ok(Self::Help) };
        let rest: Vec<String> = args.collect();
        if rest.iter().any(|arg| arg == "--help" || arg == "-h") {
            return Ok(Self::Help);
        }
        match command.as_str() {
            "help" | "--help" | "-h" => Ok(Self::Help),
            "test" => TestOptions::parse(rest).map(Self::Test),
            "lint" => match rest.into_iter().next() {
                Some(option) => Err(Failure::UnknownOption(option)),
                None => Ok(Self::Lint),
            },
            _ => Err(Failure::UnknownCommand(command)),
        }
    }
}

impl TestOptions {
    fn parse(args: Vec<String>) -> Result<Self, Failure> {
        let mut options = Self::default();
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--full" => options.length = Length::Full,
                "--only" => {
                    let name = args.next().filter(|name| !name.starts_with('-'));
                    options.only = match name.ok_or(Failure::CrateMissing)? {
                        name if name == "embedded" => Only::Embedded,
                        name => Only::Crate(name),
                    };
                }
                _ => return Err(Failure::UnknownOption(arg)),
            }
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Command, String> {
        Command::parse(line.split_whitespace().map(String::from)).map_err(|it| it.to_string())
    }

    #[test]
    fn test_takes_its_options_in_any_order() {
        let only = Only::Crate("factum".into());
        let wanted = TestOptions { length: Length::Full, only };
        assert_eq!(parse("test --only factum --full"), Ok(Command::Test(wanted)));
        assert_eq!(parse("test"), Ok(Command::Test(TestOptions::default())));
        let wanted = TestOptions { only: Only::Embedded, ..TestOptions::default() };
        assert_eq!(parse("test --only embedded"), Ok(Command::Test(wanted)));
    }

    #[test]
    fn help_is_given_wherever_it_is_asked_for() {
        for line in ["", "help", "--help", "test -h", "lint --help"] {
            assert_eq!(parse(line), Ok(Command::Help), "{line}");
        }
    }

    #[test]
    fn what_is_not_understood_is_named() {
        assert!(parse("tset").unwrap_err().ends_with("command=tset"));
        assert!(parse("test --fast").unwrap_err().ends_with("option=--fast"));
        assert!(parse("lint --fix").unwrap_err().ends_with("option=--fix"));
        assert!(parse("test --only --full").unwrap_err().contains("--only factum-kernel"));
    }
}

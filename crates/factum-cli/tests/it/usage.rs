//! Help, completions, and command lines that are wrong.

use crate::program::{command, fail, json, run, succeed};

#[test]
fn without_arguments_it_helps() {
    let ran = run("");
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
    assert_eq!(ran.stdout, succeed("--help"));
}

#[test]
fn help_has_examples_exit_codes_and_every_option_with_its_default() {
    let help = succeed("--help");
    for said in
        ["Examples:", "Exit codes:", "130  ended by Ctrl-C", "143  ended by SIGTERM", "journal:"]
    {
        assert!(help.contains(said), "{said:?} is not in {help}");
    }
    let help = succeed("demo --help");
    for said in ["[default: ./factum-data]", "[default: 100]", "[default: 5000]", "Examples:"] {
        assert!(help.contains(said), "{said:?} is not in {help}");
    }
    for line in [
        "read --help",
        "bench --help",
        "bench append --help",
        "bench read --help",
        "verify --help",
        "lineage renew --help",
        "consumers list --help",
        "consumers rewind --help",
        "dead-letters list --help",
        "dead-letters retry --help",
        "schema print --help",
        "schema apply --help",
    ] {
        assert!(succeed(line).contains("Usage: factum "));
    }
    assert!(succeed("--version").starts_with("factum "));
}

#[test]
fn completions_are_written_for_every_shell() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = succeed(&format!("completions {shell}"));
        for word in ["factum", "verify", "accept-loss", "renew", "schema", "apply"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
}

#[test]
fn no_command_shows_a_part_of_a_password() {
    let commands = [
        "demo",
        "read",
        "stats",
        "verify",
        "lineage renew",
        "consumers list",
        "schema apply",
        "bench append",
        "bench read",
    ];
    let lines = commands.map(|command| [command.to_owned(), format!("{command} --store")]);
    for command in lines.as_flattened() {
        for store in [
            "postgres://ada:s3c?r3t@127.0.0.1:1/bank",
            "postgres://ada:s3c@r3t@127.0.0.1:1/bank",
            "postgres://ada:s3c@127.0.0.1:1/bank",
            "postgres:ada:s3c@127.0.0.1:1/bank",
            "'postgres://ada:s3c@127.0.0.1:1/bank'",
            "password=s3c",
        ] {
            let ran = run(&format!("{command} {store}"));
            assert_ne!(ran.code, Some(0), "{command} {store}");
            let said = ran.stdout + &ran.stderr;
            assert!(!said.contains("s3c") && !said.contains("r3t"), "{command} {store}: {said}");
        }
    }
}

#[test]
fn what_is_wrong_is_one_line_and_exit_code_2() {
    let lines = [
        ("dmeo", "unrecognized subcommand 'dmeo'"),
        ("demo --stoer x", "unexpected argument '--stoer'"),
        ("bench", "requires a subcommand"),
        ("bench append", "--store"),
        ("bench append --store memory: --clients 0", "0 is not in 1..="),
        ("read --stream nodash", "no '-' between category and key"),
        ("read --tag nocolon", "invalid tag name"),
        ("read --log --category x", "cannot be used with"),
        ("completions tcsh", "invalid value 'tcsh'"),
        ("schema", "requires a subcommand"),
        ("schema print --schema a-b", "a schema's name has"),
        ("schema print --schema Ledger", "a schema's name has"),
        ("schema print --schema ledger;DROP", "a schema's name has"),
        ("schema print --schema l\"edger\"", "a schema's name has"),
        ("schema print --schema lädger", "a schema's name has"),
        ("schema apply --store postgres://host/bank?schema=Ledger", "a schema's name has"),
        ("schema print --role public", "all or none"),
        ("schema apply --store memory:", "schemas are for PostgreSQL"),
        ("schema apply --store ./data", "store=journal:./data"),
    ];
    for (line, expected) in lines {
        let said = fail(line, 2);
        assert!(said.contains(expected), "{line}: {said}");
    }
}

#[test]
fn the_sql_of_a_log_is_one_transaction_with_a_lineage_of_its_own() {
    let sql = succeed("schema print --schema ledger --role app");
    assert!(sql.starts_with("BEGIN;\n") && sql.ends_with("COMMIT;\n"), "{sql}");
    for said in
        ["CREATE TABLE \"ledger\".events", "GRANT SELECT, UPDATE ON \"ledger\".log TO \"app\""]
    {
        assert!(sql.contains(said), "{said:?} is not in {sql}");
    }
    let sql = succeed("schema print --role App\";DROP--");
    assert!(sql.contains("TO \"App\"\";DROP--\";\n"), "{sql}");
    let one = json("schema print --json");
    let other = json("schema print --json");
    assert_eq!((&one["schema"], &one["schema_version"]), (&"factum".into(), &4.into()));
    assert_ne!(one["lineage"], other["lineage"]);
    let sql = one["sql"].as_str().unwrap();
    assert!(sql.contains(one["lineage"].as_str().unwrap()) && !sql.contains("GRANT USAGE"));
}

#[test]
fn no_color_is_obeyed_in_help_too() {
    let output = command("--help").env("NO_COLOR", "1").env("CLICOLOR_FORCE", "1").output();
    assert!(!String::from_utf8(output.unwrap().stdout).unwrap().contains('\x1b'));
}

#[test]
#[cfg(target_os = "linux")]
fn an_output_that_can_not_be_written_is_said_and_no_panic() {
    let full = std::fs::File::create("/dev/full").unwrap();
    let output = command("demo --store memory: --commands 5 -q").stdout(full).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(5), "{said}");
    assert!(said.starts_with("factum: standard output can't be written"), "{said}");
    assert_eq!(said.lines().count(), 1);
}

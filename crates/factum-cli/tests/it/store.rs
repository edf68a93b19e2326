//! Every command names its store with `--store`.

use std::collections::BTreeSet;

use crate::program::{fail, json, run, sqlite_in, succeed};

/// The commands that need a store, each with further arguments.
const ON_A_STORE: &[(&str, &str)] = &[
    ("demo", "--commands 5"),
    ("read", "--limit 5 --json"),
    ("stats", "--json"),
    ("consumers list", ""),
    ("consumers rewind", "mails --to 5"),
    ("dead-letters list", "--consumer orders@1"),
    ("dead-letters show", "orders@1 order-17"),
    ("dead-letters retry", "orders@1 order-17"),
    ("dead-letters discard", "orders@1 order-17 --json"),
    ("bench append", "--events 5"),
    ("bench read", "--what streams"),
    #[cfg(feature = "journal")]
    ("verify", "--repair --accept-loss"),
    #[cfg(any(feature = "journal", feature = "postgres"))]
    ("lineage renew", "--json"),
    #[cfg(feature = "postgres")]
    ("schema apply", ""),
];

/// The commands that need no store.
const WITHOUT: &[&str] = &["completions", "schema print"];

/// The commands below this one, as its help lists them; the command itself if there are none.
fn verbs(verb: &str) -> Vec<String> {
    let help = succeed(&format!("{verb} --help"));
    let Some((_, commands)) = help.split_once("\nCommands:\n") else {
        return vec![verb.trim().to_owned()];
    };
    let is_name = |line: &&str| line.starts_with("  ") && !line.starts_with("   ");
    let lines = commands.lines().take_while(|line| !line.is_empty()).filter(is_name);
    let names = lines.filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").flat_map(|name| verbs(&format!("{verb} {name}"))).collect()
}

#[test]
fn the_table_of_the_verbs_on_a_store_is_complete() {
    let listed: BTreeSet<_> = verbs("").into_iter().collect();
    let known = ON_A_STORE.iter().map(|(verb, _)| *verb).chain(WITHOUT.iter().copied());
    let is_built = |verb: &&str| cfg!(feature = "postgres") || *verb != "schema print";
    let known: BTreeSet<_> = known.filter(is_built).map(ToOwned::to_owned).collect();
    assert_eq!(listed, known);
}

/// The verbs of the table that make their store if it does not exist.
const MAKERS: &[&str] = &["demo", "bench append", "schema apply"];

/// The lines of all verbs that make no store, on this one.
pub(crate) fn lines_that_make_nothing(store: &str) -> Vec<String> {
    let verbs = ON_A_STORE.iter().filter(|(verb, _)| !MAKERS.contains(verb));
    let lines = verbs.map(|(verb, rest)| format!("{verb} --store {store} {rest}"));
    lines.chain([format!("demo --store {store} --commands 0")]).collect()
}

/// `read` once made a store, printed that there are no events, and ended with 0. The stores on a
/// server are in `on_postgres.rs`.
#[test]
fn a_verb_that_makes_no_store_refuses_a_mistyped_name_and_makes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    for (store, named) in [
        (path("mistyped"), path("mistyped")),
        (format!("journal:{}", path("mistyped")), path("mistyped")),
        (format!("journal:{}?mode=write", path("mistyped")), path("mistyped")),
        (format!("sqlite:{}", path("a/mistyped.db")), path("a/mistyped.db")),
        (format!("sqlite:{}?mode=write", path("mistyped.db")), path("mistyped.db")),
        ("mistyped".into(), "mistyped".into()),
        ("host=127.0.0.1".into(), "postgres://user@host/database".into()),
    ] {
        for line in lines_that_make_nothing(&store) {
            let said = fail(&line, 2);
            let is_remedy =
                ["check the path", "say ./", "by a URL", "no path and no URL", "a path"];
            // Two verbs are for journals alone.
            let is_other = ["verify", "lineage"].iter().any(|verb| line.starts_with(verb));
            assert!(
                said.contains(&named) || is_other && said.contains("journal"),
                "{line}: {said}"
            );
            assert!(is_remedy.iter().any(|it| said.contains(it)), "{line}: {said}");
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "{line}");
        }
    }
    for line in lines_that_make_nothing("memory:") {
        let is_bank = line.starts_with("demo") || line.starts_with("bench read");
        match is_bank {
            true => drop(succeed(&format!("{line} -q"))),
            false => drop(fail(&line, 2)),
        }
    }
}

#[test]
fn every_verb_takes_its_store_by_the_same_option() {
    for (verb, rest) in ON_A_STORE {
        // No store has this scheme. So the command line is accepted, and the store is refused.
        let said = fail(&format!("{verb} --store nothing:x {rest}"), 2);
        assert!(said.contains("nothing") && !said.contains("see factum --help"), "{verb}: {said}");
        let help = succeed(&format!("{verb} --help"));
        assert!(help.contains("--store <URL"), "{verb}: {help}");
    }
}

#[test]
fn a_store_without_its_option_is_refused_with_the_line_that_is_right() {
    for (verb, rest) in ON_A_STORE {
        let said = fail(&format!("{verb} nothing:x {rest}"), 2);
        let right = format!("{verb} --store nothing:x {rest}");
        let right = right.trim_end();
        let advice = format!("factum: name the store with --store: factum {right}\n");
        assert_eq!(said, advice, "{verb}");
        let taken = fail(right, 2);
        assert!(!taken.contains("see factum --help"), "{right}: {taken}");
    }
}

#[test]
fn a_store_may_stand_at_the_end_and_its_password_is_not_repeated() {
    let said = fail("read --limit 5 ./data", 2);
    assert!(said.ends_with("--store: factum read --limit 5 --store ./data\n"), "{said}");
    let said = fail("stats postgres://ada:s3c@db/bank", 2);
    assert!(said.ends_with("--store: factum stats --store URL\n"), "{said}");
    let said = fail("dead-letters show postgres://ada:s3c@db/bank orders@1 order-17", 2);
    assert!(said.ends_with("show --store URL orders@1 order-17\n"), "{said}");
}

#[test]
fn other_mistakes_are_not_taken_for_a_store() {
    let lines = [
        ("stats", "--store <URL|PATH>"),
        ("stats ./data --store ./data", "unexpected argument './data'"),
        ("consumers rewind mails --to 5", "--store <URL|PATH>"),
        ("dead-letters show --store memory: orders@1", "<STREAM>"),
        ("completions --store ./data bash", "unexpected argument '--store'"),
        ("dead-letters list --stroe ./data", "'--store'"),
    ];
    for (line, expected) in lines {
        let said = fail(line, 2);
        assert!(said.contains(expected) && !said.contains("name the store"), "{line}: {said}");
        // No value of this program begins with dashes.
        assert!(!said.contains("as a value"), "{line}: {said}");
    }
    assert_eq!(run("read --help ./data").code, Some(0));
}

/// A folder or file may have characters in its name that would end the path in a URL.
#[test]
fn a_path_is_a_path_whatever_its_name_holds() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let file = sqlite_in(folder.path());
    succeed(&format!("demo --store {file} --accounts 2 --commands 20 -q"));
    std::fs::rename(folder.path().join("events.db"), path("events?.db")).unwrap();
    let before = names(folder.path());
    for name in ["why?", "a?mode=write", "events?.db"] {
        let store = path(name);
        succeed(&format!("demo --store {store} --accounts 2 --commands 20 -q"));
        assert!(!succeed(&format!("read --store {store} --json")).is_empty(), "{name}");
        for verb in ["stats", "consumers list", "dead-letters list"] {
            let object = json(&format!("{verb} --store {store} --json"));
            assert_eq!(object["store"], *store, "{verb}");
        }
        let said = fail(&format!("consumers rewind --store {store} mails --to 0"), 2);
        assert!(said.contains("nothing is stored of the consumer"), "{said}");
        let scanned = json(&format!("bench read --store {store} --json"));
        assert_eq!(scanned["store"], *store);
    }
    let added: Vec<_> = names(folder.path()).difference(&before).cloned().collect();
    assert_eq!(added, ["a?mode=write", "why?"]);
}

fn names(folder: &std::path::Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder).expect("the folder can be read").flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    // SQLite creates and removes files of its own beside the store.
    names.filter(|name| !name.ends_with("-wal") && !name.ends_with("-shm")).collect()
}

#[cfg(feature = "journal")]
#[test]
fn a_journal_is_named_as_a_store_by_all_that_look_at_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bank").display().to_string();
    let store = format!("journal:{path}");
    let demo = json(&format!("demo --store {path} --accounts 2 --commands 20 --json"));
    assert_eq!(demo["store"], *store);
    for verb in ["stats", "consumers list", "dead-letters list", "verify", "lineage renew"] {
        for given in [&path, &store] {
            let object = json(&format!("{verb} --store {given} --json"));
            assert_eq!(object["store"], *store, "{verb} --store {given}");
            let said = succeed(&format!("{verb} --store {given}"));
            assert!(said.contains(&store), "{verb} --store {given}: {said}");
        }
    }
    let why = folder.path().join("why?").display().to_string();
    succeed(&format!("demo --store {why} --accounts 2 --commands 20 -q"));
    assert_eq!(json(&format!("verify --store {why} --json"))["store"], *why);
    assert_eq!(json(&format!("lineage renew --store {why} --json"))["store"], *why);
}

//! The program on PostgreSQL. `cargo xtask test` starts a server; `--only embedded` leaves it out.

use std::{
    env,
    sync::atomic::{AtomicU32, Ordering},
};

use tokio::runtime::{Builder, Runtime};
use tokio_postgres::{Client, NoTls};

use crate::{
    kill::{assert_sound, kill_again_and_again},
    program::{fail, json, run, succeed},
    store::lines_that_make_nothing,
};

/// A schema and a role without rights, which one test owns and drops at its end.
struct Place {
    runtime: Runtime,
    client: Client,
    server: String,
    name: String,
}

impl Place {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let server = env::var("FACTUM_POSTGRES_URL").unwrap_or_else(|_| {
            panic!(
                "no PostgreSQL server to test on: run `cargo xtask test`, which starts one, or set \
                 FACTUM_POSTGRES_URL=postgres://user@host:port/database"
            )
        });
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("cli_{}_{count}", std::process::id());
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a thread can be made");
        let connected = runtime.block_on(tokio_postgres::connect(&server, NoTls));
        let (client, connection) = connected.expect("the server takes connections");
        runtime.spawn(connection);
        let place = Self { runtime, client, server, name };
        place.execute(&format!("CREATE ROLE {} LOGIN", place.name)).expect("we may make roles");
        place
    }

    /// The store's URL for the owner of the server.
    fn url(&self) -> String {
        format!("{}?schema={}", self.server, self.name)
    }

    /// The store's URL for the role.
    fn url_of_role(&self) -> String {
        let server = self.server.rsplit_once('@').expect("the URL names a user").1;
        format!("postgres://{name}@{server}?schema={name}", name = self.name)
    }

    fn execute(&self, statements: &str) -> Result<(), tokio_postgres::Error> {
        self.runtime.block_on(self.client.batch_execute(statements))
    }

    fn text(&self, query: &str) -> String {
        let row = self.runtime.block_on(self.client.query_one(query, &[]));
        row.expect("one row").get(0)
    }

    fn lineage(&self) -> String {
        self.text(&format!("SELECT lineage::text FROM {}.log", self.name))
    }

    fn is_made(&self) -> bool {
        let name = &self.name;
        self.text(&format!("SELECT (to_regclass('{name}.log') IS NOT NULL)::text")) == "true"
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // The last statement of a killed program soon releases its locks.
        let drop = "SET lock_timeout = '10s'; DROP SCHEMA IF EXISTS @ CASCADE; DROP ROLE @";
        let dropped = self.execute(&drop.replace('@', &self.name));
        if !std::thread::panicking() {
            dropped.expect("nothing is left behind");
        }
    }
}

#[test]
fn the_bank_adds_up_and_goes_on_when_run_again() {
    let place = Place::new();
    let line = format!("demo --store {} --accounts 10 --commands 500 --json", place.url());
    let first = json(&line);
    let second = json(&line);
    assert_sound(&first);
    assert_sound(&second);
    assert_eq!((&first["accounts"], &second["accounts"]), (&10.into(), &20.into()));
    let read = succeed(&format!("read --store {} --system --json", place.url()));
    assert_eq!(second["events"].as_u64(), Some(read.lines().count() as u64));
}

/// `read`, `stats` and the lists once made six tables for a mistyped schema.
#[test]
fn a_verb_that_makes_no_store_leaves_the_catalog_of_the_server_as_it_is() {
    let place = Place::new();
    let name = &place.name;
    let catalog = || {
        place.text(&format!(
            "SELECT (SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace \
             WHERE nspname LIKE '{name}%')::text || ' ' || \
             (SELECT count(*) FROM pg_namespace WHERE nspname LIKE '{name}%')::text || ' ' || \
             (SELECT count(*) FROM pg_database WHERE datname LIKE '{name}%')::text"
        ))
    };
    place.execute(&format!("CREATE SCHEMA {name}")).unwrap();
    let before = catalog();
    let server = place.server.rsplit_once('/').expect("the URL names a database").0;
    let stores = [
        (place.url(), format!("schema={name}")),
        (format!("{}_mistyped", place.url()), format!("schema={name}_mistyped")),
        (format!("{}&mode=write", place.url()), format!("schema={name}")),
        (format!("{server}/{name}_mistyped"), format!("database={name}_mistyped")),
    ];
    for (store, named) in stores {
        for line in lines_that_make_nothing(&store) {
            if line.starts_with("verify") {
                continue;
            }
            let said = fail(&line, 2);
            assert!(said.contains(&named), "{line}: {said}");
            assert!(said.contains("the URL"), "{line}: {said}");
            assert_eq!(catalog(), before, "{line}");
        }
    }
    // The same verbs read a log that is there, also as a role that may only read.
    succeed(&format!("schema apply --store {}", place.url()));
    for verb in ["read", "stats", "consumers list", "dead-letters list"] {
        succeed(&format!("{verb} --store {}", place.url()));
    }
}

#[test]
fn killed_at_random_moments_the_bank_adds_up_each_time() {
    let place = Place::new();
    kill_again_and_again(&place.url(), || place.is_made(), 5);
}

#[test]
fn the_printed_sql_makes_a_log_on_which_a_role_with_few_rights_works() {
    let place = Place::new();
    let said = fail(&format!("demo --store {} -q", place.url_of_role()), 2);
    assert!(said.contains("factum schema apply") && said.contains("factum schema print"), "{said}");
    let print = format!("schema print --schema {name} --role {name}", name = place.name);
    place.execute(&succeed(&print)).unwrap();
    let lineage = place.lineage();
    let line = format!("demo --store {} --accounts 5 --commands 200 --json", place.url_of_role());
    assert_sound(&json(&line));
    place.execute(&succeed(&print)).expect_err("a log is there");
    place.execute("ROLLBACK").unwrap();
    assert_eq!(place.lineage(), lineage);
    let applied = json(&format!("schema apply --store {} --json", place.url_of_role()));
    assert_eq!((&applied["made"], &applied["schema_version"]), (&false.into(), &4.into()));
}

#[test]
fn a_schema_is_applied_by_a_role_that_may_and_once() {
    let place = Place::new();
    let said = fail(&format!("schema apply --store {}", place.url_of_role()), 2);
    assert!(said.contains("the role may not make or migrate the log's tables"), "{said}");
    assert!(!place.is_made());
    let line = format!("schema apply --store {}", place.url());
    let made = json(&format!("{line} --json"));
    assert_eq!((&made["made"], &made["schema"]), (&true.into(), &place.name.clone().into()));
    assert!(place.is_made());
    assert!(succeed(&line).starts_with("the log was there, nothing is changed: schema="));
}

#[test]
fn a_lineage_is_renewed_where_a_log_is_and_nothing_is_made_elsewhere() {
    let place = Place::new();
    let line = format!("lineage renew --store {}", place.url());
    assert!(fail(&line, 2).contains("there is no log"));
    assert!(!place.is_made());
    succeed(&format!("demo --store {} --accounts 5 --commands 100 -q", place.url()));
    let before = place.lineage();
    let renewed = json(&format!("{line} --json"));
    let after = place.lineage();
    assert_eq!(renewed["lineage"].as_str(), Some(after.as_str()));
    assert_ne!(after, before);
    assert!(run(&line).stdout.starts_with("the lineage is "));
    let look = json(&format!("demo --store {} --commands 0 --json", place.url()));
    assert_sound(&look);
}

/// Two logs in one database differ only by their schema.
#[test]
fn every_verb_names_the_schema_of_its_log_and_no_password() {
    let place = Place::new();
    let (user, server) = place.server.rsplit_once('@').expect("the URL names a user");
    let given = format!("{user}:s3c@{server}?schema={}&application_name=x", place.name);
    let name = format!("postgres://{server}?schema={}", place.name);
    for line in [
        "schema apply",
        "demo --accounts 2 --commands 20",
        "stats",
        "consumers list",
        "dead-letters list",
        "lineage renew",
        "bench append --events 20 --into-existing",
        "bench read",
    ] {
        let line = format!("{line} --store {given}");
        assert_eq!(json(&format!("{line} --json"))["store"], *name, "{line}");
        let ran = run(&line);
        assert_eq!(ran.code, Some(0), "{line}: {ran:?}");
        assert!(ran.stdout.contains(&name), "{line}: {}", ran.stdout);
        assert!(!(ran.stdout + &ran.stderr).contains("s3c"), "{line}");
    }
}

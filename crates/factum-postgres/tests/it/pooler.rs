//! The store behind a pooler that spreads transactions over a few sessions.

use std::{
    env, fs,
    path::{Path, PathBuf},
    time::Duration,
};

use factum_kernel::{
    AppendBatch, AppendError, Clock, DocumentStore, EventStore, ExpectedRevision, ExpectedVersion,
    ReadQuery, SystemClock, WriteBatch,
};
use factum_postgres::{PostgresOptions, PostgresStore};
use tempfile::TempDir;

use crate::{
    fresh::{check_log, event, one, positions, stream},
    instance::{Instance, Kept, folder, free_port},
    server::{Schema, raw},
};

/// A pooler in front of the tests' server, with three sessions for all.
struct Pooler {
    url: String,
    port: u16,
    _process: Kept,
    folder: TempDir,
}

impl Pooler {
    async fn start(server: &str) -> Self {
        let program = PathBuf::from(env::var_os("FACTUM_PGBOUNCER").unwrap_or_else(|| {
            panic!("no pooler to test with: run `cargo xtask test`, or set FACTUM_PGBOUNCER")
        }));
        let folder = folder();
        let port = free_port();
        let file = folder.path().join("pgbouncer.ini");
        let (user, database) = settings(&file, port, server);
        let log = folder.path().join("log");
        let process = Kept::spawn(&program, "TERM", &[file.to_str().unwrap()], &log);
        let url = format!("postgres://{user}@127.0.0.1:{port}/{database}");
        for _ in 0..100 {
            if tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
                return Self { url, port, _process: process, folder };
            }
            SystemClock.sleep(Duration::from_millis(50)).await;
        }
        panic!("the pooler does not come up: {}", fs::read_to_string(log).unwrap());
    }
}

impl Pooler {
    /// Switches to another server; existing connections stay.
    async fn turn_to(&self, server: &str) {
        let (user, _) = settings(&self.folder.path().join("pgbouncer.ini"), self.port, server);
        let admin = raw(&format!("postgres://{user}@127.0.0.1:{}/pgbouncer", self.port)).await;
        admin.simple_query("RELOAD").await.unwrap();
    }
}

/// Writes the settings of a pooler in front of a server; returns its user and its database.
fn settings(file: &Path, port: u16, server: &str) -> (String, String) {
    let (user, place) = server.strip_prefix("postgres://").unwrap().split_once('@').unwrap();
    let (address, database) = place.split_once('/').unwrap();
    let (host, server_port) = address.split_once(':').unwrap();
    let settings = format!(
        "[databases]\n{database} = host={host} port={server_port} user={user}\n\
         [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
         auth_type = any\nadmin_users = {user}\npool_mode = transaction\ndefault_pool_size = 3\n"
    );
    fs::write(file, settings).unwrap();
    (user.into(), database.into())
}

#[tokio::test]
async fn a_group_is_not_run_on_another_server_than_the_one_whose_head_it_names() {
    let mut primary = Instance::start(&[]);
    let pooler = Pooler::start(&primary.url()).await;
    let store = PostgresStore::open(PostgresOptions::parse(&pooler.url).unwrap()).await.unwrap();
    store.append(one("ada")).await.unwrap();
    // It has a history of its own, like a standby that was promoted without the end of the log.
    let other = Instance::copy_of(&primary, false);
    store.append(one("ada")).await.unwrap();
    pooler.turn_to(&other.url()).await;
    primary.kill();
    let batch = one("ada");
    let error = store.append(batch.clone()).await.unwrap_err();
    assert!(matches!(error, AppendError::Indeterminate(_)), "{error:?}");
    let direct = PostgresStore::open(PostgresOptions::parse(&other.url()).unwrap()).await.unwrap();
    assert_eq!(positions(&direct, ReadQuery::log()).await, [1], "nothing was run");
    let appended = store.append(batch.repeated()).await.unwrap();
    assert_eq!((appended.first.value(), appended.replayed), (2, false));
    assert_eq!(check_log(&store).await.value(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_laws_hold_behind_a_pooler_of_transactions() {
    let schema = Schema::new();
    let pooler = Pooler::start(&schema.url).await;
    let open = || {
        let options = PostgresOptions::parse(&pooler.url).unwrap();
        PostgresStore::open(options.with_schema(&schema.name).unwrap())
    };
    let one = open().await.unwrap();
    let two = open().await.unwrap();
    let mut head = two.head();
    for round in 0..20_u64 {
        let rivals: Vec<_> = (0..16)
            .map(|n| {
                let store = if n % 2 == 0 { one.clone() } else { two.clone() };
                let expected = ExpectedVersion::from(factum_kernel::StreamVersion::new(round));
                tokio::spawn(async move {
                    let batch = AppendBatch::new()
                        .write(stream("x"), expected, [event("{}")])
                        .write(stream(&format!("of-{n}")), ExpectedVersion::Any, [event("{}")]);
                    store.append(batch).await
                })
            })
            .collect();
        let mut winners = 0;
        for rival in rivals {
            match rival.await.unwrap() {
                Ok(_) => winners += 1,
                Err(AppendError::Conflict(_)) => {}
                Err(other) => panic!("{other:?}"),
            }
        }
        assert_eq!(winners, 1);
        assert_eq!(positions(&one, ReadQuery::stream(stream("x"))).await.len() as u64, round + 1);
    }
    // The listener hears nothing there, and looks instead.
    head.wait_for(|head| head.value() == 40).await.unwrap();
    check_log(&two).await;
    let write = WriteBatch::new().put("a", ExpectedRevision::Absent, "v");
    one.write(write.clone()).await.unwrap();
    assert!(two.write(write).await.is_err());
    one.close().await.unwrap();
    two.close().await.unwrap();
}

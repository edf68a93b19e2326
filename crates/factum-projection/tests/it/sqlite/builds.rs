//! Builds in SQLite files.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use factum_consumer::{ConsumerName, ConsumerState, HandleError, Target};
use factum_kernel::RecordedEvent;
use factum_projection::{BuildError, Maintained, Projection, Projections, SqliteTarget, SqliteTx};
use factum_testing::{ChildTest, bank::AccountEvent};
use rusqlite::Connection;
use tempfile::TempDir;

use crate::{
    bench::{Bench, LONG},
    ledger::{Gate, swift, until},
    sql::builds::{self, Tables, builds, options},
};

#[derive(Clone)]
struct Files {
    folder: PathBuf,
    /// The folder; `None` in another process, because the parent owns it.
    _folder: Option<Arc<TempDir>>,
}

struct Totals<const VERSION: u32>(Gate);

impl<const VERSION: u32> Projection for Totals<VERSION> {
    const NAME: &'static str = "totals";
    const VERSION: u32 = VERSION;
    const CATEGORIES: &[&str] = &["account"];
    type Event = AccountEvent;
    type Target = SqliteTarget;

    fn declare(&self, target: SqliteTarget) -> SqliteTarget {
        target.with_setup(match VERSION {
            1 => "CREATE TABLE IF NOT EXISTS totals (account TEXT PRIMARY KEY, cents INTEGER)",
            _ => {
                "CREATE TABLE IF NOT EXISTS totals
                     (account TEXT PRIMARY KEY, count INTEGER, cents INTEGER);
                 CREATE INDEX IF NOT EXISTS totals_by_count ON totals (count)"
            }
        })
    }

    async fn project(
        &self,
        event: AccountEvent,
        recorded: &RecordedEvent,
        tx: &mut SqliteTx,
    ) -> Result<(), HandleError> {
        self.0.pass().await;
        let AccountEvent::Deposited { cents } = event else { return Ok(()) };
        let sql = match VERSION {
            1 => {
                "INSERT INTO totals VALUES (?1, ?2)
                 ON CONFLICT (account) DO UPDATE SET cents = cents + excluded.cents"
            }
            _ => {
                "INSERT INTO totals VALUES (?1, 1, ?2) ON CONFLICT (account)
                 DO UPDATE SET count = count + 1, cents = cents + excluded.cents"
            }
        };
        tx.prepare_cached(sql)?.execute((recorded.stream().key(), cents.cast_signed()))?;
        Ok(())
    }

    async fn forget(&self, deletion: &RecordedEvent, tx: &mut SqliteTx) -> Result<(), HandleError> {
        let sql = "DELETE FROM totals WHERE account = ?1";
        tx.prepare_cached(sql)?.execute([deletion.stream().key()])?;
        Ok(())
    }
}

fn cents(reader: &Connection) -> Result<u64, rusqlite::Error> {
    let sum = "SELECT coalesce(sum(cents), 0) FROM totals";
    reader.query_row(sum, [], |row| row.get::<_, i64>(0)).map(i64::cast_unsigned)
}

impl Tables for Files {
    type Target = SqliteTarget;

    async fn new() -> Self {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        // The folder is made when it is needed.
        Self { folder: folder.path().join("models"), _folder: Some(folder) }
    }

    async fn at(address: &str) -> Self {
        Self { folder: address.into(), _folder: None }
    }

    fn address(&self) -> String {
        self.folder.display().to_string()
    }

    fn target(&self, build: &ConsumerName) -> SqliteTarget {
        SqliteTarget::of_build(&self.folder, build)
    }

    async fn try_keep<const VERSION: u32>(
        &self,
        bench: &Bench,
        gate: &Gate,
    ) -> Result<Maintained<SqliteTarget>, BuildError> {
        let projection = Totals::<VERSION>(gate.clone());
        let tables = self.clone();
        let targets = move |build: &ConsumerName| tables.target(build);
        bench.consumers.maintain(projection, targets, options()).await
    }

    async fn cents(&self, totals: &Maintained<SqliteTarget>) -> Result<u64, String> {
        let reader = totals.reader().await.map_err(|e| e.to_string())?;
        cents(&reader).map_err(|e| e.to_string())
    }

    async fn kept(&self) -> Vec<String> {
        let Ok(files) = fs::read_dir(&self.folder) else { return Vec::new() };
        let build = |name: &str| name.split(".db").next().unwrap().to_owned();
        let files = files.map(|file| build(file.unwrap().file_name().to_str().unwrap()));
        files.collect::<BTreeSet<_>>().into_iter().collect()
    }
}

builds! { Files }

/// The process that rebuilds; its order names the log and the tables.
const CHILD: ChildTest = ChildTest::new("sqlite::builds::child");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    if let Some(order) = CHILD.order() {
        builds::child::<Files>(&order).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_seen_of_processes_that_are_killed() {
    builds::nothing_is_lost_or_seen_of_processes_that_are_killed::<Files>(CHILD).await;
}

#[tokio::test]
async fn a_reader_with_an_open_file_can_read_it_after_it_is_removed() {
    let bench = Bench::on(Bench::new().kernel.with_clock(Arc::new(swift())));
    let files = Files::new().await;
    bench.open("ada").await;
    bench.deposit("ada", 5).await;
    let totals = files.keep::<1>(&bench, &Gate::open()).await;
    files.are_right(&bench, &totals, 5).await;
    let before = totals.reader().await.unwrap();
    let path = totals.target().unwrap();
    assert_eq!(path.path(), files.folder.join("totals@1.db"));
    before.execute_batch("BEGIN").unwrap();
    assert_eq!(cents(&before).unwrap(), 5);
    totals.reset().await.unwrap();
    bench.deposit("ada", 1).await;
    files.are_right(&bench, &totals, 6).await;
    until(|| async { files.kept().await == ["totals@1.1"] }).await;
    assert_eq!(cents(&before).unwrap(), 5);
    before.execute_batch("COMMIT").unwrap();
    assert_eq!(cents(&before).unwrap(), 5);
}

fn tables(path: &Path) -> i64 {
    let file = Connection::open(path).unwrap();
    file.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).unwrap()
}

#[tokio::test]
async fn a_file_that_the_build_does_not_own_is_left_alone() {
    let bench = Bench::new();
    let files = Files::new().await;
    fs::create_dir(&files.folder).unwrap();
    let path = files.folder.join("totals@1.db");
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE mine (n INTEGER)").unwrap();
    let totals = files.keep::<1>(&bench, &Gate::open()).await;
    let mut health = totals.consumer().unwrap().watch();
    let stopped = health.wait_for(|it| matches!(it.state, ConsumerState::Stopped(_)));
    let state = tokio::time::timeout(LONG, stopped).await.unwrap().unwrap().state.clone();
    assert!(format!("{state:?}").contains("not its own"), "{state:?}");
    let name = totals.serving_name();
    assert!(files.target(&name).clear(&name).await.is_err());
    assert_eq!(tables(&path), 1);
    // The file of another build under this build's name.
    let other = "totals@2".parse().unwrap();
    files.target(&other).open(&other).await.unwrap();
    fs::rename(files.folder.join("totals@2.db"), &path).unwrap();
    for told in
        [files.target(&name).open(&name).await.map(drop), files.target(&name).clear(&name).await]
    {
        assert!(told.unwrap_err().to_string().contains("not its own"));
    }
    assert_eq!(tables(&path), 2);
}

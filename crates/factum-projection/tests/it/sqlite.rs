//! Read models in a SQLite file.

mod builds;

use std::{collections::BTreeMap, path::PathBuf, sync::atomic::Ordering};

use factum_consumer::HandleError;
use factum_kernel::RecordedEvent;
use factum_projection::{Projection, Projections, SqliteSynchronous, SqliteTarget, SqliteTx};
use factum_testing::{ChildTest, bank::AccountEvent};
use rusqlite::{Connection, OpenFlags};
use tempfile::TempDir;

use crate::{
    bench::{Bench, Count, Fails, LONG},
    sql::{self, Clear, ENDS, ReadModel, behaviours},
};

/// The process that projects; its order names the log and the read model.
const CHILD: ChildTest = ChildTest::new("sqlite::child");

const SETUP: &str = "CREATE TABLE IF NOT EXISTS deposits (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    account TEXT NOT NULL,
    cents INTEGER NOT NULL CHECK (cents <> 666)
)";

const AGAIN: &str = "INSERT INTO deposits (account, cents) VALUES ('ada', 1)";

struct Model {
    path: PathBuf,
    /// The folder; `None` in a child, because the parent owns it.
    _folder: Option<TempDir>,
}

struct Counts(Fails);

impl Projection for Counts {
    const NAME: &'static str = "counts";
    const CATEGORIES: &[&str] = &["account"];
    type Event = AccountEvent;
    type Target = SqliteTarget;

    async fn project(
        &self,
        event: AccountEvent,
        recorded: &RecordedEvent,
        tx: &mut SqliteTx,
    ) -> Result<(), HandleError> {
        let AccountEvent::Deposited { cents } = event else { return Ok(()) };
        tx.prepare_cached("INSERT INTO deposits (account, cents) VALUES (?1, ?2)")?
            .execute((recorded.stream().key(), cents.cast_signed()))?;
        if let Some((statement, ignores)) = Model::statement(cents) {
            // The same connection, also after the transaction has ended.
            let connection: &Connection = tx;
            let done = connection.execute_batch(statement);
            match ignores {
                true => drop(connection.execute_batch(AGAIN)),
                false => done?,
            }
        }
        if cents == ENDS {
            tx.execute_batch("ROLLBACK")?;
        }
        if cents == 13 && self.0.hangs.load(Ordering::SeqCst) {
            let endless = "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n)
                           SELECT count(*) FROM n";
            tx.query_row(endless, [], |_| Ok(()))?;
        }
        self.0.on(cents).await
    }

    async fn forget(&self, deletion: &RecordedEvent, tx: &mut SqliteTx) -> Result<(), HandleError> {
        let sql = "DELETE FROM deposits WHERE account = ?1";
        tx.prepare_cached(sql)?.execute([deletion.stream().key()])?;
        Ok(())
    }
}

impl Clear for SqliteTarget {
    fn clearing(self) -> Self {
        self.with_clear("DELETE FROM deposits")
    }
}

impl ReadModel for Model {
    type Projection = Counts;

    const ENDINGS: &'static [&'static str] = &[
        "COMMIT",
        "END",
        "ROLLBACK",
        "COMMIT; BEGIN",
        "ROLLBACK; BEGIN",
        "ROLLBACK; BEGIN IMMEDIATE; INSERT INTO deposits (account, cents) VALUES ('ada', 1)",
        "ROLLBACK; INSERT INTO deposits (account, cents) VALUES ('ada', 1)",
        "INSERT OR ROLLBACK INTO deposits (account, cents) VALUES ('ada', 666)",
    ];
    const HARMLESS: &'static [&'static str] = &[
        "SAVEPOINT one; DELETE FROM deposits; ROLLBACK TO one; RELEASE one",
        "CREATE TABLE made (n INTEGER); INSERT INTO made VALUES (1); DROP TABLE made",
    ];

    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { path: folder.path().join("model.db"), _folder: Some(folder) }
    }

    fn projection(&self, fails: Fails) -> Counts {
        Counts(fails)
    }

    fn target(&self) -> SqliteTarget {
        SqliteTarget::new(&self.path).with_setup(SETUP)
    }

    async fn counted(&self) -> BTreeMap<String, Count> {
        let reader = self.target().reader().unwrap();
        let mut counts = BTreeMap::<String, Count>::new();
        let mut statement = reader.prepare("SELECT account, cents FROM deposits ORDER BY id");
        let rows = statement
            .as_mut()
            .unwrap()
            .query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?)));
        for row in rows.unwrap() {
            let (account, cents) = row.unwrap();
            counts.entry(account).or_default().cents.push(cents.cast_unsigned());
        }
        counts
    }

    fn address(&self) -> String {
        self.path.display().to_string()
    }
}

behaviours! { Model }

/// The code of the process that is killed; not a test by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Some(order) = CHILD.order() else { return };
    let (log, path) = order.split_once(' ').unwrap();
    sql::child(Model { path: path.into(), _folder: None }, log).await;
}

#[test]
fn nothing_is_lost_or_doubled_by_sigkill() {
    sql::nothing_is_lost_or_doubled_by_sigkill::<Model>(CHILD);
}

#[tokio::test]
async fn readers_are_not_blocked_by_an_open_batch_and_see_none_of_it() {
    let model = Model::new().await;
    let bench = Bench::new();
    bench.open("ada").await;
    bench.deposit("ada", 1).await;
    let counts = model.start(&bench, &Fails::default()).await;
    counts.wait_for(bench.head(), LONG).await.unwrap();
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE;
    let writer = Connection::open_with_flags(&model.path, flags).unwrap();
    writer.execute_batch("BEGIN IMMEDIATE; DELETE FROM deposits").unwrap();
    assert_eq!(model.counted().await["ada"].cents, [1]);
    let position = bench.deposit("ada", 2).await;
    // The projection waits for the lock, and then continues by itself.
    writer.execute_batch("ROLLBACK").unwrap();
    counts.wait_for(position, LONG).await.unwrap();
    assert_eq!(model.counted().await["ada"].cents, [1, 2]);
    let reader = counts.target().reader().unwrap();
    assert!(reader.execute("DELETE FROM deposits", []).is_err(), "a reader reads");
}

#[tokio::test]
async fn unsynced_batches_are_stored_with_their_progress() {
    let model = Model::new().await;
    let bench = Bench::new();
    bench.open("ada").await;
    for cents in 1..=3 {
        let again = bench.again();
        let target = model.target().with_synchronous(SqliteSynchronous::Normal);
        let options = crate::bench::options();
        let counts = again
            .consumers
            .start_projection(Counts(Fails::default()), target, options)
            .await
            .unwrap();
        let position = bench.deposit("ada", cents).await;
        counts.wait_for(position, LONG).await.unwrap();
        assert_eq!(model.counted().await["ada"].cents, Vec::from_iter(1..=cents));
        again.consumers.close().await;
    }
}

#[tokio::test]
async fn nothing_is_written_after_a_handler_has_ended_the_transaction() {
    let model = Model::new().await;
    let bench = Bench::new();
    for key in ["ada", "bob"] {
        bench.open(key).await;
    }
    for cents in [1, ENDS, 2] {
        bench.deposit("ada", cents).await;
        bench.deposit("bob", 3).await;
    }
    let counts = model.start(&bench, &Fails::default()).await;
    counts.wait_for(bench.head(), LONG).await.unwrap();
    let counted = model.counted().await;
    assert_eq!((&counted["ada"].cents[..], &counted["bob"].cents[..]), (&[1][..], &[3; 3][..]));
}

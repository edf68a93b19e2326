//! Appends and writes of documents inside a transaction of the caller's, together with the caller's
//! own tables.

use factum_backend::LogEnd;
use factum_kernel::{
    AppendBatch, AppendError, Appended, Revision, StoreError, WriteBatch, WriteError,
};
use tokio_postgres::{Row, Transaction, types::Type};

use crate::{
    append::{Answer, doubts},
    documents, error,
    known::{Asking, Missing, Questions, Replies},
    link::Parameter,
    number::signed,
    round::{Pending, Round, RoundNumbers},
    store::PostgresStore,
    watch::NOTIFY,
};

impl PostgresStore {
    /// Appends in a transaction on the caller's connection to the log's database. Events and rows
    /// of the caller's own tables are stored together or not at all.
    ///
    /// # Guarantees
    /// Those of [`append`](factum_kernel::EventStore::append), once the transaction is committed.
    /// Before that, no other session sees the events. Two appends of one transaction see each
    /// other.
    ///
    /// The transaction holds the log's lock until it ends: **all other appends wait for it**, in
    /// all processes, and fail with `Unavailable` after their
    /// [`lock_timeout`](crate::PostgresOptions::lock_timeout). So append last, and commit at once.
    ///
    /// The transaction must be READ COMMITTED, which is the default. Its commit waits for the disk,
    /// whatever was set before (`synchronous_commit` is `on` from here on); don't change that
    /// later.
    ///
    /// Nothing is repeated automatically. If the answer to `COMMIT` is lost, or it comes with a
    /// warning, the outcome is unknown: do the work again in another transaction, with the batch
    /// [`repeated`](AppendBatch::repeated). `replayed` then tells that the first transaction was
    /// stored, and the caller's own rows with it.
    ///
    /// # Errors
    /// Those of `append`, but never `Indeterminate`: what was not committed is not stored. After
    /// [`AppendError::Store`] roll back. After any other error nothing was appended, and the
    /// transaction can go on.
    ///
    /// # Cancel safety
    /// If it is dropped, it may or may not have appended in the transaction: roll back.
    ///
    /// # Examples
    /// ```no_run
    /// use factum_kernel::AppendBatch;
    /// use factum_postgres::{PostgresStore, tokio_postgres::Client};
    ///
    /// # async fn example(
    /// #     store: &PostgresStore, client: &mut Client, batch: AppendBatch,
    /// # ) -> Result<(), Box<dyn std::error::Error>> {
    /// // Of any pool, of which this is a connection.
    /// let transaction = client.transaction().await?;
    /// transaction.execute("INSERT INTO orders (number) VALUES ($1)", &[&7_i64]).await?;
    /// let appended = store.append_in(&transaction, batch).await?;
    /// transaction.commit().await?;
    /// assert!(!appended.replayed);
    /// # Ok(()) }
    /// ```
    pub async fn append_in(
        &self,
        transaction: &Transaction<'_>,
        batch: AppendBatch,
    ) -> Result<Appended, AppendError> {
        let place = self.place_to_write()?;
        self.limits.check_append(&batch)?;
        let now = self.clock.now();
        let pending = [Pending::new(0, batch, now)??];
        let round = Round::gather(&pending);
        // A statement that waits for the lock on a lost connection is never committed. So its
        // repetition can't overtake it, and no known head is needed.
        let numbers = RoundNumbers {
            lock_ms: self.lock_ms,
            hold_us: 0,
            now: signed(now.as_micros()),
            known: i64::MAX,
        };
        let parameters = round.parameters(&numbers);
        let rows = ask(transaction, place, &self.statements.append_in, parameters).await?;
        let answer = Answer::read(&rows)?;
        let mut outcomes = [None];
        let stored = answer.settle(&round, &mut outcomes);
        if let [Some(outcome)] = outcomes {
            self.tell_when_committed(transaction).await?;
            return outcome;
        }
        let end = LogEnd { head: stored.head, last_at: answer.recorded_at, now };
        let mut doubts = doubts(&round, &answer, &stored);
        let doubt = doubts.pop().ok_or_else(documents::no_row)?;
        let mut replies = Replies::default();
        let mut asked = Questions::default();
        loop {
            // The lock is held, so the reason for the refusal still holds.
            let judged = doubt.known.judge(&doubt.batch, end, &replies)?;
            let open = asked.take_new(&judged.asked);
            if open.is_empty() {
                return judged.outcome.unwrap_or_else(|| Err(documents::no_row().into()));
            }
            let asking = Asking::of(&open.ids);
            let missing = Missing::of(&open.missing);
            let statement = &self.statements.find_ids;
            let rows = ask(transaction, place, statement, asking.parameters()).await?;
            Asking::answer(&open.ids, &rows, &mut replies)?;
            let statement = &self.statements.are_erased;
            let rows = ask(transaction, place, statement, missing.parameters()).await?;
            replies.erased.extend(Missing::erased(&rows)?);
        }
    }

    /// Writes documents in a transaction of the caller's, all of them or none, like
    /// [`append_in`](Self::append_in). Other writers whose documents share a lock with one of these
    /// wait until it ends; there are 64 locks.
    ///
    /// # Errors
    /// Those of [`write`](factum_kernel::DocumentStore::write), but never `Indeterminate`; and
    /// those of `append_in`.
    pub async fn write_in(
        &self,
        transaction: &Transaction<'_>,
        batch: WriteBatch,
    ) -> Result<Revision, WriteError> {
        let place = self.place_to_write()?;
        self.limits.check_write(&batch)?;
        let columns = documents::Columns::of(&batch);
        let parameters = columns.parameters(&self.lock_ms);
        let rows = ask(transaction, place, &self.statements.write_documents, parameters).await?;
        documents::written(&rows)
    }

    /// The place, for error messages.
    fn place_to_write(&self) -> Result<&str, StoreError> {
        self.writer()?;
        Ok(self.pool.place())
    }

    /// Notifies other processes to look at the head once the transaction is committed. The lock
    /// that `NOTIFY` takes at the commit costs nothing here, because the log's lock is held
    /// already.
    async fn tell_when_committed(&self, transaction: &Transaction<'_>) -> Result<(), StoreError> {
        let place = self.place_to_write()?;
        let channel = vec![(&self.channel as _, Type::TEXT)];
        ask(transaction, place, NOTIFY, channel).await.map(drop)
    }
}

async fn ask(
    transaction: &Transaction<'_>,
    place: &str,
    statement: &str,
    parameters: Vec<Parameter<'_>>,
) -> Result<Vec<Row>, StoreError> {
    let asked = transaction.query_typed(statement, &parameters).await;
    asked.map_err(|e| error::at(place, &e))
}

//! What a PostgreSQL store is opened with.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use factum_backend::{CommitDelay, StoreUrl};
use factum_kernel::{Clock, IdSource, Limits, StoreError, SystemClock, SystemIds};
use tokio_postgres::Config;

use crate::name::SchemaName;

/// The schema of a log unless said otherwise.
pub const SCHEMA_DEFAULT: &str = "factum";
/// How many reads and writes of documents run at once unless said otherwise; further ones wait.
pub const CONNECTIONS_DEFAULT: usize = 8;
/// How long to wait for another process's lock on the log unless said otherwise.
pub const LOCK_TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);
/// How long a statement may take unless said otherwise; then it is cancelled.
pub const STATEMENT_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
/// How long to wait for a connection unless said otherwise.
pub const CONNECT_TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

/// How long a connection stays without use unless said otherwise; then it is closed.
pub const IDLE_TIMEOUT_DEFAULT: Duration = Duration::from_secs(60);
/// The most connections that can be asked for: the most that a server takes.
pub const CONNECTIONS_MAX: usize = 262_143;

/// Options of the URL that are the store's own; the others are PostgreSQL's.
const OWN: &[&str] = &["schema", "mode", "connections", "sslmode", "sslrootcert"];
/// Options of the URL that the driver takes as they are.
const DRIVER: &[&str] = &[
    "host",
    "hostaddr",
    "port",
    "user",
    "password",
    "dbname",
    "application_name",
    "options",
    "connect_timeout",
    "tcp_user_timeout",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_retries",
    "target_session_attrs",
    "channel_binding",
    "load_balance_hosts",
];

/// What may be done with a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Everything. The schema is made if it is not there.
    ReadWrite,
    /// Reading, also of a standby. The schema must be there.
    ReadOnly,
}

/// Whether what is sent is encrypted, with the meanings that PostgreSQL's own clients give them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tls {
    /// Never.
    Disable,
    /// If the server can. Nobody's identity is checked.
    Prefer,
    /// Always; the server's certificate is checked only if `sslrootcert` names who may sign it.
    Require,
    /// Always; certificate and host name are checked, against the system's roots unless
    /// `sslrootcert` names others.
    VerifyFull,
}

/// What a PostgreSQL store is opened with.
///
/// ```
/// use factum_postgres::{Access, PostgresOptions};
///
/// let url = "postgres://ada@db.example.org/bank?schema=ledger&mode=read";
/// let options = PostgresOptions::parse(url)?;
/// assert_eq!((options.schema.as_str(), options.access), ("ledger", Access::ReadOnly));
/// # Ok::<(), factum_kernel::StoreError>(())
/// ```
#[derive(Clone)]
#[non_exhaustive]
#[must_use]
pub struct PostgresOptions {
    /// Server, database, role.
    pub config: Config,
    /// The schema that holds the log; a database holds as many logs as it has such schemas.
    pub schema: SchemaName,
    /// What may be done.
    pub access: Access,
    /// Whether what is sent is encrypted.
    pub tls: Tls,
    /// A file of certificates (PEM) that sign servers'.
    pub root_certificate: Option<PathBuf>,
    /// How many connections read and write documents, from 1 to [`CONNECTIONS_MAX`]; one that is
    /// closing counts. With the writer's and the listener's, a process has two connections more.
    pub connections_max: usize,
    /// How long to wait for another process's lock on the log.
    pub lock_timeout: Duration,
    /// How long a statement may take, waiting for locks included. Then the client asks the server
    /// to cancel it. The server keeps the limit as well, in whole milliseconds, but behind a
    /// pooler that refuses options at the start of a connection: set `statement_timeout` for the
    /// role there. What [`config`](Self::config) says of it in its own options holds before this.
    pub statement_timeout: Duration,
    /// How long to wait for a connection.
    pub connect_timeout: Duration,
    /// How long a connection stays without use before it is closed, in whole seconds, at least one.
    /// The listener's stays.
    pub idle_timeout: Duration,
    /// The clock that events are recorded by.
    pub clock: Arc<dyn Clock>,
    /// Where a new log's lineage comes from.
    pub ids: Arc<dyn IdSource>,
    /// The sizes it takes.
    pub limits: Limits,
    /// How long a commit waits between planning and storing; for tests.
    pub commit_delay: Option<CommitDelay>,
}

impl PostgresOptions {
    /// This server and database, schema [`SCHEMA_DEFAULT`], the machine's clock.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            schema: SchemaName::default(),
            access: Access::ReadWrite,
            tls: Tls::Prefer,
            root_certificate: None,
            connections_max: CONNECTIONS_DEFAULT,
            lock_timeout: LOCK_TIMEOUT_DEFAULT,
            statement_timeout: STATEMENT_TIMEOUT_DEFAULT,
            connect_timeout: CONNECT_TIMEOUT_DEFAULT,
            idle_timeout: IDLE_TIMEOUT_DEFAULT,
            clock: Arc::new(SystemClock),
            ids: Arc::new(SystemIds),
            limits: Limits::default(),
            commit_delay: None,
        }
    }

    /// Reads a URL such as `postgres://user@host:5432/database?schema=bank`. What is special in the
    /// user and the password is percent-encoded: `%40` for `@`, `%3A` for `:`, `%2F` for `/`, `%3F`
    /// for `?`, `%26` for `&`, `%25` for `%`.
    ///
    /// # Errors
    /// `Invalid`, with what is wrong in it, and without what may be a part of a password.
    pub fn parse(url: &str) -> Result<Self, StoreError> {
        let url = StoreUrl::parse(url).ok_or_else(|| {
            StoreError::invalid("no URL of a PostgreSQL store, write postgres://host/database")
        })?;
        Self::of_url(&url)
    }

    /// As [`parse`](Self::parse).
    ///
    /// # Errors
    /// `Invalid`, with what is wrong in it.
    pub fn of_url(url: &StoreUrl) -> Result<Self, StoreError> {
        url.allow_options(&[OWN, DRIVER].concat())?;
        if !url.path().starts_with("//") || url.path().matches('@').count() > 1 {
            return Err(StoreError::invalid(format!(
                "the URL is to be postgres://user:password@host/database, with %40 for an @ in the \
                 user or the password: url={url}"
            )));
        }
        let given = DRIVER.iter().filter_map(|name| Some((name, url.option(name)?)));
        let given: Vec<_> = given.map(|(name, value)| format!("{name}={value}")).collect();
        let text = format!("postgres:{}?{}", url.path(), given.join("&"));
        let config = text.parse::<Config>().map_err(|e| {
            let text = format!(
                "the URL is not one that PostgreSQL's clients read, percent-encode what is special \
                 in the user and the password: url={url}"
            );
            StoreError::invalid(text).with_source(e)
        })?;
        let mut options = Self::new(config);
        if let Some(schema) = url.option("schema") {
            let is_shown = url.shown_option(schema) == schema;
            options = options.with_schema(schema).map_err(|error| match is_shown {
                true => error,
                false => StoreError::invalid(format!("the schema's name is not one: url={url}")),
            })?;
        }
        options.access = url.mode(Access::ReadWrite, &[("read", Access::ReadOnly)])?;
        options.tls = match url.option("sslmode") {
            None | Some("prefer") => Tls::Prefer,
            Some("disable") => Tls::Disable,
            Some("require") => Tls::Require,
            Some("verify-full") => Tls::VerifyFull,
            Some(other) => {
                return Err(StoreError::invalid(format!(
                    "sslmode is disable, prefer, require or verify-full: sslmode={} url={url}",
                    url.shown_option(other)
                )));
            }
        };
        options.root_certificate = url.option("sslrootcert").map(PathBuf::from);
        if let Some(count) = url.option("connections") {
            let is_allowed = |count: &usize| (1..=CONNECTIONS_MAX).contains(count);
            options.connections_max = count.parse().ok().filter(is_allowed).ok_or_else(|| {
                StoreError::invalid(format!(
                    "connections is a number from 1 to {CONNECTIONS_MAX}: connections={} url={url}",
                    url.shown_option(count)
                ))
            })?;
        }
        if let Some(timeout) = options.config.get_connect_timeout() {
            options.connect_timeout = *timeout;
        }
        Ok(options)
    }

    /// Sets the schema that holds the log.
    ///
    /// # Errors
    /// `Invalid` for a text that is no [`SchemaName`].
    pub fn with_schema(mut self, schema: &str) -> Result<Self, StoreError> {
        self.schema = SchemaName::new(schema)?;
        Ok(self)
    }

    /// Sets what may be done.
    pub fn with_access(mut self, access: Access) -> Self {
        self.access = access;
        self
    }

    /// Sets the clock.
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Sets the source of a new log's lineage.
    pub fn with_ids(mut self, ids: Arc<dyn IdSource>) -> Self {
        self.ids = ids;
        self
    }

    /// Sets the sizes it takes.
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets how many reads and writes of documents run at once.
    pub fn with_connections_max(mut self, connections: usize) -> Self {
        self.connections_max = connections;
        self
    }

    /// Sets how long to wait for another process's lock on the log.
    pub fn with_lock_timeout(mut self, timeout: Duration) -> Self {
        self.lock_timeout = timeout;
        self
    }

    /// Sets how long a statement may take.
    pub fn with_statement_timeout(mut self, timeout: Duration) -> Self {
        self.statement_timeout = timeout;
        self
    }

    /// Sets how long a connection stays without use.
    pub fn with_idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle_timeout = timeout;
        self
    }

    /// Sets the wait between planning and storing.
    pub fn with_commit_delay(mut self, delay: CommitDelay) -> Self {
        self.commit_delay = Some(delay);
        self
    }

    /// Where the log is, for errors; no secrets.
    pub(crate) fn place(&self) -> String {
        let host = match self.config.get_hosts().first() {
            Some(tokio_postgres::config::Host::Tcp(host)) => host.clone(),
            #[cfg(unix)]
            Some(tokio_postgres::config::Host::Unix(path)) => path.display().to_string(),
            _ => "?".into(),
        };
        let port = self.config.get_ports().first().copied().unwrap_or(5432);
        let database = self.config.get_dbname().or(self.config.get_user()).unwrap_or("?");
        format!("server={host}:{port} database={database} schema={}", self.schema)
    }
}

impl fmt::Debug for PostgresOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresOptions")
            .field("place", &self.place())
            .field("access", &self.access)
            .field("tls", &self.tls)
            .field("connections_max", &self.connections_max)
            .field("lock_timeout", &self.lock_timeout)
            .field("statement_timeout", &self.statement_timeout)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(url: &str) -> String {
        PostgresOptions::parse(url).map_or_else(|e| e.to_string(), |_| String::new())
    }

    #[test]
    fn a_url_says_server_database_and_schema() {
        let url = "postgres://ada:secret@db:5433/bank?schema=ledger&connections=3&sslmode=disable";
        let options = PostgresOptions::parse(url).unwrap();
        assert_eq!(options.place(), "server=db:5433 database=bank schema=ledger");
        assert_eq!((options.connections_max, options.tls), (3, Tls::Disable));
        assert!(!format!("{options:?}").contains("secret"));
    }

    #[test]
    fn no_error_holds_a_part_of_a_password() {
        for url in [
            "postgres://ada:s3c?r3t@db/bank",
            "postgres://ada:s3c?r3t=p1n@db/bank",
            "postgres://ada:s3c@r3t@db/bank",
            "postgres://ada:s3c@r3t:p1n@db/bank",
            "postgres://ada:s3c%ff@r3t@db/bank",
            "postgres://ada:s3c%zz?r3t@db/bank",
            "postgres://ada:s3c/r3t@db:x/bank",
            "postgres://ada:s3c",
            "postgres://ada:s3c/bank",
            "postgres://ada:s3c?r3t=p1n",
            "postgres://db/bank?password=s3c&r3t=p1n",
            "postgres://db/bank?password=s3c&mode=r3t",
            "postgres://db/bank?password=s3c&schema=r3t-x",
            "postgres://db/bank?password=s3c&sslmode=r3t",
            "postgres://db/bank?password=s3c&connections=r3t",
            "postgres://db:x/bank?password=s3c",
            "postgres:ada:s3c@db/bank",
            "postgres:/ada:s3c@db/bank",
            "postgres:host=db password=s3c",
            "host=db password=s3c",
        ] {
            let error = PostgresOptions::parse(url).unwrap_err();
            let source = std::error::Error::source(&error).map(ToString::to_string);
            let text = format!("{error} {error:?} {source:?}");
            for secret in ["s3c", "r3t", "p1n"] {
                assert!(!text.contains(secret), "{url}: {text}");
            }
        }
    }

    #[test]
    fn a_password_of_any_characters_is_read_when_it_is_percent_encoded() {
        let url = "postgres://ada:a%40b%3Ac%2Fd%3Fe%26f%25g%23@db/bank?mode=read";
        let options = PostgresOptions::parse(url).unwrap();
        assert_eq!(options.config.get_password(), Some("a@b:c/d?e&f%g#".as_bytes()));
        assert_eq!(options.place(), "server=db:5432 database=bank schema=factum");
    }

    #[test]
    fn what_is_wrong_in_a_url_is_named() {
        assert!(refusal("postgres://db/bank?schem=a").contains("option=schem "));
        assert!(refusal("postgres://db/bank?schema=a-b").ends_with("schema=a-b"));
        assert!(refusal("postgres://db/bank?schema=1a").ends_with("schema=1a"));
        assert!(refusal("postgres://db/bank?schema=pg_a").ends_with("schema=pg_a"));
        assert!(refusal("postgres://db/bank?mode=x").contains("mode=x"));
        for count in ["0", "-1", "262144", "18446744073709551615", "99999999999999999999"] {
            let refused = refusal(&format!("postgres://db/bank?connections={count}"));
            assert!(refused.contains(&format!("connections={count} ")), "{refused}");
        }
        assert!(refusal("postgres://db/bank?sslmode=allow").contains("sslmode=allow"));
        assert!(refusal("postgres://ada:secret@db:x/bank").contains("url=postgres://db:x/bank"));
    }
}

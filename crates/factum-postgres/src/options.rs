//! The options of a PostgreSQL store.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use factum_backend::{CommitDelay, IfAbsent, StoreUrl};
use factum_kernel::{Clock, IdSource, Limits, StoreError, SystemClock, SystemIds};
use tokio_postgres::Config;

use crate::name::SchemaName;

/// The default schema of a log.
pub const SCHEMA_DEFAULT: &str = "factum";
/// The default number of concurrent reads and writes of documents; further ones wait.
pub const CONNECTIONS_DEFAULT: usize = 8;
/// The default wait for another process's lock on the log.
pub const LOCK_TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);
/// The default time limit of a statement, after which it is cancelled.
pub const STATEMENT_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
/// The default wait for a connection.
pub const CONNECT_TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

/// The default time after which an unused connection is closed.
pub const IDLE_TIMEOUT_DEFAULT: Duration = Duration::from_secs(60);
/// The most connections that the options allow: the most that a server supports.
pub const CONNECTIONS_MAX: usize = 262_143;

/// The options of the URL that belong to the store; the others are PostgreSQL's.
const OWN: &[&str] = &["schema", "mode", "connections", "sslmode", "sslrootcert"];
/// The options of the URL that are passed to the driver.
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

/// The access that a store has to its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reading and writing.
    ReadWrite,
    /// Reading only, also from a standby. The schema must exist.
    ReadOnly,
}

/// The encryption of the connection, with the meanings of PostgreSQL's own clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tls {
    /// No encryption.
    Disable,
    /// Encryption if the server supports it. The server's identity is not checked.
    Prefer,
    /// Encryption is required. The server's certificate is checked only if `sslrootcert` names the
    /// certificates that may sign it.
    Require,
    /// Encryption is required. Certificate and host name are checked, against the system's roots
    /// unless `sslrootcert` names others.
    VerifyFull,
}

/// The options that a PostgreSQL store is opened with.
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
    /// The server, the database and the role.
    pub config: Config,
    /// The schema that holds the log. A database holds one log per such schema.
    pub schema: SchemaName,
    /// The access to the log.
    pub access: Access,
    /// The behaviour if there is no log in the schema. Reading only never makes one.
    pub if_absent: IfAbsent,
    /// The encryption of the connection.
    pub tls: Tls,
    /// A file of certificates (PEM) that may sign the server's certificate.
    pub root_certificate: Option<PathBuf>,
    /// The most connections that read and write documents, from 1 to [`CONNECTIONS_MAX`]; a closing
    /// connection counts. A process has two more connections: the writer's and the listener's.
    pub connections_max: usize,
    /// The longest wait for another process's lock on the log.
    pub lock_timeout: Duration,
    /// The time limit of a statement, including waits for locks. After it, the client asks the
    /// server to cancel the statement. The server enforces the limit as well, in whole
    /// milliseconds, except behind a pooler that refuses start-up options: set `statement_timeout`
    /// for the role there. A limit in the options of [`config`](Self::config) takes precedence.
    pub statement_timeout: Duration,
    /// The longest wait for a connection.
    pub connect_timeout: Duration,
    /// The time after which an unused connection is closed, in whole seconds, at least one. The
    /// listener's connection stays open.
    pub idle_timeout: Duration,
    /// The clock for the time of events.
    pub clock: Arc<dyn Clock>,
    /// The source of a new log's lineage.
    pub ids: Arc<dyn IdSource>,
    /// The limits of the store.
    pub limits: Limits,
    /// The delay of a commit between planning and storing, for tests.
    pub commit_delay: Option<CommitDelay>,
}

impl PostgresOptions {
    /// Options for this server and database, with the schema [`SCHEMA_DEFAULT`] and the machine's
    /// clock.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            schema: SchemaName::default(),
            access: Access::ReadWrite,
            if_absent: IfAbsent::Make,
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

    /// Parses a URL such as `postgres://user@host:5432/database?schema=bank`. Special characters in
    /// the user and the password are percent-encoded: `%40` for `@`, `%3A` for `:`, `%2F` for `/`,
    /// `%3F` for `?`, `%26` for `&`, `%25` for `%`.
    ///
    /// # Errors
    /// `Invalid`, with the fault, and without any text that may be a part of a password.
    pub fn parse(url: &str) -> Result<Self, StoreError> {
        let url = StoreUrl::parse(url).ok_or_else(|| {
            StoreError::invalid("no URL of a PostgreSQL store, write postgres://host/database")
        })?;
        Self::of_url(&url)
    }

    /// Like [`parse`](Self::parse), for a URL that is parsed already.
    ///
    /// # Errors
    /// `Invalid`, with the fault.
    pub fn of_url(url: &StoreUrl) -> Result<Self, StoreError> {
        url.allow_options(&[OWN, DRIVER].concat())?;
        if !url.path().starts_with("//") || url.path().matches('@').count() > 1 {
            return Err(StoreError::invalid(format!(
                "write the URL as postgres://user:password@host/database, with %40 for an @ in the \
                 user or the password: url={url}"
            )));
        }
        let given = DRIVER.iter().filter_map(|name| Some((name, url.option(name)?)));
        let given: Vec<_> = given.map(|(name, value)| format!("{name}={value}")).collect();
        let text = format!("postgres:{}?{}", url.path(), given.join("&"));
        let config = text.parse::<Config>().map_err(|e| {
            let text = format!(
                "the URL is not one that PostgreSQL's clients read, percent-encode special \
                 characters in the user and the password: url={url}"
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
        options.if_absent = url.if_absent(IfAbsent::Make);
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
    /// `Invalid` for a text that is not a [`SchemaName`].
    pub fn with_schema(mut self, schema: &str) -> Result<Self, StoreError> {
        self.schema = SchemaName::new(schema)?;
        Ok(self)
    }

    /// Sets the access.
    pub fn with_access(mut self, access: Access) -> Self {
        self.access = access;
        self
    }

    /// Sets the behaviour if there is no log in the schema.
    pub fn with_if_absent(mut self, if_absent: IfAbsent) -> Self {
        self.if_absent = if_absent;
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

    /// Sets the limits.
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets the number of concurrent reads and writes of documents.
    pub fn with_connections_max(mut self, connections: usize) -> Self {
        self.connections_max = connections;
        self
    }

    /// Sets the longest wait for another process's lock on the log.
    pub fn with_lock_timeout(mut self, timeout: Duration) -> Self {
        self.lock_timeout = timeout;
        self
    }

    /// Sets the time limit of a statement.
    pub fn with_statement_timeout(mut self, timeout: Duration) -> Self {
        self.statement_timeout = timeout;
        self
    }

    /// Sets the time after which an unused connection is closed.
    pub fn with_idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle_timeout = timeout;
        self
    }

    /// Sets the delay between planning and storing.
    pub fn with_commit_delay(mut self, delay: CommitDelay) -> Self {
        self.commit_delay = Some(delay);
        self
    }

    /// The place of the log, for error messages, without secrets.
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
            .field("if_absent", &self.if_absent)
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

//! The schema of a build: its name, and how it is made and dropped.

use factum_consumer::{ConsumerName, TargetError};
use sqlx::AssertSqlSafe;

use super::{
    fault,
    name::{NAME_BYTES_MAX, TargetSchema, literal, quoted},
    statement::hash,
    transaction::PostgresTx,
};

/// The bytes of a hash and of the character before it.
const HASH_BYTES: usize = 17;

/// Reads the comment of the schema, which names its owner.
const COMMENT: &str = "SELECT pg_catalog.obj_description(oid, 'pg_namespace')
    FROM pg_catalog.pg_namespace WHERE nspname OPERATOR(pg_catalog.=) $1";
/// Statements that lock each relation of the schema exclusively and change nothing. The dependants
/// are looked up after that, when every transaction that was adding one has ended. (`LOCK TABLE`
/// would also lock the relations that a view reads, in any schema.)
const LOCK_ALL: &str = "SELECT pg_catalog.string_agg(pg_catalog.format(
        'ALTER TABLE %I.%I OWNER TO %I', nspname, relname, pg_catalog.pg_get_userbyid(relowner)
    ), '; ' ORDER BY relname)
    FROM pg_catalog.pg_class
    JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) relnamespace
    WHERE nspname OPERATOR(pg_catalog.=) $1
    AND relkind OPERATOR(pg_catalog.=) ANY ('{r,p,v,m,f}'::pg_catalog.\"char\"[])";
/// All objects outside of the schema that would be dropped with it. The query walks the catalog
/// from an object to its dependants. An object that belongs to a table, such as a constraint,
/// counts as part of the table.
const DEPENDANTS: &str = "WITH RECURSIVE reached (classid, objid, objsubid) AS (
        SELECT 'pg_catalog.pg_namespace'::pg_catalog.regclass::pg_catalog.oid, oid, 0
        FROM pg_catalog.pg_namespace WHERE nspname OPERATOR(pg_catalog.=) $1
        UNION
        SELECT d.classid, d.objid, d.objsubid
        FROM reached r JOIN pg_catalog.pg_depend d
        ON d.refclassid OPERATOR(pg_catalog.=) r.classid
        AND d.refobjid OPERATOR(pg_catalog.=) r.objid
        AND (r.objsubid OPERATOR(pg_catalog.=) 0
            OR d.refobjsubid OPERATOR(pg_catalog.=) r.objsubid)
    )
    SELECT pg_catalog.replace(
        pg_catalog.format('%s %s', o.type, o.identity), 'rule \"_RETURN\" on', 'view'
    )
    FROM reached
    CROSS JOIN pg_catalog.pg_identify_object(classid, objid, objsubid) o
    CROSS JOIN pg_catalog.pg_identify_object_as_address(classid, objid, objsubid) a
    WHERE o.type OPERATOR(pg_catalog.<>) ALL ('{schema,extension}')
    AND coalesce(o.schema, pg_catalog.quote_ident(a.object_names[CASE
        WHEN o.type OPERATOR(pg_catalog.=) ANY
        ('{default acl,operator of access method,function of access method}')
        THEN 2 ELSE 1 END]))
    OPERATOR(pg_catalog.<>) ALL (ARRAY[pg_catalog.quote_ident($1), 'pg_toast'])
    ORDER BY 1 LIMIT 8";

/// The schema of one build's tables.
#[derive(Debug)]
pub(crate) struct BuildSchema {
    /// The name of the build: the name of its consumers without the partition.
    build: ConsumerName,
    /// The name of the schema, without quotes.
    schema: String,
    quoted: String,
    /// The schema's comment, which names its owner.
    mark: String,
}

impl BuildSchema {
    /// The schema of a build whose progress is stored in this schema.
    pub(crate) fn new(consumer: &ConsumerName, progress: Option<&TargetSchema>) -> Self {
        Self::of(consumer.whole(), progress)
    }

    /// The schema of the same build with its progress in another schema.
    pub(crate) fn within(&self, progress: Option<&TargetSchema>) -> Self {
        Self::of(self.build.clone(), progress)
    }

    fn of(build: ConsumerName, progress: Option<&TargetSchema>) -> Self {
        let whole = match progress {
            // A consumer's name contains no slash, so two builds never share a name.
            Some(progress) => format!("{progress}/{build}"),
            None => build.to_string(),
        };
        let schema = fitting(&whole);
        let mark = format!("factum: build {whole}");
        Self { build, quoted: quoted(&schema), schema, mark }
    }

    /// The name for use in a statement.
    pub(crate) fn quoted(&self) -> &str {
        &self.quoted
    }

    /// The statement that puts the build's schema first in the search path of a batch.
    pub(crate) fn search(&self) -> String {
        format!(
            "SELECT pg_catalog.set_config('search_path', pg_catalog.concat_ws(', ', {}, \
             CASE WHEN pg_catalog.current_setting('search_path') OPERATOR(pg_catalog.<>) '' \
             THEN pg_catalog.current_setting('search_path') END), true)",
            literal(&self.quoted),
        )
    }

    /// Checks that a consumer is of this build: a target does not know the tables of other builds.
    pub(crate) fn check(&self, consumer: &ConsumerName) -> Result<(), TargetError> {
        if consumer.whole() == self.build {
            return Ok(());
        }
        let build = &self.build;
        Err(fault::refused(&format!(
            "the target is of another build: build={build} consumer={consumer}"
        )))
    }

    /// Makes the schema if it does not exist.
    pub(crate) async fn make(&self, tx: &mut PostgresTx) -> Result<(), TargetError> {
        match self.comment(tx).await.map_err(fault::before_commit)? {
            Some(mark) if mark == self.mark => return Ok(()),
            Some(_) => {
                return Err(fault::refused(&format!(
                    "a schema with the build's name exists already and is not its own, \
                     rename it: schema={}",
                    self.schema
                )));
            }
            None => {}
        }
        let schema = &self.quoted;
        let mark = literal(&self.mark);
        let make = format!("CREATE SCHEMA {schema}; COMMENT ON SCHEMA {schema} IS {mark}");
        let made = sqlx::raw_sql(AssertSqlSafe(make)).execute(&mut **tx).await;
        made.map(drop).map_err(fault::before_commit)
    }

    /// Drops the schema if it exists, is the build's own, and has no dependants outside of it.
    pub(crate) async fn drop(&self, tx: &mut PostgresTx) -> Result<(), TargetError> {
        let comment = self.comment(tx).await.map_err(fault::before_commit)?;
        if comment.is_none_or(|mark| mark != self.mark) {
            return Ok(());
        }
        let dependants = self.dependants(tx).await.map_err(fault::before_commit)?;
        if !dependants.is_empty() {
            return Err(fault::refused(&format!(
                "other objects depend on a build that is to be dropped, drop them or let them use \
                 the serving build: schema={} dependants={}",
                self.schema,
                dependants.join(", ")
            )));
        }
        let drop = format!("DROP SCHEMA {} CASCADE", self.quoted);
        let dropped = sqlx::raw_sql(AssertSqlSafe(drop)).execute(&mut **tx).await;
        dropped.map(|_| ()).map_err(fault::before_commit)
    }

    /// The objects outside of the schema that would be dropped with it. The locks that it takes
    /// keep others from adding more.
    async fn dependants(&self, tx: &mut PostgresTx) -> Result<Vec<String>, sqlx::Error> {
        let lock = sqlx::query_scalar::<_, Option<String>>(LOCK_ALL).bind(&self.schema);
        if let Some(lock) = lock.fetch_one(&mut **tx).await? {
            sqlx::raw_sql(AssertSqlSafe(lock)).execute(&mut **tx).await?;
        }
        sqlx::query_scalar(DEPENDANTS).bind(&self.schema).fetch_all(&mut **tx).await
    }

    /// The comment of the schema, if the schema exists.
    async fn comment(&self, tx: &mut PostgresTx) -> Result<Option<String>, sqlx::Error> {
        let comment = sqlx::query_scalar::<_, Option<String>>(COMMENT).bind(&self.schema);
        Ok(comment.fetch_optional(&mut **tx).await?.map(Option::unwrap_or_default))
    }
}

/// The name, or if it is too long, its beginning and a hash of the whole.
fn fitting(name: &str) -> String {
    if name.len() <= NAME_BYTES_MAX {
        return name.to_owned();
    }
    let kept = name.floor_char_boundary(NAME_BYTES_MAX - HASH_BYTES);
    // If two names have the same hash, the comment tells them apart and the second schema is
    // refused.
    format!("{}~{:016x}", &name[..kept], hash(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(name: &str, progress: Option<&str>) -> String {
        let consumer = ConsumerName::new(name).unwrap().versioned(2);
        let progress = progress.map(|text| TargetSchema::new(text).unwrap());
        BuildSchema::new(&consumer, progress.as_ref()).schema
    }

    #[test]
    fn a_schema_has_the_name_of_its_build_and_fits() {
        assert_eq!(schema("totals", None), "totals@2");
        assert_eq!(schema("totals", Some("bank")), "bank/totals@2");
        let long = "a".repeat(61);
        let longer = "a".repeat(128);
        assert_eq!(schema(&long, None), format!("{long}@2"));
        let cut = [schema(&longer, None), schema(&longer[1..], None), schema("b", Some(&long))];
        assert!(cut.iter().all(|it| it.len() == 63 && it.starts_with("aaaa")), "{cut:?}");
        assert!(cut[0] != cut[1] && cut[1] != cut[2] && cut[2] != cut[0], "{cut:?}");
        let umlauts = schema("b", Some(&"ä".repeat(31)));
        assert!(umlauts.len() <= 63 && umlauts.starts_with("ää"), "{umlauts}");
    }
}

//! The schema of a build: named after it, made with it, dropped with it.

use factum_consumer::{ConsumerName, TargetError};
use sqlx::AssertSqlSafe;

use super::{
    fault,
    name::{NAME_BYTES_MAX, TargetSchema, literal, quoted},
    statement::hash,
    transaction::PostgresTx,
};

/// The bytes of a hash, and of the sign before it.
const HASH_BYTES: usize = 17;

/// Whether the schema is there, and whose it says it is.
const SAYS: &str = "SELECT pg_catalog.obj_description(oid, 'pg_namespace')
    FROM pg_catalog.pg_namespace WHERE nspname OPERATOR(pg_catalog.=) $1";
/// Statements that lock each relation of the schema against everybody, and change nothing. Their
/// dependants are looked for after that, so a transaction that makes another one has ended. (`LOCK
/// TABLE` would lock what a view reads, too, in any schema.)
const LOCK_ALL: &str = "SELECT pg_catalog.string_agg(pg_catalog.format(
        'ALTER TABLE %I.%I OWNER TO %I', nspname, relname, pg_catalog.pg_get_userbyid(relowner)
    ), '; ' ORDER BY relname)
    FROM pg_catalog.pg_class
    JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) relnamespace
    WHERE nspname OPERATOR(pg_catalog.=) $1
    AND relkind OPERATOR(pg_catalog.=) ANY ('{r,p,v,m,f}'::pg_catalog.\"char\"[])";
/// Everything that would go with the schema and is not in it: the catalog's own walk from an
/// object to those that depend on it. What belongs to a table, as a constraint does, is where the
/// table is.
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

/// The schema that one build's tables are in.
#[derive(Debug)]
pub(crate) struct BuildSchema {
    /// The build's name: that of its consumers, but for the partition.
    build: ConsumerName,
    /// Unquoted.
    schema: String,
    quoted: String,
    /// What the schema's comment says: whose it is.
    mark: String,
}

impl BuildSchema {
    /// The schema of a build whose progress is kept in this schema.
    pub(crate) fn new(consumer: &ConsumerName, progress: Option<&TargetSchema>) -> Self {
        Self::of(consumer.whole(), progress)
    }

    /// The same build, its progress in another schema.
    pub(crate) fn within(&self, progress: Option<&TargetSchema>) -> Self {
        Self::of(self.build.clone(), progress)
    }

    fn of(build: ConsumerName, progress: Option<&TargetSchema>) -> Self {
        let whole = match progress {
            // No name of a consumer has a slash, so no two builds have one name.
            Some(progress) => format!("{progress}/{build}"),
            None => build.to_string(),
        };
        let schema = fitting(&whole);
        let mark = format!("factum: build {whole}");
        Self { build, quoted: quoted(&schema), schema, mark }
    }

    /// As it stands in a statement.
    pub(crate) fn quoted(&self) -> &str {
        &self.quoted
    }

    /// Lets the statements of a batch find the build's tables before all others.
    pub(crate) fn search(&self) -> String {
        format!(
            "SELECT pg_catalog.set_config('search_path', pg_catalog.concat_ws(', ', {}, \
             CASE WHEN pg_catalog.current_setting('search_path') OPERATOR(pg_catalog.<>) '' \
             THEN pg_catalog.current_setting('search_path') END), true)",
            literal(&self.quoted),
        )
    }

    /// A target is of one build; it knows nothing of another's tables.
    pub(crate) fn check(&self, consumer: &ConsumerName) -> Result<(), TargetError> {
        if consumer.whole() == self.build {
            return Ok(());
        }
        let build = &self.build;
        Err(fault::refused(&format!("the target is another build's: build={build} of={consumer}")))
    }

    /// Makes it, if it is not there.
    pub(crate) async fn make(&self, tx: &mut PostgresTx) -> Result<(), TargetError> {
        match self.says(tx).await.map_err(fault::before_commit)? {
            Some(mark) if mark == self.mark => return Ok(()),
            Some(_) => {
                return Err(fault::refused(&format!(
                    "there is a schema already that has the build's name and is not its own, \
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

    /// Drops it, if it is there and the build's own, and nothing outside of it would go with it.
    pub(crate) async fn drop(&self, tx: &mut PostgresTx) -> Result<(), TargetError> {
        let says = self.says(tx).await.map_err(fault::before_commit)?;
        if says.is_none_or(|mark| mark != self.mark) {
            return Ok(());
        }
        let dependants = self.dependants(tx).await.map_err(fault::before_commit)?;
        if !dependants.is_empty() {
            return Err(fault::refused(&format!(
                "other objects depend on a build that is to go, drop them or let them use the \
                 serving build: schema={} dependants={}",
                self.schema,
                dependants.join(", ")
            )));
        }
        let drop = format!("DROP SCHEMA {} CASCADE", self.quoted);
        let dropped = sqlx::raw_sql(AssertSqlSafe(drop)).execute(&mut **tx).await;
        dropped.map(|_| ()).map_err(fault::before_commit)
    }

    /// What outside of the schema would go with it; nothing can be added from here on.
    async fn dependants(&self, tx: &mut PostgresTx) -> Result<Vec<String>, sqlx::Error> {
        let lock = sqlx::query_scalar::<_, Option<String>>(LOCK_ALL).bind(&self.schema);
        if let Some(lock) = lock.fetch_one(&mut **tx).await? {
            sqlx::raw_sql(AssertSqlSafe(lock)).execute(&mut **tx).await?;
        }
        sqlx::query_scalar(DEPENDANTS).bind(&self.schema).fetch_all(&mut **tx).await
    }

    /// What its comment says, if it is there.
    async fn says(&self, tx: &mut PostgresTx) -> Result<Option<String>, sqlx::Error> {
        let said = sqlx::query_scalar::<_, Option<String>>(SAYS).bind(&self.schema);
        Ok(said.fetch_optional(&mut **tx).await?.map(Option::unwrap_or_default))
    }
}

/// The name, or where it is too long its beginning and a hash of all of it.
fn fitting(name: &str) -> String {
    if name.len() <= NAME_BYTES_MAX {
        return name.to_owned();
    }
    let kept = name.floor_char_boundary(NAME_BYTES_MAX - HASH_BYTES);
    // Two names that hash alike are told apart by the mark, and the second is refused.
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

//! The schema of a build: named after it, made with it, dropped with it.

use sqlx::AssertSqlSafe;

use super::{
    fault,
    statement::{hash, quoted},
    transaction::PostgresTx,
};
use crate::{name::ConsumerName, target::TargetError};

/// The most bytes of a name in PostgreSQL; what is longer would be cut off.
const NAME_BYTES_MAX: usize = 63;
/// The bytes of a hash, and of the sign before it.
const HASH_BYTES: usize = 17;

/// Whether the schema is there, and whose it says it is.
const SAYS: &str = "SELECT obj_description(oid, 'pg_namespace') FROM pg_namespace
    WHERE nspname = $1";
/// Views of others that read the tables of this schema: they would go with it.
const LEANS_ON_IT: &str = "SELECT min(view.oid::regclass::text)
    FROM pg_depend
    JOIN pg_rewrite ON classid = 'pg_rewrite'::regclass AND objid = pg_rewrite.oid
    JOIN pg_class view ON view.oid = ev_class
    JOIN pg_class read ON refclassid = 'pg_class'::regclass AND refobjid = read.oid
    WHERE read.relnamespace = $1::text::regnamespace
    AND view.relnamespace <> read.relnamespace";

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
    pub(crate) fn new(consumer: &ConsumerName, progress: Option<&str>) -> Self {
        Self::of(consumer.whole(), progress)
    }

    /// The same build, its progress in another schema.
    pub(crate) fn within(&self, progress: Option<&str>) -> Self {
        Self::of(self.build.clone(), progress)
    }

    fn of(build: ConsumerName, progress: Option<&str>) -> Self {
        let whole = match progress {
            // No name of a consumer has a slash, so no two builds have one name.
            Some(progress) => format!("{progress}/{build}"),
            None => build.to_string(),
        };
        let (schema, mark) = (fitting(&whole), format!("factum: build {whole}"));
        Self { build, quoted: quoted(&schema), schema, mark }
    }

    /// As it stands in a statement.
    pub(crate) fn quoted(&self) -> &str {
        &self.quoted
    }

    /// Lets the statements of a batch find the build's tables before all others.
    pub(crate) fn search(&self) -> String {
        format!(
            "SELECT set_config('search_path', concat_ws(', ', '{}', \
             nullif(current_setting('search_path'), '')), true)",
            self.quoted.replace('\'', "''"),
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
        let (schema, mark) = (&self.quoted, self.mark.replace('\'', "''"));
        let make = format!("CREATE SCHEMA {schema}; COMMENT ON SCHEMA {schema} IS '{mark}'");
        let made = sqlx::raw_sql(AssertSqlSafe(make)).execute(&mut **tx).await;
        made.map(drop).map_err(fault::before_commit)
    }

    /// Drops it, if it is there and the build's own, and nobody else leans on it.
    pub(crate) async fn drop(&self, tx: &mut PostgresTx) -> Result<(), TargetError> {
        let says = self.says(tx).await.map_err(fault::before_commit)?;
        if says.is_none_or(|mark| mark != self.mark) {
            return Ok(());
        }
        let view = sqlx::query_scalar::<_, Option<String>>(LEANS_ON_IT).bind(&self.quoted);
        if let Some(view) = view.fetch_one(&mut **tx).await.map_err(fault::before_commit)? {
            return Err(fault::refused(&format!(
                "a view reads the tables of a build that is to go, drop it or let it read the \
                 serving build: view={view} schema={}",
                self.schema
            )));
        }
        let drop = format!("DROP SCHEMA {} CASCADE", self.quoted);
        let dropped = sqlx::raw_sql(AssertSqlSafe(drop)).execute(&mut **tx).await;
        dropped.map(|_| ()).map_err(fault::before_commit)
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
        BuildSchema::new(&consumer, progress).schema
    }

    #[test]
    fn a_schema_has_the_name_of_its_build_and_fits() {
        assert_eq!(schema("totals", None), "totals@2");
        assert_eq!(schema("totals", Some("bank")), "bank/totals@2");
        let (long, longer) = ("a".repeat(61), "a".repeat(128));
        assert_eq!(schema(&long, None), format!("{long}@2"));
        let cut = [schema(&longer, None), schema(&longer[1..], None), schema("b", Some(&longer))];
        assert!(cut.iter().all(|it| it.len() == 63 && it.starts_with("aaaa")), "{cut:?}");
        assert!(cut[0] != cut[1] && cut[1] != cut[2] && cut[2] != cut[0], "{cut:?}");
        let umlauts = schema("b", Some(&"ä".repeat(31)));
        assert!(umlauts.len() <= 63 && umlauts.starts_with("ää"), "{umlauts}");
    }
}

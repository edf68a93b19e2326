//! The stores and frameworks that are measured.

use std::fmt;

/// The name of a store or framework.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Store {
    Factum,
    Bare,
    BareKey,
    CqrsEs,
    Disintegrate,
    DisintegrateUnchecked,
    Esrs,
    Eventcore,
    Evento,
}

impl Store {
    /// All, in the order of the report. The first forms the groups that the bare ones insert.
    pub(crate) const ALL: &[Self] = &[
        Self::Factum,
        Self::Bare,
        Self::BareKey,
        Self::CqrsEs,
        Self::Disintegrate,
        Self::DisintegrateUnchecked,
        Self::Esrs,
        Self::Eventcore,
        Self::Evento,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Factum => "factum",
            Self::Bare => "bare",
            Self::BareKey => "bare-key",
            Self::CqrsEs => "cqrs-es",
            Self::Disintegrate => "disintegrate",
            Self::DisintegrateUnchecked => "disintegrate-unchecked",
            Self::Esrs => "esrs",
            Self::Eventcore => "eventcore",
            Self::Evento => "evento",
        }
    }

    pub(crate) fn parse(name: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().copied().find(|store| store.name() == name);
        found.ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|store| store.name()).collect();
            format!("there are {}", names.join(", "))
        })
    }

    /// The call of an append, in a few words.
    pub(crate) fn append(self) -> &'static str {
        match self {
            Self::Factum => "one call of a function per group, its own group commit",
            Self::Bare => "factum's groups by INSERT .. SELECT unnest, its table, nothing checked",
            Self::BareKey => "the same into a table with only a primary key",
            Self::CqrsEs => "PostgresEventRepository::persist: BEGIN, INSERT, COMMIT",
            Self::Disintegrate => {
                "PgEventStore::append: BEGIN, SERIALIZABLE, epoch, EXISTS, INSERT, COMMIT; retried"
            }
            Self::DisintegrateUnchecked => {
                "PgEventStore::append_without_validation: BEGIN, epoch, INSERT, COMMIT"
            }
            Self::Esrs => "PgStore::persist: BEGIN, INSERT, COMMIT",
            Self::Eventcore => {
                "append_events: BEGIN, lock, version, set_config, INSERT with trigger, COMMIT"
            }
            Self::Evento => "append().commit(): routing key, version, INSERT",
        }
    }

    /// The table that holds its events.
    pub(crate) fn table(self) -> &'static str {
        match self {
            Self::Factum | Self::Bare => "factum.events",
            Self::BareKey => "bare_key",
            Self::CqrsEs => "events",
            Self::Disintegrate | Self::DisintegrateUnchecked | Self::Evento => "event",
            Self::Esrs => "account_events",
            Self::Eventcore => "eventcore_events",
        }
    }

    /// The first version of PostgreSQL that understands its SQL.
    pub(crate) fn server_min(self) -> u32 {
        match self {
            // It writes a number as 0xFFFFFFFF.
            Self::Disintegrate | Self::DisintegrateUnchecked => 16,
            _ => 14,
        }
    }

    /// Returns whether it is a framework that factum is compared with.
    pub(crate) fn is_framework(self) -> bool {
        !matches!(self, Self::Factum | Self::Bare | Self::BareKey)
    }
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

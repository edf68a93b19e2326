//! The stored names and categories of an application's types, to find names that are used twice.

use std::{
    any::TypeId,
    collections::{HashMap, HashSet},
    sync::RwLock,
};

use factum_kernel::{Aggregate, DuplicateEventType, ErrorKind, Event, EventName};

/// The reason why two types of an application can't be used together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Clash {
    /// Two enums store events under the same name.
    #[error(transparent)]
    EventType(#[from] DuplicateEventType),
    /// Two enums give their events names with the same prefix: a reader of one would take the
    /// other's events for new ones of its own, and wait for a program that knows them.
    #[error(
        "two enums have one prefix, give one of them another or make them one enum: \
         prefix={prefix} first={first} second={second}"
    )]
    Prefix {
        /// The prefix of the names.
        prefix: String,
        /// The enum that was registered first.
        first: &'static str,
        /// The enum that was registered second.
        second: &'static str,
    },
    /// Two kinds of aggregate have the same category: each would load the other's events.
    #[error(
        "two aggregates have one CATEGORY, give one of them another: category={category} \
         first={first} second={second}"
    )]
    Category {
        /// The category.
        category: &'static str,
        /// The aggregate that was registered first.
        first: &'static str,
        /// The aggregate that was registered second.
        second: &'static str,
    },
}

impl Clash {
    /// The kind of the error: what the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }
}

/// The stored names that an application uses, with the enums that define them.
#[derive(Debug, Default)]
pub(crate) struct Catalog(RwLock<Registered>);

#[derive(Debug, Default)]
struct Registered {
    enums: HashSet<TypeId>,
    names: HashMap<EventName, &'static str>,
    prefixes: HashMap<String, &'static str>,
    aggregates: HashSet<TypeId>,
    categories: HashMap<&'static str, &'static str>,
}

impl Catalog {
    /// Registers an aggregate and its events. For a registered aggregate this is only a lookup.
    pub(crate) fn add<A: Aggregate>(&self) -> Result<(), Clash> {
        let id = TypeId::of::<A>();
        if self.0.read().expect("no holder of the lock panics").aggregates.contains(&id) {
            return Ok(());
        }
        self.add_events::<A::Event>()?;
        let mut registered = self.0.write().expect("no holder of the lock panics");
        let category = A::CATEGORY;
        let second = std::any::type_name::<A>();
        let first = *registered.categories.entry(category).or_insert(second);
        if first != second {
            return Err(Clash::Category { category, first, second });
        }
        registered.aggregates.insert(id);
        Ok(())
    }

    /// Registers the stored names of an enum.
    pub(crate) fn add_events<E: Event>(&self) -> Result<(), Clash> {
        let id = TypeId::of::<E>();
        if self.0.read().expect("no holder of the lock panics").enums.contains(&id) {
            return Ok(());
        }
        let mut registered = self.0.write().expect("no holder of the lock panics");
        for found in E::types() {
            let first = *registered.names.entry(found.name.clone()).or_insert(found.rust_type);
            if first != found.rust_type {
                let name = found.name;
                let second = found.rust_type;
                return Err(DuplicateEventType { name, first, second }.into());
            }
        }
        for found in E::types() {
            let second = found.rust_type;
            let Some((prefix, _)) = found.name.as_str().rsplit_once('.') else { continue };
            let first = *registered.prefixes.entry(prefix.to_owned()).or_insert(second);
            if first != second {
                return Err(Clash::Prefix { prefix: prefix.into(), first, second });
            }
        }
        registered.enums.insert(id);
        Ok(())
    }
}

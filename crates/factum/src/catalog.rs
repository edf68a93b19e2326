//! Which enum stores events under which name, so that two under one name are found.

use std::{
    any::TypeId,
    collections::{HashMap, HashSet},
    sync::RwLock,
};

use factum_kernel::{Aggregate, DuplicateEventType, ErrorKind, Event, EventName};

/// Why an application's types don't go together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Clash {
    /// Two enums store events under one name.
    #[error(transparent)]
    EventType(#[from] DuplicateEventType),
    /// Two kinds of aggregate have one category: each would load the other's events.
    #[error(
        "two aggregates have one CATEGORY, give one of them another: category={category} \
         first={first} second={second}"
    )]
    Category {
        /// The category.
        category: &'static str,
        /// The aggregate that has it.
        first: &'static str,
        /// The aggregate that wants it too.
        second: &'static str,
    },
}

impl Clash {
    /// What the caller can do.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }
}

/// The stored names that an application uses, with the enums that define them.
#[derive(Debug, Default)]
pub(crate) struct Catalog(RwLock<Noted>);

#[derive(Debug, Default)]
struct Noted {
    enums: HashSet<TypeId>,
    names: HashMap<EventName, &'static str>,
    aggregates: HashSet<TypeId>,
    categories: HashMap<&'static str, &'static str>,
}

impl Catalog {
    /// Notes an aggregate and its events. The second time costs a look.
    pub(crate) fn add<A: Aggregate>(&self) -> Result<(), Clash> {
        let id = TypeId::of::<A>();
        if self.0.read().expect("no holder of the lock panics").aggregates.contains(&id) {
            return Ok(());
        }
        self.add_events::<A::Event>()?;
        let mut noted = self.0.write().expect("no holder of the lock panics");
        let category = A::CATEGORY;
        let second = std::any::type_name::<A>();
        let first = *noted.categories.entry(category).or_insert(second);
        if first != second {
            return Err(Clash::Category { category, first, second });
        }
        noted.aggregates.insert(id);
        Ok(())
    }

    /// Notes the names of an enum.
    pub(crate) fn add_events<E: Event>(&self) -> Result<(), DuplicateEventType> {
        let id = TypeId::of::<E>();
        if self.0.read().expect("no holder of the lock panics").enums.contains(&id) {
            return Ok(());
        }
        let mut noted = self.0.write().expect("no holder of the lock panics");
        for found in E::types() {
            let first = *noted.names.entry(found.name.clone()).or_insert(found.rust_type);
            if first != found.rust_type {
                let name = found.name;
                let second = found.rust_type;
                return Err(DuplicateEventType { name, first, second });
            }
        }
        noted.enums.insert(id);
        Ok(())
    }
}

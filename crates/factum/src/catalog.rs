//! Which enum stores events under which name, so that two under one name are found.

use std::{
    any::TypeId,
    collections::{HashMap, HashSet},
    sync::RwLock,
};

use factum_core::{DuplicateEventType, Event, EventName};

/// The stored names that an application uses, with the enums that define them.
#[derive(Debug, Default)]
pub(crate) struct Catalog(RwLock<Noted>);

#[derive(Debug, Default)]
struct Noted {
    enums: HashSet<TypeId>,
    names: HashMap<EventName, &'static str>,
}

impl Catalog {
    /// Notes the names of an enum. The second time costs a look.
    pub(crate) fn add<E: Event>(&self) -> Result<(), DuplicateEventType> {
        let id = TypeId::of::<E>();
        if self.0.read().expect("no holder of the lock panics").enums.contains(&id) {
            return Ok(());
        }
        let mut noted = self.0.write().expect("no holder of the lock panics");
        for found in E::types() {
            let first = *noted.names.entry(found.name.clone()).or_insert(found.rust_type);
            if first != found.rust_type {
                let (name, second) = (found.name, found.rust_type);
                return Err(DuplicateEventType { name, first, second });
            }
        }
        noted.enums.insert(id);
        Ok(())
    }
}

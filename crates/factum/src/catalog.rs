//! Which enum stores events under which name, so that two under one name are found.

use std::{collections::HashMap, sync::Mutex};

use factum_core::{DuplicateEventType, Event, EventName};

/// The stored names that an application uses, with the enums that define them.
#[derive(Debug, Default)]
pub(crate) struct Catalog(Mutex<HashMap<EventName, &'static str>>);

impl Catalog {
    /// Notes the names of an enum.
    pub(crate) fn add<E: Event>(&self) -> Result<(), DuplicateEventType> {
        let mut names = self.0.lock().expect("no holder of the lock panics");
        for found in E::types() {
            let first = *names.entry(found.name.clone()).or_insert(found.rust_type);
            if first != found.rust_type {
                let (name, second) = (found.name, found.rust_type);
                return Err(DuplicateEventType { name, first, second });
            }
        }
        Ok(())
    }
}

//! The scope of a read, implemented again and independently of any store.

use factum_kernel::{RecordedEvent, Scope};

pub(crate) fn in_scope(scope: &Scope, event: &RecordedEvent) -> bool {
    match scope {
        Scope::Log => true,
        Scope::Stream(stream) => event.stream() == *stream,
        Scope::Category(category) => event.stream().category() == category.as_str(),
        Scope::Query(query) => query.matches(event.name(), event.tags()),
    }
}

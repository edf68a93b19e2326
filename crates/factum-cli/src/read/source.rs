//! The source of the events: a read that ends, or a subscription.

use factum::{
    App, Position, ReadLog, ReadQuery, RecordedEvent, Subscription,
    read::{PAGE_EVENTS_DEFAULT, ReadError, Scope, SubscribeFrom},
};

use crate::args::ReadArgs;

/// A read that ends, or a subscription.
pub(crate) enum Source {
    /// The events up to the head.
    There(ReadLog),
    /// The events up to the head, and then each new one.
    Coming(Box<Subscription>),
}

impl Source {
    /// The events of a scope, with the options of the command line.
    pub(crate) fn new(app: &App, scope: Scope, args: &ReadArgs) -> Self {
        if args.follow {
            return Self::coming(app, scope, args);
        }
        let limit = args.limit.and_then(|limit| usize::try_from(limit).ok());
        let events_max = limit.map_or(PAGE_EVENTS_DEFAULT, |limit| limit.min(PAGE_EVENTS_DEFAULT));
        let mut query =
            ReadQuery::log().after(Position::new(args.after)).with_events_max(events_max);
        query.scope = scope;
        let read = app.read(query);
        Self::There(if args.system { read.with_system() } else { read })
    }

    fn coming(app: &App, scope: Scope, args: &ReadArgs) -> Self {
        let from = match args.after {
            0 => SubscribeFrom::Start,
            _ => SubscribeFrom::After(Position::new(args.after)),
        };
        let events = app.subscribe(scope, from);
        Self::Coming(Box::new(if args.system { events.with_system() } else { events }))
    }

    /// Returns the next event; `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<Result<RecordedEvent, ReadError>> {
        match self {
            Self::There(read) => read.next().await,
            Self::Coming(events) => events.next().await,
        }
    }
}

//! `factum read`: events, a line each, of what is there and of what comes.

mod line;
mod source;
mod value;

use std::{future::poll_fn, pin::pin, task::Poll};

use factum::{App, Query, QueryItem, ReadError, RecordedEvent, Scope};

use crate::{
    args::ReadArgs, exit::Failure, interrupt::Interrupt, output::Output, place::Place,
    read::source::Source,
};

/// Prints the events that were asked for.
pub(crate) async fn run(args: &ReadArgs, out: &mut Output) -> Result<(), Failure> {
    let app = App::open(&Place::find(&args.store)?.for_reading()).await?;
    let mut source = Source::new(&app, scope(args), args);
    let interrupt = Interrupt::listen();
    let ended = tokio::select! {
        ended = print(&mut source, args, out) => ended,
        () = interrupt.wait() => Err(Failure::interrupted("reading was interrupted")),
    };
    // What was printed before an error is worth seeing all the same.
    let flushed = out.flush();
    app.close().await?;
    ended.and(flushed)
}

fn scope(args: &ReadArgs) -> Scope {
    match (&args.stream, &args.category) {
        (Some(stream), _) => Scope::Stream(stream.clone()),
        (_, Some(category)) => Scope::Category(category.clone()),
        _ if args.tags.is_empty() && args.types.is_empty() => Scope::Log,
        _ => {
            let (types, tags) = (args.types.clone(), args.tags.clone());
            Scope::Query(Query::new([QueryItem { types, tags }]))
        }
    }
}

async fn print(source: &mut Source, args: &ReadArgs, out: &mut Output) -> Result<(), Failure> {
    let mut left = args.limit.unwrap_or(u64::MAX);
    while left > 0 {
        let Some(event) = next(source, out).await? else { break };
        let event = event?;
        let line = match args.json {
            true => line::json(&event),
            false => line::text(&event, out.paint(), out.width()),
        };
        out.line(line)?;
        left -= 1;
    }
    Ok(())
}

/// The next event. Before it waits for one, what was printed is handed over: so that whoever
/// reads along sees each page at once, and a page still costs one write.
async fn next(
    source: &mut Source,
    out: &mut Output,
) -> Result<Option<Result<RecordedEvent, ReadError>>, Failure> {
    let mut event = pin!(source.next());
    let at_hand = poll_fn(|cx| match event.as_mut().poll(cx) {
        Poll::Ready(event) => Poll::Ready(Some(event)),
        Poll::Pending => Poll::Ready(None),
    });
    if let Some(event) = at_hand.await {
        return Ok(event);
    }
    out.flush()?;
    Ok(event.await)
}

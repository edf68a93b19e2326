//! `factum consumers rewind`: moves the checkpoint of a consumer that does not run.

use factum::{Position, consumer::RewindError};
use serde_json::json;

use crate::{
    args::RewindArgs,
    effect::Effect,
    exit::{Exit, Failure},
    output::Output,
    place::Place,
};

/// Moves the checkpoint.
pub(crate) async fn run(
    args: &RewindArgs,
    effect: Effect,
    out: &mut Output,
) -> Result<(), Failure> {
    let place = Place::find(&args.store)?;
    let app = place.open_app(effect).await?;
    let moved = app.consumers().rewind(&args.consumer, Position::new(args.to)).await;
    app.close().await?;
    moved.map_err(failure)?;
    let consumer = args.consumer.as_str();
    let to = args.to;
    if args.json {
        let store = place.to_string();
        return out.line(json!({ "store": store, "consumer": consumer, "position": to }));
    }
    let what = format!("{consumer} resumes after position {to} at its next start");
    out.line(format_args!("{what}, store={place}"))
}

fn failure(error: RewindError) -> Failure {
    match error {
        RewindError::Store(error) => error.into(),
        RewindError::Target(error) => Failure::of(Exit::Unavailable, &error),
        other => Failure::of(Exit::Usage, &other),
    }
}

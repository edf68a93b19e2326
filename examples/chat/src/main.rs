//! A chat on Factum: rooms are aggregates that run, screens follow the event bus, and a read model
//! counts what everybody has not read.
//!
//! `cargo run -p chat` plays in memory, `cargo run -p chat /tmp/chat` in a folder; run again, that
//! goes on.
#![expect(clippy::print_stdout, reason = "an example speaks by printing")]

mod room;
mod unread;

use std::{env, error::Error, time::Duration};

use factum::{
    App, AskError, BusError, Documents, Entities, EventBus, Maintained, ModelQuery, Position,
    Stale, sentence,
};

use crate::{
    room::{Room, RoomCommand, RoomEvent, RoomRejection},
    unread::Unread,
};

/// How long a reader waits for the counts to have seen what was said.
const WAIT: Duration = Duration::from_secs(30);

type Problem = Box<dyn Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Problem> {
    let store = env::args().nth(1).unwrap_or_else(|| "memory:".into());
    let app = App::open(&store).await?;
    let unread = app.project(Unread).await?;
    let rooms = app.entities::<Room>();
    for (who, room) in
        [("ada", "lobby"), ("bob", "lobby"), ("eve", "lobby"), ("ada", "tea"), ("bob", "tea")]
    {
        rooms.ask(room, RoomCommand::Join { who: who.into() }).await?;
    }

    let last = talk(&app, &rooms).await?;
    println!("Unread");
    for who in ["ada", "bob", "eve"] {
        show_unread(&unread, who, last).await?;
    }
    eve_reads(&rooms, &unread).await?;
    app.close().await?;
    Ok(())
}

/// Bob's screen follows the lobby, and Ada answers as soon as she hears a question.
async fn talk(app: &App, rooms: &Entities<Room>) -> Result<Position, Problem> {
    // Both hear what is said from here on.
    let screen = tokio::spawn(follow(app.events(), "lobby"));
    let ada = tokio::spawn(answer(app.events(), rooms.clone()));
    say(rooms, "tea", "ada", "the kettle is on").await?;
    say(rooms, "lobby", "bob", "is anybody here?").await?;
    let answered = ada.await??;
    let last = say(rooms, "lobby", "bob", "bye").await?;
    println!("On bob's screen");
    for line in screen.await?? {
        println!("  {line}");
    }
    let refused = say(rooms, "tea", "eve", "may I come in?").await;
    println!("Eve in the tea room\n  {}", refused.map_or_else(|no| sentence(&no), |_| "ok".into()));
    Ok(last.max(answered))
}

/// What is said in a room, as it is said, until somebody says good bye.
async fn follow(mut events: EventBus<RoomEvent>, room: &str) -> Result<Vec<String>, BusError> {
    let mut lines = Vec::new();
    loop {
        let (event, recorded) = events.next().await?;
        if recorded.stream().key() != room {
            continue;
        }
        if let RoomEvent::Said { who, text, .. } = event {
            lines.push(format!("{room} | {who}: {text}"));
            if text == "bye" {
                return Ok(lines);
            }
        }
    }
}

/// Waits for a question, and answers it where it was asked.
async fn answer(
    mut events: EventBus<RoomEvent>,
    rooms: Entities<Room>,
) -> Result<Position, Problem> {
    loop {
        let (event, recorded) = events.next().await?;
        if let RoomEvent::Said { who, text, .. } = event
            && text.ends_with('?')
        {
            let answer = format!("I am, {who}");
            return Ok(say(&rooms, recorded.stream().key(), "ada", &answer).await?);
        }
    }
}

async fn say(
    rooms: &Entities<Room>,
    room: &str,
    who: &str,
    text: &str,
) -> Result<Position, AskError<RoomRejection>> {
    let said = rooms.ask(room, RoomCommand::Say { who: who.into(), text: text.into() }).await?;
    Ok(said.position.unwrap_or_default())
}

/// The counts as they are when all up to a position is in them: who has said something sees that.
async fn show_unread(
    unread: &Maintained<Documents>,
    who: &str,
    seen: Position,
) -> Result<(), Problem> {
    let counts = unread.read_model::<u64>();
    let _ = counts.wait_for(seen, WAIT, Stale::Fail).await?;
    let prefix = format!("unread/{who}/");
    let found = counts.list(ModelQuery::keys(&prefix)).await?;
    let each =
        found.documents.iter().map(|(key, count)| format!("{} {count}", &key[prefix.len()..]));
    println!("  {who}: {}", each.collect::<Vec<_>>().join(", "));
    Ok(())
}

/// Eve reads, and sees at once that she has.
async fn eve_reads(rooms: &Entities<Room>, unread: &Maintained<Documents>) -> Result<(), Problem> {
    let last = rooms.look("lobby", |room, _| room.last).await?;
    let read = RoomCommand::Read { who: "eve".into(), through: last };
    let read = rooms.ask("lobby", read).await?;
    println!("Eve reads");
    show_unread(unread, "eve", read.position.unwrap_or_default()).await
}

use factum_macros::Event;

#[derive(Event)]
enum Event {
    Opened,
}

#[derive(Event)]
#[event(prefix = "")]
enum EmptyPrefixEvent {
    Opened,
}

#[derive(Event)]
enum AccountEvent {
    Opened,
    #[event(name = "opened")]
    Created,
    #[event(name = "")]
    Empty,
    #[event(name = "line\nbreak")]
    Control,
    // Alone 250 bytes, and 258 behind the prefix.
    #[event(name = "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789")]
    Long,
    HTTPDone,
    HttpDone,
    __,
}

fn main() {}

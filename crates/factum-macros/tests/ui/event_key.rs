use factum_macros::Event;

#[derive(Event)]
#[event(prefx = "account")]
enum MisspelledEvent {
    #[event(nam = "opened")]
    Opened(#[event(tagged)] u8),
    Closed {
        #[event(tag(hashed))]
        by: String,
    },
}

#[derive(Event)]
#[event(summary)]
enum MisplacedEvent {
    #[event(prefix = "account")]
    Opened {
        #[event(name = "who")]
        owner: String,
    },
    #[event(tag)]
    Closed(#[event(schema_version = 2)] u8),
}

#[derive(Event)]
#[event(prefix = "a", prefix = "b")]
#[event(crate = factum_kernel)]
#[event(crate = factum_kernel)]
enum TwiceEvent {
    #[event(name = "opened")]
    #[event(name = "was-opened")]
    Opened(#[event(tag = "a", tag = "b")] u8),
    #[event(summary, summary)]
    Closed,
}

#[derive(Event)]
#[event]
#[event(prefix)]
#[event(codec = "Json")]
enum FormEvent {
    #[event(name = opened)]
    Opened,
    #[event(summary = true)]
    Closed,
}

#[derive(Event)]
enum SchemaEvent {
    #[event(schema_version = 0)]
    Zero,
    #[event(schema_version = 4294967296)]
    High,
    #[event(schema_version = "2")]
    Text,
    #[event(schema_version = -1)]
    Negative,
}

fn main() {}

use factum_macros::Event;

#[derive(Event)]
enum CourseEvent {
    Unnamed(#[event(tag)] String),
    HashedOnly {
        #[event(hashed)]
        student: String,
    },
    Names {
        #[event(tag = "")]
        empty: String,
        #[event(tag = "a:b")]
        colon: String,
        #[event(tag = "a\tb")]
        control: String,
        #[event(tag = student)]
        bare: String,
    },
}

fn main() {}

use factum_macros::Event;

#[derive(Event)]
#[serde(rename_all = "camelCase", tag = "type")]
enum TaggedEvent {
    #[serde(rename = "leaf")]
    LeafGrown { size: u8 },
    #[serde(rename_all = "camelCase", alias = "grown")]
    TreeGrown { branch_count: u8 },
    #[serde(skip)]
    Forgotten,
}

#[derive(Event)]
#[serde(rename = "tree", rename_all_fields = "camelCase", deny_unknown_fields, default)]
#[serde(crate = "serde", bound = "", expecting = "an event")]
enum RenamedEvent {
    Grown { branch_count: u8 },
}

#[derive(Event)]
#[event(flatten)]
#[serde(untagged)]
enum WholeEvent {
    #[serde(rename = "tree")]
    Tree(#[serde(default)] RenamedEvent),
}

fn main() {}

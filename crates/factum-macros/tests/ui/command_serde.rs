use factum_macros::Command;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Default, Command)]
#[serde(default)]
struct Open {
    owner: String,
}

#[derive(Clone, Serialize, Deserialize, Command)]
#[serde(try_from = "u64", into = "u64")]
struct Deposit {
    cents: u64,
}

#[derive(Serialize, Deserialize, Command)]
#[serde(tag = "type", rename_all = "snake_case")]
enum AccountCommand {
    #[serde(skip_deserializing)]
    Close { reason: String },
}

#[derive(Serialize, Deserialize, Command)]
struct Withdraw {
    cents: u64,
    #[serde(skip)]
    note: String,
}

#[derive(Serialize, Deserialize, Command)]
enum CardCommand {
    Block {
        #[serde(default, skip_serializing)]
        reason: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        by: Option<String>,
    },
}

impl TryFrom<u64> for Deposit {
    type Error = String;

    fn try_from(cents: u64) -> Result<Self, String> {
        if cents > 0 { Ok(Self { cents }) } else { Err("nothing".into()) }
    }
}

impl From<Deposit> for u64 {
    fn from(deposit: Deposit) -> Self {
        deposit.cents
    }
}

fn main() {}

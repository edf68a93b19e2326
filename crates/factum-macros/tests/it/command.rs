//! Names and schema versions of commands.

use factum_kernel::Command;
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize, factum_macros::Command)]
#[command(crate = factum_kernel)]
enum BankAccountCommand {
    Open {
        owner: String,
    },
    DepositMoney(u64),
    #[command(name = "shut")]
    Close,
}

#[derive(Debug, Serialize, Deserialize, factum_macros::Command)]
#[command(crate = "factum_kernel", prefix = "acct", schema_version = 2)]
enum Named {
    Open,
}

/// The default path, `::factum`.
#[derive(Debug, Serialize, Deserialize, factum_macros::Command)]
struct TransferMoney {
    cents: u64,
}

#[derive(Debug, Serialize, Deserialize, factum_macros::Command)]
#[command(prefix = "ledger", name = "close", schema_version = 3)]
struct CloseBooks;

#[derive(Debug, Serialize, Deserialize, factum_macros::Command)]
#[command(prefix = "ledger")]
struct OpenBooksCommand(u16);

#[test]
fn a_command_is_named_by_prefix_and_variant() {
    assert_eq!(BankAccountCommand::Open { owner: "ada".into() }.name(), "bank-account.open");
    assert_eq!(BankAccountCommand::DepositMoney(5).name(), "bank-account.deposit-money");
    assert_eq!(BankAccountCommand::Close.name(), "bank-account.shut");
    assert_eq!(Named::Open.name(), "acct.open");
}

#[test]
fn a_struct_is_named_by_itself_and_a_prefix_if_it_has_one() {
    assert_eq!(TransferMoney { cents: 5 }.name(), "transfer-money");
    assert_eq!(CloseBooks.name(), "ledger.close");
    assert_eq!(OpenBooksCommand(2026).name(), "ledger.open-books");
}

#[test]
fn the_schema_version_is_one_unless_set() {
    assert_eq!(BankAccountCommand::SCHEMA_VERSION, 1);
    assert_eq!(Named::SCHEMA_VERSION, 2);
    assert_eq!(CloseBooks::SCHEMA_VERSION, 3);
}

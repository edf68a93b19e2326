//! `factum lineage`: which history a journal's positions belong to.

use factum::renew_journal_lineage;

use crate::{args::LineageCommand, exit::Failure, output::Output, place};

/// Does what was asked for.
pub(crate) async fn run(command: &LineageCommand, out: &mut Output) -> Result<(), Failure> {
    let LineageCommand::Renew { path } = command;
    let folder = place::journal_at(path)?;
    let lineage = tokio::task::spawn_blocking(move || renew_journal_lineage(&folder)).await??;
    out.line(format_args!("the lineage is {lineage} now, store={path}"))
}

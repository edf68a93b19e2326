//! `factum verify`: checks a journal for damage, and repairs it on request.

mod report;

use std::path::PathBuf;

use factum::journal::{self, JournalRepair, JournalReport, Loss};

use crate::{
    args::VerifyArgs,
    exit::{Exit, Failure},
    output::{Notes, Output},
    place,
    progress::Progress,
};

/// The result of a check or of a repair.
enum Outcome {
    Verified(JournalReport),
    Repaired(Box<JournalRepair>),
}

/// Checks a journal, and repairs it if the command line asks for it.
pub(crate) async fn run(args: &VerifyArgs, out: &mut Output) -> Result<(), Failure> {
    let (place, folder) = place::journal_at(&args.store)?;
    let store = place.to_string();
    let notes = if args.json { Notes::None } else { out.notes() };
    let loss = if args.accept_loss { Loss::Accepted } else { Loss::Refused };
    let repair = args.repair.then_some(loss);
    let looked = tokio::task::spawn_blocking(move || look(folder, repair, notes));
    let outcome = looked.await??;
    let printed = match args.json {
        true => report::print_json(&store, &outcome, out),
        false => report::print(&store, &outcome, out),
    };
    // The exit code for damage matters more than an output that was closed.
    let printed = printed.and_then(|()| out.flush());
    match outcome.complaint(&store) {
        Some(text) => Err(Failure::new(Exit::CheckFailed, text)),
        None => printed,
    }
}

/// Verifies a journal, or repairs it with this much loss.
fn look(folder: PathBuf, repair: Option<Loss>, notes: Notes) -> Result<Outcome, Failure> {
    let progress = Progress::start(notes, "verify", "byte", 0);
    let mut watch = |done, total| progress.reach(done, total);
    let looked = match repair {
        Some(loss) => {
            journal::repair(&folder, loss, &mut watch).map(|it| Outcome::Repaired(it.into()))
        }
        None => journal::verify_watched(&folder, &mut watch).map(Outcome::Verified),
    };
    progress.finish();
    Ok(looked?)
}

impl Outcome {
    /// The result of the check before any repair.
    fn found(&self) -> &JournalReport {
        match self {
            Self::Verified(report) => report,
            Self::Repaired(repair) => &repair.found,
        }
    }

    /// The reason why the journal is not whole, and the remedy; `None` if it is whole.
    fn complaint(&self, store: &str) -> Option<String> {
        match self {
            Self::Verified(report) if report.is_whole() => None,
            Self::Verified(_) => Some(format!(
                "the journal is damaged; restore it from a backup, or see what a repair would do: \
                 factum verify --store {store} --repair"
            )),
            Self::Repaired(repair) if !repair.is_done => Some(
                "nothing was done, because the repair takes acknowledged events or documents out \
                 of the journal; restore it from a backup, or add --accept-loss"
                    .into(),
            ),
            Self::Repaired(repair) if repair.left.is_whole() => None,
            Self::Repaired(_) => {
                Some(format!("the journal is still damaged, repair it again: store={store}"))
            }
        }
    }
}

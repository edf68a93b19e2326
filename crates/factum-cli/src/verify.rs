//! `factum verify`: whether a journal is as it was written, and what is to be done if it is not.

mod report;

use std::path::PathBuf;

use factum::{JournalRepair, JournalReport, Loss, repair_journal, verify_journal_watched};

use crate::{
    args::VerifyArgs,
    exit::{Exit, Failure},
    output::{Notes, Output},
    place,
    progress::Progress,
};

/// What was found, and done.
enum Outcome {
    Verified(JournalReport),
    Repaired(Box<JournalRepair>),
}

/// Looks through the journal that was asked for, and repairs it if that was asked for.
pub(crate) async fn run(args: &VerifyArgs, out: &mut Output) -> Result<(), Failure> {
    let (place, folder) = place::journal_at(&args.store)?;
    let store = place.to_string();
    let notes = if args.json { Notes::None } else { out.notes() };
    let repair = args.repair;
    let accept_loss = args.accept_loss;
    let looked = tokio::task::spawn_blocking(move || look(folder, (repair, accept_loss), notes));
    let outcome = looked.await??;
    let printed = match args.json {
        true => report::print_json(&store, &outcome, out),
        false => report::print(&store, &outcome, out),
    };
    // Damage matters more than an output that nobody reads any more.
    let printed = printed.and_then(|()| out.flush());
    match outcome.complaint(&store) {
        Some(text) => Err(Failure::new(Exit::CheckFailed, text)),
        None => printed,
    }
}

fn look(
    folder: PathBuf,
    (repair, accept_loss): (bool, bool),
    notes: Notes,
) -> Result<Outcome, Failure> {
    let progress = Progress::start(notes, "verify", "byte", 0);
    let mut watch = |done, total| progress.reach(done, total);
    let loss = if accept_loss { Loss::Accepted } else { Loss::Refused };
    let looked = match repair {
        true => repair_journal(&folder, loss, &mut watch).map(|it| Outcome::Repaired(it.into())),
        false => verify_journal_watched(&folder, &mut watch).map(Outcome::Verified),
    };
    progress.finish();
    Ok(looked?)
}

impl Outcome {
    /// What was found before anything was done.
    fn found(&self) -> &JournalReport {
        match self {
            Self::Verified(report) => report,
            Self::Repaired(repair) => &repair.found,
        }
    }

    /// Why the journal is not whole now, and what to do; `None` if it is.
    fn complaint(&self, store: &str) -> Option<String> {
        match self {
            Self::Verified(report) if report.is_whole() => None,
            Self::Verified(_) => Some(format!(
                "the journal is damaged; restore it from a backup, or see what a repair would do: \
                 factum verify --store {store} --repair"
            )),
            Self::Repaired(repair) if !repair.is_done => Some(
                "nothing was done, as acknowledged events or documents would leave the journal; \
                 restore it from a backup, or add --accept-loss"
                    .into(),
            ),
            Self::Repaired(repair) if repair.left.is_whole() => None,
            Self::Repaired(_) => {
                Some(format!("the journal is still damaged, repair it again: store={store}"))
            }
        }
    }
}

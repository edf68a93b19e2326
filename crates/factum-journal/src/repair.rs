//! The repair of a damaged journal, after which it opens again. It sets files aside and never
//! deletes any.
//!
//! Damaged runs are moved away, because they can be rebuilt from the log. A damaged log is ended
//! before its first damage. Its positions are then given again, so it gets a new lineage first.
//! Each step is durable before the next, and a repair that was cut off is finished by another one.

mod cut;
mod erasure;

use std::{fs, io, path::Path, sync::Arc};

use factum_kernel::{Clock, Lineage, StoreError, SystemClock};

use crate::{
    disk::{Files, SystemFiles},
    documents::{BEGIN, put_begin},
    error,
    lineage::{self, LINEAGE},
    lock::{Lock, in_use},
    place::{DOCUMENTS, LOG, MARKER, MARKER_TEXT},
    verify::{Findings, Folders, JournalReport, look, names},
};
use cut::LogCut;

/// The folder for files that were set aside.
const SET_ASIDE: &str = "set-aside";
/// The file in the folder of a repair that describes what was done.
const NOTE: &str = "repair.txt";

/// The permission of a repair to take acknowledged events and documents out of the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// Not allowed. If nothing else helps, the repair changes nothing and reports what it would do.
    Refused,
    /// Allowed.
    Accepted,
}

/// The range that a repair took out of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lost {
    /// The first position, or revision of documents, that is no longer in the log. It is given
    /// again.
    pub from: u64,
    /// The last one that was seen; `None` if nothing could be read. There may be more.
    pub through: Option<u64>,
}

/// The result of a repair, or of one that was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct JournalRepair {
    /// The report from before the repair.
    pub found: JournalReport,
    /// True if the repair was done. False: it would lose events or documents, and that was refused.
    pub is_done: bool,
    /// The folder with the files that were set aside, relative to the journal's; `None`: there is
    /// nothing to repair.
    pub folder: Option<String>,
    /// The files that were moved there, or copied there before a change; relative to the journal's
    /// folder.
    pub files: Vec<String>,
    /// The events that are no longer in the log.
    pub events: Option<Lost>,
    /// The writes of documents that are no longer there.
    pub documents: Option<Lost>,
    /// The new lineage, if the log got one.
    pub lineage: Option<Lineage>,
    /// The report from after the repair.
    pub left: JournalReport,
}

/// Repairs a damaged journal, so that it opens again. Damaged files go into `set-aside/<time>` in
/// the journal's folder.
///
/// - A damaged run of the index is moved there; the next opening rebuilds it.
/// - A damaged log is ended before the first damage, if [`Loss::Accepted`]: the rest of that
///   segment and all later segments are set aside. The log gets a new lineage, because positions
///   are given again. If any part of a rewritten segment is damaged, nothing of that segment is
///   kept. Erasures recorded in the part that is set aside are undone, except in streams that
///   already lost bytes to a rewrite; the log records these erasures again.
/// - Damaged documents end before the first damage in the same way: in their log before a frame, in
///   their runs before a whole file. They return to an earlier state. Everything after that would
///   be a mixture of old and new, and is set aside as well. Documents have no lineage, so revisions
///   are given again without notice.
/// - A lost marker is written again; a damaged lineage is replaced by a new one.
///
/// If there is a backup, restore it instead. A repair takes as long as verifying twice.
///
/// # Errors
/// `Unavailable`: a writer has the journal open, close it first; or the disk fails, run the repair
/// again. `Invalid`: there is no journal at this path.
///
/// ```
/// # use factum_journal::{JournalOptions, JournalStore, Loss, repair};
/// # use factum_kernel::EventStore;
/// # let folder = tempfile::tempdir().unwrap();
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// # let store = JournalStore::open(JournalOptions::new(folder.path())).await?;
/// # store.close().await?;
/// let repaired = repair(folder.path(), Loss::Refused, &mut |_, _| {})?;
/// assert!(repaired.is_done && repaired.folder.is_none(), "nothing was damaged");
/// # Ok::<(), factum_kernel::StoreError>(()) }).unwrap();
/// ```
pub fn repair(
    path: &Path,
    loss: Loss,
    watch: &mut dyn FnMut(u64, u64),
) -> Result<JournalRepair, StoreError> {
    let top = Folders::find(path)?;
    // Nothing is changed yet, and readers may go on.
    let lock = Lock::share(&top)?.ok_or_else(|| in_use(&top))?;
    let folders = Folders::inside(&top)?;
    let findings = look_well(&folders, watch)?;
    let plan = Plan::new(&folders, findings)?;
    if plan.is_nothing() {
        return Ok(plan.told(None));
    }
    let path = top.path();
    let aside = free_name(path);
    if plan.loses() && loss == Loss::Refused {
        return Ok(JournalRepair { is_done: false, ..plan.told(Some(aside)) });
    }
    let _lock = lock.for_writer(&top)?;
    let aside = RepairFolder::make(path, aside).map_err(|e| {
        let message = format!("the folder to set files aside can't be made: path={SET_ASIDE}");
        StoreError::unavailable(message).with_source(e)
    })?;
    let folders = Folders::inside(&top)?;
    let lineage = plan.needs_lineage().then(lineage::new_lineage);
    plan.carry_out(&folders, &aside, lineage)?;
    let left = look(&folders, true, watch)?.report;
    Ok(JournalRepair { lineage, left, ..plan.told(Some(aside.name)) })
}

/// Looks through a journal; fails if the disk can't read a file.
pub(crate) fn look_well(
    folders: &Folders,
    watch: &mut dyn FnMut(u64, u64),
) -> Result<Findings, StoreError> {
    let findings = look(folders, true, watch)?;
    match findings.unreadable {
        // A cut at this place would be final, and the disk may have failed only this once.
        Some(error) => Err(error),
        None => Ok(findings),
    }
}

/// A name that nothing in the folder of set-aside files has yet.
fn free_name(path: &Path) -> String {
    let now = SystemClock.now().to_string();
    let time: String = now[..19].chars().filter(|it| !matches!(it, '-' | ':')).collect();
    let names = (1..).map(|number| match number {
        1 => format!("{SET_ASIDE}/{time}"),
        _ => format!("{SET_ASIDE}/{time}-{number}"),
    });
    names.into_iter().find(|name| !path.join(name).exists()).expect("numbers do not end")
}

/// The folder of one repair.
#[derive(Debug)]
pub(crate) struct RepairFolder {
    /// Relative to the journal's folder.
    pub(crate) name: String,
    pub(crate) top: Arc<dyn Files>,
    pub(crate) log: Arc<dyn Files>,
    pub(crate) documents: Arc<dyn Files>,
}

impl RepairFolder {
    /// Makes the folder, durably, and the folders of the logs if they are gone.
    fn make(path: &Path, name: String) -> io::Result<Self> {
        let folder = path.join(&name);
        for inner in [LOG, DOCUMENTS] {
            fs::create_dir_all(folder.join(inner))?;
            fs::create_dir_all(path.join(inner))?;
        }
        for changed in [&folder, &path.join(SET_ASIDE), path] {
            SystemFiles::open(changed)?.sync_names()?;
        }
        let top = SystemFiles::open(&folder)?;
        let log = Arc::new(top.inside(LOG)?);
        let documents = Arc::new(top.inside(DOCUMENTS)?);
        Ok(Self { name, top: Arc::new(top), log, documents })
    }
}

/// The steps of a repair.
#[derive(Debug)]
pub(crate) struct Plan {
    findings: Findings,
    log: Option<LogCut>,
    documents: Option<LogCut>,
    /// The runs to move away.
    runs: Vec<String>,
}

impl Plan {
    pub(crate) fn new(folders: &Folders, findings: Findings) -> Result<Self, StoreError> {
        let log = findings.log_cut.map(|cut| LogCut::new(&*folders.log, LOG, cut)).transpose()?;
        let documents = findings
            .document_cut
            .map(|cut| LogCut::new(&*folders.documents, DOCUMENTS, cut))
            .transpose()?;
        let mut runs = findings.bad_runs.clone();
        if let Some(log) = &log {
            // Runs that know of events after the new end of the log, or of erasures recorded there.
            runs.extend(log.runs.iter().chain(&findings.erased_runs).cloned());
        }
        Ok(Self { findings, log, documents, runs: runs.into_iter().collect() })
    }

    pub(crate) fn is_nothing(&self) -> bool {
        self.findings.report.is_whole()
    }

    /// Returns whether acknowledged events or documents are lost.
    pub(crate) fn loses(&self) -> bool {
        self.log.is_some() || self.documents.is_some()
    }

    pub(crate) fn needs_lineage(&self) -> bool {
        self.log.is_some() || self.findings.is_lineage_bad
    }

    /// The first position that is no longer in the log.
    #[cfg(test)]
    pub(crate) fn cut(&self) -> Option<u64> {
        self.log.as_ref().map(|log| log.cut.position)
    }

    fn files(&self) -> Vec<String> {
        let runs = self.runs.iter().map(|name| format!("{LOG}/{name}"));
        let logs = self.log.iter().chain(&self.documents);
        let segments = logs.flat_map(|it| it.files().map(|name| format!("{}/{name}", it.folder)));
        let lineage = self.findings.is_lineage_bad.then(|| LINEAGE.to_owned());
        runs.chain(segments).chain(lineage).collect()
    }

    fn told(&self, folder: Option<String>) -> JournalRepair {
        let report = &self.findings.report;
        let lost = |cut: &LogCut, seen: Option<u64>| {
            let from = cut.cut.position;
            Lost { from, through: seen.filter(|seen| *seen >= from) }
        };
        let through = |part| {
            let damages = report.damages.iter().filter(|damage| damage.part == part);
            damages.filter_map(|damage| damage.through).max()
        };
        let last = through(crate::Part::Log).max(Some(report.events));
        let revisions = through(crate::Part::Documents).max(Some(self.findings.revisions));
        JournalRepair {
            found: report.clone(),
            is_done: true,
            folder,
            files: self.files(),
            events: self.log.as_ref().map(|cut| lost(cut, last)),
            documents: self.documents.as_ref().map(|cut| lost(cut, revisions)),
            lineage: None,
            left: report.clone(),
        }
    }

    /// Carries out the repair. If it is cut off, another repair finishes it.
    pub(crate) fn carry_out(
        &self,
        folders: &Folders,
        aside: &RepairFolder,
        lineage: Option<Lineage>,
    ) -> Result<(), StoreError> {
        self.note(aside)?;
        if self.findings.is_lineage_bad {
            cut::copy(&*folders.top, &*aside.top, LINEAGE)?;
        }
        // This comes first: consumers must notice the change even if the rest fails.
        if let Some(lineage) = lineage {
            lineage::renew(&*folders.top, lineage)?;
        }
        for run in &self.runs {
            cut::move_away(folders, aside, LOG, run)?;
        }
        if let Some(log) = &self.log {
            log.carry_out(folders, aside)?;
            erasure::keep(&folders.log)?;
        }
        if let Some(first) = self.findings.begin {
            if names(&*folders.documents)?.iter().any(|name| name == BEGIN) {
                cut::copy(&*folders.documents, &*aside.documents, BEGIN)?;
            }
            put_begin(&*folders.documents, first)?;
        }
        if let Some(documents) = &self.documents {
            documents.carry_out(folders, aside)?;
        }
        if self.findings.is_marker_bad {
            let put = folders.top.put(MARKER, MARKER_TEXT.as_bytes());
            put.map_err(|e| error::disk("writing the marker again", MARKER, e))?;
        }
        Ok(())
    }

    /// Writes down the repair in the folder where people will look.
    fn note(&self, aside: &RepairFolder) -> Result<(), StoreError> {
        let told = self.told(None);
        let mut text = String::from("Set aside by a repair of the journal above.\n");
        for damage in &told.found.damages {
            text.push_str(&format!("Damage: {damage}\n"));
        }
        for (what, lost) in [("Positions", told.events), ("Revisions", told.documents)] {
            if let Some(Lost { from, through }) = lost {
                let through = through.map_or("an unknown end".to_owned(), |it| it.to_string());
                text.push_str(&format!("{what} out of the journal: {from} to {through}\n"));
            }
        }
        for file in &told.files {
            text.push_str(&format!("File: {file}\n"));
        }
        let put = aside.top.put(NOTE, text.as_bytes());
        put.map_err(|e| error::disk("saying what is set aside", NOTE, e))
    }
}

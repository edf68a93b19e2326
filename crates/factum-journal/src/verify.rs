//! The verification of a whole journal: every frame, every law of the log, and every entry of the
//! index against the log. It changes nothing.

mod chain;
mod compare;
mod documents;
mod events;
mod index;
mod report;
mod streams;

use std::{collections::BTreeSet, io, path::Path, sync::Arc};

use factum_kernel::StoreError;

use crate::{
    cache::Cache,
    disk::{AbsentFiles, Files, SystemFiles},
    error, lineage,
    lock::Lock,
    place::{DOCUMENTS, LOG, MARKER, MARKER_TEXT},
    segment::segments_in,
};
use chain::{Chain, Start};
use events::Events;
use index::Runs;

pub(crate) use chain::{Cut, names};
pub use report::{DAMAGES_MAX, Damage, JournalReport, Part, Remedy, Torn};

/// Verifies a whole journal; beside a writer, the part that is recorded as durable. Without a
/// writer, no writer can open the journal during the verification.
///
/// Takes as long as reading every file, or twice as long if events are erased. Memory: a segment
/// and its index, the log of documents, and 29 to 57 bytes per stream, whatever the length of its
/// name; twice that per stream that lost events to a rewrite.
///
/// # Errors
/// A reason for which the journal can't be looked at at all. Everything that is found wrong is in
/// the report.
///
/// ```
/// # use factum_journal::{JournalOptions, JournalStore, verify};
/// # use factum_kernel::EventStore;
/// # let folder = tempfile::tempdir().unwrap();
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// # let store = JournalStore::open(JournalOptions::new(folder.path())).await?;
/// # store.close().await?;
/// let report = verify(folder.path())?;
/// assert!(report.is_whole(), "{:?}", report.damages);
/// # Ok::<(), factum_kernel::StoreError>(()) }).unwrap();
/// ```
pub fn verify(path: &Path) -> Result<JournalReport, StoreError> {
    verify_watched(path, &mut |_, _| {})
}

/// Like [`verify`], and reports progress to `watch`: the bytes done, and the bytes in all, which
/// may grow.
///
/// # Errors
/// Those of [`verify`].
pub fn verify_watched(
    path: &Path,
    watch: &mut dyn FnMut(u64, u64),
) -> Result<JournalReport, StoreError> {
    let top = Folders::find(path)?;
    let folders = Folders::inside(&top)?;
    // Without the lock there is a writer, and only what it recorded as durable is verified.
    let lock = Lock::share(&top)?;
    let findings = look(&folders, lock.is_some(), watch)?;
    if lock.is_some() || findings.report.is_whole() {
        return Ok(findings.report);
    }
    // Files may have changed during the look. Real damage is still there the second time.
    look(&folders, false, watch).map(|findings| findings.report)
}

/// The folders of a journal.
#[derive(Debug, Clone)]
pub(crate) struct Folders {
    pub(crate) top: Arc<dyn Files>,
    pub(crate) log: Arc<dyn Files>,
    pub(crate) documents: Arc<dyn Files>,
}

impl Folders {
    /// The folder of the journal at a path, or of what is left of one.
    pub(crate) fn find(path: &Path) -> Result<SystemFiles, StoreError> {
        let is_log = |top: &SystemFiles| {
            let names = top.inside(LOG).and_then(|log| log.list());
            names.is_ok_and(|names| !segments_in(&names).is_empty())
        };
        let top = SystemFiles::open(path);
        if let Ok(top) = top
            && (path.join(MARKER).is_file() || is_log(&top))
        {
            return Ok(top);
        }
        let message = format!("there is no journal, check the path: path={}", path.display());
        Err(StoreError::invalid(message))
    }

    /// The folder of a journal, with those of its inner folders that exist.
    pub(crate) fn inside(top: &SystemFiles) -> Result<Self, StoreError> {
        let inside = |name: &str| -> Result<Arc<dyn Files>, StoreError> {
            match top.inside(name) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Arc::new(AbsentFiles)),
                inner => Ok(Arc::new(inner.map_err(|e| error::disk("opening a folder", name, e))?)),
            }
        };
        let log = inside(LOG)?;
        let documents = inside(DOCUMENTS)?;
        Ok(Self { top: Arc::new(top.clone()), log, documents })
    }
}

/// The findings of a verification: the report, and what a repair needs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Findings {
    pub(crate) report: JournalReport,
    /// The ends that a repair gives to the log of events and to the log of documents.
    pub(crate) log_cut: Option<Cut>,
    pub(crate) document_cut: Option<Cut>,
    /// The last revision that was seen.
    pub(crate) revisions: u64,
    /// The first revision of the documents, if it must be written again.
    pub(crate) begin: Option<u64>,
    /// The runs to rebuild.
    pub(crate) bad_runs: BTreeSet<String>,
    /// The runs that have erased positions.
    pub(crate) erased_runs: BTreeSet<String>,
    /// The first error of the disk. The disk may work tomorrow, so a repair must not rely on this
    /// look.
    pub(crate) unreadable: Option<StoreError>,
    pub(crate) is_marker_bad: bool,
    pub(crate) is_lineage_bad: bool,
    is_erasure_blamed: bool,
}

/// The progress of a verification.
pub(crate) struct Watch<'w> {
    done: u64,
    all: u64,
    tell: &'w mut dyn FnMut(u64, u64),
}

impl Watch<'_> {
    fn add(&mut self, bytes: u64) {
        self.done += bytes;
        (self.tell)(self.done, self.all.max(self.done));
    }

    fn more(&mut self, bytes: u64) {
        self.all += bytes;
    }
}

/// Looks through a journal.
pub(crate) fn look(
    folders: &Folders,
    is_alone: bool,
    tell: &mut dyn FnMut(u64, u64),
) -> Result<Findings, StoreError> {
    let mut findings = Findings::default();
    findings.report.is_beside_writer = !is_alone;
    let mut watch = Watch { done: 0, all: 0, tell };
    for files in [&folders.log, &folders.documents] {
        watch.more(bytes_in(&**files)?);
    }
    let chain = Chain::open(Part::Log, &*folders.log, Start::LOG, is_alone)?;
    check_log(&chain, &mut findings, &mut watch)?;
    check_folder(&folders.top, &chain, &mut findings)?;
    documents::check(&folders.documents, is_alone, &mut findings, &mut watch)?;
    let events = findings.report.events;
    let documents = findings.report.documents;
    // A log without the marker may be an unfinished one, which is empty.
    if findings.is_marker_bad && (events + documents > 0 || !findings.report.is_whole()) {
        let what = "the marker of the journal is missing or has other content";
        findings.report.damage(Damage::new(Part::Folder, MARKER, what));
    }
    findings.report.bytes = watch.done;
    Ok(findings)
}

fn bytes_in(files: &dyn Files) -> Result<u64, StoreError> {
    let mut bytes = 0;
    for name in names(files)? {
        if [".log", ".index", ".documents"].iter().any(|end| name.ends_with(end)) {
            // If this fails, reading the file reports the error.
            bytes += files.open(&name).map_or(0, |file| chain::len(&*file));
        }
    }
    Ok(bytes)
}

fn check_log(
    chain: &Chain<'_>,
    findings: &mut Findings,
    watch: &mut Watch<'_>,
) -> Result<(), StoreError> {
    let names = names(chain.files)?;
    let cache = Cache::new();
    let runs = Runs::open(chain, &names, &cache, findings, watch);
    let mut events = Events::new(runs);
    findings.report.segments = chain.segments.len() as u64;
    let checked = chain.check(&mut events, findings, watch);
    (findings.log_cut, findings.report.events) = (checked.cut, checked.seen);
    findings.report.streams = events.stream_count();
    if findings.log_cut.is_none() {
        let before = findings.clone();
        events.check_erased(chain, findings, watch)?;
        // If the log has grown, the writer may have erased more, which runs and rewritten segments
        // already know.
        if chain.has_new_end() {
            let erased = findings.report.erased;
            *findings = before;
            findings.report.erased = erased;
        } else if events.has_orphans() {
            // The change was after the end of what is left, and more may be missing there.
            findings.log_cut = Some(checked.end);
        }
    }
    Ok(())
}

/// Checks the files beside the two logs.
fn check_folder(
    top: &Arc<dyn Files>,
    chain: &Chain<'_>,
    findings: &mut Findings,
) -> Result<(), StoreError> {
    let marker = top.open(MARKER).and_then(|file| file.read_all());
    findings.is_marker_bad = !marker.is_ok_and(|text| text == MARKER_TEXT.as_bytes());
    let first = chain.segments.iter().flatten().next();
    findings.report.lineage = match lineage::renewed(&**top) {
        Ok(renewed) => renewed.or(first.map(|segment| segment.lineage)),
        Err(error) if error.kind() == factum_kernel::StoreErrorKind::Corrupt => {
            findings.is_lineage_bad = true;
            let what = "the file of the lineage is not what was written";
            let mut damage = Damage::new(Part::Folder, lineage::LINEAGE, what);
            damage.remedy = Remedy::Renew;
            findings.report.damage(damage);
            None
        }
        Err(error) => return Err(error),
    };
    Ok(())
}

//! The report of a verification, for programs and for people.

use std::fmt;

use factum_kernel::Lineage;

/// The most damages that a report lists. The others are only counted.
pub const DAMAGES_MAX: usize = 100;

/// The result of a verification.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct JournalReport {
    /// The lineage in pages; `None` if no segment could be read.
    pub lineage: Option<Lineage>,
    /// True if there was a writer. Writes that were not durable yet were left out then.
    pub is_beside_writer: bool,
    /// The number of files of the log.
    pub segments: u64,
    /// The number of positions in the log, which is also the last position.
    pub events: u64,
    /// The number of erased events. Not counted if the log is damaged.
    pub erased: u64,
    /// The number of streams that ever had an event or a retention.
    pub streams: u64,
    /// The number of files of the index in use.
    pub runs: u64,
    /// The number of documents. Not counted if their log is damaged.
    pub documents: u64,
    /// The number of files that hold documents, besides their log.
    pub document_runs: u64,
    /// The bytes that were read.
    pub bytes: u64,
    /// The ends of writes that were cut short. They are no damage; the next opening sets them
    /// aside.
    pub torn: Vec<Torn>,
    /// The first [`DAMAGES_MAX`] damages: content that differs from what was written, or breaks a
    /// law.
    pub damages: Vec<Damage>,
    /// The number of damages, listed or not.
    pub damage_count: u64,
}

impl JournalReport {
    /// Returns whether there are no damages.
    pub fn is_whole(&self) -> bool {
        self.damage_count == 0
    }

    pub(crate) fn damage(&mut self, damage: Damage) {
        self.damage_count += 1;
        if self.damages.len() < DAMAGES_MAX {
            self.damages.push(damage);
        }
    }
}

/// The end of a write that a crash cut short. No caller was told that it was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Torn {
    /// The file, relative to the journal's folder.
    pub file: String,
    /// The offset where the write begins, in bytes.
    pub offset: u64,
}

impl fmt::Display for Torn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "file={} offset={}", self.file, self.offset)
    }
}

/// The part of a journal that a damage is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Part {
    /// The events.
    Log,
    /// The index of the events, which can be rebuilt from the log at any time.
    Index,
    /// The documents.
    Documents,
    /// The files that mark the folder as a journal and hold its lineage.
    Folder,
}

impl Part {
    /// Its name, one word in lower case.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Index => "index",
            Self::Documents => "documents",
            Self::Folder => "folder",
        }
    }
}

/// The remedy for a damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Remedy {
    /// Restore a backup. Without one, [`repair`](crate::repair) ends the log before the damage.
    Backup,
    /// [`repair`](crate::repair) sets the file aside, and the next opening rebuilds it.
    Remake,
    /// Run [`renew_lineage`](crate::renew_lineage), or [`repair`](crate::repair), which renews it
    /// too.
    Renew,
}

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Backup => "restore it from a backup, or end it there by a repair",
            Self::Remake => "a repair and the next opening rebuild it, nothing is lost",
            Self::Renew => "a repair gives the log a new lineage, no event is lost",
        })
    }
}

/// Content that differs from what was written, or breaks a law.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Damage {
    /// The part of the journal.
    pub part: Part,
    /// The file, relative to the journal's folder.
    pub file: String,
    /// The offset in the file, in bytes; `None`: the whole file.
    pub offset: Option<u64>,
    /// The first affected position; in documents, the first affected revision.
    pub from: Option<u64>,
    /// The last affected one; `None` if it can't be known.
    pub through: Option<u64>,
    /// The description of the fault.
    pub what: String,
    /// The remedy.
    pub remedy: Remedy,
}

impl Damage {
    pub(crate) fn new(part: Part, file: impl Into<String>, what: impl Into<String>) -> Self {
        let remedy = match part {
            Part::Log | Part::Documents => Remedy::Backup,
            Part::Index | Part::Folder => Remedy::Remake,
        };
        let file = file.into();
        let what = what.into();
        Self { part, file, offset: None, from: None, through: None, what, remedy }
    }

    pub(crate) fn at(mut self, offset: impl Into<u64>) -> Self {
        self.offset = Some(offset.into());
        self
    }

    pub(crate) fn positions(mut self, from: u64, through: Option<u64>) -> Self {
        // If the next position is right, no position is affected.
        self.from = Some(from).filter(|from| through.is_none_or(|through| through >= *from));
        self.through = through.filter(|_| self.from.is_some());
        self
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { part, file, what, remedy, .. } = self;
        write!(f, "{what}; {remedy}: file={file}")?;
        if let Some(offset) = self.offset {
            write!(f, " offset={offset}")?;
        }
        if let Some(from) = self.from {
            let name = if *part == Part::Documents { "revisions" } else { "positions" };
            match self.through {
                Some(through) => write!(f, " {name}={from}..={through}")?,
                None => write!(f, " {name}={from}..")?,
            }
        }
        Ok(())
    }
}

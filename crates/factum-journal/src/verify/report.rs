//! What a look through a journal found, for programs and for people.

use std::fmt;

use factum_kernel::Lineage;

/// The most damages that a report lists; the rest is only counted.
pub const DAMAGES_MAX: usize = 100;

/// What a look through a journal found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct JournalReport {
    /// The lineage that pages show; `None` if no segment says it.
    pub lineage: Option<Lineage>,
    /// Whether somebody wrote meanwhile: then what is not durable yet was left out.
    pub is_beside_writer: bool,
    /// Files of the log.
    pub segments: u64,
    /// Positions in the log; the last one.
    pub events: u64,
    /// Of them, how many are erased. Not counted where the log is damaged.
    pub erased: u64,
    /// Streams that ever had an event or a retention.
    pub streams: u64,
    /// Files of the index that are in use.
    pub runs: u64,
    /// Documents. Not counted where their log is damaged.
    pub documents: u64,
    /// Files that documents are in, beside their log.
    pub document_runs: u64,
    /// Bytes that were looked at.
    pub bytes: u64,
    /// Ends of writes that were cut short, which the next opening sets aside. No damage.
    pub torn: Vec<Torn>,
    /// What is not as it was written, or breaks a law; the first [`DAMAGES_MAX`].
    pub damages: Vec<Damage>,
    /// How many damages there are, listed or not.
    pub damage_count: u64,
}

impl JournalReport {
    /// Whether everything is as it was written.
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

/// The end of a write that a crash cut short. Nobody was told that it was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Torn {
    /// The file, seen from the journal's folder.
    pub file: String,
    /// Where the write begins, in bytes.
    pub offset: u64,
}

impl fmt::Display for Torn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "file={} offset={}", self.file, self.offset)
    }
}

/// The part of a journal that something is wrong with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Part {
    /// The events.
    Log,
    /// The index of the events, which can be made anew from the log at any time.
    Index,
    /// The documents.
    Documents,
    /// What says that the folder is a journal, and which.
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

/// What helps against a damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Remedy {
    /// A backup; without one, [`repair`](crate::repair) ends the log before the damage.
    Backup,
    /// [`repair`](crate::repair) sets the file aside, and the next opening makes it anew.
    Remake,
    /// [`renew_lineage`](crate::renew_lineage), or [`repair`](crate::repair), which does it too.
    Renew,
}

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Backup => "restore it from a backup, or end it there by a repair",
            Self::Remake => "a repair and the next opening make it anew, nothing is lost",
            Self::Renew => "a repair gives the log a new lineage, no event is lost",
        })
    }
}

/// Something that is not as it was written, or breaks a law.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Damage {
    /// The part of the journal.
    pub part: Part,
    /// The file, seen from the journal's folder.
    pub file: String,
    /// Where in the file, in bytes; `None`: the whole file.
    pub offset: Option<u64>,
    /// The first position that is affected, or of documents the first revision.
    pub from: Option<u64>,
    /// The last one; `None` where nobody can tell.
    pub through: Option<u64>,
    /// What is wrong.
    pub what: String,
    /// What helps.
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
        // Nothing is affected where the next position is where it should be.
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

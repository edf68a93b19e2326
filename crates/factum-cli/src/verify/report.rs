//! The result of `factum verify`, for people and for programs.

use factum::journal::{Damage, JournalRepair, JournalReport, Lost};
use serde::Serialize;

use super::Outcome;
use crate::{
    exit::Failure,
    number::{counted, grouped},
    output::{Output, Paint},
};

/// The JSON object; its fields have the same names.
#[derive(Debug, Serialize)]
struct Summary<'a> {
    store: &'a str,
    verdict: &'static str,
    #[serde(flatten)]
    found: Figures<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    repair: Option<RepairSummary<'a>>,
}

#[derive(Debug, Serialize)]
struct Figures<'a> {
    events: u64,
    erased: u64,
    streams: u64,
    segments: u64,
    runs: u64,
    documents: u64,
    document_runs: u64,
    bytes: u64,
    beside_writer: bool,
    lineage: Option<String>,
    torn: Vec<Place<'a>>,
    damage_count: u64,
    damages: Vec<DamageSummary<'a>>,
}

#[derive(Debug, Serialize)]
struct Place<'a> {
    file: &'a str,
    offset: u64,
}

#[derive(Debug, Serialize)]
struct DamageSummary<'a> {
    part: &'static str,
    file: &'a str,
    offset: Option<u64>,
    from: Option<u64>,
    through: Option<u64>,
    what: &'a str,
    remedy: String,
}

#[derive(Debug, Serialize)]
struct RepairSummary<'a> {
    done: bool,
    folder: Option<&'a str>,
    files: &'a [String],
    events_lost: Option<Range>,
    documents_lost: Option<Range>,
    lineage: Option<String>,
    left: Left<'a>,
}

/// A range of positions or revisions.
#[derive(Debug, Serialize)]
struct Range {
    from: u64,
    through: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Left<'a> {
    verdict: &'static str,
    #[serde(flatten)]
    figures: Figures<'a>,
}

fn verdict(report: &JournalReport) -> &'static str {
    if report.is_whole() { "whole" } else { "damaged" }
}

fn figures(report: &JournalReport) -> Figures<'_> {
    let damage = |damage: &'_ Damage| -> (Option<u64>, Option<u64>, Option<u64>, String) {
        (damage.offset, damage.from, damage.through, damage.remedy.to_string())
    };
    let damages = report.damages.iter().map(|it| {
        let (offset, from, through, remedy) = damage(it);
        let part = it.part.name();
        let file = &it.file[..];
        let what = &it.what[..];
        DamageSummary { part, file, offset, from, through, what, remedy }
    });
    let torn = report.torn.iter().map(|it| Place { file: &it.file, offset: it.offset });
    Figures {
        events: report.events,
        erased: report.erased,
        streams: report.streams,
        segments: report.segments,
        runs: report.runs,
        documents: report.documents,
        document_runs: report.document_runs,
        bytes: report.bytes,
        beside_writer: report.is_beside_writer,
        lineage: report.lineage.map(|lineage| lineage.to_string()),
        torn: torn.collect(),
        damage_count: report.damage_count,
        damages: damages.collect(),
    }
}

fn repair_summary(repair: &JournalRepair) -> RepairSummary<'_> {
    let range = |lost: Lost| Range { from: lost.from, through: lost.through };
    RepairSummary {
        done: repair.is_done,
        folder: repair.folder.as_deref(),
        files: &repair.files,
        events_lost: repair.events.map(range),
        documents_lost: repair.documents.map(range),
        lineage: repair.lineage.map(|lineage| lineage.to_string()),
        left: Left { verdict: verdict(&repair.left), figures: figures(&repair.left) },
    }
}

/// Writes the JSON object on one line.
pub(super) fn print_json(store: &str, outcome: &Outcome, out: &mut Output) -> Result<(), Failure> {
    let found = outcome.found();
    let repair = match outcome {
        Outcome::Repaired(repair) => Some(repair_summary(repair)),
        Outcome::Verified(_) => None,
    };
    let summary = Summary { store, verdict: verdict(found), found: figures(found), repair };
    out.line(serde_json::to_string(&summary).expect("all keys are text"))
}

/// Writes the result for people, the verdict first.
pub(super) fn print(store: &str, outcome: &Outcome, out: &mut Output) -> Result<(), Failure> {
    let found = outcome.found();
    let paint = out.paint();
    let verdict = match found.damage_count {
        0 => paint.good("whole"),
        count => paint.bad(format!("damaged, {}", counted(count, "damage"))),
    };
    out.line(format_args!("{verdict}  {}", paint.dim(format!("a journal, {store}"))))?;
    for damage in &found.damages {
        out.line(damage_line(damage, paint))?;
    }
    let more = found.damage_count - found.damages.len() as u64;
    if more > 0 {
        out.line(format_args!("  and {} more", grouped(more)))?;
    }
    for torn in &found.torn {
        out.line(format_args!(
            "  - {} at {}: a write that was cut short and never acknowledged; the next opening \
             sets it aside",
            torn.file,
            grouped(torn.offset)
        ))?;
    }
    for (name, text) in figure_lines(found) {
        out.line(format_args!("  {name:<10}  {text}"))?;
    }
    match outcome {
        Outcome::Repaired(repair) => print_repair(repair, out),
        Outcome::Verified(_) => Ok(()),
    }
}

fn figure_lines(report: &JournalReport) -> Vec<(&'static str, String)> {
    let events = format!(
        "{} in {}, {} erased, {}",
        counted(report.events, "event"),
        counted(report.streams, "stream"),
        grouped(report.erased),
        counted(report.segments, "segment")
    );
    let lineage = report.lineage.map_or("unknown".into(), |lineage| lineage.to_string());
    let beside = if report.is_beside_writer { ", up to the durable end of the writer" } else { "" };
    vec![
        ("log", events),
        ("index", counted(report.runs, "run")),
        ("documents", grouped(report.documents)),
        ("lineage", lineage),
        ("read", format!("{}{beside}", counted(report.bytes, "byte"))),
    ]
}

fn damage_line(damage: &Damage, paint: Paint) -> String {
    let offset = damage.offset.map(|offset| format!(" at {}", grouped(offset)));
    let noun = if damage.part.name() == "documents" { "revision" } else { "position" };
    let positions = damage.from.map(|from| format!(", {}", range(noun, from, damage.through)));
    let place =
        format!("{}{}{}", damage.file, offset.unwrap_or_default(), positions.unwrap_or_default());
    format!("  {} {}: {}; {}", paint.bad("✗"), paint.bold(place), damage.what, damage.remedy)
}

/// A range as `position 5`, `positions 5 to 9` or `positions from 5 on`.
fn range(noun: &str, from: u64, through: Option<u64>) -> String {
    match through {
        Some(through) if through == from => format!("{noun} {}", grouped(from)),
        Some(through) => format!("{noun}s {} to {}", grouped(from), grouped(through)),
        None => format!("{noun}s from {} on", grouped(from)),
    }
}

fn print_repair(repair: &JournalRepair, out: &mut Output) -> Result<(), Failure> {
    let paint = out.paint();
    let Some(folder) = &repair.folder else {
        return out.line(paint.bold("There is nothing to repair"));
    };
    let title = match repair.is_done {
        true => format!("Repaired; set aside in {folder}"),
        false => format!("Not repaired; a repair would set aside in {folder}"),
    };
    out.line(format_args!("\n{}", paint.bold(title)))?;
    for file in &repair.files {
        out.line(format_args!("  {file}"))?;
    }
    let removed = if repair.is_done { "removed" } else { "would be removed" };
    if let Some(Lost { from, through, .. }) = repair.events {
        let lost = range("position", from, through);
        out.line(format_args!("  {removed} from the log: {lost}, to be given to new events"))?;
    }
    if let Some(Lost { from, through, .. }) = repair.documents {
        let lost = range("revision", from, through);
        out.line(format_args!("  {removed} from the documents: {lost}, to be given again"))?;
    }
    if let Some(lineage) = repair.lineage {
        out.line(format_args!(
            "  the lineage is now {lineage}: consumers stop until they are rewound or rebuilt"
        ))?;
    }
    if repair.is_done {
        let left = &repair.left;
        let verdict = match left.is_whole() {
            true => paint.good("whole"),
            false => paint.bad(format!("damaged, {}", counted(left.damage_count, "damage"))),
        };
        out.line(format_args!("  now it is {verdict}, with {}", counted(left.events, "event")))?;
    }
    Ok(())
}

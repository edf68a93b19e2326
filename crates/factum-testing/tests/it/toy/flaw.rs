//! The ways in which a toy can be broken.

/// The law that a toy breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Flaw {
    /// None: the toy is right.
    None,
    /// Law 1: stores the streams of a batch up to the first that conflicts.
    SplitsBatches,
    /// Law 1: stores the events of a batch stream by stream, in the place of each stream's first.
    GathersStreams,
    /// Law 1: tells of each write the version that its stream has after the batch.
    VersionsOfTheEnd,
    /// Law 2: counts from 1 again after a deletion.
    RestartsVersions,
    /// Law 2: a deletion takes no version, so that who loaded before it does not conflict.
    DeletesUncounted,
    /// Law 2: takes a deleted stream for one that never was.
    ForgetsDeletion,
    /// Law 3: a conflict takes a position.
    BurnsPositions,
    /// Law 3: positions of erased events at the end are given anew.
    ReusesPositions,
    /// Law 3: does not say what was erased.
    HidesErased,
    /// Law 4: the number of a page is from a later snapshot than its rows.
    HeadAfterRows,
    /// Law 4: the bounds of a page are from a later snapshot than its rows.
    BoundsAfterRows,
    /// Law 4: categories and queries see what was appended only a little later.
    IndexLags,
    /// Law 4: says of a full page that it reached the end.
    ScansTooFar,
    /// Law 4: a page that pauses says how far it has looked for the last item of its query.
    ForgetsItems,
    /// Law 4: an item of a query finds what has any of its tags.
    AnyTag,
    /// Law 4: a tag whose events were all erased is not found again.
    TagsStayGone,
    /// Law 4: reads numbers as signed ones, so that the largest are before every other.
    WrapsNumbers,
    /// Law 5: shows events before they are stored, then takes them back.
    ShowsUncommitted,
    /// Law 6: answers appends from the state before those that were submitted with it.
    AnswersFromBefore,
    /// Law 7: conditions don't see what was submitted together with them.
    ConditionsFromBefore,
    /// Law 7: conditions on what is far back are looked at before their batch is queued, and not
    /// again when its turn comes.
    ForeseesOnly,
    /// Law 7: looks for the first items of a condition only.
    JudgesFewItems,
    /// Law 7: a condition on a tag fails on another value of it.
    FalseConflicts,
    /// Law 7: ignores after which position a condition looks.
    IgnoresAfter,
    /// Law 7: conditions still see what is erased.
    MatchesErased,
    /// Law 8: knows no retry.
    ForgetsRetries,
    /// Law 8: looks only when a version or condition fails, not at the mark.
    IgnoresMark,
    /// Law 8: takes a batch for known when its first event is.
    LooksAtFirstId,
    /// Law 8: knows a retry for ever.
    RetryWithoutEnd,
    /// Law 8: looks for nothing that was recorded before the time in the first id.
    TrustsClocks,
    /// Law 8: stores what it will not recognise, because the writer's clock is too far ahead.
    TakesAnyTime,
    /// Law 8: of a batch that was stored twice, answers with the last copy.
    AnswersLastCopy,
    /// Law 8: looks for a retry at the end of a stream only.
    LooksAtTheEnd,
    /// Law 8: knows no batch of which a part is erased.
    NeedsTheWhole,
    /// Law 8: takes a repeated batch for new that may have been stored and erased.
    TakesErasedForNew,
    /// Law 8: where something is erased, takes whatever is missing for erased.
    BlamesErasure,
    /// Law 9: the last event is gone after reopening.
    ForgetsOnReopen,
    /// Law 9: a log of which everything is erased begins again at its reopening.
    ForgetsEmptied,
    /// Law 9: each of several openings of a new log makes it.
    MakesTwice,
    /// Law 9: is another log after reopening.
    ChangesLineage,
    /// Law 10: says under load of some appends that they are stored, which are not.
    LosesAcknowledged,
    /// Law 10: its head never moves.
    NeverWakes,
    /// Law 11: says under load of some stored appends that they failed.
    FailsAfterStoring,
    /// Law 11: a cancelled append stops half way.
    HalvesCancelled,
    /// Law 12: takes the clock's time as it is.
    TimeGoesBack,
    /// Law 12: after reopening, knows no time but those of the events that are left.
    TimeOfTheKept,
    /// Law 13: gives all there is on one page.
    UnboundedPages,
    /// Law 13: a page without room for the next event is empty.
    StuckPages,
    /// Law 13: checks no limits.
    TakesAnything,
    /// `close` does not wait for what was accepted.
    ClosesTooEarly,
    /// `close` wakes nobody who waits for the head.
    ClosesUnheard,
    /// A second handle is another store.
    SharesNothing,
    /// Backward reads ignore where they should begin.
    BackwardFromEnd,
    /// Reading a stream leaves the others' events in.
    PrefixStreams,
    /// Ignores retention after it was set.
    ForgetsRetention,
    /// Documents: revisions count by key and begin anew after removal.
    ReusesRevisions,
    /// Documents: `Exact(0)` matches nothing.
    ZeroIsNowhere,
    /// Documents: an empty write counts.
    CountsEmptyWrites,
    /// Documents: writes the entries before the one that conflicts.
    SplitsWrites,
    /// Documents: looks at revisions before it has the lock.
    TwoRevisionWinners,
    /// Documents: a scan gives the longest keys last.
    ScansOutOfOrder,
    /// Documents: a scan says nothing of what is left.
    EndsScansEarly,
    /// Documents: clears one key too many.
    ClearsTooMuch,
    /// Documents: clears the documents of one step, and leaves the rest.
    ClearsOneStep,
    /// Documents: are gone after reopening.
    ForgetsDocuments,
}

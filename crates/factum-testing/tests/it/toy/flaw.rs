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
    /// Law 1: answers each write with the version that its stream has after the batch.
    VersionsOfTheEnd,
    /// Law 2: counts from 1 again after a deletion.
    RestartsVersions,
    /// Law 2: a deletion takes no version, so a caller that loaded before it does not conflict.
    DeletesUncounted,
    /// Law 2: takes a deleted stream for one that never existed.
    ForgetsDeletion,
    /// Law 1: a deletion also erases what its batch writes to the stream after it.
    DeletesLate,
    /// Law 2: deletes streams that have nothing to delete.
    DeletesNothing,
    /// Law 2: a conflict does not name the deletion.
    HidesDeletion,
    /// Law 3: a deletion erases its own event too.
    DeletesSilently,
    /// Law 5: shows a deletion before it has erased what is older.
    ErasesLater,
    /// Law 3: a conflict takes a position.
    BurnsPositions,
    /// Law 3: does not report erased ranges.
    HidesErased,
    /// Law 4: the number of a page is from a later snapshot than its rows.
    HeadAfterRows,
    /// Law 4: the bounds of a page are from a later snapshot than its rows.
    BoundsAfterRows,
    /// Law 4: categories and queries see appended events only a little later.
    IndexLags,
    /// Law 4: claims for a full page that it reached the end.
    ScansTooFar,
    /// Law 4: a page that pauses reports how far it looked for the last item of its query.
    ForgetsItems,
    /// Law 4: an item of a query finds events with any of its tags.
    AnyTag,
    /// Law 4: a tag whose events were all erased is not found again.
    TagsStayGone,
    /// Law 4: reads numbers as signed ones, so that the largest are before every other.
    WrapsNumbers,
    /// Law 5: shows events before they are stored, then takes them back.
    ShowsUncommitted,
    /// Law 6: answers appends from the state before those that were submitted with it.
    AnswersFromBefore,
    /// Law 7: conditions don't see events that were submitted together with them.
    ConditionsFromBefore,
    /// Law 7: a condition that reaches far back is checked before its batch is queued, and not
    /// again when its turn comes.
    PrechecksOnly,
    /// Law 7: searches only for the first items of a condition.
    JudgesFewItems,
    /// Law 7: a condition on a tag fails on another value of it.
    FalseConflicts,
    /// Law 7: ignores the position after which a condition looks.
    IgnoresAfter,
    /// Law 7: conditions still see erased events.
    MatchesErased,
    /// Law 8: recognises no retry.
    ForgetsRetries,
    /// Law 8: searches only when a version or condition fails, not at the mark.
    IgnoresMark,
    /// Law 8: takes a batch for known if its first event is.
    LooksAtFirstId,
    /// Law 8: recognises a retry forever.
    RetryWithoutEnd,
    /// Law 8: does not search events that were recorded before the time in the first id.
    TrustsClocks,
    /// Law 8: stores a batch that it will not recognise, because the writer's clock is too far
    /// ahead.
    TakesAnyTime,
    /// Law 8: answers a batch that was stored twice with the last copy.
    AnswersLastCopy,
    /// Law 8: searches only the end of a stream for a retry.
    LooksAtTheEnd,
    /// Law 8: does not recognise a batch of which a part is erased.
    NeedsTheWhole,
    /// Law 8: takes a repeated batch for new that may have been stored and erased.
    TakesErasedForNew,
    /// Law 8: where something is erased, takes every missing event for erased.
    BlamesErasure,
    /// Law 9: the last event is gone after reopening.
    ForgetsOnReopen,
    /// Law 9: each of several openings of a new log makes it.
    MakesTwice,
    /// Law 9: it is another log after reopening.
    ChangesLineage,
    /// Law 10: under load, acknowledges some appends that are not stored.
    LosesAcknowledged,
    /// Law 10: its head never moves.
    NeverWakes,
    /// Law 11: under load, reports some stored appends as failed.
    FailsAfterStoring,
    /// Law 11: a cancelled append stops half way.
    HalvesCancelled,
    /// Law 12: takes the clock's time unchanged.
    TimeGoesBack,
    /// Law 13: returns everything on one page.
    UnboundedPages,
    /// Law 13: a page without room for the next event is empty.
    StuckPages,
    /// Law 13: checks no limits.
    TakesAnything,
    /// `close` does not wait for accepted work.
    ClosesTooEarly,
    /// `close` does not wake callers that wait for the head.
    ClosesUnheard,
    /// A second handle is another store.
    SharesNothing,
    /// A handle for reading takes changes.
    ReaderWrites,
    /// Appends panic outside of a runtime.
    NeedsRuntime,
    /// Erases the events of one step, and leaves the rest.
    ErasesOneStep,
    /// Backward reads ignore their beginning.
    BackwardFromEnd,
    /// Reading a stream includes events of others.
    PrefixStreams,
    /// Ignores retention after it was set.
    ForgetsRetention,
    /// Documents: revisions count by key and begin again after removal.
    ReusesRevisions,
    /// Documents: `Exact(0)` matches nothing.
    ZeroIsNowhere,
    /// Documents: an empty write counts.
    CountsEmptyWrites,
    /// Documents: writes the entries before the one that conflicts.
    SplitsWrites,
    /// Documents: checks revisions before it has the lock.
    TwoRevisionWinners,
    /// Documents: a scan gives the longest keys last.
    ScansOutOfOrder,
    /// Documents: a scan does not report that there is more.
    EndsScansEarly,
    /// Documents: clears one key too many.
    ClearsTooMuch,
    /// Documents: clears the documents of one step, and leaves the rest.
    ClearsOneStep,
    /// Documents: are gone after reopening.
    ForgetsDocuments,
}

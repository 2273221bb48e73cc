"""Errors that a person can act on. Each front end turns a `BagindexError` into one line."""

from __future__ import annotations


class BagindexError(Exception):
    """Base of all errors that bagindex raises on purpose; its text says what to do next."""


class SourceError(BagindexError):
    """The source cannot be read as labelled images."""


class LabelError(BagindexError):
    """The source's labels do not fit the model's classes."""


class WeightsError(BagindexError):
    """The checkpoint cannot be used."""


class SettingsError(BagindexError):
    """Options contradict each other, or an index that is already there."""


class SpaceError(BagindexError):
    """The disk is too small for what is asked."""


class DiskError(BagindexError):
    """The disk fails, or may not be written to."""


class StoreError(BagindexError):
    """An object store cannot be reached, or refuses."""


class LockedError(BagindexError):
    """Another process is writing the index."""


class TooManyRejectsError(BagindexError):
    """More files could not be indexed than the user allows."""


class DecoderError(BagindexError):
    """The processes that decode pictures cannot be started."""


class EngineError(BagindexError):
    """What computes the shards of a build cannot be had, or is lost."""


class TrainingError(BagindexError):
    """A training cannot go on."""


class EvidenceRangeError(BagindexError):
    """A feature or logit is not finite or does not fit into float16."""


class IndexNotFoundError(BagindexError):
    """There is no such index."""


class IncompleteIndexError(BagindexError):
    """The index's build has not finished."""


class OutdatedError(BagindexError):
    """What an opened index answers from was removed or replaced: open it again."""


class DamagedIndexError(BagindexError):
    """A file of the index is missing or not what it should be."""


class NewerIndexError(BagindexError):
    """The index was made by a later version, in a format that this one does not know."""


class QueryError(BagindexError):
    """A question cannot be answered as it is put."""


class PictureSizeError(QueryError):
    """A picture that is asked about has more pixels than may be decoded."""


class UnknownClassError(QueryError):
    """No class of the index is called so."""


class UnknownImageError(QueryError):
    """The index has no such image."""


class UnknownPatchError(QueryError):
    """The index has no such patch."""


class UnknownModelError(QueryError):
    """The index has no such model."""


class NotKeptError(QueryError):
    """The index keeps too little for the question: pixels, evidence, features or visual words are missing."""


class AttributionError(QueryError):
    """An attribution method cannot be had, or cannot do what is asked of it."""


class OutputError(BagindexError):
    """A result cannot be written as asked."""

"""The searches of a query log as vectors that an index is asked for, by what they look for.

A search that was logged as texts is encoded, with whatever encoder the artifact has. One that was logged as a vector
means something to the encoder alone that made it: another's are left out, and counted. So are texts that nobody had
ended: the search page searches while one types.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

import numpy as np

from clip_retrieval.encoders.base import Encoder, Vectors
from clip_retrieval.errors import InvalidQuery, QueryLogError
from clip_retrieval.progress import Progress
from clip_retrieval.query_log.entry import LoggedSearch, unpacked
from clip_retrieval.query_log.reader import CollectionLog
from clip_retrieval.records import MODALITIES, Modality
from clip_retrieval.search.compose import compose
from clip_retrieval.search.query import QueryText

BATCH = 32
"""Texts that are encoded together."""
TYPED_WITHIN = timedelta(seconds=5)
"""A text is taken for the beginning of a longer one that begins with it, when that comes so soon."""
MOST_BETWEEN = 500
"""Searches of others that are looked at between the two."""


@dataclass(frozen=True)
class Searches:
    """Searches for one modality with the unit vectors that they were searched with: float32 (n, dim)."""

    searches: Sequence[LoggedSearch]
    vectors: Vectors

    @property
    def names(self) -> list[str]:
        """What each looked for, or the beginning of its id where its words are not kept."""
        return [search.words or f"search {search.search_id[:8]}" for search in self.searches]

    @property
    def kind(self) -> Modality:
        """What most of them are like: captions or images."""
        texts = sum(search.inputs == "texts" for search in self.searches)
        return "captions" if 2 * texts >= len(self.searches) else "images"


@dataclass(frozen=True)
class LoggedQueries:
    """What a log holds for an artifact, and a sentence for each kind of search that was left out."""

    by_target: Mapping[Modality, Searches]
    left_out: tuple[str, ...]


def logged_queries(
    log: CollectionLog, fingerprint: str, encoder: Callable[[], Encoder], progress: Progress
) -> LoggedQueries:
    """The searches of a log for an artifact whose encoder has this ``fingerprint``; it is loaded if texts need it.

    Raises QueryLogError if none is left.
    """
    left_out: Counter[str] = Counter()
    if log.skipped:
        left_out["lines are not whole"] = log.skipped
    searches = _ended(log.searches)
    if len(searches) < len(log.searches):
        left_out["texts are the beginning of one that came at once"] = len(log.searches) - len(searches)
    texts = _texts_of(search for search in searches if search.vector is None)
    known = _encoded(texts, encoder, progress, left_out) if texts else {}
    found: dict[Modality, list[tuple[LoggedSearch, Vectors]]] = {modality: [] for modality in MODALITIES}
    for search in searches:
        if search.vector is not None and search.encoder != fingerprint:
            left_out[f"vectors are those of another encoder ({(search.encoder or 'unknown')[:12]})"] += 1
            continue
        try:
            found[search.target].append((search, _vector_of(search, known)))
        except (InvalidQuery, ValueError, KeyError):
            left_out["searches cannot be read, or mean nothing to this encoder"] += 1
    sentences = tuple(f"{count} {what}" for what, count in left_out.items())
    if not any(found.values()):
        why = f": {'; '.join(sentences)}" if sentences else ""
        raise QueryLogError(
            f"the log has no search of {log.collection} that this artifact, whose encoder is {fingerprint[:12]}, can "
            f"be asked{why}; BENTO_CLIP_QUERY_LOG_KEEP=text logs what every encoder can read"
        )
    by_target = {
        modality: Searches([search for search, _ in each], np.stack([vector for _, vector in each]))
        for modality, each in found.items()
        if each
    }
    return LoggedQueries(by_target, sentences)


def _ended(searches: Sequence[LoggedSearch]) -> list[LoggedSearch]:
    """The searches without those of one text that the text of another begins with which came right after."""
    in_time = sorted(searches, key=lambda search: search.at)
    words = [search.words if len(search.parts) == 1 else "" for search in in_time]

    def goes_on(place: int) -> bool:
        for later in range(place + 1, min(place + 1 + MOST_BETWEEN, len(in_time))):
            if in_time[later].at - in_time[place].at > TYPED_WITHIN:
                return False
            if words[later] != words[place] and words[later].startswith(words[place]):
                return True
        return False

    return [search for place, search in enumerate(in_time) if not (words[place] and goes_on(place))]


def _texts_of(searches: Iterable[LoggedSearch]) -> list[QueryText]:
    """Each text once, in order."""
    texts = (QueryText(part.text, part.language) for one in searches for part in one.parts if part.text is not None)
    return list(dict.fromkeys(texts))


def _encoded(
    texts: Sequence[QueryText], load: Callable[[], Encoder], progress: Progress, left_out: Counter[str]
) -> dict[QueryText, Vectors]:
    encoder = load()
    known: dict[QueryText, Vectors] = {}
    with progress.stage("encoding the logged texts", len(texts)) as advance:
        for start in range(0, len(texts), BATCH):
            tokens = {}
            for text in texts[start : start + BATCH]:
                try:
                    tokens[text] = encoder.tokenize(text.words, text.language)
                except InvalidQuery:
                    left_out["texts have a language that the model does not mark"] += 1
            if tokens:
                known |= zip(tokens, encoder.encode_tokens(list(tokens.values())), strict=True)
            advance(len(texts[start : start + BATCH]))
    return known


def _vector_of(search: LoggedSearch, known: Mapping[QueryText, Vectors]) -> Vectors:
    """Raises KeyError, ValueError or InvalidQuery for one that has no vector."""
    if search.vector is not None:
        return unpacked(search.vector)
    vectors = [known[QueryText(part.text or "", part.language)] for part in search.parts]
    if not vectors:
        raise ValueError("neither parts nor a vector")
    return compose(np.stack(vectors), [part.weight for part in search.parts])

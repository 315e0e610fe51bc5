"""Searches and clicks for the query log, where an operator wants one. Used from the event loop.

What is logged of a search is its words or its vector, never who asked, from where, with which key, or a filter.
"""

import json
from secrets import token_hex

from cachetools import LRUCache

from clip_retrieval.encoders.base import Vectors
from clip_retrieval.errors import QueryLogOff
from clip_retrieval.query_log.entry import Inputs, LoggedClick, LoggedPart, LoggedSearch, line_of, now, packed
from clip_retrieval.query_log.writer import LogWriter
from clip_retrieval.search.compose import compose
from clip_retrieval.search.query import Query, QueryPart, StoredImage, content_key
from clip_retrieval.search.searchable import SearchableCollection
from clip_retrieval.serving.settings import PREFIX, Settings

NO_LOG = f"this service logs no searches: set {PREFIX}QUERY_LOG to a folder and start it again"
VECTORS_KEPT = 4096
"""Packed vectors of the latest searches: an answer from the cache has none. 1.4 KB each at 512 dimensions."""


class QueryLog:
    """Notes what is searched for; with ``none`` nothing is."""

    def __init__(self, writer: LogWriter | None = None, *, words: bool = True) -> None:
        """``words`` says whether texts and ids are logged, or vectors alone."""
        self._writer, self._words = writer, words
        self._vectors: LRUCache[str, str] = LRUCache(VECTORS_KEPT)

    @classmethod
    def of(cls, settings: Settings) -> "QueryLog":
        """The log that the settings want."""
        if settings.query_log is None:
            return cls()
        writer = LogWriter(settings.query_log, settings.query_log_bytes)
        return cls(writer, words=settings.query_log_keep == "text")

    def search(self, query: Query, vectors: Vectors | None, collection: SearchableCollection) -> str | None:
        """Log a search that was answered, with the unit vectors (parts, dim) of its parts, None if it was cached.

        Returns its id. None if it is not logged: there is no log, or it is a further page, a look without a query, or
        its vector is wanted and not known.
        """
        if self._writer is None or not query.parts or query.offset:
            return None
        has_words = self._words and len(query.texts) == len(query.parts)
        vector = None if has_words else self._vector_of(query.parts, vectors)
        if not has_words and vector is None:
            return None
        manifest = collection.manifest
        search = LoggedSearch(
            search_id=token_hex(16),
            at=now(),
            target=query.target,
            inputs=_inputs(query),
            parts=tuple(map(_part, query.parts)) if self._words else (),
            encoder=None if vector is None else manifest.encoder.fingerprint,
            vector=vector,
        )
        self._writer.put(manifest.data.name, line_of(search))
        return search.search_id

    def require(self) -> LogWriter:
        """What writes the log. Raises QueryLogOff where there is none."""
        if self._writer is None:
            raise QueryLogOff(NO_LOG)
        return self._writer

    def click(self, search_id: str, image_id: str, collection: SearchableCollection) -> None:
        """Log that an image of the collection was opened. Raises QueryLogOff, and InvalidQuery if there is none."""
        writer = self.require()
        [(image, _)] = collection.images([collection.row_of(image_id)])
        click = LoggedClick(
            search_id=search_id,
            at=now(),
            image_id=image_id if self._words else None,
            content_hash=None if self._words else image.content_hash,
        )
        writer.put(collection.manifest.data.name, line_of(click))

    def close(self) -> None:
        """Write what waits."""
        if self._writer is not None:
            self._writer.close()

    def _vector_of(self, parts: tuple[QueryPart, ...], vectors: Vectors | None) -> str | None:
        key = json.dumps([[*content_key(part), part.weight] for part in parts])
        if vectors is not None:
            self._vectors[key] = packed(compose(vectors, [part.weight for part in parts]))
        return self._vectors.get(key)


def _inputs(query: Query) -> Inputs:
    texts = len(query.texts)
    return "texts" if texts == len(query.parts) else "mixed" if texts else "images"


def _part(part: QueryPart) -> LoggedPart:
    content = part.content
    return LoggedPart(
        text=content if isinstance(content, str) else None,
        language=part.language,
        image_id=content.image_id if isinstance(content, StoredImage) else None,
        weight=part.weight,
    )

"""Whether a collection can answer a query in the mode that it asks for: by vectors, by words, or by both."""

from clip_retrieval.errors import InvalidQuery
from clip_retrieval.search.query import Query
from clip_retrieval.search.searchable import SearchableCollection

NO_WORDS = (
    "this artifact was made by an earlier release, which did not index its words; build it again, or run "
    "bento-clip tune"
)


def check_mode(query: Query, collection: SearchableCollection) -> None:
    """Raise InvalidQuery, with what would be right, if the words of the query cannot be asked for."""
    if query.mode == "vector":
        return
    if collection.words is None:
        raise InvalidQuery(f"mode: {NO_WORDS}; or leave mode out")
    if not any(isinstance(part.content, str) and part.weight > 0 for part in query.parts):
        raise InvalidQuery(f"mode: {query.mode} needs a text that is not subtracted; leave mode out")
    if query.mode == "both":
        return
    if len(query.texts) < len(query.parts):
        raise InvalidQuery("mode: an image has no words; use both, or leave the images out")
    if not query.words:
        raise InvalidQuery("mode: the text has neither letters nor digits, so no word; leave mode out")
    for name, given in (("min_score", query.min_score), ("min_confidence", query.min_confidence)):
        if given:
            raise InvalidQuery(f"{name}: what has the words is found whatever its vector; use both, or leave it out")

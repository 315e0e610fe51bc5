"""Whether a collection can answer a query in the mode that it asks for: by vectors, by words, or by both."""

from clip_retrieval.artifacts.word_split import words_of
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
    if not any(weight > 0 for weight in query.words.values()):
        raise InvalidQuery(f"mode: {_why_no_word(query)}; leave mode out")
    for name, is_given in (("min_score", query.min_score is not None), ("min_confidence", query.min_confidence)):
        if is_given:
            raise InvalidQuery(f"{name}: what has the words is found whatever its vector; use both, or leave it out")


def _why_no_word(query: Query) -> str:
    if any(words_of(text.words) for text in query.texts):
        return "each word of the texts is subtracted as well, so no word is left"
    return "the text has neither letters nor digits, so no word"

"""A retriever over an artifact of this machine, where the packages for it are installed."""

from typing import TYPE_CHECKING

from clip_retrieval.cli import console
from clip_retrieval.errors import MissingExtra

if TYPE_CHECKING:
    from clip_retrieval.search.retriever import Retriever


def load_retriever(source: str, purpose: str) -> "Retriever":
    """The retriever over the artifact ``source``, a tag or a folder.

    Raises MissingExtra, with ``purpose`` in its words, where only the extra ``cli`` is installed; else as
    ``Retriever.load``.
    """
    try:
        from clip_retrieval.search.retriever import Retriever
    except ModuleNotFoundError as error:
        raise MissingExtra(f"{purpose} ({error.name})", "serve") from None
    with console.Bars().stage("loading the artifact", None):
        return Retriever.load(source)

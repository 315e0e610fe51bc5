"""``Retriever`` under the name by which programs import it; it stands in ``search/retriever.py``."""

from clip_retrieval.search.retriever import Retriever

__all__ = ["Retriever"]

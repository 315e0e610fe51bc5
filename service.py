"""The service for BentoML's own commands in a checkout: ``bentoml serve service:ClipRetrieval``."""

from clip_retrieval.service import ClipRetrieval

__all__ = ["ClipRetrieval"]

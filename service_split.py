"""The service as two, for BentoML's own commands in a checkout: ``bentoml serve service_split:ClipRetrieval``."""

from clip_retrieval.split_service import ClipRetrieval

__all__ = ["ClipRetrieval"]

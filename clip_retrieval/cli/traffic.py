"""An artifact judged by what its service was asked, for ``bento-clip evaluate --queries``."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.cli import console
from clip_retrieval.cli.logged import queries_of
from clip_retrieval.evaluation.clicked import Clicked, clicked
from clip_retrieval.evaluation.embedded_dataset import EmbeddedDataset
from clip_retrieval.evaluation.index_report import Queries
from clip_retrieval.evaluation.report import CUTOFFS
from clip_retrieval.records import Modality

REPORT = "queries.json"


@dataclass(frozen=True)
class Traffic:
    """What was asked of each index, and where the images stand that were opened."""

    queries: Mapping[Modality, Queries]
    clicked: Clicked | None
    left_out: tuple[str, ...]

    @property
    def described(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "searches": {modality: len(queries.vectors) for modality, queries in self.queries.items()},
            "left_out": list(self.left_out),
            "clicked": None if self.clicked is None else self.clicked.model_dump(mode="json"),
        }


def traffic_of(log: Path, artifact: Artifact, data: EmbeddedDataset) -> Traffic:
    """Read the log of a service. Raises QueryLogError where there is nothing that the artifact can be asked."""
    held, found = queries_of(log, artifact)
    images = found.by_target.get("images")
    return Traffic(
        {modality: Queries(one.vectors, one.kind, one.names) for modality, one in found.by_target.items()},
        None if images is None else clicked(data, images.searches, images.vectors, held.clicks_by_search()),
        found.left_out,
    )


def write_traffic(output: Path, traffic: Traffic | None) -> None:
    """Write the report; an older one goes."""
    if traffic is None:
        (output / REPORT).unlink(missing_ok=True)
    else:
        (output / REPORT).write_text(json.dumps(traffic.described, indent=2, ensure_ascii=False), encoding="utf-8")


def show_traffic(traffic: Traffic) -> None:
    """Where the images stand that people opened, as a table."""
    if traffic.clicked is None:
        console.note("no click is in the query log of a search that it has: nothing says what people wanted")
        return
    table = Table("searches with a click", *(f"recall@{k}" for k in CUTOFFS), "mean reciprocal rank")
    table.title, table.title_justify = "images that people opened, exact search", "left"
    recalls = (f"{traffic.clicked.recall[f'recall_at_{k}']:.3f}" for k in CUTOFFS)
    table.add_row(str(traffic.clicked.searches), *recalls, f"{traffic.clicked.mean_reciprocal_rank:.3f}")
    console.table(table)

"""The options of ``build`` that say where images are embedded."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from clip_retrieval.build.embed_blocks import BLOCK_ITEMS, BlockEngine
from clip_retrieval.build.embed_ray import RayWorkers, require_ray
from clip_retrieval.build.engine import EmbeddingEngine
from clip_retrieval.build.shard_place import shard_place
from clip_retrieval.urls import is_url


class EngineOption(StrEnum):
    LOCAL = "local"
    RAY = "ray"


Engine = Annotated[
    EngineOption,
    typer.Option(
        help="Where images are embedded: in this process, or by workers of a Ray cluster. The result is equal."
    ),
]
RayAddress = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="The Ray cluster: HOST:6379, or auto for the one that this machine belongs to. Every machine needs the"
        " source, the model's folder and --shards under the same paths.",
        show_default="one on this machine, for this build alone",
    ),
]
RayWorkerCount = Annotated[
    int | None, typer.Option(min=1, help="The most workers.", show_default="as many as there is room for")
]
RayCpus = Annotated[
    int | None,
    typer.Option(min=1, help="Cores of each worker.", show_default="4, or all of the smallest machine if it has fewer"),
]
RayGpus = Annotated[float | None, typer.Option(min=0, help="GPUs of each worker.", show_default="0")]
Shards = Annotated[
    str | None,
    typer.Option(
        metavar="PLACE",
        help="Keep what the workers make in this folder, or below s3:// or gs://, for later builds too; all machines of"
        " a cluster must have it.",
        show_default="the folder of the build, which is removed at its end",
    ),
]
ShardImages = Annotated[int | None, typer.Option(min=1, help="Images in a shard.", show_default=str(BLOCK_ITEMS))]


def engine_of(
    engine: EngineOption,
    *,
    address: str | None,
    workers: int | None,
    cpus: int | None,
    gpus: float | None,
    shards: str | None,
    shard_images: int | None,
) -> EmbeddingEngine | None:
    """The engine that a person asked for; None is this process.

    Raises typer.BadParameter for options that do not fit it, and MissingExtra.
    """
    if engine is EngineOption.LOCAL:
        given = {
            "--ray-address": address,
            "--ray-workers": workers,
            "--ray-cpus": cpus,
            "--ray-gpus": gpus,
            "--shards": shards,
            "--shard-images": shard_images,
        }
        if named := [name for name, value in given.items() if value is not None]:
            raise typer.BadParameter("it needs --engine ray", param_hint=named[0])
        return None
    require_ray()
    if address is not None and "://" in address:
        raise typer.BadParameter(
            "give HOST:PORT, and run the command on a machine of the cluster (ray start --address=HOST:PORT)",
            param_hint="--ray-address",
        )
    if address is not None and shards is None:
        raise typer.BadParameter(
            "name a folder or a store that all machines of the cluster have", param_hint="--shards"
        )
    if shards is not None:
        shard_place(shards)  # a wrong place should not cost the reading of the source
    run = RayWorkers(address=address, workers=workers, cpus=cpus, gpus=gpus or 0)
    return BlockEngine(
        run, shards if shards is None or is_url(shards) else str(Path(shards).resolve()), shard_images or BLOCK_ITEMS
    )

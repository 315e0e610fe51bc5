"""``bento-clip build``: build an artifact from captioned images."""

import json
import os
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from clip_retrieval.artifacts import retention
from clip_retrieval.artifacts.artifact import INDEX_URI
from clip_retrieval.build.check import (
    calibration,
    check_source,
    read_source,
    require_columns,
    require_no_reject,
)
from clip_retrieval.build.on_a_gpu import gpu_maker
from clip_retrieval.build.pipeline import Options
from clip_retrieval.cli import console
from clip_retrieval.cli.engine_options import (
    Engine,
    EngineOption,
    RayAddress,
    RayCpus,
    RayGpus,
    RayWorkerCount,
    ShardImages,
    Shards,
    engine_of,
)
from clip_retrieval.cli.options import (
    AllowTruncated,
    AsJson,
    CaptionColumns,
    Encoding,
    ImageColumn,
    Keep,
    MaxBytes,
    MaxPixels,
    Model,
    NoCaptions,
    Pretrained,
    QuickGelu,
    SourcePath,
    SplitRatios,
    TakeVectors,
    TextLanguage,
    Wait,
    WordsFrom,
    require_not_given,
    source_options,
)
from clip_retrieval.cli.pruned import pruned_json, show_pruned
from clip_retrieval.cli.publish import build_and_publish, check_milvus, seen_files
from clip_retrieval.encoders import find_gpu
from clip_retrieval.encoders.accelerator import Gpu, Precision
from clip_retrieval.images.decode import Limits
from clip_retrieval.indexes.milvus_place import check_uri
from clip_retrieval.models.prepare import prepare_encoder
from clip_retrieval.urls import name_of_place, shown_place


class RuntimeOption(StrEnum):
    OPENVINO = "openvino"
    TORCH = "torch"


class IndexOption(StrEnum):
    FAISS = "faiss"
    MILVUS = "milvus"


class DeviceOption(StrEnum):
    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"
    CUDA_F32 = "cuda-f32"


class PrecisionOption(StrEnum):
    F32 = "f32"
    INT8 = "int8"


def build_command(
    context: typer.Context,
    source: SourcePath,
    model: Model = "demo",
    pretrained: Pretrained = None,
    quick_gelu: QuickGelu = None,
    text_language: TextLanguage = None,
    runtime: Annotated[RuntimeOption, typer.Option(help="The library that runs the encoder.")] = RuntimeOption.OPENVINO,
    precision: Annotated[
        PrecisionOption, typer.Option(help="int8 adds 8-bit weights, and the service uses them; for CPUs with VNNI.")
    ] = PrecisionOption.F32,
    device: Annotated[
        DeviceOption | None,
        typer.Option(
            help="Where the vectors are made. cuda: by torch on a GPU, in half precision, compared with the encoder"
            " that serves; cuda-f32: in float32, for models that it does not suit; auto: cuda, if there is a GPU.",
            show_default="by the encoder that serves",
        ),
    ] = None,
    split: SplitRatios = Options.ratios,
    seed: Annotated[int, typer.Option(help="The seed of the split.")] = Options.seed,
    recall: Annotated[
        float,
        typer.Option(min=0, max=1, help="The least recall of an index, at k = 1, 10 and 50."),
    ] = Options.recall,
    index: Annotated[
        IndexOption, typer.Option(help="What searches: FAISS in the service, or Milvus beside it.")
    ] = IndexOption.FAISS,
    index_uri: Annotated[
        str | None,
        typer.Option(
            metavar="URI",
            help=f"The Milvus: http://host:19530, or a path that ends in .db for Milvus Lite; default: {INDEX_URI}.",
        ),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop if anything is rejected.")] = False,
    thumbnails_mb: Annotated[
        int, typer.Option(min=0, help="The most megabytes of thumbnails for the search page; 0 makes none.")
    ] = Options.thumbnails_mb,
    words_from: WordsFrom = [],  # noqa: B006 - Typer makes a list of its own for each call
    keep_originals: Annotated[
        bool,
        typer.Option(
            "--keep-originals", help="Keep the original files in the artifact, with all that cameras wrote into them."
        ),
    ] = False,
    output: Annotated[
        Path | None, typer.Option(help="Write the artifact to this new folder instead of the model store.")
    ] = None,
    image_column: ImageColumn = None,
    caption_columns: CaptionColumns = [],  # noqa: B006 - Typer makes a list of its own for each call
    encoding: Encoding = None,
    no_captions: NoCaptions = False,
    take_vectors: TakeVectors = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Decode and encode everything again, and use nothing that was made before.")
    ] = False,
    keep: Keep = None,
    wait: Wait = True,
    as_json: AsJson = False,
    max_pixels: MaxPixels = Limits.max_pixels,
    max_bytes: MaxBytes = Limits.max_bytes,
    allow_truncated: AllowTruncated = Limits.allow_truncated,
    engine: Engine = EngineOption.LOCAL,
    ray_address: RayAddress = None,
    ray_workers: RayWorkerCount = None,
    ray_cpus: RayCpus = None,
    ray_gpus: RayGpus = None,
    shards: Shards = None,
    shard_images: ShardImages = None,
) -> None:
    """Build an artifact from captioned images. The last line is its tag.

    A build that was stopped resumes when you start it again. Images and captions that an artifact in the model store
    contains are not encoded again, if the model is the same; the result is the same as that of a fresh build.

    Examples:

    ```
    bento-clip build my-photos --model demo
    bento-clip build flickr8k --model ViT-B-32 --pretrained laion2b_s34b_b79k
    bento-clip build photos.jsonl --model local-dir:my-model --output my-artifact
    bento-clip build my-photos --keep 5
    bento-clip build my-photos --index milvus --index-uri http://milvus:19530
    bento-clip build my-photos --model ViT-B-32 --pretrained laion2b_s34b_b79k --device auto
    bento-clip build my-photos --engine ray
    bento-clip build /shared/photos --engine ray --ray-address auto --shards /shared/shards
    bento-clip build embeddings --take-vectors --model ViT-B-32 --pretrained laion2b_s34b_b79k
    ```
    """
    if output is not None and output.exists():
        raise typer.BadParameter(f"{output} exists already; choose a new folder", param_hint="--output")
    if precision is PrecisionOption.INT8 and runtime is RuntimeOption.TORCH:
        raise typer.BadParameter("int8 needs --runtime openvino", param_hint="--precision")
    if take_vectors:
        _require_nothing_of_images(context, thumbnails_mb)
    gpu_computes_in = gpu_precision(device, runtime)
    if keep is not None and output is not None:
        raise typer.BadParameter("it is for artifacts in the model store; leave --output out", param_hint="--keep")
    milvus = _milvus(index, index_uri)
    if device is not None and engine is EngineOption.RAY:
        raise typer.BadParameter("it is for this process; --ray-gpus gives the workers GPUs", param_hint="--device")
    if take_vectors and engine is EngineOption.RAY:
        raise typer.BadParameter("vectors are there already; leave --engine out", param_hint="--engine")
    embedding = engine_of(
        engine,
        address=ray_address,
        workers=ray_workers,
        cpus=ray_cpus,
        gpus=ray_gpus,
        shards=shards,
        shard_images=shard_images,
    )
    bars = console.Bars()
    limits = Limits(max_bytes=max_bytes, max_pixels=max_pixels, allow_truncated=allow_truncated)
    options = Options(
        ratios=split,
        seed=seed,
        recall=recall,
        limits=limits,
        strict=strict,
        thumbnails_mb=thumbnails_mb,
        words_from=tuple(words_from) or None,
        keep_originals=keep_originals,
    )
    # Before the model is prepared: a wrong path should not cost a download.
    said = source_options(image_column, caption_columns, encoding, no_captions=no_captions, take_vectors=take_vectors)
    data = read_source(source, bars, said)
    console.taken(data.taking)
    require_columns(data.items, words_from)
    if take_vectors and precision is PrecisionOption.INT8:
        raise typer.BadParameter("int8 is calibrated with images, and vectors have none", param_hint="--precision")
    if strict and not take_vectors and embedding is None:  # likewise a reject; workers find it as they go
        with seen_files() as seen:
            require_no_reject(check_source(data, shown_place(source), limits, bars, None if fresh else seen))
    with bars.stage(f"preparing the model {model}", None):
        samples = calibration(data, limits) if precision is PrecisionOption.INT8 else None
        encoder = prepare_encoder(
            model,
            pretrained,
            runtime=runtime.value,
            quick_gelu=quick_gelu,
            text_language=text_language,
            calibration=samples,
            say=console.note,
            wait=wait,
        )
        maker = None
        if gpu_computes_in is not None:
            reference = prepare_encoder(
                model,
                pretrained,
                runtime="torch",
                quick_gelu=quick_gelu,
                text_language=text_language,
                say=console.note,
                wait=wait,
            )
            maker = gpu_maker(reference, gpu_computes_in)
    with seen_files() as seen:
        built = build_and_publish(
            data,
            name_of_place(data.place),
            encoder,
            options,
            bars,
            place=data.place,
            output=output,
            maker=maker,
            seen=seen,
            fresh=fresh,
            wait=wait,
            milvus=milvus,
            engine=embedding,
        )
    pruned = (
        []
        if keep is None
        else retention.prune(keep, group=built.group, made=built.tag, index_uri=milvus, say=console.note)
    )
    if as_json:
        typer.echo(json.dumps(built.to_json() | {"pruned": pruned_json(pruned)}, ensure_ascii=False))
        return
    console.report_table(built.outcome.report)
    for note in built.notes():
        console.note(note)
    show_pruned(pruned)
    typer.echo(built.tag)


def _require_nothing_of_images(context: typer.Context, thumbnails_mb: int) -> None:
    """Raise BadParameter for an option that has no effect on vectors that are taken as they are."""
    of_images = ("--keep-originals", "--max-pixels", "--max-bytes", "--allow-truncated")
    require_not_given(context, "vectors come without image files", *of_images)
    if thumbnails_mb:  # 0 is what there will be
        require_not_given(context, "vectors come without image files", "--thumbnails-mb")
    require_not_given(context, "captions come with the vectors, in Parquet", "--encoding", "--no-captions")
    require_not_given(context, "vectors that are taken are made nowhere", "--device")


def _milvus(index: IndexOption, given: str | None) -> str | None:
    """Where the Milvus is that searches, and that answers now; None where FAISS searches."""
    if index is IndexOption.FAISS:
        if given is not None:
            raise typer.BadParameter("it is for --index milvus", param_hint="--index-uri")
        return None
    uri = given or os.environ.get(INDEX_URI)
    if not uri:
        raise typer.BadParameter(f"say where the Milvus is, or set {INDEX_URI}", param_hint="--index-uri")
    try:
        check_milvus(check_uri(uri))
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--index-uri") from error
    return uri


def gpu_precision(
    device: DeviceOption | None, runtime: RuntimeOption, find: Callable[[], Gpu | None] = find_gpu
) -> Precision | None:
    """The precision in which a GPU makes the vectors; None if none does.

    Raises BadParameter if ``device`` cannot be had, or MissingExtra.
    """
    if device is None or (device is DeviceOption.CPU and runtime is RuntimeOption.OPENVINO):
        return None
    gpu = find()
    if device in {DeviceOption.CUDA, DeviceOption.CUDA_F32} and gpu is None:
        raise typer.BadParameter(
            "torch sees no GPU: install torch with CUDA and the driver of the GPU, or leave it out",
            param_hint="--device",
        )
    if device is DeviceOption.CPU and gpu is not None:
        raise typer.BadParameter(
            "the runtime torch takes the GPU whenever it sees one; hide it with CUDA_VISIBLE_DEVICES=",
            param_hint="--device",
        )
    if gpu is None:
        return None
    return "float32" if device is DeviceOption.CUDA_F32 else gpu.precision

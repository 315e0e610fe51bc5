"""The serving encoder: loads a folder that ``export_openvino`` wrote (``spec.py`` lists its files).

Loading compiles both towers at once and runs each of them in every way, so that no first query is slower.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, Self, get_args

import numpy as np
from PIL import Image

from clip_retrieval.cores import usable_cores
from clip_retrieval.encoders.base import Encoder, EncoderInfo, Pixels, Preprocessing, Tokens, Vectors, unit_rows
from clip_retrieval.encoders.openvino.instructions import CPUINFO, bfloat16_is_fast, eight_bits_are_fast
from clip_retrieval.encoders.openvino.layouts import text_batch
from clip_retrieval.encoders.openvino.memory import mergeable, release_mapping, trim_heap
from clip_retrieval.encoders.openvino.runtime import openvino
from clip_retrieval.encoders.openvino.spec import TOWERS, RuntimeSpec, graph_file, read_spec
from clip_retrieval.encoders.openvino.tower import WARM_UP_SIZES, CompiledTower, split_rows
from clip_retrieval.encoders.tokenizer import Tokenizer
from clip_retrieval.errors import ModelUnavailable

IMAGES_AT_ONCE = 8
TEXTS_AT_ONCE = 32
PADDED_TEXTS_AT_ONCE = 8
"""The longest parts of a batch. Longer parts need more memory and are no faster. Padded texts need less memory in
short parts, in which all have a similar length; longer parts of them pay with AMX and not without
(docs/performance-log.md, 2026-11-29)."""

EIGHT_BITS = (
    "this CPU encodes two to three times as fast with 8 bits as in float32, in which this artifact is served: "
    "build it with --precision int8 (docs/serving.md)"
)

FloatType = Literal["f32", "bf16"]
"""What a graph, or what a graph of 8 bits leaves in floating point, is computed in."""
FLOAT = "INFERENCE_PRECISION_HINT"
FLOAT_TYPES: tuple[FloatType, ...] = get_args(FloatType)


class OpenVinoEncoder(Encoder):
    """An exported model. Texts and images may be encoded at the same time from different threads."""

    owns_threads = True
    text_batches_at_once = 2
    """While one is computed, the other is prepared, and its texts need not wait for the event loop."""

    def __init__(
        self, info: EncoderInfo, spec: RuntimeSpec, tokenizer: Tokenizer, text: CompiledTower, image: CompiledTower
    ) -> None:
        self.info = info
        self.spec = spec
        self.languages = tokenizer.languages
        self._tokenizer = tokenizer
        self._text = text
        self._image = image

    @classmethod
    def load(
        cls,
        folder: Path,
        info: EncoderInfo,
        *,
        precision: Literal["auto", "f32", "int8"] = "auto",
        threads: int | None = None,
        cpuinfo: Path = CPUINFO,
    ) -> Self:
        """Load an exported model; each tower gets ``threads``, by default all usable cores.

        ``auto`` computes in bfloat16 if the CPU has fast instructions for it, else in float32. ``int8`` needs graphs
        that were exported for it. ``cpuinfo`` says what the CPU has. Raises ModelUnavailable.
        """
        spec = read_spec(folder)
        if precision == "int8" and "int8" not in spec.precisions:
            raise ModelUnavailable(f"{folder} was exported without int8 graphs; build it with precision int8")
        text_graph, image_graph = (
            folder / graph_file(name, "int8" if precision == "int8" else "f32") for name in TOWERS
        )
        core = openvino.Core()
        threads = threads or usable_cores()
        settings = _settings(core, precision, threads, cpuinfo)
        # The binding fills its table of types on first use; two threads that do so at once deadlock (2026.4.1).
        openvino.Tensor(np.zeros(1, np.float32)).element_type.to_dtype()
        with mergeable(), ThreadPoolExecutor(len(TOWERS)) as pool:
            towers = pool.map(lambda graph: CompiledTower(_compile(core, graph, settings)), (text_graph, image_graph))
            tokenizer = Tokenizer.load(folder)  # beside the compiler, which does not hold the GIL
            text, image = towers
            encoder = cls(info, spec, tokenizer, text, image)
            warm_ups = [pool.submit(encoder.encode_texts, ["warm up"] * size) for size in WARM_UP_SIZES]
            for size in WARM_UP_SIZES:
                encoder.encode_pixels(np.zeros((size, 3, *info.image_size), np.float32))
            for warm_up in warm_ups:
                warm_up.result()
        for graph in (text_graph, image_graph):
            release_mapping(graph.with_suffix(".bin"))
        trim_heap()
        in_float32 = precision == "auto" and settings[FLOAT] == "f32"
        if in_float32 and "int8" not in spec.precisions and eight_bits_are_fast(cpuinfo):
            encoder.advice = EIGHT_BITS
        return encoder

    def tokenize(self, text: str, language: str | None = None) -> Tokens:
        self.check_language(language)
        return self._tokenizer.tokenize(text, language)

    def encode_tokens(self, texts: Sequence[Tokens]) -> Vectors:
        return self.prepare_tokens(texts)()

    def prepare_tokens(self, texts: Sequence[Tokens]) -> Callable[[], Vectors]:
        ids = [text.ids for text in texts]
        by_prefix = self.spec.text_layout == "prefixes"
        # Texts of one part share prefixes if they are in lexicographic order, and padding if they are alike in length.
        in_order = sorted(range(len(ids)), key=lambda row: ids[row] if by_prefix else (len(ids[row]),))
        longest = TEXTS_AT_ONCE if by_prefix else PADDED_TEXTS_AT_ONCE
        parts = split_rows(np.array(in_order, dtype=np.intp), longest)
        inputs = [text_batch(self._tokenizer, self.spec.text_layout, [ids[row] for row in part]) for part in parts]

        def compute() -> Vectors:
            vectors = np.empty((len(texts), self.info.dim), dtype=np.float32)
            for part, output in zip(parts, self._text.run(inputs), strict=True):
                vectors[part] = output
            return unit_rows(vectors)

        return compute

    def preprocess(self, image: Image.Image) -> Pixels:
        return self.spec.preprocess(image)

    @property
    def preprocessing(self) -> Preprocessing:
        return self.spec.preprocess

    def encode_pixels(self, pixels: Pixels) -> Vectors:
        vectors = np.empty((len(pixels), self.info.dim), dtype=np.float32)
        parts = split_rows(np.arange(len(pixels)), IMAGES_AT_ONCE)
        inputs = [(pixels[part[0] : part[-1] + 1],) for part in parts]
        for part, output in zip(parts, self._image.run(inputs), strict=True):
            vectors[part] = output
        return unit_rows(vectors)


def _compile(core: Any, graph: Path, settings: dict[str, Any]) -> Any:
    try:
        compiled = core.compile_model(graph, "CPU", settings)
    except RuntimeError as error:
        raise ModelUnavailable(f"{graph} cannot be loaded ({str(error).strip().splitlines()[0]})") from error
    release_mapping(graph.with_suffix(".bin"))
    return compiled


def _settings(core: Any, precision: str, threads: int, cpuinfo: Path) -> dict[str, Any]:
    has_bf16 = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES") and bfloat16_is_fast(cpuinfo)
    # int8 graphs leave little in floating point; converting it to bfloat16 is no faster.
    return float_settings("bf16" if has_bf16 and precision == "auto" else "f32", threads)


def float_settings(kind: FloatType, threads: int) -> dict[str, Any]:
    """OpenVINO's settings for ``threads`` threads that compute what is in floating point in this type."""
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        FLOAT: kind,
        # Both towers may run at once; with pinned threads they would share cores while other cores are idle.
        "ENABLE_CPU_PINNING": False,
    }

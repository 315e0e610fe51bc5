"""The serving encoder: OpenVINO on the CPU, without torch, open_clip or transformers in the process.

Loads a folder that ``export_openvino`` wrote: ``runtime.json`` (``RuntimeSpec``), the towers' graphs and the
tokenizer. Compiles the towers at once and runs each in every way before it returns, so that no first query is slower.
"""

import ctypes
import math
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Literal, Self

import numpy as np
import openvino
from numpy.typing import NDArray
from PIL import Image
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from clip_retrieval.cores import usable_cores
from clip_retrieval.encoders.base import Encoder, EncoderInfo, Pixels, Tokens, Vectors, unit_rows
from clip_retrieval.encoders.openvino.prefixes import share
from clip_retrieval.encoders.preprocess import Preprocess
from clip_retrieval.encoders.tokenizer import Tokenizer
from clip_retrieval.errors import ModelUnavailable

SPEC_FILE = "runtime.json"
TOWERS = ("text", "image")

IMAGES_AT_ONCE = 8
TEXTS_AT_ONCE = 32
PADDED_TEXTS_AT_ONCE = 8
"""A larger batch is run in parts: above these the speed no longer rises, but the memory does, and texts that are padded
need less of that among few of a similar length."""

BATCHES_AT_ONCE = 2
"""So many batches of texts share the threads best: while the queries of one are searched, the other is computed."""

Layout = Literal["prefixes", "longest", "full"]
"""How a text tower wants a batch: as the arrays of ``prefixes.share``, or as rows of ids padded to the batch's longest
or always to the whole context."""

Inputs = tuple[NDArray[Any], ...]
"""Of a graph, in its order."""


class Check(BaseModel):
    """How an exported tower compares with torch float32 on the same inputs."""

    model_config = ConfigDict(frozen=True)

    inputs: int
    min_cosine: float
    mean_cosine: float
    max_difference: float
    """Largest difference of a component of the unit vectors."""


class RuntimeSpec(BaseModel):
    """What ``runtime.json`` says of an exported model."""

    model_config = ConfigDict(frozen=True)

    precisions: tuple[Literal["f32", "int8"], ...]
    """Which graphs the folder holds: ``text.xml`` for f32, ``text.int8.xml`` for int8, the image tower likewise."""
    text_layout: Layout = Field(validation_alias=AliasChoices("text_layout", "text_length"))
    """``text_length`` is what artifacts call it that were built when no tower took prefixes."""
    preprocess: Preprocess
    checks: dict[str, Check]
    """Tower file → comparison made when it was exported."""


def graph_file(tower: str, precision: str) -> str:
    """Name of a tower's graph in the folder."""
    return f"{tower}.xml" if precision == "f32" else f"{tower}.{precision}.xml"


class OpenVinoEncoder(Encoder):
    """An exported model. Texts and images may be encoded at the same time from different threads."""

    def __init__(
        self, info: EncoderInfo, spec: RuntimeSpec, tokenizer: Tokenizer, text: "_Tower", image: "_Tower"
    ) -> None:
        self.info = info
        self.spec = spec
        self._tokenizer = tokenizer
        self._text = text
        self._image = image
        self.text_batches_at_once = min(BATCHES_AT_ONCE, text.threads)

    @classmethod
    def load(
        cls,
        folder: Path,
        info: EncoderInfo,
        *,
        precision: Literal["auto", "f32", "int8"] = "auto",
        threads: int | None = None,
    ) -> Self:
        """Load an exported model; ``threads`` is for each tower, all cores when None.

        ``auto`` computes in bfloat16 where the CPU has instructions for it and in float32 elsewhere; ``int8`` needs
        graphs that were exported for it. Raises ModelUnavailable.
        """
        spec = read_spec(folder)
        if precision == "int8" and "int8" not in spec.precisions:
            raise ModelUnavailable(f"{folder} was exported without int8 graphs: build it with precision int8")
        text_graph, image_graph = (
            folder / graph_file(name, "int8" if precision == "int8" else "f32") for name in TOWERS
        )
        core = openvino.Core()
        threads = threads or usable_cores()
        settings = _settings(core, precision, threads)
        tokenizer = Tokenizer.load(folder)
        # The binding's table of types is filled on first use; two threads that do so at once deadlock (2026.4.1).
        openvino.Tensor(np.zeros(1, np.float32)).element_type.to_dtype()
        wanted = [(text_graph, 1), (image_graph, 1), *([(text_graph, threads)] if threads > 1 else [])]
        with ThreadPoolExecutor(len(wanted)) as pool:
            made = pool.map(lambda one: _compile(core, one[0], settings | {"NUM_STREAMS": one[1]}), wanted)
            compiled_text, compiled_image, *side_by_side = made
            text, image = _Tower(compiled_text, *side_by_side), _Tower(compiled_image)
            encoder = cls(info, spec, tokenizer, text, image)
            warmed = [pool.submit(encoder.encode_texts, ["warm up"] * size) for size in text.sizes]
            for size in image.sizes:
                encoder.encode_pixels(np.zeros((size, 3, *info.image_size), np.float32))
            for done in warmed:
                done.result()
        for graph in (text_graph, image_graph):
            _release(graph.with_suffix(".bin"))
        _trim()
        return encoder

    def tokenize(self, text: str) -> Tokens:
        return self._tokenizer.tokenize(text)

    def encode_tokens(self, texts: Sequence[Tokens]) -> Vectors:
        return self.prepare_tokens(texts)()

    def prepare_tokens(self, texts: Sequence[Tokens]) -> Callable[[], Vectors]:
        ids = [text.ids for text in texts]
        sharing = self.spec.text_layout == "prefixes"
        # Texts that begin alike together, or else such of one length, the short ones last, to end together.
        in_order = sorted(range(len(ids)), key=lambda row: ids[row] if sharing else (-len(ids[row]),))
        size = TEXTS_AT_ONCE if sharing else PADDED_TEXTS_AT_ONCE
        share = self._text.share
        parts = _parts(np.array(in_order, dtype=np.intp), size, share)
        inputs = [text_batch(self._tokenizer, self.spec.text_layout, [ids[row] for row in part]) for part in parts]

        def compute() -> Vectors:
            vectors = np.empty((len(texts), self.info.dim), dtype=np.float32)
            for part, output in zip(parts, self._text(inputs, share), strict=True):
                vectors[part] = output
            return unit_rows(vectors)

        return compute

    def preprocess(self, image: Image.Image) -> Pixels:
        return self.spec.preprocess(image)

    def encode_pixels(self, pixels: Pixels) -> Vectors:
        vectors = np.empty((len(pixels), self.info.dim), dtype=np.float32)
        share = self._image.share
        parts = _parts(np.arange(len(pixels)), IMAGES_AT_ONCE, share)
        inputs = [(pixels[part[0] : part[-1] + 1],) for part in parts]
        for part, output in zip(parts, self._image(inputs, share), strict=True):
            vectors[part] = output
        return unit_rows(vectors)


def read_spec(folder: Path) -> RuntimeSpec:
    """The description of the exported model in ``folder``. Raises ModelUnavailable if there is none."""
    try:
        return RuntimeSpec.model_validate_json((folder / SPEC_FILE).read_bytes())
    except (OSError, ValidationError) as error:
        raise ModelUnavailable(f"{folder} holds no exported model that can be read ({SPEC_FILE}: {error})") from error


def text_batch(tokenizer: Tokenizer, layout: Layout, ids: Sequence[Sequence[int]]) -> Inputs:
    """The inputs of a text tower for texts of these token ids, for ``prefixes`` in lexicographic order."""
    if layout == "prefixes":
        return share(ids, tokenizer.rules.pad_id)
    return (tokenizer.pad(ids, tokenizer.rules.context_length if layout == "full" else None),)


def _compile(core: Any, graph: Path, settings: dict[str, Any]) -> Any:
    try:
        compiled = core.compile_model(graph, "CPU", settings)
    except RuntimeError as error:
        raise ModelUnavailable(f"{graph} cannot be loaded ({str(error).strip().splitlines()[0]})") from error
    _release(graph.with_suffix(".bin"))
    return compiled


class _Tower:
    """One graph with one output.

    A single text or image is computed by all threads together. Of more, where the graph is compiled ``side_by_side``
    as well, each thread computes a part: they need not wait for each other after every layer, which costs most where a
    thread shares its core with the server. That packs the weights a second time, so it is for the text tower, whose
    weights are small: there it is worth an eighth.
    """

    def __init__(self, together: Any, side_by_side: Any = None) -> None:
        self._together = together.create_infer_request()
        self._together_lock = threading.Lock()
        self.threads = side_by_side.get_property("NUM_STREAMS") if side_by_side else 1
        """How many parts may be computed at the same time."""
        self.sizes = sorted({1, self.threads, 2 * self.threads})
        """Of batches that make everything ready: some layers' weights are packed once for one row, once for more."""
        self._idle: SimpleQueue[Any] = SimpleQueue()
        for _ in range(self.threads if side_by_side else 0):
            self._idle.put(side_by_side.create_infer_request())
        self._batches = 0
        self._batches_lock = threading.Lock()

    @property
    def share(self) -> int:
        """How many threads a batch that begins now had best use: all, or half if it is not alone."""
        return self.threads if self._batches == 0 else math.ceil(self.threads / BATCHES_AT_ONCE)

    def __call__(self, parts: Sequence[Inputs], share: int) -> list[NDArray[np.float32]]:
        """The output of each part, in order, with a ``share`` of the threads."""
        with self._counted():
            if self.threads == 1 or (len(parts) == 1 and share == self.threads):
                with self._together_lock:
                    return [self._by_all(part) for part in parts]
            return self._side_by_side(parts, share)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        with self._batches_lock:
            self._batches += 1
        try:
            yield
        finally:
            with self._batches_lock:
                self._batches -= 1

    def _by_all(self, part: Inputs) -> NDArray[np.float32]:
        _start(self._together, part)
        return _output(self._together)

    def _side_by_side(self, parts: Sequence[Inputs], share: int) -> list[NDArray[np.float32]]:
        outputs: list[NDArray[np.float32]] = []
        at_work: deque[Any] = deque()
        try:
            for part in parts:
                # Whoever waits for an idle one while others wait for its own would wait for ever.
                while at_work and (len(at_work) == share or self._idle.empty()):
                    outputs.append(self._finished(at_work.popleft()))
                at_work.append(self._idle.get())
                _start(at_work[-1], part)
            while at_work:
                outputs.append(self._finished(at_work.popleft()))
        finally:
            for request in at_work:  # after an error of another
                with suppress(RuntimeError):
                    request.wait()
                self._idle.put(request)
        return outputs

    def _finished(self, request: Any) -> NDArray[np.float32]:
        try:
            return _output(request)
        finally:
            self._idle.put(request)


def _start(request: Any, part: Inputs) -> None:
    request.start_async(part, share_inputs=True)  # ``infer`` would compute in the thread that calls


def _output(request: Any) -> NDArray[np.float32]:
    request.wait()
    output: NDArray[np.float32] = request.get_output_tensor().data.copy()
    return output


def _settings(core: Any, precision: str, threads: int) -> dict[str, Any]:
    has_bf16 = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        # What int8 leaves in floating point is too little to gain by bfloat16: the conversions cost it 4 %.
        "INFERENCE_PRECISION_HINT": "bf16" if has_bf16 and precision == "auto" else "f32",
        # Both towers may run at once; pinned, they would share cores while others are idle.
        "ENABLE_CPU_PINNING": False,
    }


def _parts(rows: NDArray[np.intp], size: int, at_once: int) -> list[NDArray[np.intp]]:
    """``rows`` in parts of about the same length, at most ``size``: as many for each of the ``at_once`` that work on
    them, if there are rows for all."""
    count = math.ceil(len(rows) / size)
    if len(rows) >= at_once:
        count = math.ceil(count / at_once) * at_once
    return np.array_split(rows, count) if count else []


def _release(weights: Path) -> None:
    """Give the pages of a mapped weights file back; the compiled graph has its own packed copies of most.

    A page that is needed after all is read again from the file. Without effect where mappings cannot be listed.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    dont_need = 4
    for line in Path("/proc/self/maps").read_text().splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and fields[5] == str(weights.resolve()) and fields[1].startswith("r--"):
            start, end = (int(address, 16) for address in fields[0].split("-"))
            libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), dont_need)


def _trim() -> None:
    """Give back what compiling has freed (36 MB of ViT-B/32); only glibc keeps it, and only glibc has the call."""
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)

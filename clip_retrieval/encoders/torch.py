"""The reference encoder: any open_clip model on torch, on a CPU or a GPU, in float32.

It loads a self-contained folder, which ``models/local_dir.py`` makes of a model. For bulk work ``on_gpu`` loads the
same folder in the half precision of the GPU.

A batch is computed in parts that fit the GPU's memory. While it computes one part, the next one is copied to it: from
pinned memory, without waiting, in a stream of its own.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from PIL import Image

from clip_retrieval.cores import usable_cores
from clip_retrieval.encoders.accelerator import Gpu, Precision, part_size
from clip_retrieval.encoders.base import Encoder, EncoderInfo, Pixels, Tokens, Vectors, unit_rows
from clip_retrieval.encoders.languages import languages_of
from clip_retrieval.encoders.open_clip import open_folder
from clip_retrieval.errors import EncoderFailed, ModelUnavailable

PROBE = 8
"""Images whose memory is measured to size the parts."""
WHOLE = 1 << 30
"""The size of a part where nothing bounds it."""


def find_gpu() -> Gpu | None:
    """The GPU that torch would use; None if there is none."""
    if not torch.cuda.is_available():
        return None
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    return Gpu(properties.name, (properties.major, properties.minor), properties.total_memory)


class TorchEncoder(Encoder):
    """An open_clip model in evaluation mode. Texts are padded to the whole context, as open_clip does."""

    def __init__(
        self,
        info: EncoderInfo,
        model: Any,
        preprocess: Any,
        tokenizer: Any,
        device: str,
        precision: Precision = "float32",
        part: int = WHOLE,
    ) -> None:
        """``part`` is the most inputs that are computed at once."""
        self.info = info
        self._model = model.eval().to(device)
        self._preprocess = preprocess
        self._tokenizer = tokenizer
        self._tokenizing = threading.Lock()  # Hugging Face tokenizers keep the length of the last call as state
        self._device = torch.device(device)
        self._precision, self.part = precision, part
        self._copies: Any = None
        """The stream of the copies; None on a CPU."""
        if self._device.type == "cuda":
            self._copies = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        backend = getattr(getattr(tokenizer, "tokenizer", None), "backend_tokenizer", None)
        self.languages = None if backend is None else languages_of(backend)

    @classmethod
    def load(
        cls,
        folder: Path,
        info: EncoderInfo,
        *,
        threads: int | None = None,
        device: str | None = None,
        precision: Precision = "float32",
        part: int = WHOLE,
    ) -> Self:
        """Load a prepared folder onto ``device``, by default the first GPU, or the CPU if there is none.

        ``threads`` is by default all usable cores. Raises ModelUnavailable.
        """
        torch.set_num_threads(threads or usable_cores())
        model, preprocess, tokenizer = open_folder(folder)
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        return cls(info, model, preprocess, tokenizer, device, precision, part)

    @classmethod
    def on_gpu(cls, folder: Path, info: EncoderInfo) -> Self:
        """Load a prepared folder for bulk work: in the GPU's half precision, in parts that fit its memory.

        Raises ModelUnavailable, also if there is no GPU.
        """
        gpu = find_gpu()
        if gpu is None:
            raise ModelUnavailable(
                f"torch {torch.__version__} sees no GPU: install torch with CUDA and the driver of the GPU, or leave "
                "--device cuda out"
            )
        encoder = cls.load(folder, info, device="cuda", precision=gpu.precision, part=PROBE)
        encoder._size_parts()
        return encoder

    def tokenize(self, text: str, language: str | None = None) -> Tokens:
        self.check_language(language)
        # With room for one more token, the last position is padding unless the text needs it.
        with self._tokenizing:
            longer = self._tokenizer([text, ""], context_length=self.info.context_length + 1)
            (ids,) = self._tokenizer([text]).tolist()
        if language is not None and self.languages is not None:
            ids = self.languages.marked(tuple(ids), language)
        return Tokens(tuple(ids), is_cut=bool(longer[0, -1] != longer[1, -1]))

    def encode_tokens(self, texts: Sequence[Tokens]) -> Vectors:
        if not texts:
            return np.empty((0, self.info.dim), dtype=np.float32)
        return self._encode(self._model.encode_text, torch.tensor([text.ids for text in texts]))

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        with self._tokenizing:
            tokens = self._tokenizer(list(texts))  # without finding out which texts are cut
        return self._encode(self._model.encode_text, tokens)

    def preprocess(self, image: Image.Image) -> Pixels:
        pixels: Pixels = self._preprocess(image).numpy()
        return pixels

    def encode_pixels(self, pixels: Pixels) -> Vectors:
        return self._encode(self._model.encode_image, torch.from_numpy(pixels))

    def _encode(self, tower: Callable[..., torch.Tensor], inputs: torch.Tensor) -> Vectors:
        """The unit vectors of one batch. Raises EncoderFailed if not even one input fits into the GPU's memory."""
        while True:
            try:
                with torch.inference_mode(), self._half():
                    vectors = torch.cat([tower(part, normalize=True) for part in self._parts(inputs)])
                    return unit_rows(vectors.float().cpu().numpy())
            except torch.OutOfMemoryError:
                if self.part == 1:
                    raise EncoderFailed(
                        f"the memory of the GPU does not suffice for one input of {self.info.name}: end what else uses "
                        "it, or use the CPU"
                    ) from None
            # Another process may have taken the memory since it was measured. Outside of the handler, whose
            # exception holds the tensors of what failed.
            self.part = max(1, min(self.part, len(inputs)) // 2)
            if self._copies is not None:
                torch.cuda.empty_cache()

    def _half(self) -> AbstractContextManager[Any]:
        half = torch.float16 if self._precision == "float16" else torch.bfloat16
        return torch.autocast(self._device.type, half, enabled=self._precision != "float32")

    def _parts(self, inputs: torch.Tensor) -> Iterator[torch.Tensor]:
        """The parts of a batch on the device; the copy of the next one has begun when one is to be computed."""
        coming: torch.Tensor | None = None
        for start in range(0, max(1, len(inputs)), self.part):
            ready, coming = coming, self._sent(inputs[start : start + self.part])
            if ready is not None:
                yield ready
            self._arrive(coming)
        if coming is not None:
            yield coming

    def _sent(self, rows: torch.Tensor) -> torch.Tensor:
        """Rows on the device, or on their way to it. Torch keeps pinned memory until its copy is done."""
        if self._copies is None:
            return rows
        pinned = rows.contiguous().pin_memory()
        with torch.cuda.stream(self._copies):
            return pinned.to(self._device, non_blocking=True)

    def _arrive(self, rows: torch.Tensor) -> None:
        """Have what is computed from now on wait until the rows are there."""
        if self._copies is not None:
            computing = torch.cuda.current_stream(self._device)
            computing.wait_stream(self._copies)
            rows.record_stream(computing)

    def _size_parts(self) -> None:
        """Measure what an image takes of the GPU's memory, and compute as many at once as fit."""
        probe = np.zeros((PROBE, 3, *self.info.image_size), np.float32)
        self.encode_pixels(probe)  # the first batch also loads kernels and their workspaces
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        self.encode_pixels(probe)
        each = (torch.cuda.max_memory_allocated() - before) // PROBE
        torch.cuda.empty_cache()
        self.part = part_size(torch.cuda.mem_get_info()[0], each)

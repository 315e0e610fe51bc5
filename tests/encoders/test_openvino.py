"""The OpenVINO runtime on hand-made graphs with known answers, and the exporter on small random models."""

import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import tokenizers
from PIL import Image
from tokenizers import models, normalizers, pre_tokenizers, processors

from clip_retrieval.encoders.base import EncoderInfo
from clip_retrieval.encoders.fake import FakeEncoder
from clip_retrieval.encoders.openvino.encoder import IMAGES_AT_ONCE, TEXTS_AT_ONCE, OpenVinoEncoder
from clip_retrieval.encoders.openvino.layouts import Layout
from clip_retrieval.encoders.openvino.runtime import openvino
from clip_retrieval.encoders.openvino.spec import SPEC_FILE, RuntimeSpec, graph_file, read_spec
from clip_retrieval.encoders.preprocess import Preprocess
from clip_retrieval.encoders.tokenizer import Rules, Tokenizer
from clip_retrieval.errors import ModelUnavailable

ops = openvino.opset13

SIZE, CONTEXT = 2, 8
INFO = EncoderInfo(
    name="hand-made",
    runtime="openvino",
    dim=2,
    context_length=CONTEXT,
    image_size=(SIZE, SIZE),
    logit_scale=1.0,
    fingerprint="0" * 64,
)


def text_graph() -> Any:
    """Ids (n, length) to (sum of the ids, length): shows both the tokens and the padding."""
    ids = ops.parameter([-1, -1], np.int64, name="ids")
    total = ops.reduce_sum(ids, np.array([1]), keep_dims=True)
    length = ops.reduce_sum(ops.add(ops.multiply(ids, np.int64(0)), np.int64(1)), np.array([1]), keep_dims=True)
    return openvino.Model([ops.convert(ops.concat([total, length], 1), "f32")], [ids], "text")


def prefix_graph() -> Any:
    """The arrays of ``distinct_prefixes`` to (sum of the ids, number of ids), read through the prefixes; no id is 0."""
    ids = ops.parameter([-1, -1], np.int64, name="ids")
    distinct = ops.parameter([-1], np.int64, name="distinct")
    prefix_of = ops.parameter([-1, -1], np.int64, name="prefix_of")
    zero = np.int64(0)
    tokens = ops.gather(ops.reshape(ids, np.array([-1]), False), distinct, zero)
    real = ops.convert(ops.not_equal(ids, zero), "i64")
    total = ops.reduce_sum(ops.multiply(ops.gather(tokens, prefix_of, zero), real), np.array([1]), keep_dims=True)
    number = ops.reduce_sum(real, np.array([1]), keep_dims=True)
    return openvino.Model([ops.convert(ops.concat([total, number], 1), "f32")], [ids, distinct, prefix_of], "text")


def image_graph() -> Any:
    """Pixels to (mean of the first channel, mean of the second)."""
    pixels = ops.parameter([-1, 3, SIZE, SIZE], np.float32, name="pixels")
    means = ops.reduce_mean(pixels, np.array([2, 3]), keep_dims=False)
    return openvino.Model([ops.gather(means, np.array([0, 1]), np.int64(1))], [pixels], "image")


def write_folder(folder: Path, layout: Layout = "longest") -> Path:
    text = prefix_graph() if layout == "prefixes" else text_graph()
    for graph, tower in ((text, "text"), (image_graph(), "image")):
        openvino.save_model(graph, folder / graph_file(tower, "f32"), compress_to_fp16=False)
    backend = tokenizers.Tokenizer(models.WordLevel({str(number): number for number in range(100)}, unk_token="0"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    Tokenizer(backend, Rules(clean="lower", context_length=CONTEXT, pad_id=0)).save(folder)
    preprocess = Preprocess(size=SIZE, mean=0.0, std=1.0)
    spec = RuntimeSpec(precisions=("f32",), text_layout=layout, preprocess=preprocess, checks={})
    (folder / SPEC_FILE).write_text(spec.model_dump_json())
    return folder


def unit(rows: Any) -> Any:
    values = np.asarray(rows, dtype=np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


@pytest.fixture(scope="module", params=[1, 2, 3], ids=lambda threads: f"threads-{threads}")
def encoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> OpenVinoEncoder:
    return OpenVinoEncoder.load(write_folder(tmp_path_factory.mktemp("openvino")), INFO, threads=request.param)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 17, 60])
def test_each_text_of_a_batch_gets_its_own_vector(encoder: OpenVinoEncoder, count: int) -> None:
    vectors = encoder.encode_texts([f"{number} 1" for number in range(1, count + 1)])
    np.testing.assert_allclose(vectors, unit([[number + 1, 2] for number in range(1, count + 1)]), rtol=1e-6)


def test_texts_keep_their_order_whatever_their_lengths(encoder: OpenVinoEncoder) -> None:
    lengths = [1 + (7 * row) % CONTEXT for row in range(TEXTS_AT_ONCE * 2 + 3)]
    vectors = encoder.encode_texts([" ".join(["9"] * length) for length in lengths])
    assert vectors.dtype == np.float32
    # The second component is the padded length of the part that a text ran in: never less than its own.
    padded = 9 * np.array(lengths) * vectors[:, 1] / vectors[:, 0]
    assert (np.rint(padded) >= lengths).all()
    assert np.rint(padded).sum() < CONTEXT * len(lengths), "similar lengths run together"
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_texts_that_begin_alike_each_get_their_own_vector(tmp_path: Path, threads: int) -> None:
    encoder = OpenVinoEncoder.load(write_folder(tmp_path, "prefixes"), INFO, threads=threads)
    lists = [[1 + (row * step) % 3 for step in range(1 + row % CONTEXT)] for row in range(TEXTS_AT_ONCE * 3 + 1)]
    for count in (1, 2, 3, len(lists)):
        vectors = encoder.encode_texts([" ".join(map(str, ids)) for ids in lists[:count]])
        np.testing.assert_allclose(vectors, unit([[sum(ids), len(ids)] for ids in lists[:count]]), rtol=1e-6)
    assert encoder.encode_texts([]).shape == (0, 2)


def test_an_artifact_from_before_the_layout_prefixes_is_read(tmp_path: Path, encoder: OpenVinoEncoder) -> None:
    write_folder(tmp_path)
    written = (tmp_path / SPEC_FILE).read_text()
    (tmp_path / SPEC_FILE).write_text(written.replace('"text_layout"', '"text_length"'))
    assert read_spec(tmp_path) == encoder.spec


def test_a_text_alone_is_not_padded_or_padded_to_the_whole_context(tmp_path: Path, encoder: OpenVinoEncoder) -> None:
    np.testing.assert_allclose(encoder.encode_texts(["3 4 5"]), unit([[12, 3]]), rtol=1e-6)
    full = OpenVinoEncoder.load(write_folder(tmp_path, "full"), INFO, threads=1)
    np.testing.assert_allclose(full.encode_texts(["3 4 5"]), unit([[12, CONTEXT]]), rtol=1e-6)


def test_a_long_text_is_cut_and_says_so(encoder: OpenVinoEncoder) -> None:
    np.testing.assert_allclose(encoder.encode_texts(["1 " * 50]), unit([[CONTEXT, CONTEXT]]), rtol=1e-6)
    assert encoder.tokenize("1 " * (CONTEXT + 1)).is_cut
    assert not encoder.tokenize("1 " * CONTEXT).is_cut


def test_images_keep_their_order_in_a_batch_of_any_size(encoder: OpenVinoEncoder) -> None:
    colours = [(row + 1, 255 - row, 0) for row in range(IMAGES_AT_ONCE * 2 + 1)]
    vectors = encoder.encode_images([Image.new("RGB", (5, 9), colour) for colour in colours])
    np.testing.assert_allclose(vectors, unit(colours)[:, :2], rtol=1e-5)


@pytest.mark.parametrize("count", [1, 2, 40])
def test_batches_at_the_same_time_do_not_mix(encoder: OpenVinoEncoder, count: int) -> None:
    """Also the first, which was prepared for all threads: batches must not wait for each other's threads."""

    def texts(first: int) -> list[str]:
        return [f"{first + number % 40} 1" for number in range(count)]

    firsts = [1, 20, 40] * 20
    batches = [encoder.prepare_tokens([encoder.tokenize(text) for text in texts(first)]) for first in firsts]
    with ThreadPoolExecutor(3) as pool:
        for first, vectors in zip(firsts, pool.map(lambda compute: compute(), batches), strict=True):
            expected = unit([[first + number % 40 + 1, 2] for number in range(count)])
            np.testing.assert_allclose(vectors, expected, rtol=1e-5)


def test_openvino_computes_in_threads_of_its_own(encoder: OpenVinoEncoder) -> None:
    """A server then gives low priority to OpenVINO's threads instead of to those that call the encoder."""
    assert encoder.owns_threads
    assert not FakeEncoder().owns_threads


def test_nothing_in_nothing_out(encoder: OpenVinoEncoder) -> None:
    assert encoder.encode_texts([]).shape == (0, 2)
    assert encoder.encode_images([]).shape == (0, 2)
    assert encoder.encode_pixels(np.empty((0, 3, SIZE, SIZE), np.float32)).shape == (0, 2)


def test_threads_do_not_mix_up_their_answers(encoder: OpenVinoEncoder) -> None:
    def both(number: int) -> None:
        np.testing.assert_allclose(encoder.encode_texts([f"{number} 1"]), unit([[number + 1, 2]]), rtol=1e-5)
        pixels = np.full((1, 3, SIZE, SIZE), number, np.float32)
        pixels[:, 1] = 1
        np.testing.assert_allclose(encoder.encode_pixels(pixels), unit([[number, 1]]), rtol=1e-5)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(both, range(1, 60)))


@pytest.mark.parametrize("missing", [SPEC_FILE, "tokenizer.json", "text.xml", "text.bin", "image.xml"])
def test_a_missing_file_is_named(tmp_path: Path, missing: str) -> None:
    write_folder(tmp_path)
    (tmp_path / missing).unlink()
    with pytest.raises(ModelUnavailable, match=Path(missing).stem):
        OpenVinoEncoder.load(tmp_path, INFO, threads=1)


def test_int8_needs_graphs_that_were_exported_for_it(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match="int8"):
        OpenVinoEncoder.load(write_folder(tmp_path), INFO, precision="int8")


@pytest.mark.parametrize(
    ("flags", "precision", "says"),
    [("avx512_vnni", "auto", True), ("avx512_vnni", "f32", False), ("avx2", "auto", False)],
)
def test_where_8_bits_are_much_faster_it_says_so(
    tmp_path: Path, flags: str, precision: Literal["auto", "f32"], says: bool
) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"vendor_id : GenuineIntel\nflags : fpu avx512f {flags}\n")
    encoder = OpenVinoEncoder.load(write_folder(tmp_path), INFO, precision=precision, threads=1, cpuinfo=cpuinfo)
    assert ("--precision int8" in (encoder.advice or "")) is says


def test_serving_loads_no_torch(tmp_path: Path) -> None:
    write_folder(tmp_path)
    script = f"""
import sys
from pathlib import Path
from clip_retrieval.encoders.base import EncoderInfo
from clip_retrieval.encoders.fake import FakeEncoder
from clip_retrieval.encoders.openvino.encoder import OpenVinoEncoder
info = EncoderInfo.model_validate_json({INFO.model_dump_json()!r})
OpenVinoEncoder.load(Path({str(tmp_path)!r}), info, threads=1).encode_texts(["1"])
heavy = {{"torch", "torchvision", "open_clip", "transformers", "timm", "nncf"}}
assert not heavy & {{name.partition(".")[0] for name in sys.modules}}
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


@pytest.mark.parametrize(
    "imported",
    [
        "clip_retrieval.encoders.openvino.encoder",
        pytest.param("clip_retrieval.models.export, clip_retrieval.models.quantise", marks=pytest.mark.slow),
    ],
)
def test_nobody_is_told_that_it_is_imported(imported: str) -> None:
    script = f"""
import sys
asked = []
sys.addaudithook(lambda event, told: asked.append(told) if event in ("socket.getaddrinfo", "socket.connect") else None)
import {imported}
import threading
for thread in threading.enumerate():
    if thread is not threading.main_thread():
        thread.join(5)
assert not asked, asked
assert not [name for name, module in sys.modules.items() if name.startswith("openvino_telemetry") and module]
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


def test_a_server_imports_no_converter_and_an_exporter_can() -> None:
    script = """
import sys
import clip_retrieval.encoders.openvino.encoder
assert "openvino.tools.ovc" not in sys.modules
from openvino.tools.ovc import convert_model
assert callable(convert_model)
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


# Exporting -----------------------------------------------------------------------------------------------------------

TINY: dict[str, Any] = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8, "head_width": 32},
    "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
}
CAPTIONS = ["a fox", "two dogs run over a meadow", "", "red " * 60, "a photo of a cat, asleep on a chair"]


def with_text(**changes: Any) -> dict[str, Any]:
    return TINY | {"custom_text": True, "text_cfg": TINY["text_cfg"] | changes}


def with_vision(**changes: Any) -> dict[str, Any]:
    return TINY | {"vision_cfg": TINY["vision_cfg"] | changes}


SIGLIP = {"no_causal_mask": True, "pool_type": "last", "proj_bias": True, "norm_kwargs": {"eps": 1e-6}}
BUILT_IN: dict[str, tuple[dict[str, Any], str]] = {
    "clip": (TINY, "prefixes"),
    "clip with quick_gelu": (TINY | {"quick_gelu": True}, "prefixes"),
    "custom text": (with_text(), "prefixes"),
    "end token, causal": (with_text(pool_type="eos", eos_id=49407, ls_init_value=0.1), "prefixes"),
    "first token, causal": (with_text(pool_type="first"), "longest"),
    "last token, causal": (with_text(pool_type="last"), "full"),
    "siglip": (with_text(**SIGLIP), "full"),
    "end token, both ways": (with_text(no_causal_mask=True, pool_type="eos", eos_id=49407), "full"),
    "coca": (with_text(embed_cls=True), "full"),
    "custom blocks": (with_text(qk_norm=True, ls_init_value=0.1), "longest"),
    "mean of patches": (with_vision(pool_type="avg"), "prefixes"),
    "attention pool": (with_vision(attentional_pool=True, attn_pooler_heads=2), "prefixes"),
    "resnet": (with_vision(layers=[1, 1, 1, 1], width=16, image_size=64), "prefixes"),
}


def write_model(folder: Path, config: dict[str, Any]) -> Any:
    """A random open_clip model in a ``local-dir:`` folder, and the model."""
    import torch
    from safetensors.torch import save_file

    from clip_retrieval.encoders.open_clip import open_clip

    torch.manual_seed(0)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    arguments = json.loads(json.dumps(config))
    kind = open_clip.CustomTextCLIP if arguments.pop("custom_text", False) else open_clip.CLIP
    model = kind(**arguments).eval()
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, folder / "model.safetensors")
    return model


def write_bert(folder: Path) -> Any:
    """A random model with a Hugging Face text tower: four-layer words, mean of the tokens that are not padding."""
    import transformers

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "two", "fox", "dogs", "red", "photo", "of", "cat", ","]
    backend = tokenizers.Tokenizer(models.WordPiece({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    ends = [("[CLS]", 2), ("[SEP]", 3)]
    backend.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    backend.add_special_tokens(words[:4])
    backend.save(str(folder / "tokenizer.json"))
    tokens = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 32} | tokens
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    bert = transformers.BertConfig(
        vocab_size=len(words), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
    )
    bert.save_pretrained(folder)
    names = {"hf_model_name": str(folder), "hf_tokenizer_name": str(folder), "hf_model_pretrained": False}
    pooling = {"hf_pooler_type": "mean_pooler", "hf_proj_type": "linear", "context_length": 32}
    return write_model(folder, TINY | {"custom_text": True, "text_cfg": names | pooling})


def exported(tmp_path: Path, write: Callable[[Path], Any], **options: Any) -> tuple[Any, OpenVinoEncoder, Any]:
    """The torch model, its export loaded, and open_clip's tokenizer."""
    from clip_retrieval.models.export import export_openvino

    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    model = write(source)
    spec = export_openvino(source, target, **options)
    assert read_spec(target) == spec
    info = INFO.model_copy(update={"dim": 32, "context_length": 32, "image_size": spec.preprocess.height_width})
    precision: Literal["f32", "int8"] = "int8" if "int8" in spec.precisions else "f32"
    encoder = OpenVinoEncoder.load(target, info, precision=precision, threads=1)
    from clip_retrieval.encoders.open_clip import open_clip

    return model, encoder, open_clip.get_tokenizer(f"local-dir:{source}")


def torch_vectors(model: Any, tokenizer: Any, pixels: Any) -> tuple[Any, Any]:
    import torch

    with torch.inference_mode():
        texts = model.encode_text(tokenizer(CAPTIONS), normalize=True).numpy()
        return texts, model.encode_image(torch.from_numpy(pixels), normalize=True).numpy()


def pixels_for(encoder: OpenVinoEncoder) -> Any:
    noise = np.random.default_rng(1).integers(0, 256, (11, 40, 50, 3), dtype=np.uint8)
    return np.stack([encoder.preprocess(Image.fromarray(one)) for one in noise])


@pytest.mark.slow
@pytest.mark.parametrize("kind", BUILT_IN)
def test_an_exported_model_equals_torch(tmp_path: Path, kind: str) -> None:
    config, length = BUILT_IN[kind]
    model, encoder, tokenizer = exported(tmp_path, lambda folder: write_model(folder, config))
    assert encoder.spec.text_layout == length
    pixels = pixels_for(encoder)
    texts, images = torch_vectors(model, tokenizer, pixels)
    np.testing.assert_allclose(encoder.encode_texts(CAPTIONS), texts, atol=1e-5)
    np.testing.assert_allclose(encoder.encode_texts(CAPTIONS[:1]), texts[:1], atol=1e-5)
    np.testing.assert_allclose(encoder.encode_pixels(pixels), images, atol=1e-5)


@pytest.mark.slow
def test_a_hugging_face_tower_masks_its_padding(tmp_path: Path) -> None:
    model, encoder, tokenizer = exported(tmp_path, write_bert)
    assert encoder.spec.text_layout == "longest"
    texts, _ = torch_vectors(model, tokenizer, pixels_for(encoder))
    np.testing.assert_allclose(encoder.encode_texts(CAPTIONS), texts, atol=1e-5)
    for row, caption in enumerate(CAPTIONS):
        np.testing.assert_allclose(encoder.encode_texts([caption]), texts[[row]], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["differs", "fails"])
def test_a_tower_that_does_not_share_prefixes_well_gets_padded_texts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    from clip_retrieval.models import export
    from clip_retrieval.models.towers import prefix_tower

    def broken(model: Any) -> Any:
        tower: Any = prefix_tower(model)
        if how == "differs":
            tower.tower.mask = tower.tower.mask.T  # each token sees the later tokens instead of the earlier ones
        else:
            tower.tower.mask = None
        return tower

    monkeypatch.setattr(export, "prefix_tower", broken)
    model, encoder, tokenizer = exported(tmp_path, lambda folder: write_model(folder, TINY))
    assert encoder.spec.text_layout == "longest"
    texts, _ = torch_vectors(model, tokenizer, pixels_for(encoder))
    np.testing.assert_allclose(encoder.encode_texts(CAPTIONS), texts, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("write", [lambda folder: write_model(folder, TINY), write_bert], ids=["clip", "hugging face"])
def test_the_torch_encoder_tokenises_in_any_thread_what_it_encodes(
    tmp_path: Path, write: Callable[[Path], Any]
) -> None:
    from clip_retrieval.encoders.torch import TorchEncoder
    from clip_retrieval.models.local_dir import save_local_dir

    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    write(source)
    encoder = TorchEncoder.load(target, save_local_dir(f"local-dir:{source}", None, target), device="cpu")
    texts = CAPTIONS * 20
    expected = encoder.encode_texts(texts)
    with ThreadPoolExecutor(4) as pool:
        tokens = list(pool.map(encoder.tokenize, texts))
    assert [text.is_cut for text in tokens] == [text.startswith("red") for text in texts]
    np.testing.assert_allclose(encoder.encode_tokens(tokens), expected, atol=1e-6)
    assert encoder.encode_tokens([]).shape == (0, 32)


@pytest.mark.slow
def test_int8_stays_near(tmp_path: Path) -> None:
    noise = np.random.default_rng(2).integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
    calibration = ([Image.fromarray(one) for one in noise], CAPTIONS * 3)
    steps: list[str] = []
    model, encoder, tokenizer = exported(
        tmp_path,
        lambda folder: write_model(folder, TINY),
        precision="int8",
        calibration=calibration,
        progress=steps.append,
    )
    assert len(steps) >= 5
    assert set(encoder.spec.checks) == {"text.xml", "image.xml", "text.int8.xml", "image.int8.xml"}
    texts, images = torch_vectors(model, tokenizer, pixels_for(encoder))
    assert ((encoder.encode_texts(CAPTIONS) * texts).sum(axis=1) > 0.95).all()
    assert ((encoder.encode_pixels(pixels_for(encoder)) * images).sum(axis=1) > 0.95).all()


@pytest.mark.slow
def test_an_export_that_differs_from_torch_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from clip_retrieval.models import export
    from clip_retrieval.models.towers import image_tower

    write_model(tmp_path, TINY)

    def with_other_weights(model: Any) -> Any:
        tower: Any = image_tower(model)
        tower.tower.proj.data = tower.tower.proj.data.flip(0)
        return tower

    monkeypatch.setattr(export, "image_tower", with_other_weights)
    with pytest.raises(ModelUnavailable, match="image tower has a cosine"):
        export.export_openvino(tmp_path, tmp_path / "target")


@pytest.mark.slow
def test_int8_without_examples_is_refused(tmp_path: Path) -> None:
    from clip_retrieval.models.export import export_openvino

    with pytest.raises(ModelUnavailable, match="calibrate"):
        export_openvino(tmp_path, tmp_path / "target", precision="int8")

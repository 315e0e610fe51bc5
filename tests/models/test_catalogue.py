"""The table of models: what it says of open_clip's models is what they are."""

from pathlib import Path

import pytest

from clip_retrieval.errors import ModelUnavailable
from clip_retrieval.models.catalogue import LANGUAGES, Entry, choose, entries, language_codes

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
SHOWN = ("en", "de", "fr", "es", "fi", "ja", "zh", "hi")
TABLE = {(entry.model, entry.pretrained): entry for entry in entries()}


def page_rows() -> list[str]:
    """The table of docs/models.md, a line each."""
    names = " | ".join(LANGUAGES[code] for code in SHOWN)
    head = f"| model | pretrained | memory MB | GFLOP an image | {names} |"
    rows = [head, "|---|---|" + "--:|" * (2 + len(SHOWN))]
    for one in entries():
        figures = " | ".join(f"{one.recall[code]:.1f}" if code in one.recall else "" for code in SHOWN)
        rows.append(f"| {one.model} | {one.pretrained} | {one.memory_mb:,.0f} | {one.image_gflops:,.1f} | {figures} |")
    return rows


@pytest.mark.parametrize(
    ("given", "codes"),
    [
        ("de,fi", ("de", "fi")),
        (" German , pt-BR,, FI, de ", ("de", "pt", "fi")),
        ("iw,nb,zh_TW", ("he", "no", "zh")),
        ("cusco quechua", ("quz",)),
        ("", ()),
    ],
)
def test_languages_are_named_by_code_or_in_english(given: str, codes: tuple[str, ...]) -> None:
    assert language_codes(given) == codes


def test_an_unknown_language_is_refused() -> None:
    with pytest.raises(ModelUnavailable, match="'xx'"):
        language_codes("de,xx")


@pytest.mark.parametrize(
    ("model", "language", "recall"),
    [
        (("ViT-B-16-SigLIP2", "webli"), "en", 75.19),
        (("nllb-clip-base-siglip", "mrl"), "fi", 79.41),
        (("xlm-roberta-large-ViT-H-14", "frozen_laion5b_s13b_b90k"), "ja", 86.97),
        (("ViT-B-32", "openai"), "fr", 35.17),
        (("ViT-SO400M-16-SigLIP2-384", "webli"), "vi", 85.86),
    ],
)
def test_the_recall_is_that_of_its_source(model: tuple[str, str], language: str, recall: float) -> None:
    assert TABLE[model].recall[language] == recall


def test_each_model_is_there_once_and_recall_is_a_percentage() -> None:
    assert len(TABLE) == len(entries())
    assert all(0 < value < 100 for entry in entries() for value in entry.recall.values())
    assert {code for entry in entries() for code in entry.recall} == set(LANGUAGES)


def test_a_mean_needs_a_figure_for_every_language() -> None:
    entry = Entry("a", "b", 224, 10.0, 20.0, 30.0, 5.0, {"de": 60.0, "fi": 50.0})
    assert entry.mean_recall(("de", "fi")) == 55.0
    assert entry.mean_recall(("de", "ja")) is None
    assert entry.mean_recall(()) is None


def test_the_best_for_the_languages_comes_first_and_models_without_a_figure_last() -> None:
    assert choose(("fi",))[0].model == "nllb-clip-large-siglip"
    assert choose(("de",))[0].model == "ViT-SO400M-16-SigLIP2-384"
    assert choose()[-1].recall == {}
    assert choose(memory_mb=0) == ()


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # warnings of timm and transformers
def test_sizes_and_work_are_those_of_the_architecture() -> None:
    pytest.importorskip("torch")
    from dataclasses import asdict

    from scripts.matrix.sizes import sizes

    counted = {name: asdict(sizes(name)) for name in {entry.model for entry in entries()}}
    for entry in entries():
        assert {name: getattr(entry, name) for name in counted[entry.model]} == counted[entry.model], entry.model


@pytest.mark.filterwarnings("default")  # warnings of timm and transformers
def test_every_model_is_one_that_build_takes() -> None:
    pytest.importorskip("torch")
    from clip_retrieval.models.registry import registered

    for entry in entries():
        if entry.pretrained:
            assert registered(entry.model, entry.pretrained).notes == ()
        else:
            assert entry.model == "demo"


@pytest.mark.skipif(not PAGE.exists(), reason="there are no docs here")
def test_the_page_of_models_shows_the_table() -> None:
    page = PAGE.read_text(encoding="utf-8")
    missing = [row for row in page_rows() if row not in page]
    assert not missing, "docs/models.md should have these lines:\n" + "\n".join(page_rows())

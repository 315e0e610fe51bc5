"""Tables at any width and on any output: nothing that was found is cut."""

import io
import json

import pytest
from rich.console import Console
from rich.table import Column, Table

from clip_retrieval.cli import console
from clip_retrieval.contract.answers import ImageResult

WIDTHS = (1, 10, 20, 40, 60, 80, 200)
TAG = "clip-retrieval:4e1f0a9c55d2b761"
PATH = "holidays/2024/a very long folder name/with some more of it/IMG_20240101_123456.jpg"
CAPTION = "ein roter Panda liegt auf einem Ast 小熊猫在树枝上休息" * 3


def shown(table: Table, width: int) -> str:
    on = Console(file=io.StringIO(), width=width, markup=False, emoji=False)
    console.table(table, on=on)
    assert isinstance(on.file, io.StringIO)
    return on.file.getvalue()


@pytest.mark.parametrize("width", WIDTHS)
def test_tags_and_paths_are_whole_and_texts_complete(width: int) -> None:
    table = Table("tag", "path", "score", Column("caption", overflow="fold"))
    table.add_row(TAG, PATH, "0.1234", CAPTION)
    text = shown(table, width)
    lines = text.splitlines()
    assert any(TAG in line and PATH in line and "0.1234" in line for line in lines)
    assert "…" not in text
    folded = "".join(line.split("│")[4] for line in lines if line.count("│") == 5)
    assert "".join(folded.split()) == "".join(CAPTION.split())


def test_a_table_that_fits_is_no_wider_than_the_terminal() -> None:
    table = Table("tag", Column("caption", overflow="fold"))
    table.add_row(TAG, CAPTION)
    assert max(len(line) for line in shown(table, 60).splitlines()) <= 60


@pytest.mark.parametrize("width", WIDTHS)
def test_no_word_of_a_table_is_broken(width: int) -> None:
    table = Table("tag", *(Column(name, overflow="fold") for name in ("precision", "captions", "built")))
    table.add_row(TAG, "f32", "160", "2026-11-28 09:10 UTC")
    text = shown(table, width)
    for word in ("precision", "captions", "2026-11-28", "09:10"):
        assert word in text


def test_an_output_that_is_no_terminal_gets_each_row_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert console.width_of(io.StringIO()) == console.UNLIMITED
    monkeypatch.setenv("COLUMNS", "60")
    assert console.width_of(io.StringIO()) is None
    table = Table("tag", Column("caption", overflow="fold"))
    table.add_row(TAG, CAPTION)
    assert any(TAG in line and CAPTION in line for line in shown(table, console.UNLIMITED).splitlines())


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (466_151, "466.2 kB"),
        (122_786_974, "122.8 MB"),
        (3.2e9, "3.2 GB"),
        (5e15, "5,000.0 TB"),
    ],
)
def test_sizes_are_for_people(size: float, words: str) -> None:
    assert console.size_words(size) == words


def test_measured_numbers_have_four_digits() -> None:
    assert console.value_words(0.03712300008373859) == "0.03712"
    assert [console.value_words(value) for value in (160, "exact", None)] == ["160", "exact", "None"]


@pytest.mark.parametrize("width", WIDTHS)
def test_results_of_a_search_show_their_paths_whole(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], image_result: ImageResult
) -> None:
    monkeypatch.setattr(console.out, "width", width)
    console.images_table([image_result])
    assert PATH in capsys.readouterr().out


ORDERS = "\x1b[31mred\x1b[0m\x1b]0;title\x07\x9b32m\x7f"
SHOWN = r"\x1b[31mred\x1b[0m\x1b]0;title\x07\x9b32m\x7f"


def test_what_a_visitor_wrote_is_no_order_to_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], image_result: ImageResult
) -> None:
    monkeypatch.setattr(console.out, "width", console.UNLIMITED)
    monkeypatch.setattr(console.err, "width", console.UNLIMITED)
    console.images_table([image_result.model_copy(update={"image_path": ORDERS, "captions": [ORDERS]})])
    console.note(ORDERS)
    printed = capsys.readouterr()
    assert printed.out.count(SHOWN) == 2
    assert SHOWN in printed.err
    assert not set(printed.out + printed.err) & {"\x1b", "\x07", "\x9b", "\x7f"}


@pytest.mark.parametrize(("is_terminal", "expected"), [(False, ORDERS), (True, SHOWN)])
def test_a_program_gets_a_line_as_it_is(is_terminal: bool, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    output = io.StringIO()
    monkeypatch.setattr(output, "isatty", lambda: is_terminal)
    monkeypatch.setattr("sys.stdout", output)
    console.line(ORDERS)
    assert output.getvalue() == f"{expected}\n"


@pytest.fixture
def image_result() -> ImageResult:
    return ImageResult(
        rank=1, image_id="a", image_path=PATH, captions=[CAPTION], similarity_score=0.5, confidence=0.5,
        width=1, height=1, metadata={}, duplicates=0,
    )  # fmt: skip


@pytest.mark.parametrize("value", ["é", "小熊猫", "😀", "a lone half \udcff of a name"])
def test_an_output_without_the_characters_gets_them_as_json_does(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    output = io.TextIOWrapper(raw, encoding="ascii", errors="strict")
    monkeypatch.setattr("sys.stdout", output)
    console.print_everything()
    output.write(json.dumps({"path": value}, ensure_ascii=False))
    output.flush()
    assert json.loads(raw.getvalue()) == {"path": value}

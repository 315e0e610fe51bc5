"""Cells come back as any program wrote them, and a broken row costs that row alone."""

import csv
from io import StringIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clip_retrieval.datasets.column_names import roles_of
from clip_retrieval.datasets.delimited import BrokenRow, CellRow, Heading, heading_of, rows_below

SEPARATORS = (",", ";", "\t", "|")
cells = st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), max_size=12).map(str.strip)


def lines(text: str) -> list[str]:
    return list(StringIO(text, newline=""))


def score(header: object) -> int:
    roles = roles_of(list(header))  # type: ignore[call-overload]
    return 2 * (roles.image is not None) + bool(roles.captions)


def heading(text: str) -> Heading:
    found = heading_of(lines(text), score)
    assert found is not None
    return found


@given(
    separator=st.sampled_from(SEPARATORS),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    end=st.sampled_from(["\n", "\r\n"]),
    rows=st.lists(st.tuples(cells, cells, cells), max_size=6),
)
def test_what_a_program_wrote_is_read_again(
    separator: str, quoting: int, end: str, rows: list[tuple[str, str, str]]
) -> None:
    written = StringIO(newline="")
    csv.writer(written, delimiter=separator, quoting=quoting, lineterminator=end).writerows(  # type: ignore[arg-type]
        [("image", "caption", "place"), *rows]
    )
    text = written.getvalue()
    found = heading(text)
    assert (found.separator, found.cells) == (separator, ["image", "caption", "place"])
    read = [row.cells for row in rows_below(lines(text), found) if isinstance(row, CellRow)]
    assert read == [list(row) for row in rows if any(row)]


@pytest.mark.parametrize("separator", SEPARATORS)
def test_the_separator_is_the_one_that_gives_a_header(separator: str) -> None:
    others = "".join(SEPARATORS).replace(separator, "")
    text = f"image{separator}caption\na.jpg{separator}{others}{others}\n"
    assert heading(text).separator == separator


@pytest.mark.parametrize("start", ["sep=;\n", '"sep=;"\r\n', "\n\nsep=;\n", "\n \n"])
def test_a_line_that_states_the_separator_and_empty_lines_come_before_the_header(start: str) -> None:
    text = f"{start}image;caption\na.jpg;x\n"
    found = heading(text)
    (row,) = rows_below(lines(text), found)
    assert (found.separator, row) == (";", CellRow(len(lines(start)) + 2, ["a.jpg", "x"]))


@given(broken=st.integers(0, 9), closes=st.booleans())
def test_an_unclosed_quote_costs_the_row_in_which_it_opens(broken: int, closes: bool) -> None:
    rows = [f"{n}.jpg,dog {n}" for n in range(10)]
    rows[broken] = f'{broken}.jpg,"dog {broken}'
    if closes and broken < 9:
        rows[9] = '9.jpg,"dog, 9"'
    text = "\n".join(["image,caption", *rows, ""])
    read = list(rows_below(lines(text), heading(text)))
    (bad,) = [row for row in read if isinstance(row, BrokenRow)]
    assert bad.line == broken + 2
    assert "quote" in bad.reason
    good = [row.cells[0] for row in read if isinstance(row, CellRow)]
    assert good == [f"{n}.jpg" for n in range(10) if n != broken]


def test_a_cell_of_several_lines_is_one_row() -> None:
    text = 'image,caption\na.jpg,"two\nlines"\nb.jpg,"say ""hi"""\n'
    assert list(rows_below(lines(text), heading(text))) == [
        CellRow(2, ["a.jpg", "two\nlines"]),
        CellRow(4, ["b.jpg", 'say "hi"']),
    ]


def test_spaces_after_separators_do_not_count_and_rows_of_separators_are_blank() -> None:
    text = 'image, caption, place\na.jpg, "b, c", here\n,,\n  ,  ,\nb.jpg, d, , ,\n'
    assert list(rows_below(lines(text), heading(text))) == [
        CellRow(2, ["a.jpg", "b, c", "here"]),
        CellRow(5, ["b.jpg", "d", ""]),
    ]


@pytest.mark.parametrize(
    ("row", "reason"), [("a.jpg", "1 cells"), ("a.jpg,b,c", "3 cells"), ('a.jpg,"b" c', "not a row")]
)
def test_a_row_of_another_width_is_broken(row: str, reason: str) -> None:
    text = f"image,caption\n{row}\nz.jpg,z\n"
    bad, good = rows_below(lines(text), heading(text))
    assert isinstance(bad, BrokenRow)
    assert bad.reason.startswith(reason)
    assert good == CellRow(3, ["z.jpg", "z"])


def test_an_empty_table_has_no_header() -> None:
    assert heading_of([], score) is None
    assert heading_of(["\n", " \n"], score) is None


def test_a_quote_inside_a_cell_is_a_character() -> None:
    text = 'image,caption\na.jpg,5" tall\nb.jpg,6" wide\nc.jpg,z\n'
    rows = [row.cells for row in rows_below(lines(text), heading(text)) if isinstance(row, CellRow)]
    assert rows == [["a.jpg", '5" tall'], ["b.jpg", '6" wide'], ["c.jpg", "z"]]


def test_a_quote_does_not_swallow_a_line_that_is_a_row_of_its_own() -> None:
    text = 'image\tcaption\na.jpg\t"hello there\nb.jpg\tyou all"\nc.jpg\tz\n'
    read = list(rows_below(lines(text), heading(text)))
    assert [row.cells[0] for row in read if isinstance(row, CellRow)] == ["b.jpg", "c.jpg"]
    assert [row.line for row in read if isinstance(row, BrokenRow)] == [2]


def test_a_line_of_a_quoted_cell_may_begin_as_a_row_does() -> None:
    text = 'image,caption\na.png,"first\nb.png, next to it\nlast"\nb.png,x\n'
    assert list(rows_below(lines(text), heading(text))) == [
        CellRow(2, ["a.png", "first\nb.png, next to it\nlast"]),
        CellRow(5, ["b.png", "x"]),
    ]


def test_an_unclosed_quote_takes_no_row_up_to_a_cell_of_several_lines() -> None:
    text = 'image,caption\na.png,"first\nb.png,x\nc.png,"two\nlines"\nd.png,y\n'
    read = list(rows_below(lines(text), heading(text)))
    assert [row.line for row in read if isinstance(row, BrokenRow)] == [2]
    assert [row.cells[0] for row in read if isinstance(row, CellRow)] == ["b.png", "c.png", "d.png"]


@pytest.mark.parametrize("cell", ["x" * 300_000, "a line\n" * 40_000])
def test_a_long_text_in_a_cell_is_read(cell: str) -> None:
    text = f'image,caption\na.jpg,"{cell}"\nb.jpg,y\n'
    assert next(iter(rows_below(lines(text), heading(text)))) == CellRow(2, ["a.jpg", cell])


def test_a_quote_that_never_closes_in_a_long_table_costs_one_row() -> None:
    text = "n,image,caption\n" + '0,a.jpg,"x\n' + "".join(f"{n},{n}.jpg,{'y' * 100}\n" for n in range(1, 20_000))
    read = list(rows_below(lines(text), heading(text)))
    assert [row.line for row in read if isinstance(row, BrokenRow)] == [2]
    assert len(read) == 20_000

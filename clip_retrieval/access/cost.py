"""What a request costs, in tenths of a short text search.

To count requests bounds nothing: one may bring a thousand texts. The figures are processor time of this service beside
that of a text query with the demo model on two cores (``docs/performance-log.md``, ``docs/queries.md``): 638 texts and
98 images a second; 22 ms for a page behind the first rows of 100,000 images, where a text takes 3.1 ms of a core; 6 to
8 ms to fold near-duplicates; 63 changes a second. They are rounded: a limit is no bill.
"""

UNIT = 10
"""A search with one short text. Limits are set in this unit, so that a tenth can be charged."""

FREE = 0
READ = 1
"""A look at what is kept: a record, a thumbnail, a page of the documentation."""
TEXT = UNIT
IMAGE = 6 * UNIT
"""An image that is decoded and encoded."""
FILTER = UNIT
FOLD = 2 * UNIT
CHANGE = 5 * UNIT
"""A change that is written to disk; an image that comes with it costs what an image costs."""

DEEP_ROWS = 15_000
"""An exact search of so many rows costs as much as a text."""
LISTED = 10
"""So many listed records cost a tenth."""


def of_search(
    *, texts: int, images: int, deep_rows: int = 0, is_filtered: bool = False, is_folded: bool = False
) -> int:
    """The cost of one search: what is encoded, and how far the results are looked for.

    ``deep_rows`` is the number of rows that are all compared, for a page behind the rows that an index finds together.
    """
    encoded = TEXT * texts + IMAGE * images
    deep = TEXT * max(1, deep_rows // DEEP_ROWS) if deep_rows else 0
    return max(encoded, UNIT) + deep + FILTER * is_filtered + FOLD * is_folded


def of_changes(*, images: int, captions: int = 0, others: int = 0) -> int:
    """The cost of one transaction that sets so many images, gives so many captions, and changes or removes others."""
    return CHANGE + IMAGE * images + TEXT * captions + UNIT * others


def of_listing(records: int) -> int:
    """The cost of a list of so many records."""
    return READ + records // LISTED

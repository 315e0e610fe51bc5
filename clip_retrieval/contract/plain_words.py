"""What pydantic says of a value, in plain words.

``must be at most 50`` stands for ``Input should be less than or equal to 50``.
"""

import re

NO_FILE_NAME = "this part is a text and not a file; give it a file name, as curl -F file=@image.jpg does"

_WORDS = tuple(
    (re.compile(pattern), words)
    for pattern, words in (
        (r"Field required", "is missing"),
        (r"Extra inputs are not permitted", "there is no such field"),
        (r"Value error, (.*)", r"\1"),
        (r"Input should be a valid string.*", "must be a text"),
        (r"Input should be a valid integer.*", "must be a whole number"),
        (r"Input should be a valid number.*", "must be a number"),
        (r"Input should be a valid boolean.*", "must be true or false"),
        (r"Input should be a valid list", "must be a list"),
        (r"Input should be a valid (dictionary|mapping).*", "must be an object"),
        (r"Input should be greater than or equal to (.*)", r"must be at least \1"),
        (r"Input should be less than or equal to (.*)", r"must be at most \1"),
        (r"Input should be greater than (.*)", r"must be more than \1"),
        (r"String should have at least 1 character", "must not be empty"),
        (r"String should match pattern '\\\\?S'", "must have a character that is not white space"),
        (r"(\w+) should have at (least|most) (\d+) (\w+) after validation, not (.*)", r"must have at \2 \3 \4, not \5"),
        (r"(Input|String|List|Dictionary|Value) should (.*)", r"must \2"),
    )
)


def in_plain_words(message: str) -> str:
    """The message of a problem that pydantic found; one that is in plain words already stays as it is."""
    for pattern, words in _WORDS:
        if found := pattern.fullmatch(message):
            return found.expand(words)
    return message

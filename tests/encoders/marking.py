"""An encoder for tests that marks its texts with a language, as NLLB's do, and whose vectors show the mark."""

from clip_retrieval.encoders.base import Tokens
from clip_retrieval.encoders.fake import COLOURS, FakeEncoder
from clip_retrieval.encoders.languages import Languages

LANGUAGES = Languages(
    usual="eng_Latn",
    ids={"eng_Latn": 2 * len(COLOURS) - 1, "deu_Latn": COLOURS.index("red"), "fin_Latn": COLOURS.index("blue")},
    place=0,
)
"""The mark of German is the token of red, that of Finnish the token of blue."""


class MarkingEncoder(FakeEncoder):
    """The fake encoder, whose texts begin with a mark: a German text is redder than the same in Finnish."""

    languages = LANGUAGES

    def tokenize(self, text: str, language: str | None = None) -> Tokens:
        tokens = super().tokenize(text, language)
        return Tokens((LANGUAGES.ids[language or LANGUAGES.usual], *tokens.ids), tokens.is_cut)

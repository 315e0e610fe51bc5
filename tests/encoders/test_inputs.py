"""What prepares inputs for an encoder elsewhere makes those that the encoder itself makes, and computes nothing."""

from pathlib import Path

import numpy as np
import pytest

from clip_retrieval.encoders import load_encoder, load_inputs
from clip_retrieval.encoders.base import Tokens
from clip_retrieval.encoders.inputs import Inputs
from clip_retrieval.errors import EncoderFailed, InvalidQuery
from tests.encoders.marking import MarkingEncoder
from tests.samples import square


def test_texts_and_images_are_prepared_as_by_the_encoder(encoder_folder: Path) -> None:
    encoder, inputs = load_encoder(encoder_folder), load_inputs(encoder_folder)
    assert inputs.info == encoder.info
    assert inputs.tokenize("a red square") == encoder.tokenize("a red square")
    assert np.array_equal(inputs.preprocess(square("red")), encoder.preprocess(square("red")))
    assert inputs.preprocessing is encoder.preprocessing


def test_a_language_is_checked_and_marked_as_by_the_encoder() -> None:
    encoder = MarkingEncoder()
    inputs = Inputs.of(encoder)
    assert inputs.tokenize("red", "deu_Latn") == encoder.tokenize("red", "deu_Latn")
    with pytest.raises(InvalidQuery, match="knows no language xx"):
        inputs.tokenize("red", "xx")


def test_it_says_that_it_does_not_encode(encoder_folder: Path) -> None:
    inputs = load_inputs(encoder_folder)
    with pytest.raises(EncoderFailed, match="by the encoder service"):
        inputs.encode_tokens([Tokens((1,), is_cut=False)])
    with pytest.raises(EncoderFailed, match="by the encoder service"):
        inputs.encode_pixels(np.zeros((1, 3, 8, 8), np.float32))

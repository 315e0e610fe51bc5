"""Tables of token embeddings with a factor: the factor goes into a table of its own, and the vectors stay the same."""

from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]  # warnings of timm and transformers


@pytest.fixture
def encoder() -> Any:
    """The encoder of a small M2M100, the architecture of NLLB, whose embeddings are multiplied by √1024 = 32."""
    import transformers

    import clip_retrieval.encoders.open_clip  # noqa: F401  it makes torchvision importable, which transformers imports

    torch.manual_seed(0)
    sizes = {"d_model": 1024, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 8, "decoder_ffn_dim": 8}
    config = transformers.M2M100Config(vocab_size=16, scale_embedding=True, **sizes)
    return transformers.AutoModel.from_config(config).encoder.eval()


def test_the_vectors_stay_the_same_to_the_last_bit(encoder: Any) -> None:
    from clip_retrieval.models.embeddings import fold_scales

    ids = torch.tensor([[4, 9, 2]])
    with torch.no_grad():
        before = encoder(ids).last_hidden_state
        fold_scales(encoder)
        after = encoder(ids).last_hidden_state
    assert encoder.embed_tokens.embed_scale == 1
    assert torch.equal(before, after)


def test_a_table_that_is_shared_does_not_change(encoder: Any) -> None:
    from clip_retrieval.models.embeddings import fold_scales

    table = encoder.embed_tokens.weight
    before = table.detach().clone()
    fold_scales(encoder)
    assert torch.equal(table, before)
    assert torch.equal(encoder.embed_tokens.weight, before * 32)


def test_a_table_without_a_factor_is_left_alone() -> None:
    from clip_retrieval.models.embeddings import fold_scales

    table = torch.nn.Embedding(4, 2)
    weight = table.weight
    fold_scales(torch.nn.Sequential(table))
    assert table.weight is weight

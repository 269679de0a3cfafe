"""A Gemma 2 text encoder, and its tokenizer, in which every letter is one token."""

from __future__ import annotations

import string

from transformers import Gemma2Config, Gemma2Model, GemmaTokenizer

SPECIAL = ("<pad>", "<eos>", "<bos>", "<unk>", "<mask>")


def gemma(width: int = 8) -> tuple[Gemma2Model, GemmaTokenizer]:
    letters = ("▁", "\n", *string.ascii_letters, *string.digits, *string.punctuation)
    vocabulary = {token: number for number, token in enumerate((*SPECIAL, *letters))}
    tokenizer = GemmaTokenizer(vocab=vocabulary, merges=[], add_bos_token=True)
    config = Gemma2Config(
        vocab_size=len(tokenizer), hidden_size=width, intermediate_size=8, num_hidden_layers=2, num_attention_heads=1,
        num_key_value_heads=1, head_dim=width, query_pre_attn_scalar=width, initializer_range=0.3,
    )  # fmt: skip
    return Gemma2Model(config), tokenizer

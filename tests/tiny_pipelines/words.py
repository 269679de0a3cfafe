"""Text encoders that are not CLIP, and their tokenizers, in which every word of the tests' prompts is one token."""

from __future__ import annotations

from typing import Any

from tokenizers.pre_tokenizers import ByteLevel
from transformers import Qwen2Tokenizer, T5Config, T5EncoderModel, T5Tokenizer

PROMPT = "a photo of a sks robot on a red green blue background"
# What Qwen-Image writes before every prompt: its first 34 tokens are not shown to the transformer.
SYSTEM = (
    "\nsystem\nDescribe the image by detailing the color, shape, size, texture, quantity, text, spatial relationships "
    "of the objects and background:\nuser\nassistant\n"
)
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}{{ m['content'][0]['text'] }}{% endif %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def t5(width: int = 8) -> tuple[T5EncoderModel, T5Tokenizer]:
    """A text encoder and its tokenizer."""
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    vocabulary += [(f"▁{word}", -1.0) for word in dict.fromkeys(PROMPT.split())]
    tokenizer = T5Tokenizer(vocab=vocabulary, extra_ids=0)
    config = T5Config(
        vocab_size=len(tokenizer), d_model=width, d_kv=4, d_ff=8, num_layers=1, num_heads=1,
        feed_forward_proj="gated-gelu", decoder_start_token_id=0,
    )  # fmt: skip
    return T5EncoderModel(config), tokenizer


def qwen_tokenizer() -> Qwen2Tokenizer:
    """Bytes, merged into the words above."""
    letters = {letter: number for number, letter in enumerate(sorted(ByteLevel.alphabet()), start=1)}
    tokenizer = Qwen2Tokenizer(
        vocab={"<|endoftext|>": 0, **letters}, merges=[], additional_special_tokens=["<|im_start|>", "<|im_end|>"]
    )
    tokenizer = tokenizer.train_new_from_iterator([SYSTEM, PROMPT] * 2, vocab_size=700)
    tokenizer.chat_template = CHAT
    return tokenizer


def small(layers: int, width: int = 8) -> dict[str, Any]:
    """The sizes of a decoder, as the configurations of Qwen and Mistral name them."""
    return {
        "vocab_size": 700, "hidden_size": width, "intermediate_size": 8, "num_hidden_layers": layers,
        "num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": width, "max_position_embeddings": 1100,
        "initializer_range": 0.3, "tie_word_embeddings": True,
    }  # fmt: skip

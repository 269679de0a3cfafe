"""The parts of the embedded base model before training: their shapes, and the tokenizer's words."""

from __future__ import annotations

import itertools
import json

from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from .pictures import COLOURS, IMAGE_SIZE, NAMES, STYLES, describe

MAX_TOKENS = 24
VOCABULARY = 1400  # tokens at most


def new_vae() -> AutoencoderKL:
    """64x64x3 -> 16x16x8."""
    return AutoencoderKL(
        block_out_channels=(32, 64, 128),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        latent_channels=8,
        norm_num_groups=8,
        sample_size=IMAGE_SIZE,
        mid_block_add_attention=False,
    )


def new_unet() -> UNet2DConditionModel:
    """Attention at every resolution; the text also joins the time embedding, which teaches names much faster."""
    return UNet2DConditionModel(
        sample_size=IMAGE_SIZE // 4,
        in_channels=8,
        out_channels=8,
        block_out_channels=(64, 128, 256),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",) * 3,
        up_block_types=("CrossAttnUpBlock2D",) * 3,
        attention_head_dim=(1, 2, 4),  # the number of heads, as diffusers reads it: 64 channels each
        norm_num_groups=16,
        cross_attention_dim=256,
        resnet_time_scale_shift="scale_shift",
        addition_embed_type="text",
        addition_embed_type_num_heads=8,
    )


def new_scheduler() -> DDIMScheduler:
    return DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
        steps_offset=1,
        set_alpha_to_one=True,
    )


def new_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Three layers, 256 wide."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=256,
            intermediate_size=512,
            projection_dim=256,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=MAX_TOKENS,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def all_captions() -> list[str]:
    """Every caption that the base model can be trained on."""
    colours = [None, *COLOURS]
    return [describe(n, c, s) for n, c, s in itertools.product(NAMES, colours, STYLES)]


def new_tokenizer() -> CLIPTokenizer:
    """A CLIP tokenizer whose pairs were learnt from our captions; any other text falls back to shorter pieces."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<|startoftext|>", "<|endoftext|>"],
        initial_alphabet=letters,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    tokenizer.train_from_iterator(all_captions(), trainer)
    model = json.loads(tokenizer.to_str())["model"]
    vocab = list(dict.fromkeys([*sorted(model["vocab"], key=model["vocab"].get), *(f"{x}</w>" for x in letters)]))
    merges = [tuple(m) for m in model["merges"]]
    ids = {token: i for i, token in enumerate(vocab)}
    return CLIPTokenizer(vocab=ids, merges=merges, model_max_length=MAX_TOKENS)

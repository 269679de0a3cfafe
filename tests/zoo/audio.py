"""Tiny transformers for sound and for proteins."""

import torch
from diffusers import (
    AceStepTransformer1DModel,
    LongCatAudioDiTTransformer,
    MiniMaxMusic3RVQDepthDecoder,
    MiniMaxMusic3Transformer1DModel,
    RFD4ProteinaTransformer,
    StableAudio3DiTModel,
    StableAudioDiTModel,
    T5FilmDecoder,
)
from diffusers.models.embeddings import get_1d_rotary_pos_embed

from . import Tiny, tiny


@tiny("AceStepTransformer1DModel")
def ace_step() -> Tiny:
    model = AceStepTransformer1DModel(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        in_channels=12,
        audio_acoustic_hidden_dim=4,
        sliding_window=2,
        encoder_hidden_size=10,
    )
    return model, {
        "hidden_states": torch.randn(2, 12, 4),
        "timestep": torch.tensor([0.2, 0.7]),
        "timestep_r": torch.tensor([0.1, 0.7]),
        "encoder_hidden_states": torch.randn(2, 5, 10),
        "context_latents": torch.randn(2, 12, 8),
    }


@tiny("MiniMaxMusic3RVQDepthDecoder")
def minimax_music3_depth() -> Tiny:
    model = MiniMaxMusic3RVQDepthDecoder(
        hidden_size=16,
        num_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        audio_vocab_size=8,
        num_codebooks=3,
        max_position_embeddings=8,
    )
    return model, {"inputs_embeds": torch.randn(2, 5, 16)}


@tiny("MiniMaxMusic3Transformer1DModel")
def minimax_music3() -> Tiny:
    model = MiniMaxMusic3Transformer1DModel(
        in_channels=4,
        condition_dim=10,
        num_layers=2,
        num_attention_heads=2,
        attention_head_dim=8,
        ff_inner_dim=32,
        rotary_dim=4,
        fourier_embedding_dim=8,
    )
    return model, {
        "hidden_states": torch.randn(2, 4, 6),
        "timestep": torch.tensor([0.2, 0.7]),
        "encoder_hidden_states": torch.randn(2, 6, 10),
    }


@tiny("StableAudioDiTModel")
def stable_audio() -> Tiny:
    model = StableAudioDiTModel(
        sample_size=6,
        in_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        num_key_value_attention_heads=1,
        out_channels=4,
        cross_attention_dim=12,
        time_proj_dim=8,
        global_states_input_dim=10,
        cross_attention_input_dim=10,
    )
    return model, {
        "hidden_states": torch.randn(2, 4, 6),
        "timestep": torch.tensor([0.2, 0.7]),
        "encoder_hidden_states": torch.randn(2, 5, 10),
        "global_hidden_states": torch.randn(2, 1, 10),
        "rotary_embedding": get_1d_rotary_pos_embed(dim=4, pos=7, use_real=True, repeat_interleave_real=False),
    }


@tiny("StableAudio3DiTModel")
def stable_audio3() -> Tiny:
    model = StableAudio3DiTModel(
        io_channels=4,
        embed_dim=16,
        depth=2,
        num_heads=2,
        cond_token_dim=10,
        global_cond_dim=10,
        local_add_cond_dim=5,
        timestep_features_dim=8,
        ff_mult=2.0,
        num_memory_tokens=2,
    )
    return model, {
        "hidden_states": torch.randn(2, 4, 6),
        "timestep": torch.tensor([0.2, 0.7]),
        "encoder_hidden_states": torch.randn(2, 5, 10),
        "global_hidden_states": torch.randn(2, 10),
        "encoder_attention_mask": torch.arange(5) < torch.tensor([[5], [4]]),
        "local_add_cond": torch.randn(2, 5, 6),
    }


@tiny("T5FilmDecoder")
def t5_film() -> Tiny:
    model = T5FilmDecoder(
        input_dims=8,
        targets_length=6,
        d_model=16,
        num_layers=2,
        num_heads=2,
        d_kv=6,
        d_ff=32,
    )
    tokens = (torch.randn(2, 4, 16), torch.arange(4) < torch.tensor([[4], [3]]))
    frames = (torch.randn(2, 3, 16), torch.arange(3) < torch.tensor([[3], [2]]))
    return model, {
        "encodings_and_masks": [tokens, frames],
        "decoder_input_tokens": torch.randn(2, 6, 8),
        "decoder_noise_time": torch.tensor([0.2, 0.7]),
    }


@tiny("LongCatAudioDiTTransformer")
def longcat_audio() -> Tiny:
    model = LongCatAudioDiTTransformer(
        dit_dim=16,
        dit_depth=2,
        dit_heads=2,
        dit_text_dim=10,
        latent_dim=4,
        ff_mult=2.0,
    )
    return model, {
        "hidden_states": torch.randn(2, 6, 4),
        "encoder_hidden_states": torch.randn(2, 5, 10),
        "encoder_attention_mask": torch.arange(5) < torch.tensor([[5], [4]]),
        "timestep": torch.tensor([0.2, 0.7]),
        "attention_mask": torch.arange(6) < torch.tensor([[6], [5]]),
        "latent_cond": torch.randn(2, 6, 4),
    }


@tiny("RFD4ProteinaTransformer")
def rfd4_proteina() -> Tiny:
    model = RFD4ProteinaTransformer(
        nlayers=2,
        token_dim=16,
        nheads=8,  # also the width of to_bias
        dim_cond=12,
        pair_repr_dim=10,
        latent_dim=4,
        token_type_emb_dim=4,
        t_emb_dim=8,
        xt_pair_dist_dim=6,
        feats_seq=("xt_bb_ca", "xt_local_latents", "token_type"),
        feats_cond_seq=("time_emb_bb_ca", "time_emb_local_latents"),
        feats_pair_repr=("xt_bb_ca_pair_dists", "molecule_idx_pair"),
        feats_pair_cond=("time_emb_bb_ca", "time_emb_local_latents"),
        tri_mult_c=8,
        num_sequence_classes=10,
    )
    return model, {
        "bb_ca": torch.randn(2, 6, 3),
        "local_latents": torch.randn(2, 6, 4),
        "bb_ca_time": torch.tensor([0.2, 0.7]),
        "local_latents_time": torch.tensor([0.3, 0.6]),
        "padding_mask": torch.arange(6) < torch.tensor([[6], [5]]),
        "token_type": torch.randint(7, (2, 6)),
        "conditioning": {
            "molecule_iid": torch.tensor([[0, 0, 0, 1, 1, 1]] * 2),
            "is_in_context_conditioning": torch.zeros(2, 6, dtype=torch.bool),
            "supports_local_latent": torch.ones(2, 6, dtype=torch.bool),
        },
    }

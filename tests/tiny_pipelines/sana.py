from diffusers import AutoencoderDC, DPMSolverMultistepScheduler, SanaPipeline, SanaTransformer2DModel

from .gemma import gemma

RESOLUTION = 64  # the autoencoder has a factor of 16


def make() -> SanaPipeline:
    text_encoder, tokenizer = gemma()
    autoencoder = AutoencoderDC(
        latent_channels=8, attention_head_dim=4, encoder_block_out_channels=(4, 4, 8, 8, 8),
        decoder_block_out_channels=(4, 4, 8, 8, 8), encoder_layers_per_block=(1,) * 5,
        decoder_layers_per_block=(1,) * 5, encoder_qkv_multiscales=((),) * 5, decoder_qkv_multiscales=((),) * 5,
        scaling_factor=0.41,
    )  # fmt: skip
    transformer = SanaTransformer2DModel(
        sample_size=16, in_channels=8, out_channels=8, num_layers=2, num_attention_heads=8, attention_head_dim=8,
        num_cross_attention_heads=4, cross_attention_head_dim=16, cross_attention_dim=64, caption_channels=8,
    )  # fmt: skip
    scheduler = DPMSolverMultistepScheduler(use_flow_sigmas=True, flow_shift=3.0, prediction_type="flow_prediction")
    return SanaPipeline(tokenizer, text_encoder, autoencoder, transformer, scheduler)

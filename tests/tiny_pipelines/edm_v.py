from diffusers import EDMEulerScheduler, StableDiffusionXLPipeline

from . import stable_diffusion_xl


def make() -> StableDiffusionXLPipeline:
    """CosXL's ways: v prediction on an exponential schedule, and an autoencoder that knows no statistics."""
    pipe = stable_diffusion_xl.make()
    pipe.scheduler = EDMEulerScheduler(
        sigma_max=120.0, sigma_data=1.0, prediction_type="v_prediction", sigma_schedule="exponential"
    )
    return pipe

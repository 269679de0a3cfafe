"""One file for each family of models: how prompts and pictures are encoded and what the denoiser is asked."""

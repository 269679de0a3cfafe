"""PEFT's comparison of image generation, repeated with this library's trainer."""

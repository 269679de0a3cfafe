"""What is kept: recipes in pictures, history, presets, styles. Nothing here imports gradio."""

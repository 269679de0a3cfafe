"""Making pictures: base models, adapters, orders and what is drawn from them. Nothing here imports gradio."""

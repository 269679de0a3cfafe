"""How the page looks: a calm theme from fonts that are already on the machine, a few rules of CSS, and safe text."""

from __future__ import annotations

import html

import gradio as gr

FONTS = ("ui-sans-serif", "system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")

THEME = gr.themes.Base(
    primary_hue=gr.themes.colors.violet,
    secondary_hue=gr.themes.colors.violet,
    neutral_hue=gr.themes.colors.slate,
    radius_size=gr.themes.sizes.radius_md,
    font=FONTS,
    font_mono=MONO,
).set(
    body_background_fill="*neutral_50",
    body_background_fill_dark="*neutral_950",
    block_background_fill="white",
    block_background_fill_dark="*neutral_900",
    block_border_color="*neutral_200",
    block_border_color_dark="*neutral_800",
    block_title_text_weight="500",
    block_title_text_color="*neutral_600",
    block_title_text_color_dark="*neutral_300",
    block_label_text_color="*neutral_600",
    block_label_text_color_dark="*neutral_300",
    input_background_fill="*neutral_50",
    input_background_fill_dark="*neutral_800",
    button_primary_background_fill="*primary_600",
    button_primary_background_fill_hover="*primary_700",
    button_primary_background_fill_dark="*primary_600",
    button_primary_background_fill_hover_dark="*primary_500",
    button_primary_text_color="white",
    button_primary_text_color_dark="white",
)

CSS = """
#page { display: grid; gap: 20px; align-items: start;
        grid-template-columns: minmax(0, 5fr) minmax(0, 6fr); grid-template-rows: auto 1fr;
        grid-template-areas: "ask show" "set show"; }
#ask { grid-area: ask; } #set { grid-area: set; } #show { grid-area: show; }
#ask, #set, #show { min-width: 0 !important; gap: 12px; }
@media (max-width: 820px) {
  #page { grid-template-columns: minmax(0, 1fr); grid-template-rows: auto; grid-template-areas: "ask" "show" "set"; }
}
#title h1 { margin: 0; font-size: 1.5rem; } #title p { margin: 0; color: var(--body-text-color-subdued); }
.quiet, .quiet p { color: var(--body-text-color-subdued) !important; font-size: 0.85rem; margin: 0; }
.warn { --warn-color: #b45309; } .dark .warn { --warn-color: #fbbf24; }
.warn p { color: var(--warn-color) !important; font-size: 0.85rem; margin: 0; overflow-wrap: anywhere; }
.heading { align-items: end; } .heading h3 { margin: 4px 0 0; }
#progress, #progress .html-container { padding: 0; }
.bar { height: 8px; border-radius: 4px; overflow: hidden; background: var(--border-color-primary); }
.bar > div { height: 100%; background: var(--color-accent); transition: width 0.2s; }
.bar-text { font-size: 0.85rem; color: var(--body-text-color-subdued); margin-top: 4px; min-height: 1.4em; }
#gallery { flex-shrink: 0; } #gallery .grid-wrap { max-height: none; min-height: 0; }
#gallery .empty { min-height: 420px; }
#gallery .empty::after { content: "Your pictures appear here."; position: absolute; margin-top: 64px;
                         color: var(--body-text-color-subdued); font-size: 0.9rem; }
.pixelated img { image-rendering: pixelated; }

/* One adapter: its name and trigger words; the weight and the facts only while it is on. */
.adapter { padding: 8px 12px; gap: 4px !important; border: 1px solid var(--block-border-color);
           border-radius: var(--radius-md); background: var(--block-background-fill); }
.adapter .block { background: none; border-width: 0 !important; box-shadow: none; padding: 0; }
.adapter > .row { align-items: center; flex-wrap: nowrap; gap: 12px; }
.adapter .name { overflow-wrap: anywhere; }
.adapter .weight { min-width: 84px !important; }
.adapter .words { flex: 0 1 auto; max-width: 60%; overflow-wrap: anywhere; font-weight: 400; }
.adapter:has(.name input:checked) { border-color: var(--color-accent); }
.adapter:not(:has(.name input:checked)) > :is(.weights, .about) { display: none; }
.adapter:has(.name input:disabled) .name { opacity: 0.6; }
.weight-slider .head { display: none; }

/* A slim place to drop a file. */
.drop { min-height: 0 !important; flex-shrink: 0; }
.drop .wrap { flex-direction: row; min-height: 0; padding: 30px 8px 8px; gap: 6px; font-size: 0.85rem; }
.drop .icon-wrap { display: none; }
"""


def plain(text: str) -> str:
    """Return Markdown that shows ``text`` exactly: all but letters, digits and spaces as character references."""
    return "".join(c if c.isalnum() or c == " " else f"&#{ord(c)};" for c in text)


def error(text: str) -> gr.Error:
    """Return an error whose message is shown as plain text (gradio renders HTML in messages)."""
    return gr.Error(html.escape(text), print_exception=False)


def progress_bar(fraction: float, text: str) -> str:
    """Return the HTML of a progress bar; ``text`` is ours, never from a file or a user."""
    percent = round(100 * min(max(fraction, 0.0), 1.0))
    return (
        f'<div class="bar" role="progressbar" aria-valuenow="{percent}" aria-valuemin="0" aria-valuemax="100">'
        f'<div style="width:{percent}%"></div></div><div class="bar-text">{html.escape(text)}</div>'
    )

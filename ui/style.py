"""How the page looks: a calm theme from fonts that are already on the machine, a few rules of CSS, and safe text."""

from __future__ import annotations

import html

import gradio as gr

from ui.translations import said

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
gradio-app .fillable, .gradio-container .fillable { max-width: 1280px !important; } /* not gradio's steps of width */
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
#progress .wrap { background: none; overflow: visible; justify-content: flex-end; align-items: flex-start; }
#progress .progress-text { position: absolute; top: 12px; left: 0; right: auto; padding: 0; transform: none;
                           font: inherit; font-size: 0.85rem; background: none; color: var(--body-text-color-subdued); }
#progress:has(.progress-text) .bar-text { visibility: hidden; }
.bar { height: 8px; border-radius: 4px; overflow: hidden; background: var(--border-color-primary); }
.bar > div { height: 100%; background: var(--color-accent); transition: width 0.2s; }
.bar-text { font-size: 0.85rem; color: var(--body-text-color-subdued); margin-top: 4px; min-height: 1.4em; }
#gallery { flex-shrink: 0; } #gallery .grid-wrap { max-height: none; min-height: 0; }
#gallery .empty { min-height: 420px; }
#gallery .empty::after { content: "Your pictures appear here."; position: absolute; margin-top: 64px;
                         color: var(--body-text-color-subdued); font-size: 0.9rem; }
#gallery:lang(de) .empty::after { content: "Hier erscheinen deine Bilder."; }
.pixelated img { image-rendering: pixelated; }

/* An adapter in use: its name and trigger words; the weight only while it is on. */
.adapter { padding: 8px 12px; gap: 6px !important; border: 1px solid var(--block-border-color);
           border-radius: var(--radius-md); background: var(--block-background-fill); }
.adapter .block { background: none; border-width: 0 !important; box-shadow: none; padding: 0; }
.adapter > .row { align-items: center; flex-wrap: nowrap; gap: 12px; }
.adapter .name { overflow-wrap: anywhere; }
.adapter .weight { min-width: 84px !important; }
.adapter .words { flex: 0 1 auto; max-width: 55%; overflow-wrap: anywhere; font-weight: 400; }
.adapter .remove { flex: 0 0 34px; min-width: 34px; background: none; box-shadow: none; border: 0; font-size: 1.1rem; }
.adapter:has(.name input:checked) { border-color: var(--color-accent); }
.adapter:not(:has(.name input:checked)) > :is(.weights, .shape) { display: none; }
.adapter:has(.name input:disabled) .name { opacity: 0.6; }
.adapter .shape .label-wrap { font-size: 0.85rem; color: var(--body-text-color-subdued); margin: 0; padding: 2px 0; }
.adapter .shape .gap, .adapter .shape .column { gap: 10px; }
.adapter .shape .label-wrap.open { margin-bottom: 6px; }
.adapter .shape .form { background: none; border: 0; box-shadow: none; gap: 10px; overflow: visible; }
.adapter .shape .drawn { padding: 0; } .adapter .shape .drawn > div { padding: 0 !important; }
.weight-slider .head { display: none; }
#pager { align-items: center; justify-content: center; flex-wrap: nowrap; } #pager .block { width: auto; flex: none; }
.curve svg { display: block; width: 100%; height: 90px; background: var(--input-background-fill);
             border-radius: var(--radius-md); }
.curve polyline { fill: none; stroke: var(--line); stroke-width: 2; vector-effect: non-scaling-stroke; }
.curve .grid { stroke: var(--border-color-primary); stroke-width: 1; stroke-dasharray: 3 4; }
.curve .axis { display: flex; justify-content: space-between; gap: 8px; font-size: 0.75rem; margin-top: 2px;
               color: var(--body-text-color-subdued); }
.curve .names { display: flex; flex-wrap: wrap; gap: 0 10px; justify-content: center; }
.curve .names span { color: var(--line); overflow-wrap: anywhere; }
.line0 { --line: var(--color-accent); } .line1 { --line: #d97706; } .line2 { --line: #0d9488; }
.line3 { --line: #db2777; } .line4 { --line: #2563eb; } .line5 { --line: #65a30d; }
.curve-problem { color: #b45309; font-size: 0.85rem; margin: 0; overflow-wrap: anywhere; }
.dark .curve-problem { color: #fbbf24; }

/* The library: a card for each adapter. */
#library { padding: 0; flex-shrink: 0; overflow: visible; } #library > div { padding: 0 !important; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(136px, 1fr)); gap: 10px; padding: 3px;
         max-height: 580px; overflow-y: auto; }
.card { display: flex; flex-direction: column; border: 1px solid var(--block-border-color); min-width: 0;
        border-radius: var(--radius-md); background: var(--block-background-fill); overflow: hidden; }
.card .pick { display: flex; flex-direction: column; gap: 2px; padding: 0 0 6px; text-align: left; cursor: pointer;
              background: none; border: 0; border-radius: 0; font-weight: 400; color: var(--body-text-color); }
.card .pick:disabled { cursor: default; opacity: 1; }
.card:not(.unfit):hover { border-color: var(--color-accent); }
.card.used { border-color: var(--color-accent); box-shadow: 0 0 0 1px var(--color-accent); }
.card.unfit :is(.pic, .card-name, .facts) { opacity: 0.45; filter: grayscale(1); }
.card .pic { display: grid; place-items: center; aspect-ratio: 4 / 3; overflow: hidden;
             background: var(--input-background-fill); margin-bottom: 4px; }
.card .pic img { width: 100%; height: 100%; object-fit: cover; margin: 0; }
.card .pic i { font-size: 1.6rem; font-style: normal; color: var(--body-text-color-subdued); opacity: 0.6; }
.card :is(.card-name, .facts, .why) { padding: 0 8px; overflow-wrap: anywhere; }
.card .card-name { font-size: 0.88rem; font-weight: 500; line-height: 1.25; }
.card .facts, .card .why { font-size: 0.74rem; color: var(--body-text-color-subdued); line-height: 1.35; }
.card .why { color: #b45309; display: -webkit-box; -webkit-line-clamp: 4; -webkit-box-orient: vertical;
             overflow: hidden; } .dark .card .why { color: #fbbf24; }
.card .words { display: flex; flex-wrap: wrap; gap: 4px; padding: 0 8px 8px; } .card .words:empty { display: none; }
.card .word { font-size: 0.74rem; padding: 1px 7px; border-radius: 99px; cursor: pointer; overflow-wrap: anywhere;
              background: var(--button-secondary-background-fill); text-align: left; font-weight: 400; border: 0;
              color: var(--body-text-color); }
.cards .more { grid-column: 1 / -1; padding: 8px; cursor: pointer; color: var(--body-text-color-subdued); }

/* Previews are large while there is nothing else to see. */
#preview, #preview .html-container { padding: 0; } #preview:not(:has(img)) { display: none; }
#preview img { display: block; margin: 0; border-radius: var(--radius-md); }
#preview img.alone { width: min(100%, 512px); } #preview img.beside { width: 120px; }
#page:has(#preview img.alone) #gallery { display: none; }
#tools, #go { gap: 8px; } #go { flex-wrap: nowrap; } #tools button { flex: 1 1 auto; }
#go button { min-width: max-content !important; padding-inline: 10px; }
.heading button, .judging button { flex: none; min-width: max-content !important; }
#both { max-width: 512px; } #past .grid-container { gap: 6px; } #past .caption-label { display: none; }
#past .grid-wrap { min-height: 0; max-height: 460px; } #past { min-height: 0; }

/* A slim place to drop a file. */
.drop { min-height: 0 !important; flex-shrink: 0; }
.drop .wrap { flex-direction: row; min-height: 0; padding: 30px 8px 8px; gap: 6px; font-size: 0.85rem; }
.drop .icon-wrap { display: none; }
"""


def plain(text: str) -> str:
    """Return Markdown that shows ``text`` exactly: all but letters, digits and spaces as character references."""
    return "".join(c if c.isalnum() or c == " " else f"&#{ord(c)};" for c in text)


def spoken(text: str) -> str:
    """Return Markdown that shows one of our messages, in the visitor's language."""
    return plain(said(text))


def careful(text: str, quoted: str = "") -> str:
    """Return a paragraph of Markdown that warns of something, and quotes what somebody wrote."""
    return f"\n\n**{said('Careful')}:** {spoken(text)} {plain(quoted)}".rstrip()


def error(text: str) -> gr.Error:
    """Return an error whose message is shown as plain text (gradio renders HTML in messages)."""
    return gr.Error(html.escape(said(text)), print_exception=False)


def progress_bar(fraction: float, text: str) -> str:
    """Return the HTML of a progress bar; ``text`` is ours, never from a file or a user."""
    percent = round(100 * min(max(fraction, 0.0), 1.0))
    return (
        f'<div class="bar" role="progressbar" aria-valuenow="{percent}" aria-valuemin="0" aria-valuemax="100">'
        f'<div style="width:{percent}%"></div></div><div class="bar-text">{html.escape(said(text))}</div>'
    )

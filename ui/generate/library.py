"""The library: every adapter of the folder as a card that is clicked to use it, found by name, word and sub-folder.

File names and texts from headers reach the page only through ``style.plain``.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence

from ui.messages import AdapterCard
from ui.style import plain, spoken

SHOWN = 48  # cards at first, and more at each press
SEARCH_FROM = 8  # adapters from which on the search box is shown
TOP = "(top folder)"
JS = """
element.addEventListener('click', (e) => {
    const part = e.target.closest('[data-id], [data-word], [data-more]');
    if (!part || part.disabled) return;
    if (part.dataset.more) return trigger('click', {more: true});
    if (part.dataset.id) return trigger('click', {id: part.dataset.id});
    const prompt = document.querySelector('#prompt textarea'), word = part.dataset.word, text = prompt.value.trim();
    if (text.includes(word)) return;
    prompt.value = text ? text.replace(/,$/, '') + ', ' + word : word;
    prompt.dispatchEvent(new Event('input', {bubbles: true}));
});
"""


def folders(cards: Sequence[AdapterCard]) -> list[str]:
    """The sub-folders to choose from, the whole library first as the empty text."""
    found = {card.folder for card in cards}
    return ["", *([TOP] if "" in found else []), *sorted(found - {""})] if found - {""} else [""]


def find(cards: Sequence[AdapterCard], search: str | None, folder: str | None) -> list[AdapterCard]:
    """Return the cards of a sub-folder whose name, base or trigger words hold every searched word, the unfit last."""
    wanted = (search or "").lower().split()

    def fits(card: AdapterCard) -> bool:
        within = not folder or card.folder == ("" if folder == TOP else folder) or card.folder.startswith(f"{folder}/")
        text = f"{card.name} {card.base} {' '.join(card.trigger_words)}".lower()
        return within and all(word in text for word in wanted)

    return sorted(filter(fits, cards), key=lambda card: card.reason is not None)


def html(
    cards: Sequence[AdapterCard], used: Container[str], limit: int, thumbnail: Callable[[AdapterCard], str]
) -> str:
    """Return the cards as HTML: at most ``limit``, and a button for more. ``used`` are ids of those in use."""
    parts = [_card(card, card.id in used, thumbnail(card)) for card in cards[:limit]]
    if len(cards) > limit:
        parts.append(f'<button class="more" data-more="1">{len(cards) - limit} more</button>')
    return f'<div class="cards">{"".join(parts)}</div>'


def _card(card: AdapterCard, used: bool, picture: str) -> str:
    name = card.name.rpartition("/")[2]
    facts = " · ".join(map(plain, filter(None, [card.base, card.about, card.date])))
    shown = f'<img src="{picture}" alt="" loading="lazy">' if picture else f"<i>{plain(name[:1].upper())}</i>"
    words = "".join(
        f'<button class="word" data-word="{plain(word)}" title="Put into the prompt">+ {plain(word)}</button>'
        for word in card.trigger_words[:4]
    )
    kind = "unfit" if card.reason else "used" if used else ""
    state = "disabled" if card.reason and not used else f'aria-pressed="{str(used).lower()}"'
    why = f'<span class="why">{spoken(card.reason)}</span>' if card.reason else ""
    return (
        f'<div class="card {kind}"><button class="pick" data-id="{plain(card.id)}" title="{plain(card.name)}" {state}>'
        f'<span class="pic">{shown}</span><span class="card-name">{plain(name)}</span>'
        f'<span class="facts">{facts}</span>{why}</button><div class="words">{words}</div></div>'
    )

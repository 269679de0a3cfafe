"""What the page does, without the page: one pipeline behind a lock, its adapters, and making pictures with it.

Nothing here imports gradio. Adapters are named by the opaque ids of ``AdapterFolder``, base models by their labels.
"""

from __future__ import annotations

import queue
import secrets
import threading
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from lily_diffusion import LilyHeader, check_compatible, delete_adapters, load_lily_weights, set_adapters
from ui import base_models, drawing
from ui.adapter_folder import AdapterFile, AdapterFolder, AdapterFolderError, without_paths
from ui.base_models import BaseModel, BaseModelError
from ui.messages import AdapterCard, Event, Finished, Order, Picture, Step
from ui.recipe import (
    MAX_ADAPTERS,
    MAX_GUIDANCE,
    MAX_PROMPT,
    MAX_SEED,
    MAX_STEPS,
    MAX_WEIGHT,
    Recipe,
    RecipeError,
    UsedAdapter,
    clean_name,
    clean_text,
    read_png,
)

MAX_COUNT = 16  # pictures in one run
MAX_IN_MEMORY = 8  # adapters that stay loaded between runs


class SessionError(ValueError):
    """A request that cannot be met; the message is for the user and has no paths in it."""


USER_ERRORS = (SessionError, AdapterFolderError, BaseModelError, RecipeError)


class Session:
    """The state behind the page: base models, the adapter folder, the output folder. Safe to call from threads."""

    def __init__(
        self,
        models: Sequence[str] = (base_models.EMBEDDED,),
        adapters_dir: str | Path = "adapters",
        output_dir: str | Path = "outputs",
        *,
        allow_uploads: bool = True,
        allow_hub: bool = True,
    ) -> None:
        self.adapters = AdapterFolder(adapters_dir)
        self.output_dir = Path(output_dir).expanduser().resolve()
        self.allow_uploads, self.allow_hub = allow_uploads, allow_hub
        self._sources = base_models.labels(models)
        self._lock = threading.Lock()  # held by whoever changes or runs the pipeline
        self._runs: set[threading.Event] = set()  # one stop flag for each run that is going or waiting
        self._loaded: dict[str, tuple[int, int]] = {}  # adapter id -> stamp of the file it was loaded from
        self._reasons: dict[tuple[str, str, tuple[int, int]], str | None] = {}
        self.base: BaseModel = base_models.load(*next(iter(self._sources.items())))

    @property
    def base_labels(self) -> list[str]:
        """Labels of the base models that can be chosen."""
        return list(self._sources)

    def load_base(self, name: str) -> BaseModel:
        """Load another base model by its label, or by a Hub id such as ``owner/name``.

        Raises:
            SessionError: no such label, and not a Hub id (or Hub ids are off).
            BaseModelError: it cannot be loaded; the base model of before stays.
        """
        source = self._sources.get(name, name)
        if name not in self._sources and not (self.allow_hub and base_models.is_hub_id(name)):
            hint = ", or write a Hub id such as owner/name" if self.allow_hub else ""
            raise SessionError(f"There is no base model of that name. Choose one from the list{hint}.")
        with self._lock:
            if name != self.base.label:
                self.base = base_models.load(name, source)
                self._sources[name] = source
                self._loaded.clear()
        return self.base

    def cards(self, *, rescan: bool = False) -> list[AdapterCard]:
        """Return a card for every file of the adapter folder, after looking through it again if asked."""
        files = self.adapters.rescan() if rescan else self.adapters.files()
        return [self._card(file) for file in files]

    def add_adapter(self, uploaded: str | Path, shown_name: str) -> AdapterCard:
        """Copy an uploaded file into the adapter folder. Raises SessionError when uploads are off or it is unfit."""
        if not self.allow_uploads:
            raise SessionError("Adding files through the page is off while it listens to other machines.")
        return self._card(self.adapters.add(uploaded, shown_name))

    def restore(self, png: str | Path) -> tuple[Recipe, dict[str, float], list[str]]:
        """Read a saved picture: its recipe, ``{adapter id: weight}``, and what stands in the way of the same picture.

        Raises:
            RecipeError: the picture has no usable recipe.
        """
        recipe = read_png(png)
        weights: dict[str, float] = {}
        problems = []
        for used in recipe.adapters:
            file = self.adapters.find(used.content_hash)
            reason = self._card(file).reason if file else f"no file with hash {used.content_hash[:12]} is in the folder"
            if not file or reason is not None:
                problems.append(f"The adapter '{used.name}' (weight {used.weight}) is missing: {reason}")
            elif isinstance(used.weight, str):
                weights[file.id] = 1.0
                problems.append(
                    f"The adapter '{used.name}' had the weight {used.weight}, by block or step, which this page cannot "
                    "set: it is on at 1."
                )
            else:
                weights[file.id] = used.weight
        if recipe.base_model and recipe.base_model != self.base.label:
            problems.append(
                f"It was made with the base model '{recipe.base_model}'; now '{self.base.label}' is loaded."
            )
        return recipe, weights, problems

    def generate(self, order: Order) -> Generator[Event, None, None]:
        """Make pictures one at a time, each with its own seed, and tell what happens as it happens.

        The work runs in a thread of its own. It stops at the next step when ``interrupt`` is called or when the
        returned iterator is closed; pictures that are done are kept.

        Raises:
            SessionError, AdapterFolderError: the order cannot be met.
        """
        recipe, files = self._check(order)
        return self._run(recipe, files, order.count)

    def interrupt(self) -> None:
        """Stop what is running at its next step."""
        for stop in tuple(self._runs):
            stop.set()

    def unread_part(self, prompt: str) -> str:
        """Return the end of the prompt that the base model's tokenizer has no room for (empty: all is read)."""
        tokenizer = getattr(self.base.pipe, "tokenizer", None)
        room = getattr(tokenizer, "model_max_length", 10**6)
        if tokenizer is None or room > 10**5:
            return ""
        tokens = tokenizer(prompt, truncation=False, verbose=False).input_ids
        return tokenizer.decode(tokens[room - 1 : -1], skip_special_tokens=True).strip()

    def _card(self, file: AdapterFile) -> AdapterCard:
        header = file.header
        if header is None:
            return AdapterCard(file.id, file.name, "", (), file.problem)
        words = tuple(word for word in map(clean_name, header.trigger_words[:20]) if word)
        about = f"rank {header.config.r} · {header.num_parameters:,} parameters"
        return AdapterCard(file.id, file.name, about, words, self._reason(file, header))

    def _reason(self, file: AdapterFile, header: LilyHeader) -> str | None:
        key = (self.base.label, file.id, file.stamp)
        if key not in self._reasons:
            try:
                check_compatible(header, self.base.pipe)
                self._reasons[key] = None
            except ValueError as error:
                self._reasons[key] = without_paths(str(error), self.adapters.root)[:300]
        return self._reasons[key]

    def _check(self, order: Order) -> tuple[Recipe, dict[AdapterFile, float]]:
        """Return the recipe of the first picture and the adapters with weights other than 0, in a fixed order."""
        fits = self.base.defaults
        _within("steps", order.steps, 1, MAX_STEPS)
        _within("guidance", order.guidance_scale, 0, MAX_GUIDANCE)
        _within("number of pictures", order.count, 1, MAX_COUNT)
        _within("seed", order.seed, -1, MAX_SEED)
        for name, edge in (("width", order.width), ("height", order.height)):
            _within(name, edge, fits.size_step, fits.max_edge)
            if edge % fits.size_step:
                raise SessionError(f"The {name} must be a multiple of {fits.size_step} pixels for this base model.")
        for name, text in (("prompt", order.prompt), ("negative prompt", order.negative_prompt)):
            if len(text) > MAX_PROMPT:
                raise SessionError(f"The {name} has {len(text)} characters; at most {MAX_PROMPT} are taken.")
        chosen = {}
        for file_id, weight in (order.weights or {}).items():
            _within("weight of an adapter", weight, -MAX_WEIGHT, MAX_WEIGHT)
            file = self.adapters.get(file_id)
            if reason := self._card(file).reason:
                raise SessionError(f"The adapter '{file.name}' cannot be used: {reason}")
            if weight:
                chosen[file] = float(weight)
        if len(chosen) > MAX_ADAPTERS:
            raise SessionError(f"{len(chosen)} adapters are on; at most {MAX_ADAPTERS} can be mixed.")
        files = dict(sorted(chosen.items(), key=lambda item: item[0].content_hash))
        seed = secrets.randbelow(2**31) if order.seed < 0 else int(order.seed)
        recipe = Recipe(
            prompt=clean_text(order.prompt, MAX_PROMPT),
            negative_prompt=clean_text(order.negative_prompt, MAX_PROMPT),
            steps=int(order.steps),
            guidance_scale=float(order.guidance_scale),
            width=int(order.width),
            height=int(order.height),
            seed=seed,
            base_model=self.base.label,
            adapters=tuple(UsedAdapter(f.name, f.content_hash, weight) for f, weight in files.items()),
        )
        return recipe, files

    def _run(self, recipe: Recipe, files: dict[AdapterFile, float], count: int) -> Generator[Event, None, None]:
        events: queue.SimpleQueue[Event | Exception] = queue.SimpleQueue()
        stop = threading.Event()
        self._runs.add(stop)
        threading.Thread(target=self._work, args=(recipe, files, count, events.put, stop), daemon=True).start()
        try:
            while not isinstance(event := events.get(), (Finished, Exception)):
                yield event
        finally:
            stop.set()
            self._runs.discard(stop)
        if isinstance(event, Exception):
            raise event
        yield event

    def _work(
        self,
        recipe: Recipe,
        files: dict[AdapterFile, float],
        count: int,
        tell: Callable[[Event | Exception], None],
        stop: threading.Event,
    ) -> None:
        done = 0
        try:
            with self._lock:
                self._blend(files)
                while done < count and not stop.is_set():
                    one = replace(recipe, seed=(recipe.seed + done) % (MAX_SEED + 1))
                    on_step = partial(self._tell_step, tell, done + 1, count, one.steps)
                    drawn = drawing.draw(self.base, one, on_step, stop)
                    if drawn is None:
                        break
                    tell(Picture(drawing.save(drawn[0], one, self.output_dir), one, hidden=drawn[1]))
                    done += 1
            tell(Finished(done, interrupted=done < count))
        except Exception as error:  # carried over to the thread that waits for the events
            tell(self._for_user(error))

    def _blend(self, files: dict[AdapterFile, float]) -> None:
        """Have exactly these adapters active, loading those that are new or changed since they were loaded."""
        pipe, wanted = self.base.pipe, {file.id: file.stamp for file in files}
        for adapter_id, stamp in list(self._loaded.items()):
            changed = wanted.get(adapter_id, stamp) != stamp
            if changed or (adapter_id not in wanted and len(self._loaded) >= MAX_IN_MEMORY):
                delete_adapters(pipe, adapter_id)
                del self._loaded[adapter_id]
        for file in files:
            if file.id not in self._loaded:
                load_lily_weights(pipe, str(file.path), adapter_name=file.id)
                self._loaded[file.id] = file.stamp
        if self._loaded:
            set_adapters(pipe, [file.id for file in files], list(files.values()))

    @staticmethod
    def _tell_step(tell: Callable[[Event], None], picture: int, pictures: int, steps: int, step: int) -> None:
        tell(Step(picture, pictures, step, steps))

    def _for_user(self, error: Exception) -> Exception:
        """Return the error to show: ours, and the library's without paths; others stay as they are."""
        if isinstance(error, torch.cuda.OutOfMemoryError):
            return SessionError("The graphics card ran out of memory. Choose a smaller size.")
        if isinstance(error, ValueError) and not isinstance(error, USER_ERRORS):
            return SessionError(without_paths(str(error), self.adapters.root, self.output_dir)[:300])
        return error


def _within(name: str, value: float, low: float, high: float) -> None:
    if not isinstance(value, (int, float)) or not low <= value <= high:
        raise SessionError(f"The {name} must be a number from {low:g} to {high:g}.")

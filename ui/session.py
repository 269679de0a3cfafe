"""What the page does, without the page: one pipeline behind a lock, its adapters, and making pictures with it.

Nothing here imports gradio. Adapters are named by the opaque ids of ``AdapterFolder``, base models by their labels.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from lily_diffusion import check_compatible, delete_adapters, load_lily_weights, set_adapters
from lily_diffusion.adapter_weight import known_selectors
from ui.keeping.foreign import read_picture
from ui.keeping.history import History, HistoryError
from ui.keeping.recipe import Recipe, RecipeError, clean_name
from ui.keeping.restoring import Restored, restore
from ui.keeping.stored import Presets, StoredError, Styles
from ui.keeping.thumbnails import Thumbnails
from ui.messages import AdapterCard, Event, Order
from ui.pipeline import base_models, schedulers
from ui.pipeline.adapter_folder import AdapterFile, AdapterFolder, AdapterFolderError, without_paths
from ui.pipeline.base_models import BaseModel, BaseModelError
from ui.pipeline.merging import Merges, OnPreparing
from ui.pipeline.orders import OTHER_BASE, SessionError, Weights, layers_of, recipe_of
from ui.pipeline.preview import Previewer
from ui.pipeline.run import Run

MAX_IN_MEMORY = 8  # adapters that stay loaded between runs
USER_ERRORS = (SessionError, AdapterFolderError, BaseModelError, RecipeError, HistoryError, StoredError)


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
        own = self.output_dir / ".page"
        self.history = History(self.output_dir, own / "history.jsonl")
        self.thumbnails = Thumbnails(own / "thumbnails")
        self.presets, self.styles = Presets(self.output_dir / "presets"), Styles(self.output_dir / "styles.json")
        self.allow_uploads, self.allow_hub = allow_uploads, allow_hub
        self._sources = base_models.labels(models)
        self._lock = threading.Lock()  # held by whoever changes or runs the pipeline
        self._runs: dict[Run, None] = {}  # those that are going or waiting, the oldest first
        self._loaded: dict[str, tuple[int, int]] = {}  # adapter id -> stamp of the file it was loaded from
        self._merges = Merges()
        self._reasons: dict[Any, str | None] = {}
        self.base: BaseModel = base_models.load(*next(iter(self._sources.items())))
        self.previewer = Previewer(self.base.pipe)

    @property
    def base_labels(self) -> list[str]:
        """Labels of the base models that can be chosen."""
        return list(self._sources)

    @property
    def source(self) -> str:
        """Where the loaded base model came from: a name, a folder or a Hub id."""
        return self._sources[self.base.label]

    def load_base(self, name: str) -> BaseModel:
        """Load another base model by its label, or by a Hub id such as ``owner/name``.

        Raises:
            SessionError: no such label, and not a Hub id (or Hub ids are off).
            BaseModelError: it cannot be loaded; the base model of before stays.
        """
        source = self._sources.get(name, name)
        if name not in self._sources and not (self.allow_hub and base_models.is_hub_id(name)):
            hint = " Or write a Hub id such as owner/name." if self.allow_hub else ""
            raise SessionError("There is no base model of that name. Choose one from the list." + hint)
        with self._lock:
            if name != self.base.label:
                self.base = base_models.load(name, source)
                self.previewer = Previewer(self.base.pipe)
                self._sources[name] = source
                self._loaded.clear()
                self._merges.forget()
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

    def restore(self, picture: str | Path) -> Restored:
        """Read a saved picture: its recipe, ``{adapter id: weight}``, and what stands in the way of the same picture.

        Raises:
            RecipeError: the picture has no usable recipe.
        """
        recipe, notes = read_picture(picture)
        return self.restored(recipe, notes)

    def restored(self, recipe: Recipe, notes: Sequence[str] = ()) -> Restored:
        """`restore` for a recipe that is read already."""
        recipe, weights, more = restore(recipe, self.base, self.adapters, self.reason)
        return recipe, weights, [*notes, *more]

    def generate(self, order: Order, owner: str = "") -> Generator[Event, None, None]:
        """Make pictures one at a time, each with its own seed, and tell what happens as it happens.

        The work runs in a thread of its own. It stops at the next step when ``interrupt`` is called or when the
        returned iterator is closed; pictures that are done are kept. ``owner`` says whose run it is.

        Raises:
            SessionError, AdapterFolderError: the order cannot be met.
        """
        recipe, files = recipe_of(order, self.base, self.adapters, self.reason)
        return self._events(Run(self, recipe, files, order.count, order.preview, owner))

    def _events(self, run: Run) -> Generator[Event, None, None]:
        self._runs[run] = None
        try:
            yield from run.events()
        finally:
            self._runs.pop(run, None)

    def is_running(self, owner: str = "") -> bool:
        """Whether a run of the owner has begun and is not over."""
        return any(run.owner == owner for run in tuple(self._runs))

    def interrupt(self, owner: str = "") -> bool:
        """Stop the owner's runs at their next step; whether there was one."""
        found = [run for run in tuple(self._runs) if run.owner == owner]
        for run in found:
            run.interrupt()
        return bool(found)

    def skip(self, owner: str = "") -> None:
        """Leave the owner's picture that is being made, and go on with the next."""
        for run in [run for run in tuple(self._runs) if run.owner == owner]:
            run.skip()

    @contextmanager
    def using(self, order: Order, on_preparing: OnPreparing = lambda *_: None) -> Iterator[tuple[Any, Recipe]]:
        """Have the pipeline for oneself inside the ``with`` block, with the order's adapters, weights and scheduler.

        Args:
            on_preparing: told how far the merge of the adapters is, where there is one; what it raises ends that.

        Yields:
            (the pipeline, the recipe of the order's first picture); adapters have their ids as names.

        Raises:
            SessionError, AdapterFolderError: the order cannot be met.
        """
        recipe, files = recipe_of(order, self.base, self.adapters, self.reason)
        with self.prepared(recipe, files, on_preparing) as base:
            yield base.pipe, recipe

    @contextmanager
    def prepared(self, recipe: Recipe, files: Weights, on_preparing: OnPreparing) -> Iterator[BaseModel]:
        """`using` for an order that is checked already; raises SessionError if the base model has changed since."""
        with self._lock:
            base = self.base
            if base.label != recipe.base_model:
                raise SessionError(OTHER_BASE)
            with schedulers.scheduled(base.pipe, recipe.scheduler):
                self._blend(files)
                with self._merges.active(base, recipe, files, on_preparing):
                    yield base

    def unread_part(self, prompt: str) -> str:
        """Return the end of the prompt that the base model's tokenizer has no room for (empty: all is read)."""
        tokenizer = getattr(self.base.pipe, "tokenizer", None)
        room = getattr(tokenizer, "model_max_length", 10**6)
        if tokenizer is None or room > 10**5:
            return ""
        tokens = tokenizer(prompt, truncation=False, verbose=False).input_ids
        return tokenizer.decode(tokens[room - 1 : -1], skip_special_tokens=True).strip()

    def _card(self, file: AdapterFile) -> AdapterCard:
        header, reason = file.header, self.reason(file)
        if header is None:
            return AdapterCard(file.id, file.name, "", (), reason, file.folder)
        words = tuple(word for word in map(clean_name, header.trigger_words[:20]) if word)
        size = file.stamp[1] / 1e6
        about = f"r {header.config.r} · {size:.1f} MB" if size >= 0.1 else f"r {header.config.r} · {size * 1000:.0f} kB"
        base = clean_name(str(header.base_model or "").replace("\\", "/").rpartition("/")[2])
        date = datetime.fromtimestamp(file.stamp[0] / 1e9).strftime("%Y-%m-%d")
        return AdapterCard(file.id, file.name, about, words, reason, file.folder, base, date)

    def thumbnail(self, adapter_id: str) -> str:
        """The picture beside an adapter, small, as a ``data:`` address; empty when there is none."""
        file = self.adapters.get(adapter_id)
        if file.picture is None:
            return ""
        return self.thumbnails.data_uri(file.picture, file.picture_stamp, self.adapters.root)

    def put_on_card(self, picture_id: str) -> AdapterCard:
        """Make a saved picture that of the adapter which it was made with, and return the adapter's card.

        Raises:
            SessionError: it was not made with one adapter of the folder alone.
            HistoryError, RecipeError, AdapterFolderError: the picture or the adapter's file is gone or unfit.
        """
        path = self.history.path(picture_id)
        status = path.stat()
        used = [self.adapters.find(one.content_hash) for one in read_picture(path)[0].adapters]
        small = self.thumbnails.of(path, (status.st_mtime_ns, status.st_size), self.history.root)
        if len(used) != 1 or used[0] is None or small is None:
            raise SessionError("A card shows what its adapter does alone: take a picture with one adapter of the list.")
        self.adapters.set_picture(used[0].id, small.read_bytes())
        return self._card(self.adapters.get(used[0].id))

    def selectors(self, adapter_id: str) -> list[str]:
        """Names of the blocks, kinds of attention and projections that a weight of this adapter can differ by."""
        file = self.adapters.get(adapter_id)
        if file.header is None or self.reason(file) is not None:
            return []
        return known_selectors(next(iter(layers_of(file.header, self.base).values())))

    def reason(self, file: AdapterFile) -> str | None:
        """Why the file cannot be used with the base model, or None."""
        if file.header is None:
            return file.problem
        shape = tuple((part.component, part.model_class, part.fingerprint) for part in file.header.parts)
        key = (self.base.label, shape)  # files of the same shape share the answer
        if key not in self._reasons:
            try:
                check_compatible(file.header, self.base.pipe)
                self._reasons[key] = None
            except ValueError as error:
                self._reasons[key] = without_paths(str(error), self.adapters.root)[:300]
        return self._reasons[key]

    def _blend(self, files: Weights) -> None:
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

    def for_user(self, error: Exception) -> Exception:
        """Return the error to show: ours, and the library's without paths; others stay as they are."""
        if isinstance(error, torch.cuda.OutOfMemoryError):
            return SessionError("The graphics card ran out of memory. Choose a smaller size.")
        if isinstance(error, ValueError) and not isinstance(error, USER_ERRORS):
            return SessionError(without_paths(str(error), self.adapters.root, self.output_dir)[:300])
        return error

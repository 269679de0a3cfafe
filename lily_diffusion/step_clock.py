"""How far the denoising has come, heard from a pipeline's scheduler: for weights that change with the step."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import Any

import torch

METHODS = ("set_timesteps", "set_begin_index", "scale_model_input", "step")
PLAIN = "_lily_plain_class"  # where a listening class keeps the class that it stands in for

_clocks: weakref.WeakKeyDictionary[Any, weakref.WeakSet[StepClock]] = weakref.WeakKeyDictionary()


class StepClock:
    """Calls `tell(fraction)` before each denoising step: 0 for the first, 1 for the last.

    From `watch` on, the scheduler is one of a subclass of its own class that reports its calls; `stop` undoes that.

    Args:
        pipe: a diffusers pipeline; its scheduler may be replaced at any time.
        tell: what to call.

    Raises:
        ValueError: the pipeline has no scheduler.
    """

    def __init__(self, pipe: Any, tell: Callable[[float], None]):
        if getattr(pipe, "scheduler", None) is None:
            raise ValueError(f"Weights by step need a pipeline with a scheduler, and {type(pipe).__name__} has none.")
        self._pipe: Any = weakref.ref(pipe)
        self._tell = tell
        self._scheduler: Any = None

    def watch(self) -> None:
        """Listen to the scheduler that the pipeline has now.

        Raises:
            RuntimeError: this clock was copied along with its model, and no pipeline is known to belong to the copy.
        """
        if self._pipe is None:
            raise RuntimeError(
                "The weights of this copy change by step, and no scheduler tells it the step: call set_adapters with "
                "the copy's own pipeline."
            )
        pipe = self._pipe()
        if pipe is None or pipe.scheduler is self._scheduler:
            return
        self.stop()
        self._scheduler = pipe.scheduler
        kind: Any = type(self._scheduler)
        if not hasattr(kind, PLAIN):
            self._scheduler.__class__ = _listening(kind)
        _clocks.setdefault(self._scheduler, weakref.WeakSet()).add(self)
        self._tell(self._fraction(getattr(self._scheduler, "step_index", None) or 0))

    def stop(self) -> None:
        """Give the scheduler its own class back, unless another clock listens to it."""
        scheduler, self._scheduler = self._scheduler, None
        if scheduler is None:
            return
        others = _clocks.get(scheduler, weakref.WeakSet())
        others.discard(self)
        if not others:
            _clocks.pop(scheduler, None)
            scheduler.__class__ = getattr(type(scheduler), PLAIN, type(scheduler))

    def hear(self, method: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        """The scheduler ran one of METHODS with these arguments."""
        if method == "set_timesteps":
            index = 0
        elif method == "set_begin_index":
            index = int(arguments[0] if arguments else named.get("begin_index", 0))
        else:
            timestep = arguments[1] if len(arguments) > 1 else named.get("timestep")
            counted = getattr(self._scheduler, "step_index", None)
            if counted is not None:
                index = int(counted)  # a step has counted itself already
            elif timestep is None:
                return
            else:
                index = _position(self._scheduler.timesteps, timestep) + (method == "step")
        self._tell(self._fraction(index))

    def _fraction(self, index: int) -> float:
        timesteps = self._scheduler.timesteps
        return min(1.0, index / max(1, (0 if timesteps is None else len(timesteps)) - 1))

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _deaf, ()  # a copy of the model belongs to no pipeline yet


def _deaf() -> StepClock:
    clock: Any = object.__new__(StepClock)
    clock._pipe, clock._scheduler = None, None
    return clock


def _restored(kind: Any, values: dict[str, Any]) -> Any:
    scheduler = object.__new__(kind)
    scheduler.__dict__.update(values)
    return scheduler


def _position(timesteps: torch.Tensor, timestep: Any) -> int:
    value = timestep.flatten()[0] if isinstance(timestep, torch.Tensor) else timestep
    return int((timesteps - value).abs().argmin())


@functools.cache
def _listening(kind: Any) -> Any:
    """A subclass of a scheduler's class, under the same name, that reports its calls; its copies are plain again."""

    def reporting(name: str) -> Callable[..., Any]:
        original = getattr(kind, name)

        @functools.wraps(original)  # pipelines look at the signature of `step`
        def method(self, *arguments, **named):
            result = original(self, *arguments, **named)
            for clock in list(_clocks.get(self, ())):
                clock.hear(name, arguments, named)
            return result

        return method

    def reduce(self, protocol: Any) -> Any:
        return _restored, (kind, self.__dict__)

    members = {name: reporting(name) for name in METHODS if hasattr(kind, name)}
    names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, PLAIN: kind, "__reduce_ex__": reduce}
    return type(kind.__name__, (kind,), {**members, **names})

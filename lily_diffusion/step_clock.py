"""How far the denoising has come, heard from a pipeline's scheduler: for weights that change with the step."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import Any

import torch

CLOCK = "_lily_step_clock"
METHODS = ("set_timesteps", "set_begin_index", "scale_model_input", "step")


class StepClock:
    """Calls `tell(fraction)` before each denoising step: 0 for the first, 1 for the last.

    From `watch` on, the scheduler is one of a subclass of its own class that listens to itself; `stop` undoes that.

    Args:
        pipe: a diffusers pipeline; its scheduler may be replaced at any time.
        tell: what to call.

    Raises:
        ValueError: the pipeline has no scheduler.
    """

    def __init__(self, pipe: Any, tell: Callable[[float], None]):
        if getattr(pipe, "scheduler", None) is None:
            raise ValueError(f"Weights by step need a pipeline with a scheduler, and {type(pipe).__name__} has none.")
        self._pipe = weakref.ref(pipe)
        self._tell = tell
        self._scheduler: Any = None

    def watch(self) -> None:
        """Listen to the scheduler that the pipeline has now."""
        pipe = self._pipe()
        if pipe is None or pipe.scheduler is self._scheduler:
            return
        self.stop()
        self._scheduler = pipe.scheduler
        self._scheduler.__class__ = _listening(type(self._scheduler))  # type: ignore[arg-type]
        self._scheduler.__dict__[CLOCK] = weakref.ref(self)

    def stop(self) -> None:
        """Give the scheduler its own class back."""
        if self._scheduler is not None:
            self._scheduler.__class__ = type(self._scheduler).__bases__[0]
            self._scheduler.__dict__.pop(CLOCK, None)
            self._scheduler = None

    def hear(self, method: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        """The scheduler ran one of METHODS with these arguments."""
        steps = self._scheduler.timesteps
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
                index = _position(steps, timestep) + (method == "step")
        self._tell(min(1.0, index / max(1, len(steps) - 1)))


def _position(timesteps: torch.Tensor, timestep: Any) -> int:
    value = timestep.flatten()[0] if isinstance(timestep, torch.Tensor) else timestep
    return int((timesteps - value).abs().argmin())


@functools.cache
def _listening(kind: Any) -> Any:
    """A subclass of a scheduler's class, under the same name, that reports its calls."""

    def reporting(name: str) -> Callable[..., Any]:
        original = getattr(kind, name)

        @functools.wraps(original)  # pipelines look at the signature of `step`
        def method(self, *arguments, **named):
            result = original(self, *arguments, **named)
            clock = self.__dict__.get(CLOCK, lambda: None)()
            if clock is not None and clock._scheduler is self:
                clock.hear(name, arguments, named)
            return result

        return method

    members = {name: reporting(name) for name in METHODS if hasattr(kind, name)}
    return type(kind.__name__, (kind,), {**members, "__module__": kind.__module__, "__qualname__": kind.__qualname__})

"""What one process does while the others wait, so that none waits for ever."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from .errors import TrainingError

T = TypeVar("T")


def on_main_process(accelerator: Accelerator, action: Callable[[], T]) -> T | None:
    """Do something on the main process alone; returns its answer there and None elsewhere.

    Raises:
        Exception: what `action` raised, on the main process.
        TrainingError: the same failure, on all others, so that every process stops.
    """
    answer, failure = None, None
    if accelerator.is_main_process:
        try:
            answer = action()
        except Exception as error:  # handed on below, once the others know
            failure = error
    told = broadcast_object_list([f"{type(failure).__name__}: {failure}" if failure else ""])[0]
    if failure is not None:
        raise failure
    if told:
        raise TrainingError(f"the main process failed: {told}")
    return answer


def leave(accelerator: Accelerator) -> None:
    """Close the trackers and part from the other processes.

    gloo's threads hold the tensors of the last broadcast a little longer and then want Python's lock, while destroying
    the group waits for those threads with the lock held: it would wait for ever. A pause lets them finish.
    """
    if accelerator.num_processes > 1:
        time.sleep(1)
    accelerator.end_training()


def agreed(accelerator: Accelerator, request: int) -> int:
    """A request that reaches one process becomes that of all after the same step; 0 is none."""
    if accelerator.num_processes == 1:
        return request
    requests = accelerator.gather(torch.tensor([request], device=accelerator.device))
    return int(requests[requests.abs().argmax()])

"""Base against adapted: the same seed drawn without the adapters and with them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ui.messages import Order
from ui.pipeline.jobs import Drawn, Job, distance, seeded
from ui.pipeline.orders import SessionError


@dataclass(frozen=True)
class Compared:
    """Two saved pictures, and how far apart they are (root mean square, pixels in [0, 1])."""

    base: Drawn
    adapted: Drawn
    distance: float

    @property
    def sentence(self) -> str:
        """What there is to see, for people."""
        seed = self.adapted.recipe.seed
        if self.distance == 0:
            return f"Seed {seed}: the two pictures are the same. These adapters change nothing here."
        return (
            f"Seed {seed}: on the left the base model alone, on the right with the adapters. The pictures differ by "
            f"{self.distance:.1%} of the brightness range on average."
        )


def compare(job: Job, order: Order) -> None:
    """Tell `Compared`.

    Raises:
        SessionError, AdapterFolderError: the order cannot be met, or has no adapter.
    """
    if not order.weights:
        raise SessionError("Choose an adapter to compare with the base model.")
    order = seeded(order)
    job.pictures = 2
    base, adapted = job.draw(replace(order, weights={})), job.draw(order)
    job.tell(Compared(base, adapted, distance(base.image, adapted.image)))

"""DreamBooth training of Lily adapters: `parse_args` reads the command line, `train` does the rest."""

from .arguments import parse_args
from .errors import TrainingError
from .loop import StepReport, TrainingResult, train

__all__ = ["StepReport", "TrainingError", "TrainingResult", "parse_args", "train"]

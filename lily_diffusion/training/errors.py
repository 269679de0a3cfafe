"""The one error that training raises for what a user can put right."""


class TrainingError(ValueError):
    """One sentence that says what was wrong and what to do. The script prints it without a traceback."""

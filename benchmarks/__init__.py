"""What was measured, and the programs that measure it. Run them from the root: ``python -m benchmarks.<name>``."""

"""Adapters in the dialects of other programs: PEFT, the authors of Lily, and plain LoRA."""

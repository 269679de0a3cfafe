"""Which method learns a subject better, byte for byte? Lily, PEFT's methods, textual inversion, full tuning."""

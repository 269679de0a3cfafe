"""The tab that writes a blend into one file."""

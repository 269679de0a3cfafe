"""The tab that makes pictures, with its list of adapters and its history."""

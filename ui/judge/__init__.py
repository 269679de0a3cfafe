"""The tab that compares: base against adapted, grids, the experts' map, blocks."""

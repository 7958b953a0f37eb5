"""The doors: one file each, all over the same compiled graph."""

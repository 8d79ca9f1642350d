"""Machine, files and processes: knows no image and no network."""

"""Web pages of a trained network on this machine: answers about photographs, and a playground of augmentations."""

"""Data sets: listed, checked, downloaded, decoded, cached, and kept where the device can reach them."""

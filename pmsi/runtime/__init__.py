"""Devices, processes, files and signals; nothing here knows images or networks."""

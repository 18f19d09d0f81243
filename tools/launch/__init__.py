"""Starts commands on this machine, on SLURM or on Kubernetes, alone or once for every cell of a grid of settings."""

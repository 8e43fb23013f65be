"""Compute, on paper, what a step costs on many GPUs; nothing here is measured on more than one."""

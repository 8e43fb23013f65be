"""Print what a step costs on many GPUs, on paper: ``python -m bench.scale``."""

from bench.scale.table import section

if __name__ == "__main__":
    print(section())

"""Compare methods and augmentations on Fashion-MNIST: ``python -m bench.fashion_mnist``.

4,000 training images, 40 epochs, about 3 hours on two cores; see `bench.real_images`.
"""

import sys

from bench import real_images

NAME = "fashion_mnist"

if __name__ == "__main__":
    sys.exit(real_images.main(NAME))

"""Compare methods and augmentations on the emoji set: ``python -m bench.emoji``.

4,000 training images, 60 epochs, and pictures of another artist as a natural shift; about 3 hours
on two cores; see `bench.real_images`. `python -m entprop_fast.data emoji` makes the set.
"""

import sys

from bench import real_images

NAME = "emoji"

if __name__ == "__main__":
    sys.exit(real_images.main(NAME))

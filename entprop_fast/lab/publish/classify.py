"""Classify images with the files beside this one: ``python classify.py photo.jpg ...``.

It needs onnxruntime, Pillow and numpy, and neither PyTorch nor entprop_fast.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

HERE = Path(__file__).parent
names = sys.argv[1:]
missing = [name for name in names if not Path(name).is_file()]
if missing or not names:
    said = f"no such file: {missing[0]}" if missing else "no image is named"
    print(f"{said}; usage: python classify.py IMAGE [IMAGE ...]", file=sys.stderr)
    sys.exit(2)
about = json.loads((HERE / "manifest.json").read_text(encoding="utf-8"))
steps = about["preprocessing"]
session = onnxruntime.InferenceSession(HERE / "model.onnx")
for name in names:
    image = Image.open(name).convert("RGB").convert(steps["mode"])
    (width, height), (cover_height, cover_width) = image.size, steps["resize"]
    cover = max(cover_height * width, cover_width * height)
    image = image.resize((cover // height, cover // width), Image.Resampling.BILINEAR)
    left = round((image.width - steps["width"]) / 2)
    top = round((image.height - steps["height"]) / 2)
    image = image.crop((left, top, left + steps["width"], top + steps["height"]))
    pixels = np.array(image, dtype=np.float32).reshape(steps["height"], steps["width"], -1) / 255
    if steps["mean"]:
        pixels = (pixels - np.float32(steps["mean"])) / np.float32(steps["std"])
    logits = session.run(None, {"images": pixels.transpose(2, 0, 1)[None]})[0][0]
    shares = np.exp(logits - logits.max())
    if len(names) > 1:
        print(name)
    for place in np.argsort(-shares)[:5]:
        said = "".join(one if one.isprintable() else " " for one in about["classes"][place])
        print(f"{shares[place] / shares.sum():6.1%}  {said}")

"""Number the operations that `image_chains` applies to an image."""

from enum import IntEnum

NEAREST = 64  # added to the code of a geometric operation: nearest sampling, not bilinear
LARGEST = 2.0**15  # strengths are clamped to [-LARGEST, LARGEST]; NaN counts as 0


class ImageOp(IntEnum):
    """Name an operation on 8-bit levels by its code; what strength means, after it."""

    IDENTITY = 0
    AUTOCONTRAST = 1
    EQUALIZE = 2
    POSTERIZE = 3  # bits that are kept, 0 to 8; cut to an integer
    SOLARIZE = 4  # a level: from it on, pixels are inverted
    ROTATE = 5  # degrees, anticlockwise
    SHEAR_X = 6  # x of the source grows by it with each row
    SHEAR_Y = 7
    TRANSLATE_X = 8  # pixels that are added to the source's x
    TRANSLATE_Y = 9
    BRIGHTNESS = 10  # factor: 0 is black, 1 the image
    COLOR = 11  # factor: 0 is grey
    CONTRAST = 12  # factor: 0 is the mean grey
    SHARPNESS = 13  # factor: 0 is smoothed
    INVERT = 14


GEOMETRIC = (
    ImageOp.ROTATE,
    ImageOp.SHEAR_X,
    ImageOp.SHEAR_Y,
    ImageOp.TRANSLATE_X,
    ImageOp.TRANSLATE_Y,
)

"""EntProp: train an image classifier that stays accurate on clean and on shifted images."""

__version__ = "0.1.0"

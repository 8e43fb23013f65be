"""Take a trained network out of the door: load it, classify with it, export and describe it."""

from entprop_fast.lab.publish.deployed_network import load
from entprop_fast.lab.publish.hub_folder import from_pretrained, save_pretrained

__all__ = ["from_pretrained", "load", "save_pretrained"]

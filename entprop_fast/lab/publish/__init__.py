"""Take a trained network out of the door: load, predict, export, describe it."""

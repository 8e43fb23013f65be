"""Count what a step gives a GPU to do, and bound its time from below."""

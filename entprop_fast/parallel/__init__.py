"""Train in several processes: replicas of a network, and rows exchanged between them."""

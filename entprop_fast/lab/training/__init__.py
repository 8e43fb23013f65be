"""Train a run behind the commands: its settings, loop, folder and results."""

from entprop_fast import startup

# Each command imports them; asked here, once, because nobody can catch what an import raises.
startup.need(
    ("matplotlib", "rich", "safetensors", "scipy", "sklearn", "tomli_w", "tyro"),
    extra="train",
    purpose="the commands",
)

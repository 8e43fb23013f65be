"""Train a run behind the commands: its settings, loop, folder and results."""

from entprop_fast import startup
from entprop_fast.optional import require

_LIBRARIES = ("jinja2", "matplotlib", "rich", "safetensors", "scipy", "sklearn", "tomli_w", "tyro")

# Each command imports them; asked here, once, because nobody can catch what an import raises.
try:
    require(*_LIBRARIES, extra="train", purpose="a command")
except ImportError as error:
    startup.refuse(error)

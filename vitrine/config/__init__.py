"""Settings: declared by the dataclasses that use them, merged from recipes and `key=value`, checked."""

from vitrine.config.loading import Settings, filled, leaves, load, load_run, sections

__all__ = ["Settings", "filled", "leaves", "load", "load_run", "sections"]

"""Settings: declared by the dataclasses that use them, merged from recipes and `key=value`, checked."""

from vitrine.config.loading import Settings, dotted_keys, load, load_run, load_saved, parse_settings, sections

__all__ = ["Settings", "dotted_keys", "load", "load_run", "load_saved", "parse_settings", "sections"]

"""Whether images are kept in memory, by the setting `data.cache`."""

MAX_CACHE_BYTES = 2 * 2**30  # of decoded images, for cache=auto


def is_cached(cache: str, size: int) -> bool:
    """Whether `cache` (auto, always or never) keeps so many bytes of images in memory."""
    return cache == "always" or (cache == "auto" and size <= MAX_CACHE_BYTES)

"""Heights and widths of images: how they are written, and the nearest ones that a net accepts."""

from __future__ import annotations

Size = tuple[int, int]


def told_size(size: Size) -> str:
    """Return ``HEIGHTxWIDTH``."""
    return f"{size[0]}x{size[1]}"


def nearest_sizes(size: Size, stride: int) -> tuple[Size, Size]:
    """Return the sizes next below and next above (height, width) whose sides a stride divides; at least one stride."""
    height, width = (max(stride, side // stride * stride) for side in size)
    return (height, width), (-(-size[0] // stride) * stride, -(-size[1] // stride) * stride)

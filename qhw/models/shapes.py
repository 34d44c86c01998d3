"""Requirements of models on the shape of images."""

from __future__ import annotations

from qhw.errors import InputError


def require_side(model: str, image_shape: tuple[int, int, int], smallest: int) -> None:
    """Refuse images that the model's pooling and strides would shrink to nothing."""
    if min(image_shape[1:]) < smallest:
        raise InputError(
            f"model {model} cannot take images of {image_shape[1]}x{image_shape[2]} pixels",
            allowed=f"at least {smallest} pixels a side",
        )

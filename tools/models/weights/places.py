"""Where other programs keep the weights that they have fetched."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_PATTERNS = (
    # PyTorch, torchvision: torch.hub's folder.
    ("TORCH_HOME", ".cache/torch", "hub/checkpoints/vgg1[69]*.pth"),
    # Keras.
    ("KERAS_HOME", ".keras", "models/vgg1[69]*_tf_kernels*.h5"),
    # timm and others, through the Hugging Face hub.
    ("HF_HOME", ".cache/huggingface", "hub/models--*vgg1[69]*/snapshots/*/*.safetensors"),
    ("HF_HOME", ".cache/huggingface", "hub/models--*vgg1[69]*/snapshots/*/*.bin"),
)


def found_weights() -> list[Path]:
    """Return the weight files of a VGG-16 or VGG-19 in the usual places of this user, in a fixed order."""
    return list(dict.fromkeys(_found()))


def _found() -> Iterator[Path]:
    for variable, usual, pattern in _PATTERNS:
        try:
            folder = Path(os.environ.get(variable) or Path.home() / usual)
            yield from sorted(path for path in folder.glob(pattern) if path.is_file())
        except (OSError, RuntimeError, ValueError):
            # No home folder, or one that cannot be read: then nothing is found there.
            continue

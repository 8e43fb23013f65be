from __future__ import annotations

import pytest
import torch
from torch import nn

from entprop_fast.lab.experiments.studies.features import features, features_by_layer, perturbed


def test_features_and_the_free_step() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Dropout(0.9), nn.Flatten(), nn.Linear(8, 2))
    images = torch.rand(3, 1, 2, 2)
    read, logits = features(model, images)
    torch.testing.assert_close(read, model[0](images).flatten(1))
    torch.testing.assert_close(logits, model[3](read))
    layers = features_by_layer(model, images)
    torch.testing.assert_close(layers["0"], model[0](images).mean(dim=(2, 3)))
    assert list(layers) == ["0", "1"] and model.training
    moved = perturbed(model, images, torch.tensor([0, 1, 0]), 0.25)
    assert (images - moved).abs().max() <= 0.25 + 1e-6 and 0 <= moved.min() and moved.max() <= 1
    eval_model = model.eval()
    losses = [
        nn.functional.cross_entropy(eval_model(x), torch.tensor([0, 1, 0])) for x in (images, moved)
    ]
    assert losses[1] > losses[0]
    with pytest.raises(ValueError, match="no linear layer"):
        features(nn.Sequential(nn.Flatten()), images)

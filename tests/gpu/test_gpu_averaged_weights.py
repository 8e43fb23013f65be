"""Averaging weights waits for nothing, and sees what replayed steps leave."""

import pytest
import torch

from entprop_fast import convert_dual_norm, create_method, models
from entprop_fast.lab.training.ema import AveragedWeights

pytestmark = pytest.mark.gpu


def test_averages_of_captured_steps_without_synchronisation() -> None:
    torch.manual_seed(0)
    model = convert_dual_norm(models.create("wrn10_0.5", num_classes=3)).cuda()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    method = create_method("entprop", model, optimizer)
    images, labels = torch.rand(16, 3, 8, 8, device="cuda"), torch.arange(16, device="cuda") % 3
    average, seen = AveragedWeights(model, 0.5), []
    for step in range(8):
        method(images, labels)
        if step > 1:
            torch.cuda.set_sync_debug_mode("error")
        try:
            average.update()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        seen.append(model.get_parameter("fc.weight").detach().double())
    assert method.captures.replays > 0
    mean = seen[0]
    for weights in seen[1:]:
        mean = (mean + weights) / 2
    found = average.read().get_parameter("fc.weight").double()
    torch.testing.assert_close(found, mean, rtol=1e-5, atol=1e-7)
